"""Acoustic scale, LM scale and insertion score, chosen on a development set for all systems together."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kaldialign
from tqdm import tqdm

from asrkd.decode.lattice import Lattices, Scales
from asrkd.errors import require_same_utterances

log = logging.getLogger(__name__)

ACOUSTIC_SCALES = (0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)
INSERTION_SCORES = (-6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0)
AXES = ("acoustic_scale", "lm_scale", "insertion_score")
CountErrors = Callable[[Sequence[str], Sequence[str]], int]
"""Reference and recognised words -> errors."""


def word_errors(ref: Sequence[str], hyp: Sequence[str]) -> int:
    """Insertions, deletions and substitutions."""
    return int(kaldialign.edit_distance(list(ref), list(hyp))["total"])


@dataclass(frozen=True)
class Tuning:
    """The chosen scales and the table that they were chosen from."""

    scales: Scales
    """Of the fewest word errors over all systems."""
    rows: tuple[dict[str, Any], ...]
    """One per grid point: {acoustic_scale, lm_scale, insertion_score, errors, wer (percent, all systems), by_system,
    chosen}."""
    at_edge: tuple[str, ...]
    """Scales chosen at an end of their grid: a wider grid may do better."""


def tune(
    lattices: Mapping[str, Lattices],
    refs: Mapping[str, Sequence[str]],
    acoustic_scales: Sequence[float] = ACOUSTIC_SCALES,
    insertion_scores: Sequence[float] = INSERTION_SCORES,
    lm_scales: Sequence[float] = (1.0,),
    count_errors: CountErrors = word_errors,
) -> Tuning:
    """One set of scales for all systems: the fewest word errors summed over them, on development references.

    Scales tuned for each system separately would fit its noise. Among grid points of equally many errors, the one whose
    neighbours on the grid have the fewest wins, then the first. `count_errors` counts the errors of an utterance.
    """
    for by_utt in lattices.values():
        require_same_utterances(refs, dict.fromkeys(by_utt.utt_ids))
    num_words = sum(len(ref) for ref in refs.values()) * len(lattices)
    grid = list(itertools.product(sorted(acoustic_scales), sorted(lm_scales), sorted(insertion_scores)))
    by_system: list[dict[str, int]] = []
    for point in tqdm(grid, desc="tune scales", unit="point"):
        scales = Scales(*point)
        by_system.append({name: _errors(refs, one.best_paths(scales), count_errors) for name, one in lattices.items()})
    errors: dict[tuple[float, ...], int] = {
        point: sum(counts.values()) for point, counts in zip(grid, by_system, strict=True)
    }
    axes = [sorted(set(axis)) for axis in (acoustic_scales, lm_scales, insertion_scores)]
    best = min(grid, key=lambda point: (errors[point], _around(point, errors, axes)))
    words_each = num_words / len(lattices)
    rows = tuple(
        {
            "acoustic_scale": point[0],
            "lm_scale": point[1],
            "insertion_score": point[2],
            "errors": errors[point],
            "wer": 100.0 * errors[point] / num_words,
            "by_system": {name: 100.0 * count / words_each for name, count in counts.items()},
            "chosen": point == best,
        }
        for point, counts in zip(grid, by_system, strict=True)
    )
    at_edge = tuple(
        name
        for name, value, values in zip(AXES, best, axes, strict=True)
        if len(values) > 1 and value in (values[0], values[-1])
    )
    if at_edge:
        log.warning("tune scales: %s at the end of the grid; widen it", " and ".join(at_edge))
    return Tuning(Scales(*best), rows, at_edge)


def _errors(refs: Mapping[str, Sequence[str]], hyps: Mapping[str, Sequence[str]], count_errors: CountErrors) -> int:
    return sum(count_errors(ref, hyps[utt_id]) for utt_id, ref in refs.items())


def _around(
    point: tuple[float, ...], errors: Mapping[tuple[float, ...], int], axes: Sequence[Sequence[float]]
) -> float:
    """Mean errors of the grid points one step away; infinite at a lone point."""
    neighbours = []
    for axis, values in enumerate(axes):
        index = values.index(point[axis])
        for neighbour in (index - 1, index + 1):
            if 0 <= neighbour < len(values):
                stepped = list(point)
                stepped[axis] = values[neighbour]
                neighbours.append(errors[tuple(stepped)])
    return sum(neighbours) / len(neighbours) if neighbours else math.inf
