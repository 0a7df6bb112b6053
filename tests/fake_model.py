"""A model of tones: each burst of a tone is a word, and the word's name is the tone's band. It is fast and exact.

It has the parts of `asrkd.runtime.model.Model` that recordings and streams use, log-mel frames among them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from asrkd.runtime.features import log_mel
from asrkd.runtime.package import FrontEnd, Normalisation
from asrkd.runtime.search import Found, FoundWord
from asrkd.runtime.transcript import Segment, Word

RATE = 8000
BANDS = 4
TONES = (300, 700, 1500, 3000)
"""Hz; the tone of each word w0 to w3."""
LOUD = -6.0
"""Log-mel energy of a tone; silence has some -16."""
RIGHT_CONTEXT = 5
FRONT_END = FrontEnd(RATE, 20, 25.0, 10.0, 100.0, -100.0)


def speech(*turns: float | tuple[int, float], rate: int = RATE) -> np.ndarray:
    """Samples [N] float32 of turns: seconds of silence, or (word, seconds)."""
    parts = []
    for turn in turns:
        tone, seconds = turn if isinstance(turn, tuple) else (None, turn)
        times = np.arange(round(seconds * rate)) / rate
        parts.append(np.zeros(len(times)) if tone is None else 0.5 * np.sin(2 * np.pi * TONES[tone] * times))
    return np.concatenate(parts).astype(np.float32)


def tone_scores(feats: np.ndarray) -> np.ndarray:
    """Scores [T, 1 + BANDS] of log-mel frames [T, F]: silence, and one class for each tone."""
    peaks = log_mel_peaks()
    is_loud = feats.max(axis=1) > LOUD
    word = np.abs(feats.argmax(axis=1)[:, None] - peaks).argmin(axis=1)
    scores = np.full((len(feats), 1 + BANDS), -9.0, np.float32)
    scores[np.arange(len(feats)), np.where(is_loud, 1 + word, 0)] = 0.0
    return scores


def log_mel_peaks() -> np.ndarray:
    """The mel bin of each tone."""
    if not _PEAKS:
        _PEAKS.extend(int(log_mel(speech((tone, 0.5)), FRONT_END)[20].argmax()) for tone in range(BANDS))
    return np.array(_PEAKS)


_PEAKS: list[int] = []


class Acoustic:
    """Scores do not depend on statistics."""

    def __init__(self, description: Any) -> None:
        self.description = description

    def scores(self, feats: np.ndarray, statistics: object = None) -> np.ndarray:
        return tone_scores(feats)

    def stream(self, statistics: object = None) -> ScoreStream:
        return ScoreStream(self)


class ScoreStream:
    def __init__(self, acoustic: Acoustic) -> None:
        self.acoustic, self.waiting = acoustic, np.zeros((0, FRONT_END.num_mel_bins), np.float32)

    def accept(self, feats: np.ndarray) -> np.ndarray:
        rows = np.concatenate([self.waiting, feats])
        ready = max(0, len(rows) - RIGHT_CONTEXT)
        self.waiting = rows[ready:]
        return self.acoustic.scores(rows[:ready])

    def finish(self) -> np.ndarray:
        return self.acoustic.scores(self.waiting)


@dataclass
class Search:
    graph: Any = field(default_factory=lambda: SimpleNamespace(senones=SimpleNamespace(log_prior=np.zeros(1 + BANDS))))
    beams: list[float | None] = field(default_factory=list)

    def decode(self, scores: np.ndarray, *, confidences: bool, nbest: int, beam: float | None) -> Found:
        self.beams.append(beam)
        stream = SearchStream()
        stream.advance(scores)
        return stream.final(confidences=confidences, nbest=nbest)

    def stream(self, *, beam: float | None = None, confidences: bool = True) -> SearchStream:
        self.beams.append(beam)
        return SearchStream()


class SearchStream:
    """The words are the runs of one class."""

    def __init__(self) -> None:
        self.classes: list[int] = []

    def advance(self, scores: np.ndarray) -> None:
        self.classes += scores.argmax(axis=1).tolist()

    def partial(self) -> tuple[FoundWord, ...]:
        edges = [0, *(np.flatnonzero(np.diff(self.classes)) + 1).tolist(), len(self.classes)]
        runs = [(begin, end) for begin, end in pairwise(edges) if begin < end]
        return tuple(FoundWord(f"w{self.classes[begin] - 1}", begin, end) for begin, end in runs if self.classes[begin])

    def final(self, *, confidences: bool = True, nbest: int = 1) -> Found:
        words = tuple(FoundWord(*one[:3], 0.5 if confidences else None) for one in map(_plain, self.partial()))
        others = tuple(f"other {number}" for number in range(1, nbest))
        return Found(words, len(self.classes), True, others if words else ())


def _plain(word: FoundWord) -> tuple[str, int, int]:
    return word.text, word.begin, word.end


class FakeModel:
    """A model of tones, without files."""

    def __init__(self, kind: str = "utterance") -> None:
        mean = (0.0,) * FRONT_END.num_mel_bins
        normalisation = Normalisation(kind, mean, mean, 300.0)  # type: ignore[arg-type]
        self.sampling_rate, self.frame_shift_sec, self.silence_classes = RATE, 0.01, (0,)
        self.description: Any = SimpleNamespace(
            front_end=FRONT_END, normalisation=normalisation, left_context=0, right_context=RIGHT_CONTEXT
        )
        self.acoustic, self.search = Acoustic(self.description), Search()

    def segment(self, found: Found, duration: float) -> Segment:
        words = tuple(
            Word(one.text, min(one.begin / 100, duration), min(one.end / 100, duration), one.confidence)
            for one in found.words
        )
        return Segment(0.0, duration, words, found.alternatives)
