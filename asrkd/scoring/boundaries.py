"""How far the boundaries of an alignment lie from those that people (or a synthesiser) marked."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrkd.data.transcripts import SILENCE
from asrkd.hmm.alignment import Segment

MS_PER_SEC = 1000.0
TOLERANCES_MS = (10, 20, 30)
ROUNDING_MS = 1e-6


@dataclass(frozen=True)
class BoundaryErrors:
    """Boundaries of many utterances: how late (seconds; early is negative) each was put, infinite where it was not."""

    late_sec: NDArray[np.float64]

    @property
    def median_late_ms(self) -> float:
        """Of those found; positive where the alignment lags behind the marks."""
        return float(np.median(self.found_ms))

    @property
    def found_ms(self) -> NDArray[np.float64]:
        """How late those were put that were found, ms."""
        return MS_PER_SEC * self.late_sec[np.isfinite(self.late_sec)]

    def within(self, tolerance_ms: float) -> float:
        """Share of the boundaries no further than this from their mark."""
        return float((np.abs(self.late_sec) * MS_PER_SEC <= tolerance_ms + ROUNDING_MS).mean())

    def as_json(self) -> dict[str, Any]:
        """An entry of `boundaries` in results.json: errors of those found in ms (None of none), shares of all."""
        distance_ms = np.abs(self.found_ms)
        return {
            "boundaries": self.late_sec.size,
            "mean_ms": float(distance_ms.mean()) if distance_ms.size else None,
            "median_ms": float(np.median(distance_ms)) if distance_ms.size else None,
            "median_late_ms": self.median_late_ms if distance_ms.size else None,
            **{f"within_{limit}_ms": self.within(limit) for limit in TOLERANCES_MS},
        }


def boundary_errors(
    truth: Sequence[Segment], found: Sequence[Segment], unknown: Collection[str] = ()
) -> BoundaryErrors:
    """Errors of one utterance's boundaries: each start of a phone, and an end where a pause follows it.

    Phones are matched in order, SILENCE apart; a variant (another vowel, say) still has its place. Boundaries of phones
    in `unknown`, which the alignment cannot have, are not counted.
    """
    partner = _matched(
        [one for one in truth if one.phone != SILENCE and one.phone not in unknown],
        [one for one in found if one.phone != SILENCE],
    )
    late_sec = []
    for left, right in itertools.pairwise(truth):
        if left.phone in unknown or right.phone in unknown or left.phone == right.phone == SILENCE:
            continue
        mine = partner.get(left if right.phone == SILENCE else right)
        if mine is None:
            late_sec.append(np.inf)
        elif right.phone == SILENCE:
            late_sec.append(mine.end_sec - left.end_sec)
        else:
            late_sec.append(mine.start_sec - right.start_sec)
    return BoundaryErrors(np.array(late_sec))


def _matched(truth: Sequence[Segment], found: Sequence[Segment]) -> dict[Segment, Segment]:
    """The found segment of each true one; none of a phone that was not found in its place."""
    matcher = SequenceMatcher(None, [one.phone for one in truth], [one.phone for one in found], autojunk=False)
    partner: dict[Segment, Segment] = {}
    for kind, a, a_end, b, b_end in matcher.get_opcodes():
        if kind == "equal" or a_end - a == b_end - b:
            partner.update(zip(truth[a:a_end], found[b:b_end], strict=True))
    return partner


def joined(parts: Sequence[BoundaryErrors]) -> BoundaryErrors:
    """The boundaries of several utterances together."""
    return BoundaryErrors(np.concatenate([part.late_sec for part in parts]))
