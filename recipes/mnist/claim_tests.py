"""Statistical tests of the paper's claims. A claim holds, holds in part, or does not hold here.

A difference between two variants is tested over digits and over seeds. The test over digits is the exact sign test of
the digits that one variant has right in more seeds than the other. It asks whether these networks would also differ on
other digits of this kind. The test over seeds needs at least three of them. It is a t-test of the error counts: Welch's
for different networks, a paired one for the same networks before and after a change. It asks whether networks of other
seeds would also differ. Shares are tested over digits and over seeds too, trends and similarity over seeds alone.

A claim holds if every test confirms it at the 5% level. It holds in part if the figures support it and at least one
test confirms it. Otherwise it does not hold here, which includes claims that are merely not shown. Levels are those of
each claim separately, without a correction for the number of claims.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from asrkd.report.tables import p_value
from asrkd.scoring.bootstrap import GapRecovered, draw_counts, share_interval

HOLDS, PART, FAILS, UNMEASURED = "holds", "holds in part", "does not hold here", "not measured in this profile"
LEVEL = 0.05
MIN_SEEDS = 3
# Errors are similar if they differ by less than this fraction of their mean. The paper says "fairly similar"; the value
# is ours.
SIMILAR_WITHIN = 0.10
NUM_REPLICATES = 2000


@dataclass(frozen=True)
class Outcome:
    """Wrong answers of a variant's networks."""

    wrong: NDArray[np.bool_]
    """bool [M, N]: M seeds on the same N digits."""

    @property
    def errors(self) -> NDArray[np.int64]:
        """Errors of each seed, [M]."""
        return self.wrong.sum(axis=1)

    @property
    def mean(self) -> float:
        """Mean errors over seeds."""
        return float(self.errors.mean())


@dataclass(frozen=True)
class Verdict:
    """A verdict on a claim, with the evidence in a sentence."""

    verdict: str
    evidence: str


def unmeasured(reason: str = "") -> Verdict:
    """The verdict on a claim that was not measured."""
    return Verdict(UNMEASURED, reason)


def fewer_over_digits(a: Outcome, b: Outcome) -> float:
    """p of the exact sign test that a has more digits right than b, one-sided.

    It uses as many seeds of a as of b. With more seeds of one, more of its digits would be wrong in at least one seed,
    which would bias the signs.
    """
    seeds = min(len(a.wrong), len(b.wrong))
    difference = a.wrong[:seeds].sum(axis=0) - b.wrong[:seeds].sum(axis=0)
    better, worse = int((difference < 0).sum()), int((difference > 0).sum())
    if better + worse == 0:
        return 1.0
    return float(stats.binomtest(better, better + worse, 0.5, alternative="greater").pvalue)


def welch(a: NDArray, b: NDArray, alternative: str) -> float:
    """p of Welch's t-test that mean(a) is `less` or `greater` than mean(b). Without any spread it is 0 or 1."""
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        differs = a.mean() < b.mean() if alternative == "less" else a.mean() > b.mean()
        return 0.0 if differs else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one side without spread
        return float(stats.ttest_ind(a, b, equal_var=False, alternative=alternative).pvalue)


def paired(a: NDArray, b: NDArray) -> float:
    """p of the paired t-test that a is less than b. If all differences are equal it is 0 or 1."""
    if np.ptp(a - b) == 0:
        return 0.0 if a[0] < b[0] else 1.0
    return float(stats.ttest_rel(a, b, alternative="less").pvalue)


def verdict_of(supported: bool, p_values: Collection[float]) -> str:
    """The verdict on a claim, from whether the figures support it and from the p of each test."""
    if supported and max(p_values) < LEVEL:
        return HOLDS
    return PART if supported and min(p_values) < LEVEL else FAILS


def weakest(*verdicts: str) -> str:
    """The least favourable of several verdicts. Unmeasured is the least favourable."""
    return max(verdicts, key=(HOLDS, PART, FAILS, UNMEASURED).index)


def fewer_errors(a: Outcome, b: Outcome, names: tuple[str, str], same_networks: bool = False) -> Verdict:
    """Whether variant a has fewer errors than b. With `same_networks`, a is b after a change."""
    tests = {"over digits": fewer_over_digits(a, b)}
    if min(len(a.errors), len(b.errors)) >= MIN_SEEDS:
        tests["over seeds"] = paired(a.errors, b.errors) if same_networks else welch(a.errors, b.errors, "less")
    evidence = f"{names[0]} {a.mean:.1f}, {names[1]} {b.mean:.1f} errors; {_shown(tests)}"
    return Verdict(verdict_of(a.mean < b.mean, tests.values()), evidence)


def fewer_than_each(outcome: Outcome, others: Mapping[str, Outcome], name: str) -> Verdict:
    """Whether a variant has fewer errors than every one of the others."""
    verdicts = [fewer_errors(outcome, one, (name, other)) for other, one in others.items()]
    evidence = "; ".join(f"{verdict.evidence} ({verdict.verdict})" for verdict in verdicts)
    kinds = {verdict.verdict for verdict in verdicts}
    return Verdict(HOLDS if kinds == {HOLDS} else FAILS if kinds == {FAILS} else PART, evidence)


def gain_recovered(baseline: Outcome, best: Outcome, student: Outcome, seed: int = 0) -> GapRecovered:
    """(baseline - student) / (baseline - best) in mean errors, with a bootstrap interval over digits and seeds.

    Networks of `baseline` and `student` are drawn as pairs: of one seed, or the same network before and after a change.
    The value is None unless `best` is shown to have fewer errors than `baseline`.
    """
    if best.mean >= baseline.mean:
        return GapRecovered(None, None, f"{best.mean:.1f} errors are no fewer than {baseline.mean:.1f}")
    rng = np.random.default_rng(seed)
    digits = draw_counts(rng, baseline.wrong.shape[1], NUM_REPLICATES)
    pairs = _seed_weights(rng, min(len(baseline.wrong), len(student.wrong)))
    singles = _seed_weights(rng, len(best.wrong))
    errors = [
        ((weights @ one.wrong[: weights.shape[1]]) * digits).sum(axis=1)
        for one, weights in ((baseline, pairs), (best, singles), (student, pairs))
    ]
    value = (baseline.mean - student.mean) / (baseline.mean - best.mean)
    gain = share_interval(value, errors[0] - errors[1], errors[0] - errors[2])
    return gain if gain.ci95 is not None else GapRecovered(None, None, gain.reason)


def _seed_weights(rng: np.random.Generator, num_seeds: int) -> NDArray[np.float64]:
    """Weights of the seeds in each replicate, [replicates, seeds], with a sum of one."""
    return draw_counts(rng, num_seeds, NUM_REPLICATES) / num_seeds


def most_of_gain(
    baseline: Outcome, best: Outcome, student: Outcome, required: float, names: tuple[str, str]
) -> Verdict:
    """Whether `student` has recovered at least the share `required` of the gain from `baseline` to `best`.

    `names` are those of `baseline` and `best`.
    """
    gain = gain_recovered(baseline, best, student)
    if gain.value is None or gain.ci95 is None:
        return Verdict(
            FAILS,
            f"it is not shown that {names[1]} ({best.mean:.1f} errors) has fewer errors than {names[0]} "
            f"({baseline.mean:.1f})",
        )
    low, high = gain.ci95
    evidence = (
        f"{student.mean:.1f} errors: {100 * gain.value:.0f}% of the gain from {names[0]} ({baseline.mean:.1f}) to "
        f"{names[1]} ({best.mean:.1f}), 95% interval over digits and seeds [{100 * low:.0f}, {100 * high:.0f}]; "
        f"required {100 * required:.0f}%"
    )
    return Verdict(HOLDS if low >= required else PART if low > 0 else FAILS, evidence)


def similar_errors(groups: Mapping[str, Mapping[float, Outcome]]) -> Verdict:
    """Whether the errors at all temperatures of every group are within SIMILAR_WITHIN of their mean.

    Similarity is shown by two one-sided tests of each pair of temperatures.
    """
    verdicts, evidence = [], []
    for name, by_temperature in groups.items():
        errors = {t: outcome.errors.astype(float) for t, outcome in by_temperature.items()}
        if min(len(one) for one in errors.values()) < MIN_SEEDS or len(errors) < 2:
            return unmeasured(f"fewer than {MIN_SEEDS} seeds or two temperatures")
        margin = SIMILAR_WITHIN * float(np.mean([one.mean() for one in errors.values()]))
        within, beyond = _within_and_beyond(list(errors.values()), margin)
        means = ", ".join(f"T={t:g} {one.mean():.1f}" for t, one in errors.items())
        evidence.append(f"{name}: {means}; within ±{margin:.1f}: p {p_value(within)}, beyond: p {p_value(beyond)}")
        verdicts.append(HOLDS if within < LEVEL else FAILS if beyond < LEVEL else PART)
    verdict = HOLDS if set(verdicts) == {HOLDS} else PART if HOLDS in verdicts else FAILS
    return Verdict(verdict, "; ".join(evidence))


def _within_and_beyond(errors: Sequence[NDArray[np.float64]], margin: float) -> tuple[float, float]:
    """p that every pair differs by less than the margin, and p (Bonferroni) that some pair differs by more."""
    pairs = list(itertools.combinations(errors, 2))
    within = max(max(welch(a - margin, b, "less"), welch(a + margin, b, "greater")) for a, b in pairs)
    beyond = min(min(welch(a - margin, b, "greater"), welch(a + margin, b, "less")) for a, b in pairs)
    return within, min(1.0, beyond * 2 * len(pairs))


def range_is_best(by_temperature: Mapping[float, Outcome], low: float, high: float) -> Verdict:
    """Whether temperatures from `low` to `high` have fewer errors than every lower and every higher temperature.

    It holds in part if no other temperature has fewer errors on average, and either all lower ones or all higher ones
    are shown to have more.
    """
    errors = {t: outcome.errors for t, outcome in sorted(by_temperature.items())}
    within = [one for t, one in errors.items() if low <= t <= high]
    sides = [{t: one for t, one in errors.items() if t < low}, {t: one for t, one in errors.items() if t > high}]
    if not within or not all(sides) or min(len(one) for one in errors.values()) < MIN_SEEDS:
        return unmeasured(f"fewer than {MIN_SEEDS} seeds, or no temperature inside, below or above")
    # Temperatures of the range share their seeds, so that their mean is one value per seed.
    inside = np.mean(within, axis=0)
    tests = [{t: welch(inside, one, "less") for t, one in side.items()} for side in sides]
    others = ", ".join(f"T={t:g} {errors[t].mean():.1f} (p {p_value(p)})" for side in tests for t, p in side.items())
    shown = [max(side.values()) < LEVEL for side in tests]
    lowest = all(inside.mean() <= errors[t].mean() for side in sides for t in side)
    verdict = HOLDS if all(shown) else PART if any(shown) and lowest else FAILS
    return Verdict(verdict, f"T {low:g} to {high:g} {inside.mean():.1f} errors; {others}")


def falling(columns: Mapping[float, NDArray], measure: str) -> Verdict:
    """Whether a measure falls along its ordered columns, each with one value per seed: Page's trend test."""
    data = np.stack([np.asarray(values, dtype=float) for values in columns.values()], axis=1)
    if data.shape[0] < MIN_SEEDS or data.shape[1] < 3:
        return unmeasured(f"fewer than {MIN_SEEDS} seeds or 3 points")
    p = float(stats.page_trend_test(data[:, ::-1]).pvalue)
    means = ", ".join(f"{key:g}: {value:.3g}" for key, value in zip(columns, data.mean(axis=0), strict=True))
    evidence = f"{measure} at {means}; Page's trend test p {p_value(p)}"
    return Verdict(verdict_of(data[:, -1].mean() < data[:, 0].mean(), [p]), evidence)


def share_above(counts: Sequence[int], totals: Sequence[int], share: float, what: str) -> Verdict:
    """Whether counts (one per seed) are more than `share` of their totals.

    Tested by an exact binomial test of the rounded means, and by a t-test of the shares.
    """
    count, total = round(float(np.mean(counts))), round(float(np.mean(totals)))
    if min(totals) == 0:
        return Verdict(FAILS, f"no {what} to count")
    shares = np.asarray(counts) / np.asarray(totals)
    tests = {"over digits": float(stats.binomtest(count, total, share, alternative="greater").pvalue)}
    if len(shares) >= MIN_SEEDS:
        tests["over seeds"] = paired(np.full_like(shares, share), shares)
    evidence = (
        f"{count} of {total} {what} (means over seeds; {100 * shares.mean():.1f}%), more than {100 * share:.0f}%: "
        f"{_shown(tests)}"
    )
    return Verdict(verdict_of(float(shares.mean()) > share, tests.values()), evidence)


def _shown(p_values: Mapping[str, float]) -> str:
    text = ", ".join(f"p {p_value(p)} {name}" for name, p in p_values.items())
    return text if "over seeds" in p_values else f"{text}; fewer than {MIN_SEEDS} seeds, so no test over seeds"


def tally(verdicts: Sequence[str]) -> str:
    """How many claims have each verdict, in words."""
    counts = {verdict: list(verdicts).count(verdict) for verdict in (HOLDS, PART, FAILS, UNMEASURED)}
    return ", ".join(f"{verdict} {count}" for verdict, count in counts.items() if count)
