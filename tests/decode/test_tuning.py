"""Tuning of scales: grids that extend themselves, ends, plateaus and ties; lattices are replaced by a formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from asrkd.decode import Scales, Tuning, tune
from asrkd.errors import InputError
from asrkd.recipe.options import TuneOptions

pytestmark = pytest.mark.needs("kaldialign")

REFS = {"a-1": ["W"] * 400}


class Formula:
    """Lattices of one utterance, in which a formula of the scales says how many words are wrong."""

    utt_ids = ("a-1",)

    def __init__(self, num_errors: Callable[[Scales], float]) -> None:
        self.num_errors = num_errors
        self.asked: list[tuple[float, float, float]] = []

    def best_paths(self, scales: Scales) -> dict[str, list[str]]:
        self.asked.append((scales.acoustic_scale, scales.lm_scale, scales.insertion_score))
        wrong = round(self.num_errors(scales))
        return {"a-1": ["X"] * wrong + ["W"] * (400 - wrong)}


def tuned(
    num_errors: Callable[[Scales], float], acoustic=(0.08, 0.1, 0.2), insertion=(-3.0, -1.5, 0.0), **more
) -> Tuning:
    lattices = Formula(num_errors)
    tuning = tune({"one": lattices}, REFS, acoustic, insertion, **more)  # type: ignore[dict-item]
    assert len(lattices.asked) == len(set(lattices.asked)) == len(tuning.rows), "every point is decoded once"
    assert sum(row["chosen"] for row in tuning.rows) == 1
    return tuning


def around(acoustic: float, insertion: float, lm: float = 1.0) -> Callable[[Scales], float]:
    """Errors that grow with the distance from the best scales."""
    return lambda s: (
        20 * abs(math.log(s.acoustic_scale / acoustic))
        + 4 * abs(s.insertion_score - insertion)
        + (20 * abs(math.log(s.lm_scale / lm)) if s.lm_scale else 100)
    )


def test_a_best_point_inside_is_chosen_without_an_extension() -> None:
    tuning = tuned(around(0.1, -1.5))
    assert tuning.scales == Scales(0.1, 1.0, -1.5)
    assert (tuning.at_edge, tuning.added, tuning.flat, len(tuning.rows)) == ((), {}, False, 9)


@pytest.mark.parametrize(
    ("best", "expected", "added"),
    [
        ((0.05, -1.5), (0.0512, -1.5), {"acoustic_scale": (0.041, 0.0512, 0.064)}),
        ((0.75, -1.5), (0.8, -1.5), {"acoustic_scale": (0.4, 0.8, 1.6)}),
        ((0.1, 3.0), (0.1, 3.0), {"insertion_score": (1.5, 3.0, 4.5)}),
        ((0.1, -6.0), (0.1, -6.0), {"insertion_score": (-7.5, -6.0, -4.5)}),
    ],
)
def test_the_grid_is_extended_until_the_best_is_inside(best: tuple, expected: tuple, added: dict) -> None:
    tuning = tuned(around(*best))
    assert (tuning.scales.acoustic_scale, tuning.scales.insertion_score) == expected
    assert tuning.at_edge == () and tuning.added == added
    points = [(row["acoustic_scale"], row["lm_scale"], row["insertion_score"]) for row in tuning.rows]
    assert points == sorted(points), "the rows are those of one wider grid"


def test_two_scales_and_the_lm_scale_are_extended_together() -> None:
    tuning = tuned(around(0.064, 1.5, lm=2.0), lm_scales=(0.5, 1.0))
    assert tuning.scales == Scales(0.064, 2.0, 1.5)
    assert tuning.at_edge == () and set(tuning.added) == {"acoustic_scale", "lm_scale", "insertion_score"}
    assert len(tuning.rows) == math.prod(len({row[name] for row in tuning.rows}) for name in tuning.scales.__dict__)


def test_bounds_and_the_number_of_values_end_an_extension() -> None:
    def better_below(scales: Scales) -> float:
        return 10 * (10 + math.log(scales.acoustic_scale)) + (scales.insertion_score + 1.5) ** 2

    for more, expected in (({}, 0.0133), ({"max_added": 2}, 0.0512), ({"max_added": 0}, 0.08)):
        tuning = tuned(better_below, **more)
        assert tuning.at_edge == ("acoustic_scale",)
        assert tuning.scales.acoustic_scale == expected
    assert tuned(better_below, acoustic=(0.02, 0.04, 0.08)).scales.acoustic_scale == 0.01
    at_bound = tuned(better_below, acoustic=(0.015, 0.03))
    assert at_bound.added == {"acoustic_scale": (0.01,)} and at_bound.at_edge == ("acoustic_scale",)
    beyond = tuned(better_below, acoustic=(0.004, 0.008))  # what a person gives is tried, however far
    assert beyond.scales.acoustic_scale == 0.004 and beyond.added == {}


def test_one_value_is_no_grid_and_has_no_end() -> None:
    tuning = tuned(around(0.05, 3.0), acoustic=(0.3,), insertion=(0.0,))
    assert tuning.scales == Scales(0.3, 1.0, 0.0)
    assert (tuning.at_edge, tuning.added, tuning.flat) == ((), {}, False)


def test_equal_errors_everywhere_are_flat_and_at_no_end() -> None:
    for acoustic in ((0.08, 0.1, 0.2), (0.1, 0.2)):
        tuning = tuned(lambda _: 0, acoustic=acoustic)
        assert (tuning.at_edge, tuning.added, tuning.flat) == ((), {}, True)
        assert tuning.scales == Scales(0.1, 1.0, -1.5)


def test_a_plateau_that_reaches_the_end_is_chosen_inside_it() -> None:
    tuning = tuned(lambda s: 10 * (s.acoustic_scale > 0.1) + (s.insertion_score > -1.5))
    assert tuning.scales == Scales(0.1, 1.0, -1.5)
    assert (tuning.at_edge, tuning.added) == ((), {})


def test_order_and_repetition_of_the_values_change_nothing() -> None:
    one = tuned(around(0.05, 0.0))
    other = tuned(around(0.05, 0.0), acoustic=(0.2, 0.1, 0.08, 0.1), insertion=(0.0, -0.0, -1.5, -3.0))
    assert (one.scales, one.rows) == (other.scales, other.rows)


def test_an_lm_scale_of_zero_is_an_end_that_is_reported() -> None:
    tuning = tuned(lambda s: 100 * s.lm_scale + 10 * abs(s.acoustic_scale - 0.1), lm_scales=(0.0, 0.5, 1.0))
    assert tuning.scales.lm_scale == 0 and tuning.at_edge == ("lm_scale",)


def test_references_without_words_are_refused() -> None:
    with pytest.raises(InputError, match="expected development references with words, found none"):
        tune({"one": Formula(lambda _: 0)}, {"a-1": []})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"acoustic_scales": (0.1, 0.0)}, "--tune.acoustic-scales: expected positive scales, found 0"),
        ({"acoustic_scales": (math.nan,)}, "--tune.acoustic-scales: expected positive scales, found nan"),
        ({"acoustic_scales": (math.inf,)}, "--tune.acoustic-scales: expected positive scales, found inf"),
        ({"lm_scales": (-0.5,)}, "--tune.lm-scales: expected scales of at least 0, found -0.5"),
        ({"insertion_scores": (math.nan, 0.0)}, "--tune.insertion-scores: expected finite scores, found nan"),
        ({"max_added": -1}, "--tune.max-added: expected at least 0, found -1"),
    ],
)
def test_values_that_decoding_would_refuse_are_refused_with_the_options(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TuneOptions(**change)


def test_scales_are_finite() -> None:
    with pytest.raises(InputError, match=r"expected finite scales, found .*nan"):
        Scales(0.1, 1.0, math.nan)
