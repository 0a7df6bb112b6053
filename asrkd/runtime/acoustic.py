"""Acoustic scores of log-mel frames, by onnxruntime.

The exported graph normalises, splices, and takes the log-priors from the network's log-posteriors:

    feats [T, F]       log-mel energies
    sums [2, F]        float64: sum of earlier frames and of their squares, the statistics to normalise with
    count [1]          float64: number of frames in the sums
    running [1]        int64: 0: all frames are normalised with these statistics; 1: each frame is added to them first
    context [2]        int64: rows at the begin and at the end that are there as neighbours alone
    -> scores [T - context, C]   log p(frame | senone) up to a constant

Rows before the first and after the last one given are copies of these, as in training. So a whole utterance is one
call, and a stream is calls of overlapping rows, with the state in the caller's hands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.runtime.package import Description, Normalisation

Frames = NDArray[np.float32]
Scores = NDArray[np.float32]
CHUNK_FRAMES = 2000  # of a long segment: spliced, a frame takes the memory of 26


@dataclass(frozen=True)
class Statistics:
    """What frames are normalised with."""

    sums: NDArray[np.float64]
    """[2, F]: sum of frames, and of their squares."""
    count: float
    """Number of frames in them."""

    @staticmethod
    def of(feats: Frames) -> Statistics:
        """The statistics of frames [T, F]."""
        frames = feats.astype(np.float64)
        return Statistics(np.stack([frames.sum(0), (frames * frames).sum(0)]), float(len(feats)))

    @staticmethod
    def prior(normalisation: Normalisation) -> Statistics:
        """What a stream begins with: training speech, counted as a few seconds of it."""
        moments = np.array([normalisation.mean, normalisation.mean_square])
        return Statistics(moments * normalisation.prior_frames, normalisation.prior_frames)

    def __add__(self, other: Statistics) -> Statistics:
        """The statistics of both together."""
        return Statistics(self.sums + other.sums, self.count + other.count)

    def plus(self, feats: Frames) -> Statistics:
        """The statistics with frames [T, F] added one after the other, as the exported graph adds them."""
        frames = feats.astype(np.float64)
        rows = np.concatenate([self.sums.reshape(1, -1), np.concatenate([frames, frames * frames], axis=1)])
        sums = np.add.accumulate(rows, axis=0)[-1].reshape(self.sums.shape)
        return Statistics(sums, self.count + len(feats))


class AcousticModel:
    """An exported network. It can be used by several threads at once."""

    def __init__(self, path: Path, description: Description, num_threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; its warnings are about graphs that are not optimal
        self.description = description
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - onnxruntime has a dozen kinds, with no class in common but this
            message = " ".join(str(error).split())
            raise InputError(
                f"{path}: expected a network that onnxruntime reads, found none ({message:.120})"
            ) from None
        shape = self._session.get_outputs()[0].shape
        if shape[-1] != description.num_pdfs:
            raise InputError(f"{path}: expected scores of {description.num_pdfs} senones, found {shape[-1]}")

    def scores(self, feats: Frames, statistics: Statistics | None = None) -> Scores:
        """Scores [T, C] of a whole segment's log-mel frames [T, F].

        They are normalised with `statistics`, such as those of more speech of the same speaker. Without, as the run
        did: with running statistics; with those of the segment; or, where the run took all speech of a speaker, with
        those of the segment and the prior together.
        """
        return np.concatenate(
            [np.zeros((0, self.description.num_pdfs), np.float32), *self.score_parts(feats, statistics)]
        )

    def score_parts(self, feats: Frames, statistics: Statistics | None = None) -> Iterator[Scores]:
        """The same, of some frames after the others: those of hours would not fit into memory."""
        if not len(feats):
            return
        if statistics is None and self.description.normalisation.kind == "online":
            yield from self._running(feats)
            return
        given = statistics or self._own_statistics(feats)
        left, right = self.description.left_context, self.description.right_context
        for first in range(0, len(feats), CHUNK_FRAMES):
            begin, end = max(first - left, 0), min(first + CHUNK_FRAMES + right, len(feats))
            context = first - begin, max(end - first - CHUNK_FRAMES, 0)
            yield self._run(feats[begin:end], given, False, context)

    def _own_statistics(self, feats: Frames) -> Statistics:
        own = Statistics.of(feats)
        if self.description.normalisation.kind != "speaker":
            return own
        return own + Statistics.prior(self.description.normalisation)

    def _running(self, feats: Frames) -> Iterator[Scores]:
        stream = self.stream()
        for first in range(0, len(feats), CHUNK_FRAMES):
            yield stream.accept(feats[first : first + CHUNK_FRAMES])
        yield stream.finish()

    def stream(self, statistics: Statistics | None = None) -> ScoreStream:
        """Scores of frames that come in parts, with running statistics; they begin with the model's prior."""
        return ScoreStream(self, statistics or Statistics.prior(self.description.normalisation))

    def _run(self, feats: Frames, statistics: Statistics, running: bool, context: tuple[int, int]) -> Scores:
        inputs = {
            "feats": np.ascontiguousarray(feats, dtype=np.float32),
            "sums": statistics.sums,
            "count": np.array([statistics.count]),
            "running": np.array([int(running)]),
            "context": np.array(context),
        }
        scores: Scores = self._session.run(["scores"], inputs)[0]
        return scores


class ScoreStream:
    """Scores of frames that come in parts of any size: a frame's scores come as soon as its right context is there.

    They are the same for all sizes of the parts, but for the last bits of float32.
    """

    def __init__(self, model: AcousticModel, statistics: Statistics) -> None:
        self._model = model
        self._statistics = statistics
        """Of the frames before `_rows`."""
        self._rows = np.zeros((0, len(statistics.sums[0])), dtype=np.float32)
        self._num_past = 0
        """Rows at the begin whose scores were given."""

    def accept(self, feats: Frames) -> Scores:
        """Scores [t, C] of the frames whose right context is complete with these frames [T, F]; t may be 0."""
        return self._advance(feats, self._model.description.right_context)

    def finish(self) -> Scores:
        """Scores [t, C] of the last frames: copies of the last one are their right context."""
        return self._advance(self._rows[:0], 0)

    def _advance(self, feats: Frames, right: int) -> Scores:
        self._rows = np.concatenate([self._rows, feats])
        num_new = len(self._rows) - self._num_past - right
        if num_new <= 0:
            return np.zeros((0, self._model.description.num_pdfs), dtype=np.float32)
        scores = self._model._run(self._rows, self._statistics, True, (self._num_past, right))
        self._num_past += num_new
        unneeded = max(self._num_past - self._model.description.left_context, 0)
        self._statistics = self._statistics.plus(self._rows[:unneeded])
        self._rows = self._rows[unneeded:]
        self._num_past -= unneeded
        return scores
