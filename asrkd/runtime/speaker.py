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

    def scores_within(self, feats: np.ndarray, earlier: np.ndarray, window: np.ndarray) -> np.ndarray:
        """Scores [T, C] of a part of a long recording: frames [T, F] with their neighbours.

        By speaker: with all that was heard and the frames of `window`, the next segment and what follows it. Online: as
        of a stream, after what was heard and the frames `earlier`, between the last segment and these. Else by the
        window alone. The window has no frames of digital silence; where it has no others, the frames themselves count.
        """
        if self._kind == "online":
            stream = self._acoustic.stream(self._heard + Statistics.of(earlier))
            return np.concatenate([stream.accept(feats), stream.finish()])
        own = Statistics.of(window if len(window) else feats)
        return self._acoustic.scores(feats, self._heard + own if self._kind == "speaker" else own)
