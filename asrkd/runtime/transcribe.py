"""A recording of any length to a Transcript: cut at pauses, and each segment decoded at once.

A recording that is no longer than one segment is decoded as a whole. A longer one is scored once as a stream, with
running statistics of its features: the posteriors of silence show the pauses. Memory is that of one segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asrkd.errors import InputError
from asrkd.runtime.acoustic import Statistics
from asrkd.runtime.audio import (
    AUTO,
    array_blocks,
    channels_to_read,
    open_input,
    read_blocks,
    require_channel_choice,
    require_rate,
)
from asrkd.runtime.features import OnlineLogMel
from asrkd.runtime.inputs import AudioInput
from asrkd.runtime.segmentation import CutRules, PauseCutter, Span, silence_posteriors
from asrkd.runtime.transcript import Segment, Transcript, Word

if TYPE_CHECKING:
    from asrkd.runtime.model import Model

Progress = Callable[[float], object]
"""Is given the seconds of audio that were read since the last call."""


@dataclass(frozen=True)
class TranscribeOptions:
    """How recordings are transcribed."""

    beam: float | None = None
    """Of the search, in nats; None: the one that the model was exported with."""
    nbest: int = 1
    """Hypotheses of each segment; those after the first are its alternatives."""
    confidences: bool = True
    """Estimate how probable each word is, which takes half as long again."""
    channel: str = AUTO
    """auto (the only one, or the mean of two), mix (the mean of all), split (each on its own) or a number from 0."""
    cuts: CutRules = field(default_factory=CutRules)

    def __post_init__(self) -> None:
        require_channel_choice(self.channel)
        if self.nbest < 1:
            raise InputError(f"--nbest: expected 1 or more, found {self.nbest}")
        if self.beam is not None and not 0.0 < self.beam < float("inf"):
            raise InputError(f"--beam: expected a number above 0, found {self.beam}")


DEFAULTS = TranscribeOptions()


def transcribe_input(
    model: Model,
    source: AudioInput,
    options: TranscribeOptions = DEFAULTS,
    progress: Progress | None = None,
    tmp_dir: Path | None = None,
) -> Transcript:
    """The transcript of a file, a part of one, or standard input. Files of ffmpeg are written to `tmp_dir`.

    InputError for audio that is missing, damaged, empty, not finite or of too low a sampling rate, and for a channel
    that it does not have.
    """
    with open_input(source, tmp_dir) as audio:
        require_rate(audio.sampling_rate, model.sampling_rate, audio.label)
        segments: list[Segment] = []
        channels = channels_to_read(audio, options.channel)
        for channel in channels:
            blocks = read_blocks(audio, model.sampling_rate, channel)
            number = channel if isinstance(channel, int) else 0
            counted = _counted(blocks, len(channels) * model.sampling_rate, progress)
            segments += transcribe_blocks(model, counted, options, channel=number)
        segments.sort(key=lambda segment: (segment.start, segment.channel))
        return Transcript(source.name, audio.duration_sec, tuple(segments))


def transcribe_samples(
    model: Model, samples: np.ndarray, sampling_rate: int, options: TranscribeOptions = DEFAULTS, name: str = "audio"
) -> Transcript:
    """The transcript of samples [N], 16-bit integers or floating-point ones in ±1, at `sampling_rate` Hz.

    InputError as `transcribe_input`.
    """
    blocks = array_blocks(samples, sampling_rate, model.sampling_rate)
    return Transcript(name, len(samples) / sampling_rate, tuple(transcribe_blocks(model, blocks, options)))


def transcribe_blocks(
    model: Model, blocks: Iterable[np.ndarray], options: TranscribeOptions = DEFAULTS, channel: int = 0
) -> Iterator[Segment]:
    """The segments with words of blocks of samples [N], float32 in ±1, mono, at the model's rate."""
    recording = _Recording(model, options, channel)
    for block in blocks:
        yield from recording.accept(block)
    yield from recording.finish()


class _Recording:
    """Frames of a recording that are not decoded yet."""

    def __init__(self, model: Model, options: TranscribeOptions, channel: int) -> None:
        self._model, self._options, self._channel = model, options, channel
        self._shift_sec = model.frame_shift_sec
        self._front_end = OnlineLogMel(model.description.front_end)
        self._num_samples = 0
        self._max_frames = round(options.cuts.max_sec / self._shift_sec)
        self._cutter = PauseCutter(options.cuts, self._shift_sec)
        self._stream = model.acoustic.stream()
        normalisation = model.description.normalisation
        # Where the network learnt from running statistics, a segment is decoded by the scores that cut it.
        self._is_online = normalisation.kind == "online"
        # Where it learnt from those of a speaker, a recording is one speaker, of whom ever more is known.
        self._statistics = Statistics.prior(normalisation) if normalisation.kind == "speaker" else None
        self._is_long = False
        self._feats = _Rows()
        self._scores = _Rows()

    def accept(self, samples: np.ndarray) -> Iterator[Segment]:
        """The segments that end with these samples."""
        self._num_samples += len(samples)
        yield from self._add(self._front_end.accept(samples))

    def finish(self) -> Iterator[Segment]:
        """The last segments: the only one of a short recording."""
        yield from self._add(self._front_end.finish())
        if self._is_long:
            yield from self._cut(self._stream.finish())
            yield from self._decode_spans(self._cutter.finish())
        elif len(self._feats):
            last = self._feats.last
            yield from self._decode(Span(0, last), None)

    def _add(self, feats: np.ndarray) -> Iterator[Segment]:
        self._feats.append(feats)
        if self._statistics is not None and len(feats):
            self._statistics += Statistics.of(feats)
        if not self._is_long:
            if len(self._feats) <= self._max_frames:
                return
            self._is_long = True
            feats = self._feats.between(0, self._feats.last)
        yield from self._cut(self._stream.accept(feats))

    def _cut(self, scores: np.ndarray) -> Iterator[Segment]:
        """The segments that end with these scores [t, C]."""
        log_priors = self._model.search.graph.senones.log_prior
        silence = silence_posteriors(scores, log_priors, np.array(self._model.silence_classes))
        if self._is_online:
            self._scores.append(scores)
        yield from self._decode_spans(self._cutter.accept(silence))

    def _decode_spans(self, spans: Iterable[Span]) -> Iterator[Segment]:
        for span in spans:
            scores = self._scores.between(*span) if self._is_online else None
            yield from self._decode(span, scores)
        self._feats.drop_before(self._cutter.first)
        self._scores.drop_before(self._cutter.first)

    def _decode(self, span: Span, scores: np.ndarray | None) -> Iterator[Segment]:
        """The segment of these frames, unless nothing is said in it."""
        options = self._options
        if scores is None:
            scores = self._model.acoustic.scores(self._feats.between(*span), self._statistics)
        found = self._model.search.decode(
            scores, confidences=options.confidences, nbest=options.nbest, beam=options.beam
        )
        start = span.first * self._shift_sec
        duration = min(span.last * self._shift_sec, self._num_samples / self._model.sampling_rate) - start
        segment = self._model.segment(found, max(duration, 0.0))
        if segment.words:
            yield replace(moved(segment, start), channel=self._channel)


class _Rows:
    """Rows of frames, of which the first ones are dropped."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._first = 0

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def last(self) -> int:
        """Number of the row after the last one."""
        return self._first + len(self)

    def append(self, rows: np.ndarray) -> None:
        self._parts.append(rows)

    def between(self, first: int, last: int) -> np.ndarray:
        """Rows `first` to `last` - 1, by their numbers since the begin."""
        self._parts = [np.concatenate(self._parts)]
        rows: np.ndarray = self._parts[0][first - self._first : last - self._first]
        return rows

    def drop_before(self, first: int) -> None:
        if self._parts and first > self._first:
            kept = self.between(first, self.last)
            self._parts, self._first = [kept.copy()], first  # a view would keep the dropped rows in memory


def moved(segment: Segment, offset_sec: float) -> Segment:
    """The segment with all times later by `offset_sec`."""
    words = tuple(
        Word(word.text, word.start + offset_sec, word.end + offset_sec, word.confidence) for word in segment.words
    )
    return replace(segment, start=segment.start + offset_sec, end=segment.end + offset_sec, words=words)


def _counted(blocks: Iterable[np.ndarray], rate: int, progress: Progress | None) -> Iterator[np.ndarray]:
    for block in blocks:
        yield block
        if progress is not None:
            progress(len(block) / rate)
