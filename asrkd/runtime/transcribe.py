"""A recording of any length to a Transcript: cut at pauses, and each segment decoded at once.

A recording that is no longer than one segment is decoded as a whole. A longer one is scored as a stream: the posteriors
of silence show the pauses. A network that learnt running statistics is decoded from the same scores. Otherwise each
segment is scored by itself, with what was heard of the speaker before: on mini LibriSpeech (866 words, read without
pauses) the scores of the stream have 22.2% of errors instead of 21.5, and the network takes 5% of the time. Memory is
that of one segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asrkd.errors import InputError
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
from asrkd.runtime.segmentation import (
    CutRules,
    DigitalSilence,
    PauseCutter,
    Span,
    silence_posteriors,
    sure_of_silence,
)
from asrkd.runtime.speaker import Speaker
from asrkd.runtime.transcript import Segment, Transcript, Word

if TYPE_CHECKING:
    from asrkd.runtime.model import Model

CHUNK_SEC = 5.0
"""Of the network where it looks for pauses."""
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
    """Estimate how probable each word is, which takes up to as long again."""
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
    segments = tuple(transcribe_blocks(model, blocks, options))  # refuses rates of 0 before the division
    return Transcript(name, len(samples) / sampling_rate, segments)


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
        self._chunk_frames = round(CHUNK_SEC / self._shift_sec)
        self._cutter = PauseCutter(options.cuts, self._shift_sec)
        self._digital = DigitalSilence(self._shift_sec)
        self._speaker = Speaker(model.acoustic)
        self._silence_classes = np.array(model.silence_classes)
        self._is_long = False
        self._rows = Rows()
        """Log-mel frames, with a flag of digital silence as last column."""
        self._scores = Rows()
        """Of the frames of a long recording, from the begin of the next segment on."""
        self._num_accepted = 0
        """Frames that `_stream` was given."""
        self._num_context = 0
        """Frames before the next scored one that `_stream` was given again, as neighbours."""
        self._stream = self._speaker.stream()

    def accept(self, samples: np.ndarray) -> Iterator[Segment]:
        """The segments that end with these samples."""
        self._num_samples += len(samples)
        self._add(self._front_end.accept(samples))
        self._is_long = self._is_long or len(self._rows) > self._max_frames
        # Chunks are counted from the begin, so that the blocks of samples change nothing.
        while self._is_long and self._rows.last - self._num_accepted >= self._chunk_frames:
            yield from self._cut(self._num_accepted + self._chunk_frames)

    def finish(self) -> Iterator[Segment]:
        """The last segments: the only one of a short recording."""
        self._add(self._front_end.finish())
        if self._is_long:
            while self._num_accepted < self._rows.last:  # again where a cut began another stream
                yield from self._cut(self._rows.last)
            yield from self._decode_all(self._cutter.accept(self._take(self._stream.finish())))
            yield from self._decode_all(self._cutter.finish())
        elif len(self._rows):
            yield from self._decode(Span(0, self._rows.last), is_scored=False)

    def _add(self, feats: np.ndarray) -> None:
        self._rows.append(np.column_stack([feats, self._digital.accept(feats)]).astype(np.float32))

    def _cut(self, last: int) -> Iterator[Segment]:
        """Score frames to `last` - 1, and decode the segments that end within them."""
        scores = self._stream.accept(self._rows.between(self._num_accepted, last)[:, :-1])
        self._num_accepted = last
        before = self._cutter.first
        yield from self._decode_all(self._cutter.accept(self._take(scores)))
        if self._cutter.first > before:
            # What follows is normalised with the statistics of the words that were found.
            self._begin_stream()

    def _begin_stream(self) -> None:
        """Score on with what is known of the speaker now, from the last neighbours of the next frame on."""
        scored = self._scores.last
        self._stream = self._speaker.stream()
        self._num_accepted = max(self._rows.first, scored - self._model.description.left_context)
        self._num_context = scored - self._num_accepted

    def _take(self, scores: np.ndarray) -> np.ndarray:
        """Store the scores [t, C] of the next frames; their posteriors of silence."""
        new = scores[self._num_context :]
        self._num_context -= len(scores) - len(new)
        if not len(new):
            return np.zeros(0, np.float32)
        flags = self._rows.between(self._scores.last, self._scores.last + len(new))[:, -1] > 0
        silence = silence_posteriors(new, self._model.search.graph.senones.log_prior, self._silence_classes)
        silence = np.where(flags, np.float32(1.0), silence)
        self._scores.append(new)
        return silence

    def _decode_all(self, spans: Iterable[Span]) -> Iterator[Segment]:
        for span in spans:
            yield from self._decode(span, is_scored=self._speaker.is_streamed)
        self._rows.drop_before(min(self._cutter.first, self._scores.last - self._model.description.left_context))
        self._scores.drop_before(self._cutter.first)

    def _decode(self, span: Span, is_scored: bool) -> Iterator[Segment]:
        """The segment of these frames, unless nothing is said in it."""
        options, rows = self._options, self._rows.between(*span)
        scores = self._scores.between(*span) if is_scored else self._speaker.scores(rows[:, :-1])
        scores = sure_of_silence(scores, rows[:, -1] > 0, self._silence_classes)
        found = self._model.search.decode(
            scores, confidences=options.confidences, nbest=options.nbest, beam=options.beam
        )
        start = span.first * self._shift_sec
        duration = min(span.last * self._shift_sec, self._num_samples / self._model.sampling_rate) - start
        segment = self._model.segment(found, max(duration, 0.0))
        if segment.words:
            self._speaker.add(rows[:, :-1])
            yield replace(moved(segment, start), channel=self._channel)


class Rows:
    """Rows of frames, of which the first ones are dropped."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self.first = 0
        """Number of the first one that is there."""

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def last(self) -> int:
        """Number of the row after the last one."""
        return self.first + len(self)

    def append(self, rows: np.ndarray) -> None:
        self._parts.append(rows)

    def between(self, first: int, last: int) -> np.ndarray:
        """Rows `first` to `last` - 1, by their numbers since the begin."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        rows: np.ndarray = self._parts[0][first - self.first : last - self.first]
        return rows

    def drop_before(self, first: int) -> None:
        if self._parts and first > self.first:
            kept = self.between(first, self.last)
            self._parts, self.first = [kept.copy()], first  # a view would keep the dropped rows in memory


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
