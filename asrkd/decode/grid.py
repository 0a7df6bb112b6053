"""The grid of scales that tuning tries: its axes, the best point on it, and where it is extended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

Point = tuple[float, ...]
"""A value of each axis, in the order of the axes."""

# How far a grid is extended. The lattices hold what the search found near its own scales. Far from these, the errors of
# their best paths say little about a search with the tuned scales.
ACOUSTIC_BOUNDS = 0.01, 4.0
LM_BOUNDS = 0.1, 10.0
INSERTION_BOUNDS = -20.0, 20.0  # nats
# A step of an extension is that of the two values at the end of the grid, within these limits.
SCALE_FACTORS = 1.25, 2.0
SCORE_STEPS = 0.5, 4.0  # nats
# Added values are rounded: 0.08, 0.064, 0.0512, 0.041.
DIGITS = 3

LOW, HIGH = 0, -1
"""Index of the value at either end of an axis."""


@dataclass(frozen=True)
class Axis:
    """The values of one scale."""

    name: str
    given: tuple[float, ...]
    """The values to begin with, increasing."""
    values: tuple[float, ...]
    """Those and the values that extensions added, increasing."""
    bounds: tuple[float, float]
    """Least and greatest value that an extension adds."""
    is_scale: bool
    """Whether the steps of an extension multiply; those of a score are added."""

    @staticmethod
    def acoustic_scale(values: Sequence[float]) -> Axis:
        return Axis("acoustic_scale", _increasing(values), _increasing(values), ACOUSTIC_BOUNDS, is_scale=True)

    @staticmethod
    def lm_scale(values: Sequence[float]) -> Axis:
        return Axis("lm_scale", _increasing(values), _increasing(values), LM_BOUNDS, is_scale=True)

    @staticmethod
    def insertion_score(values: Sequence[float]) -> Axis:
        return Axis("insertion_score", _increasing(values), _increasing(values), INSERTION_BOUNDS, is_scale=False)

    @property
    def added(self) -> tuple[float, ...]:
        """The values that extensions added, increasing."""
        return tuple(value for value in self.values if value not in self.given)

    def extended(self, end: int | None, max_added: int) -> Axis:
        """With one more value at an end (LOW or HIGH), unless that is at its bound or `max_added` values are there.

        The same where `end` is None.
        """
        if end is None:
            return self
        value = min(max(self._next(end), self.bounds[0]), self.bounds[1])
        is_beyond = value < self.values[LOW] if end == LOW else value > self.values[HIGH]
        there = [one for one in self.added if (one < self.given[LOW] if end == LOW else one > self.given[HIGH])]
        if len(there) >= max_added or not is_beyond:
            return self
        return replace(self, values=_increasing((*self.values, value)))

    def _next(self, end: int) -> float:
        """The value one step beyond an end."""
        outer, inner = self.values[end], _inner(self, end)
        if not self.is_scale:
            step = min(max(abs(outer - inner), SCORE_STEPS[0]), SCORE_STEPS[1])
            return _rounded(outer - step if end == LOW else outer + step)
        greater, less = max(outer, inner), min(outer, inner)
        factor = min(max(greater / less if less > 0 else math.inf, SCALE_FACTORS[0]), SCALE_FACTORS[1])
        return _rounded(outer / factor if end == LOW else outer * factor)


def _increasing(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(sorted(set(values)))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def choose(errors: Mapping[Point, int], axes: Sequence[Axis]) -> Point:
    """The point of the fewest errors.

    Among points of equally many: one inside the grid rather than one at its ends, then the one whose neighbours on the
    grid have the fewest errors, then the first.
    """
    return min(errors, key=lambda point: (errors[point], _num_ends(point, axes), _around(point, errors, axes)))


def ends_to_extend(best: Point, errors: Mapping[Point, int], axes: Sequence[Axis]) -> list[int | None]:
    """For each axis the end (LOW or HIGH) at which the best point is, with more errors one step inside; else None."""
    result: list[int | None] = []
    for number, axis in enumerate(axes):
        end = _end(best[number], axis)
        if end is not None:
            inside = _moved(best, number, _inner(axis, end))
            end = end if errors[inside] > errors[best] else None
        result.append(end)
    return result


def _moved(point: Point, number: int, value: float) -> Point:
    """The point with another value of one axis."""
    return (*point[:number], value, *point[number + 1 :])


def _inner(axis: Axis, end: int) -> float:
    """The value one step inside an end."""
    return axis.values[1 if end == LOW else -2]


def _end(value: float, axis: Axis) -> int | None:
    """The end of the axis at which a value is; None inside, or on an axis of one value."""
    if len(axis.values) == 1 or value not in (axis.values[LOW], axis.values[HIGH]):
        return None
    return LOW if value == axis.values[LOW] else HIGH


def _num_ends(point: Point, axes: Sequence[Axis]) -> int:
    return sum(_end(value, axis) is not None for value, axis in zip(point, axes, strict=True))


def _around(point: Point, errors: Mapping[Point, int], axes: Sequence[Axis]) -> float:
    """Mean errors of the grid points one step away; infinite at a lone point."""
    neighbours = []
    for number, axis in enumerate(axes):
        index = axis.values.index(point[number])
        for neighbour in (index - 1, index + 1):
            if 0 <= neighbour < len(axis.values):
                neighbours.append(errors[_moved(point, number, axis.values[neighbour])])
    return sum(neighbours) / len(neighbours) if neighbours else math.inf
