"""What was heard of a speaker: statistics that normalise his next segment."""

from __future__ import annotations

import numpy as np

from asrkd.runtime.acoustic import AcousticModel, ScoreStream, Statistics

MOST_FRAMES = 3000.0
"""Frames that earlier segments count as, half a minute: a voice is known by then, and another one can follow."""


class Speaker:
    """Statistics of the segments with words, and of no silence between them: hours of that would hide the speech."""

    def __init__(self, acoustic: AcousticModel) -> None:
        self._acoustic = acoustic
        self._kind = acoustic.description.normalisation.kind
        self._heard = Statistics.prior(acoustic.description.normalisation)
        self._prior = self._heard
        self.is_streamed = self._kind == "online"
        """Whether the network learnt the scores of streams, so that those of a segment by itself are no better."""

    def add(self, feats: np.ndarray) -> None:
        """Add the frames [T, F] of a segment with words."""
        heard = Statistics(self._heard.sums - self._prior.sums, self._heard.count - self._prior.count)
        heard += Statistics.of(feats)
        share = min(1.0, MOST_FRAMES / heard.count)
        self._heard = self._prior + Statistics(heard.sums * share, heard.count * share)

    def stream(self) -> ScoreStream:
        """Scores of the next segment as it comes."""
        return self._acoustic.stream(self._heard)

    def scores(self, feats: np.ndarray) -> np.ndarray:
        """Scores [T, C] of a whole segment's frames [T, F], normalised as the network learnt it.

        By speaker: with all that was heard and the segment itself. Online: as of a stream. Else by the segment alone.
        """
        if self._kind == "speaker":
            return self._acoustic.scores(feats, self._heard + Statistics.of(feats))
        if self._kind == "online":
            stream = self.stream()
            return np.concatenate([stream.accept(feats), stream.finish()])
        return self._acoustic.scores(feats)
