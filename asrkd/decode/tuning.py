"""Acoustic scale, LM scale and insertion score, chosen on a development set for all systems together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from asrkd.decode.grid import Axis, Point, choose, ends_to_extend
from asrkd.decode.lattice import Lattices, Scales
from asrkd.errors import InputError, require_same_utterances

ACOUSTIC_SCALES = (0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)
INSERTION_SCORES = (-6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0)
MAX_ADDED = 8
CountErrors = Callable[[Sequence[str], Sequence[str]], int]
"""Reference and recognised words -> errors."""


def word_errors(ref: Sequence[str], hyp: Sequence[str]) -> int:
    """Insertions, deletions and substitutions."""
    import kaldialign  # here: the options of decoding are read where it is missing

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
    """Scales chosen at an end of their grid, with more errors one step inside: a wider grid may do better."""
    added: dict[str, tuple[float, ...]]
    """Values that were added to a scale's grid, because the best one was at its end."""
    flat: bool
    """Whether all of several grid points have equally many errors, so that the development set decides nothing."""


def tune(
    lattices: Mapping[str, Lattices],
    refs: Mapping[str, Sequence[str]],
    acoustic_scales: Sequence[float] = ACOUSTIC_SCALES,
    insertion_scores: Sequence[float] = INSERTION_SCORES,
    lm_scales: Sequence[float] = (1.0,),
    count_errors: CountErrors = word_errors,
    max_added: int = MAX_ADDED,
) -> Tuning:
    """One set of scales for all systems: the fewest word errors summed over them, on development references.

    Scales tuned for each system separately would fit its noise. While the best value of a scale is at an end of its
    grid, the grid is extended there, by at most `max_added` values and within the bounds of asrkd.decode.grid. A grid
    of one value stays as it is. `grid.choose` decides between points of equally many errors. `count_errors` counts the
    errors of an utterance. InputError: the references have no words, or a lattice or a reference is missing.
    """
    for by_utt in lattices.values():
        require_same_utterances(refs, dict.fromkeys(by_utt.utt_ids))
    words_each = sum(len(ref) for ref in refs.values())
    if not words_each:
        raise InputError("tune scales: expected development references with words, found none in any utterance")
    axes = [Axis.acoustic_scale(acoustic_scales), Axis.lm_scale(lm_scales), Axis.insertion_score(insertion_scores)]
    by_system: dict[Point, dict[str, int]] = {}
    while True:
        new = [point for point in _points(axes) if point not in by_system]
        for point in tqdm(new, desc="tune scales", unit="point"):
            paths = {name: one.best_paths(Scales(*point)) for name, one in lattices.items()}
            by_system[point] = {name: _errors(refs, hyps, count_errors) for name, hyps in paths.items()}
        errors = {point: sum(by_system[point].values()) for point in _points(axes)}
        best = choose(errors, axes)
        ends = ends_to_extend(best, errors, axes)
        extended = [axis.extended(end, max_added) for axis, end in zip(axes, ends, strict=True)]
        if extended == axes:
            break
        axes = extended
    return Tuning(
        Scales(*best),
        _rows(errors, by_system, best, words_each),
        tuple(axis.name for axis, end in zip(axes, ends, strict=True) if end is not None),
        {axis.name: axis.added for axis in axes if axis.added},
        len(errors) > 1 and len(set(errors.values())) == 1,
    )


def _points(axes: Sequence[Axis]) -> Iterable[Point]:
    return itertools.product(*(axis.values for axis in axes))


def _rows(
    errors: Mapping[Point, int], by_system: Mapping[Point, Mapping[str, int]], best: Point, words_each: int
) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "acoustic_scale": point[0],
            "lm_scale": point[1],
            "insertion_score": point[2],
            "errors": count,
            "wer": 100.0 * count / (words_each * len(by_system[point])),
            "by_system": {name: 100.0 * one / words_each for name, one in by_system[point].items()},
            "chosen": point == best,
        }
        for point, count in errors.items()
    )


def _errors(refs: Mapping[str, Sequence[str]], hyps: Mapping[str, Sequence[str]], count_errors: CountErrors) -> int:
    return sum(count_errors(ref, hyps[utt_id]) for utt_id, ref in refs.items())
