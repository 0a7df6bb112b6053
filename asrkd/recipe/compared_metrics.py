"""Differences of two systems in a metric, and how far one is on the way to a third."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asrkd.scoring.bootstrap import (
    Comparison,
    GapRecovered,
    UtteranceMetric,
    by_speaker,
    compare,
    gap_recovered,
)


@dataclass(frozen=True)
class Difference:
    """System B minus system A in a metric, with intervals over utterances and over speakers."""

    a: float
    b: float
    by_utterance: Comparison
    by_speaker: Comparison | None
    """None with a single speaker: there is nothing to draw."""

    @classmethod
    def of(cls, a: UtteranceMetric, b: UtteranceMetric, speakers: Mapping[str, str]) -> Difference:
        """The difference on utterances of these speakers (utt_id -> speaker)."""
        people = by_speaker(a, speakers), by_speaker(b, speakers)
        of_speakers = compare(("B", people[1]), ("A", people[0])) if len(people[0].utt_ids) > 1 else None
        return cls(a.value, b.value, compare(("B", b), ("A", a)), of_speakers)

    def as_json(self) -> dict[str, Any]:
        """Everything by name."""
        return {
            "metric": self.by_utterance.metric,
            "a": self.a,
            "b": self.b,
            "bootstrap_by_utterance": self.by_utterance.as_json(),
            "bootstrap_by_speaker": self.by_speaker and self.by_speaker.as_json(),
        }


@dataclass(frozen=True)
class Share:
    """(B - A) / (ceiling - A) in a metric."""

    metric: str
    a: float
    b: float
    ceiling: float
    by_utterance: GapRecovered
    by_speaker: GapRecovered | None
    """None with a single speaker."""

    @classmethod
    def of(cls, metrics: Sequence[UtteranceMetric], speakers: Mapping[str, str]) -> Share:
        """The share, of the metric of A, B and the ceiling."""
        people = [by_speaker(one, speakers) for one in metrics]
        of_speakers = _share(people) if len(people[0].utt_ids) > 1 else None
        a, b, top = (one.value for one in metrics)
        return cls(metrics[0].name, a, b, top, _share(metrics), of_speakers)

    def as_json(self) -> dict[str, Any]:
        """Everything by name."""
        return {
            "metric": self.metric,
            "a": self.a,
            "b": self.b,
            "ceiling": self.ceiling,
            "by_utterance": self.by_utterance.as_json(),
            "by_speaker": self.by_speaker and self.by_speaker.as_json(),
        }


@dataclass(frozen=True)
class Way:
    """How far B is on the way from A to a third system, in each metric that all three have."""

    ceiling: str
    """The third system."""
    shares: tuple[Share, ...]

    @classmethod
    def of(cls, ceiling: str, metrics: Mapping[str, Sequence[UtteranceMetric]], speakers: Mapping[str, str]) -> Way:
        """`metrics`: name -> the metric of A, B and the ceiling."""
        return cls(ceiling, tuple(Share.of(one, speakers) for one in metrics.values()))

    def as_json(self) -> dict[str, Any]:
        """Everything by name."""
        return {"ceiling": self.ceiling, "shares": [one.as_json() for one in self.shares]}


def _share(metrics: Sequence[UtteranceMetric]) -> GapRecovered:
    a, b, top = metrics
    return gap_recovered(a, top, b, teacher="ceiling", reference="A")
