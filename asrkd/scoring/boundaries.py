"""Errors of an alignment's phone boundaries against boundaries marked by people or by a synthesiser."""

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
# Limits of the shares in results.json.
TOLERANCES_MS = (10, 20, 30)
# A boundary that is exactly at a limit counts as within it, whatever the rounding of its times.
ROUNDING_MS = 1e-6


@dataclass(frozen=True)
class BoundaryErrors:
    """Errors of the boundaries of one or several utterances."""

    late_sec: NDArray[np.float64]
    """How late each boundary is, [boundaries] seconds: negative if it is early, infinite if its phone has no match."""

    @property
    def matched_ms(self) -> NDArray[np.float64]:
        """How late each boundary with a match is, ms."""
        return MS_PER_SEC * self.late_sec[np.isfinite(self.late_sec)]

    @property
    def median_late_ms(self) -> float:
        """Median over the boundaries with a match. It is positive if the alignment is late."""
        return float(np.median(self.matched_ms))

    def within(self, tolerance_ms: float) -> float:
        """Share of all boundaries that are at most `tolerance_ms` from their mark."""
        return float((np.abs(self.late_sec) * MS_PER_SEC <= tolerance_ms + ROUNDING_MS).mean())

    def as_json(self) -> dict[str, Any]:
        """An entry of `boundaries` in results.json.

        Mean and median errors (ms) are of the boundaries with a match, None without any. Shares are of all boundaries.
        """
        distance_ms = np.abs(self.matched_ms)
        return {
            "boundaries": self.late_sec.size,
            "mean_ms": float(distance_ms.mean()) if distance_ms.size else None,
            "median_ms": float(np.median(distance_ms)) if distance_ms.size else None,
            "median_late_ms": self.median_late_ms if distance_ms.size else None,
            **{f"within_{limit}_ms": self.within(limit) for limit in TOLERANCES_MS},
        }


def boundary_errors(
    marked: Sequence[Segment], aligned: Sequence[Segment], unknown: Collection[str] = ()
) -> BoundaryErrors:
    """Errors of one utterance's `aligned` segments against its `marked` segments.

    The boundaries are the start of each phone, and the end of a phone before a pause. Phones are matched in order,
    without SILENCE. A phone that the alignment replaces by another one, such as another vowel, still has a match.
    `unknown` are phones that the alignment cannot contain. Their boundaries are not counted.
    """
    match = _matches(
        [one for one in marked if one.phone != SILENCE and one.phone not in unknown],
        [one for one in aligned if one.phone != SILENCE],
    )
    late_sec = []
    for left, right in itertools.pairwise(marked):
        if left.phone in unknown or right.phone in unknown or left.phone == right.phone == SILENCE:
            continue
        segment = match.get(left if right.phone == SILENCE else right)
        if segment is None:
            late_sec.append(np.inf)
        elif right.phone == SILENCE:
            late_sec.append(segment.end_sec - left.end_sec)
        else:
            late_sec.append(segment.start_sec - right.start_sec)
    return BoundaryErrors(np.array(late_sec))


def _matches(marked: Sequence[Segment], aligned: Sequence[Segment]) -> dict[Segment, Segment]:
    """The aligned segment of each marked one. A segment without a match is absent."""
    matcher = SequenceMatcher(None, [one.phone for one in marked], [one.phone for one in aligned], autojunk=False)
    match: dict[Segment, Segment] = {}
    for kind, a, a_end, b, b_end in matcher.get_opcodes():
        if kind == "equal" or a_end - a == b_end - b:
            match.update(zip(marked[a:a_end], aligned[b:b_end], strict=True))
    return match


def joined(utterances: Sequence[BoundaryErrors]) -> BoundaryErrors:
    """The boundaries of several utterances as one set."""
    return BoundaryErrors(np.concatenate([utterance.late_sec for utterance in utterances]))
