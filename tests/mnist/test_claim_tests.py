"""Statistical tests of claims, on outcomes with known numbers of errors."""

from __future__ import annotations

import numpy as np
import pytest

from asrkd.scoring.bootstrap import GapRecovered
from recipes.mnist import claim_tests
from recipes.mnist.claim_tests import FAILS, HOLDS, PART, UNMEASURED, Outcome


def outcome(*errors: int, num_digits: int = 1000, seed: int = 0) -> Outcome:
    """Networks with these numbers of errors. Some digits are harder than others."""
    rng = np.random.default_rng(seed)
    hard = rng.random(num_digits) ** 8 + 1e-9
    wrong = np.zeros((len(errors), num_digits), dtype=bool)
    for row, count in zip(wrong, errors, strict=True):
        row[rng.choice(num_digits, count, replace=False, p=hard / hard.sum())] = True
    return Outcome(wrong)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ((40, 42, 39, 41), (90, 95, 88, 97), HOLDS),
        ((40, 42, 39, 41), (41, 40, 42, 38), FAILS),
        ((90, 95, 88, 97), (40, 42, 39, 41), FAILS),
        ((30, 70, 45, 60), (85, 40, 110, 55), PART),  # many digits, but the seeds do not agree
        ((40, 42), (90, 95), HOLDS),  # two seeds: over digits alone
    ],
)
def test_fewer_errors(ours: tuple[int, ...], theirs: tuple[int, ...], verdict: str) -> None:
    result = claim_tests.fewer_errors(outcome(*ours), outcome(*theirs, seed=1), ("ours", "theirs"))
    assert result.verdict == verdict, result.evidence
    assert f"ours {np.mean(ours):.1f}, theirs {np.mean(theirs):.1f} errors" in result.evidence
    assert ("no test over seeds" in result.evidence) == (len(ours) < 3)


def test_the_same_networks_are_not_better_than_themselves() -> None:
    one = outcome(40, 41, 42)
    assert claim_tests.fewer_errors(one, one, ("a", "b")).verdict == FAILS
    assert claim_tests.fewer_over_digits(one, one) == 1.0
    assert claim_tests.welch(np.array([5, 5]), np.array([5, 5]), "less") == 1.0
    assert claim_tests.welch(np.array([4, 4]), np.array([5, 5]), "less") == 0.0


def test_more_seeds_do_not_bias_the_signs() -> None:
    """Networks with equally many errors on separate digits: ten have errors on five times as many digits as two."""
    # Seed m has errors on digits 10 m to 10 m + 9.
    separate = np.eye(100, dtype=bool).reshape(10, 10, 100).sum(axis=1).astype(bool)
    two, ten = Outcome(separate[:2]), Outcome(separate[::-1])
    assert claim_tests.fewer_over_digits(two, ten) > 0.5
    assert claim_tests.fewer_over_digits(ten, two) > 0.5


def test_every_control_must_be_beaten() -> None:
    ours = outcome(40, 42, 39)
    worse, same = outcome(90, 95, 88, seed=1), outcome(41, 39, 43, seed=2)
    assert claim_tests.fewer_than_each(ours, {"a": worse, "b": worse}, "ours").verdict == HOLDS
    assert claim_tests.fewer_than_each(ours, {"a": worse, "b": same}, "ours").verdict == PART
    assert claim_tests.fewer_than_each(ours, {"b": same}, "ours").verdict == FAILS


def test_a_repair_of_the_same_networks_is_tested_in_pairs() -> None:
    before, after = outcome(140, 133, 149), outcome(135, 128, 139, seed=1)
    assert (
        claim_tests.paired(after.errors, before.errors) < 0.05 < claim_tests.welch(after.errors, before.errors, "less")
    )
    assert claim_tests.paired(np.array([4, 5]), np.array([5, 6])) == 0.0
    assert claim_tests.paired(np.array([4, 5]), np.array([4, 5])) == 1.0


def test_most_of_a_gain() -> None:
    baseline, best = outcome(150, 146, 152), outcome(60, 67, 64, seed=1)
    names = ("the baseline", "a teacher")

    def recovered_by(*errors: int) -> claim_tests.Verdict:
        return claim_tests.most_of_gain(baseline, best, outcome(*errors, seed=2), 0.7, names)

    assert recovered_by(50, 53, 51).verdict == HOLDS
    assert recovered_by(110, 108, 112).verdict == PART
    share = (np.mean([150, 146, 152]) - 110) / (np.mean([150, 146, 152]) - np.mean([60, 67, 64]))
    assert f"110.0 errors: {100 * share:.0f}% of the gain" in recovered_by(110, 108, 112).evidence
    assert recovered_by(180, 185, 179).verdict == FAILS
    assert "not shown that a teacher" in claim_tests.most_of_gain(best, baseline, best, 0.7, names).evidence
    tiny_gain = claim_tests.gain_recovered(baseline, outcome(148, 149, 150, seed=1), best)
    assert (tiny_gain.value, tiny_gain.ci95) == (None, None) and "no finite interval" in str(tiny_gain.reason)
    assert claim_tests.gain_recovered(best, baseline, best).value is None, "the baseline has more errors"
    assert claim_tests.gain_recovered(baseline, best, baseline) == GapRecovered(0.0, (0.0, 0.0), None)
    assert claim_tests.gain_recovered(baseline, best, best).value == 1.0


def test_the_interval_of_a_gain_includes_the_spread_of_the_seeds() -> None:
    baseline, best = outcome(150, 150, 150), outcome(60, 60, 60, seed=1)
    same, apart = outcome(100, 100, 100, seed=2), outcome(70, 100, 130, seed=2)
    intervals = [claim_tests.gain_recovered(baseline, best, one).ci95 for one in (same, apart)]
    widths = [ci95[1] - ci95[0] for ci95 in intervals if ci95 is not None]
    assert widths[1] > 1.3 * widths[0]


def test_temperatures_with_similar_errors() -> None:
    same = {8.0: outcome(100, 101, 99, 100), 12.0: outcome(101, 100, 100, 99), 20.0: outcome(99, 100, 102, 101)}
    apart = {8.0: outcome(100, 101, 99, 100), 20.0: outcome(160, 161, 158, 163)}
    noisy = {8.0: outcome(80, 130, 95, 110), 20.0: outcome(100, 70, 140, 90)}
    assert claim_tests.similar_errors({"300": same, "800": same}).verdict == HOLDS
    assert claim_tests.similar_errors({"300": apart}).verdict == FAILS
    assert claim_tests.similar_errors({"300": noisy}).verdict == FAILS, "nothing is shown"
    assert claim_tests.similar_errors({"300": same, "800": apart}).verdict == PART
    assert claim_tests.similar_errors({"300": {8.0: outcome(1, 2), 20.0: outcome(1, 2)}}).verdict == UNMEASURED


def test_a_range_of_temperatures_is_best() -> None:
    inside = {2.5: outcome(260, 262, 258), 4.0: outcome(265, 259, 261)}
    low, high = {1.0: outcome(290, 288, 286)}, {8.0: outcome(330, 320, 326), 20.0: outcome(370, 372, 365)}
    near = outcome(264, 263, 259)
    assert claim_tests.range_is_best({**low, **inside, **high}, 2.5, 4.0).verdict == HOLDS
    assert claim_tests.range_is_best({1.0: near, **inside, **high}, 2.5, 4.0).verdict == PART
    assert claim_tests.range_is_best({1.0: near, **inside, 8.0: near}, 2.5, 4.0).verdict == FAILS
    assert claim_tests.range_is_best(inside, 2.5, 4.0).verdict == UNMEASURED
    # A much worse temperature on the same side does not hide a better one.
    better = {**low, **inside, 6.0: outcome(240, 242, 241), 20.0: high[20.0]}
    assert claim_tests.range_is_best(better, 2.5, 4.0).verdict == FAILS


def test_a_measure_that_falls() -> None:
    fall = {1: np.array([9.0, 8.8, 9.4]), 3: np.array([6.0, 6.1, 5.8]), 10: np.array([2.0, 2.2, 1.9])}
    assert claim_tests.falling(fall, "errors").verdict == HOLDS
    assert claim_tests.falling(dict(reversed(fall.items())), "errors").verdict == FAILS
    uneven = {1: np.array([5.0, 6.0, 7.0]), 3: np.array([6.0, 5.5, 6.5]), 10: np.array([5.2, 6.1, 6.6])}
    assert claim_tests.falling(uneven, "errors").verdict == FAILS, "a fall that may be random"
    assert claim_tests.falling({key: value[:2] for key, value in fall.items()}, "errors").verdict == UNMEASURED


def test_a_share_of_digits() -> None:
    assert claim_tests.share_above([133, 130, 136], [206, 204, 208], 0.5, "on threes").verdict == HOLDS
    assert claim_tests.share_above([133], [206], 0.5, "on threes").verdict == HOLDS, "one seed: over digits alone"
    assert claim_tests.share_above([104, 105, 106], [206, 206, 206], 0.5, "on threes").verdict == PART
    assert claim_tests.share_above([180, 60, 160], [206, 206, 206], 0.5, "on threes").verdict == PART
    assert claim_tests.share_above([50, 50, 50], [206, 206, 206], 0.5, "on threes").verdict == FAILS
    assert claim_tests.share_above([0], [0], 0.5, "on threes").verdict == FAILS


def test_the_least_favourable_verdict() -> None:
    assert claim_tests.weakest(HOLDS, PART) == PART and claim_tests.weakest(HOLDS, FAILS, PART) == FAILS
    assert claim_tests.weakest(HOLDS) == HOLDS and claim_tests.weakest(HOLDS, UNMEASURED) == UNMEASURED
