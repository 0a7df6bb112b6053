"""Where recordings and streams are cut: at pauses, which the network's own posteriors of silence show.

A recording is cut with a look ahead (`PauseCutter`), a stream without one (`Endpointer`). Both take the posteriors of
silence of one frame after the other, in parts of any size, and do not remember more than one segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asrkd.errors import InputError

SILENT = 0.5
"""Posterior of silence above which a frame is silent."""
ENERGY_FLOOR = -15.9
"""Log-mel energy, rounded up, to which lower ones are raised: float32's epsilon."""
SHORTEST_DIGITAL_SILENCE_SEC = 0.3
IMPOSSIBLE = -1000.0
"""Score; times any acoustic scale it is outside of the beam."""
SHORTEST_SPEECH_SEC = 0.05
"""Shorter speech is a click: no phone with three states is shorter."""


@dataclass(frozen=True)
class CutRules:
    """How long recordings are cut."""

    min_sec: float = 5.0
    """No segment is shorter, but the last one. A longer one has more words for the language model."""
    max_sec: float = 30.0
    """Every segment is at most this long: it bounds the memory."""
    long_pause_sec: float = 1.0
    """A pause of this length ends a segment that is long enough: it is the end of a sentence."""
    padding_sec: float = 0.5
    """Silence that a segment has before and after its speech."""

    def __post_init__(self) -> None:
        if not 0.0 < self.min_sec < self.max_sec or self.long_pause_sec <= 0.0 or self.padding_sec < 0.0:
            raise InputError(f"expected 0 < min_sec < max_sec and a pause above 0 s, found {self}")


@dataclass(frozen=True)
class EndpointRules:
    """When a stream's segment ends. The values are Kaldi's: long without words, shorter after words."""

    silence_without_words_sec: float = 2.4
    """Silence after which a segment without words is dropped."""
    silence_after_words_sec: float = 1.2
    """Silence that ends a segment with words."""
    max_sec: float = 20.0
    """A segment that is as long ends before the last pause between words of its best path."""

    def __post_init__(self) -> None:
        if not 0.0 < self.silence_after_words_sec <= self.silence_without_words_sec < self.max_sec:
            raise InputError(f"expected 0 < silence after words <= silence without words < max_sec, found {self}")


class DigitalSilence:
    """Finds frames without any signal, which no network has learnt: muted microphones and cut recordings have them.

    A frame is one where all energies have been at the floor for 0.3 s. Within words there are shorter ones: codecs send
    zeros while the mouth is closed.
    """

    def __init__(self, frame_shift_sec: float) -> None:
        self._min_frames = round(SHORTEST_DIGITAL_SILENCE_SEC / frame_shift_sec)
        self._run = 0

    def accept(self, feats: np.ndarray) -> np.ndarray:
        """Flags [T] of the next log-mel frames [T, F]."""
        flags = np.zeros(len(feats), bool)
        for frame, is_floor in enumerate(feats.max(axis=1, initial=ENERGY_FLOOR) <= ENERGY_FLOOR):
            self._run = self._run + 1 if is_floor else 0
            flags[frame] = self._run >= self._min_frames
        return flags


def sure_of_silence(scores: np.ndarray, flags: np.ndarray, silence_classes: np.ndarray) -> np.ndarray:
    """Scores [T, C] with certain silence in the flagged frames [T]."""
    if not flags.any():
        return scores
    changed = scores.copy()
    changed[flags] = IMPOSSIBLE
    changed[np.ix_(flags, silence_classes)] = 0.0
    return changed


class Span(NamedTuple):
    """Frames of a segment, from `first` to `last` - 1."""

    first: int
    last: int


class PauseCutter:
    """Cuts a recording: at long pauses, and where there is none at the longest one before a segment is too long."""

    def __init__(self, rules: CutRules, frame_shift_sec: float) -> None:
        self._min, self._max = (round(sec / frame_shift_sec) for sec in (rules.min_sec, rules.max_sec))
        self._long = max(1, round(rules.long_pause_sec / frame_shift_sec))
        self._padding = round(rules.padding_sec / frame_shift_sec)
        self._shortest = max(1, round(SHORTEST_SPEECH_SEC / frame_shift_sec))
        self._silence = np.zeros(0, np.float32)
        self.first = 0
        """Frame at which the segment begins that is not cut yet."""

    def accept(self, silence: np.ndarray) -> list[Span]:
        """The segments with speech that end within these frames; posteriors [T]. `first` moves to the next begin."""
        self._silence = np.concatenate([self._silence, silence])
        found = []
        while (length := self._cut()) is not None:
            found += self._split_off(length)
        return found

    def finish(self) -> list[Span]:
        """The last segment, if it has speech."""
        return self._split_off(len(self._silence))

    def _cut(self) -> int | None:
        """Length of the first segment; None where more frames may change it."""
        window = self._silence[: self._max]
        pauses = [(start, end) for start, end in _runs(window > SILENT) if (start + end) // 2 >= self._min]
        for start, end in pauses:
            if end - start >= self._long and (end < len(window) or len(window) == self._max):
                return (start + end) // 2
        if len(window) < self._max:
            return None
        if pauses:  # the longest, and of equal ones the last
            start, end = max(pauses, key=lambda pause: (pause[1] - pause[0], pause[0]))
            return (start + end) // 2
        return self._min + int(np.argmax(_smoothed(window, self._shortest)[self._min :]))

    def _split_off(self, length: int) -> list[Span]:
        """The first `length` frames without long silence at their ends; none if they have no speech."""
        silence, self._silence = self._silence[:length], self._silence[length:]
        first, self.first = self.first, self.first + length
        speech = [run for run in _runs(silence <= SILENT) if run[1] - run[0] >= self._shortest]
        if not speech:
            return []
        start, end = max(0, speech[0][0] - self._padding), min(length, speech[-1][1] + self._padding)
        return [Span(first + start, first + end)]


class Endpointer:
    """Says of a stream's frames where a segment ends: after a pause, or because it is too long."""

    def __init__(self, rules: EndpointRules, frame_shift_sec: float) -> None:
        self._after_words, self._without, self._max = (
            max(1, round(sec / frame_shift_sec))
            for sec in (rules.silence_after_words_sec, rules.silence_without_words_sec, rules.max_sec)
        )
        self._shortest = max(1, round(SHORTEST_SPEECH_SEC / frame_shift_sec))
        self.reset()

    def reset(self) -> None:
        """Begin a segment."""
        self.num_frames = 0
        """Of the segment so far."""
        self.has_speech = False
        self._pause = 0
        """Frames since the last one of speech; clicks are silence."""
        self._speech = 0
        """Frames of speech that may still be a click."""

    def accept(self, silence: np.ndarray) -> int | None:
        """Number of these frames, posteriors [T], with which the segment ends; None if it goes on after them."""
        for number, is_silent in enumerate(silence > SILENT, start=1):
            self._advance(bool(is_silent))
            if self.is_paused or self.is_too_long:
                return number
        return None

    @property
    def is_paused(self) -> bool:
        return self._pause >= (self._after_words if self.has_speech else self._without)

    @property
    def is_too_long(self) -> bool:
        return self.num_frames >= self._max

    def _advance(self, is_silent: bool) -> None:
        self.num_frames += 1
        self._pause += 1
        self._speech = 0 if is_silent else self._speech + 1
        if self._speech >= self._shortest:
            self.has_speech, self._pause = True, 0


def silence_posteriors(scores: np.ndarray, log_priors: np.ndarray, silence_classes: np.ndarray) -> np.ndarray:
    """Posterior of silence [T] from scores [T, C], log p(frame | class) up to a constant of the frame."""
    logits = scores + log_priors
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    silence: np.ndarray = probabilities[:, silence_classes].sum(axis=1) / probabilities.sum(axis=1)
    return silence


def _runs(flags: np.ndarray) -> Iterator[tuple[int, int]]:
    """Begin and end of each run of true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return ((int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True))


def _smoothed(values: np.ndarray, width: int) -> np.ndarray:
    return np.convolve(values, np.full(width, 1.0 / width), mode="same")
