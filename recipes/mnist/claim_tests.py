"""The paper's claims, each judged by tests: holds, holds in part, does not hold here.

A difference between two variants is tested twice. Over digits: the exact sign test of the digits that one has right
in more seeds than the other, which asks whether these networks differ on digits like these. Over seeds, with three of
them or more: a t-test of the error counts, Welch's for different networks and a paired one for the same networks
before and after, which asks whether other seeds would differ alike. Shares are tested over both too, trends and
similarity over seeds alone. A claim holds when every such test says so at the 5% level, in part when the figures lie
on its side and at least one test does, and otherwise does not hold here, which may mean that it is not shown. Levels
are of each claim by itself, not corrected for their number.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

HOLDS, PART, FAILS, UNMEASURED = "holds", "holds in part", "does not hold here", "not measured in this profile"
LEVEL = 0.05
MIN_SEEDS = 3
# Errors that differ by less than this part of their mean are alike: a choice, for the paper says "fairly similar".
ALIKE = 0.10


@dataclass(frozen=True)
class Outcome:
    """What a variant's networks got wrong: bool [M, N], of M seeds on the same N digits."""

    wrong: NDArray[np.bool_]

    @property
    def errors(self) -> NDArray[np.int64]:
        """Errors of each seed, [M]."""
        return self.wrong.sum(axis=1)

    @property
    def mean(self) -> float:
        return float(self.errors.mean())


@dataclass(frozen=True)
class Verdict:
    """A verdict and the evidence in a sentence."""

    verdict: str
    evidence: str


def unmeasured(reason: str = "") -> Verdict:
    return Verdict(UNMEASURED, reason)


def fewer_over_digits(a: Outcome, b: Outcome) -> float:
    """p of the exact sign test that a has more digits right than b, one-sided.

    Of as many seeds each: of more seeds, more digits are wrong in at least one, which tilts the signs.
    """
    seeds = min(len(a.wrong), len(b.wrong))
    difference = a.wrong[:seeds].sum(axis=0) - b.wrong[:seeds].sum(axis=0)
    better, worse = int((difference < 0).sum()), int((difference > 0).sum())
    if better + worse == 0:
        return 1.0
    return float(stats.binomtest(better, better + worse, 0.5, alternative="greater").pvalue)


def welch(a: NDArray, b: NDArray, alternative: str) -> float:
    """p of Welch's t-test that mean(a) is less or greater than mean(b). Equal without spread: 1."""
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        differs = a.mean() < b.mean() if alternative == "less" else a.mean() > b.mean()
        return 0.0 if differs else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one side without spread
        return float(stats.ttest_ind(a, b, equal_var=False, alternative=alternative).pvalue)


def paired(a: NDArray, b: NDArray) -> float:
    """p of the paired t-test that a is less than b. Equal differences: 0 where they are below zero, else 1."""
    if np.ptp(a - b) == 0:
        return 0.0 if a[0] < b[0] else 1.0
    return float(stats.ttest_rel(a, b, alternative="less").pvalue)


def verdict_of(on_its_side: bool, tests: Collection[float]) -> str:
    """The verdict on a claim from where the figures lie and the p of each test."""
    if on_its_side and max(tests) < LEVEL:
        return HOLDS
    return PART if on_its_side and min(tests) < LEVEL else FAILS


def weakest(*verdicts: str) -> str:
    """The least favourable of several verdicts; unmeasured where one is."""
    return max(verdicts, key=(HOLDS, PART, FAILS, UNMEASURED).index)


def fewer_errors(a: Outcome, b: Outcome, names: tuple[str, str], same_networks: bool = False) -> Verdict:
    """Whether variant a errs less than b; `same_networks`: a is what became of b."""
    tests = {"over digits": fewer_over_digits(a, b)}
    if min(len(a.errors), len(b.errors)) >= MIN_SEEDS:
        tests["over seeds"] = paired(a.errors, b.errors) if same_networks else welch(a.errors, b.errors, "less")
    evidence = f"{names[0]} {a.mean:.1f}, {names[1]} {b.mean:.1f} errors; {_shown(tests)}"
    return Verdict(verdict_of(a.mean < b.mean, tests.values()), evidence)


def _shown(tests: Mapping[str, float]) -> str:
    text = ", ".join(f"p {shown_p(p)} {name}" for name, p in tests.items())
    return text if "over seeds" in tests else f"{text}; fewer than {MIN_SEEDS} seeds, so no test over seeds"


def fewer_than_each(a: Outcome, others: Mapping[str, Outcome], name: str) -> Verdict:
    """Whether variant a errs less than every one of the others."""
    found = {other: fewer_errors(a, outcome, (name, other)) for other, outcome in others.items()}
    evidence = "; ".join(f"{verdict.evidence} ({verdict.verdict})" for verdict in found.values())
    verdicts = {verdict.verdict for verdict in found.values()}
    return Verdict(HOLDS if verdicts == {HOLDS} else FAILS if verdicts == {FAILS} else PART, evidence)


@dataclass(frozen=True)
class Share:
    """How much of the way from one variant's errors to another's a third one has gone, with its 95% interval."""

    value: float
    low: float
    high: float


def share_of_gain(start: Outcome, goal: Outcome, reached: Outcome, draws: int = 2000, seed: int = 0) -> Share | None:
    """(start - reached) / (start - goal) in mean errors, by a bootstrap over digits and seeds.

    Members of `start` and `reached` are pairs (of one seed, or one network) and are drawn together. None where it is
    not shown that `goal` errs less than `start`.
    """
    chance = np.random.default_rng(seed)
    num_digits = start.wrong.shape[1]
    digits = chance.multinomial(num_digits, np.full(num_digits, 1 / num_digits), size=draws)
    pairs = _drawn(chance, min(len(start.wrong), len(reached.wrong)), draws)
    errors = [
        ((seeds @ one.wrong[: seeds.shape[1]]) * digits).sum(axis=1)
        for one, seeds in ((start, pairs), (goal, _drawn(chance, len(goal.wrong), draws)), (reached, pairs))
    ]
    gains = errors[0] - errors[1]
    if start.mean <= goal.mean or np.percentile(gains, 2.5) <= 0:
        return None
    shares = (errors[0] - errors[2])[gains > 0] / gains[gains > 0]
    low, high = np.percentile(shares, [2.5, 97.5])
    return Share((start.mean - reached.mean) / (start.mean - goal.mean), float(low), float(high))


def _drawn(chance: np.random.Generator, seeds: int, draws: int) -> NDArray[np.float64]:
    """Weights of the seeds in each draw, [draws, seeds], that sum to one."""
    return chance.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds


def most_of_gain(start: Outcome, goal: Outcome, reached: Outcome, wanted: float, names: tuple[str, str]) -> Verdict:
    """Whether `reached` has gone at least `wanted` of the way from `start` to `goal`."""
    share = share_of_gain(start, goal, reached)
    if share is None:
        return Verdict(
            FAILS,
            f"it is not shown that {names[1]} ({goal.mean:.1f} errors) errs less than {names[0]} ({start.mean:.1f})",
        )
    evidence = (
        f"{reached.mean:.1f} errors: {100 * share.value:.0f}% of the way from {names[0]} ({start.mean:.1f}) to "
        f"{names[1]} ({goal.mean:.1f}), 95% interval over digits and seeds [{100 * share.low:.0f}, "
        f"{100 * share.high:.0f}]; wanted {100 * wanted:.0f}%"
    )
    return Verdict(HOLDS if share.low >= wanted else PART if share.low > 0 else FAILS, evidence)


def alike(groups: Mapping[str, Mapping[float, Outcome]]) -> Verdict:
    """Whether, in every group, all temperatures err alike: within ALIKE of their mean (two one-sided tests)."""
    verdicts, evidence = [], []
    for name, by_temperature in groups.items():
        errors = {t: outcome.errors.astype(float) for t, outcome in by_temperature.items()}
        if min(len(one) for one in errors.values()) < MIN_SEEDS or len(errors) < 2:
            return unmeasured(f"fewer than {MIN_SEEDS} seeds or two temperatures")
        margin = ALIKE * float(np.mean([one.mean() for one in errors.values()]))
        pairs = list(itertools.combinations(errors.values(), 2))
        same = max(max(welch(a - margin, b, "less"), welch(a + margin, b, "greater")) for a, b in pairs)
        apart = min(min(welch(a - margin, b, "greater"), welch(a + margin, b, "less")) for a, b in pairs)
        apart = min(1.0, apart * 2 * len(pairs))  # Bonferroni: one pair of many
        means = ", ".join(f"T={t:g} {one.mean():.1f}" for t, one in errors.items())
        evidence.append(f"{name}: {means}; within ±{margin:.1f}: p {shown_p(same)}, beyond: p {shown_p(apart)}")
        verdicts.append(HOLDS if same < LEVEL else FAILS if apart < LEVEL else PART)
    verdict = HOLDS if set(verdicts) == {HOLDS} else PART if HOLDS in verdicts else FAILS
    return Verdict(verdict, "; ".join(evidence))


def range_is_best(by_temperature: Mapping[float, Outcome], low: float, high: float) -> Verdict:
    """Whether temperatures from `low` to `high` together err less than each lower and each higher one.

    In part: none of the others errs less on average, and all lower ones or all higher ones are shown to err more.
    """
    errors = {t: outcome.errors for t, outcome in sorted(by_temperature.items())}
    # The temperatures inside share their seeds: of each seed the mean over them is one value.
    within = [one for t, one in errors.items() if low <= t <= high]
    sides = [{t: one for t, one in errors.items() if t < low}, {t: one for t, one in errors.items() if t > high}]
    if not within or not all(sides) or min(len(one) for one in errors.values()) < MIN_SEEDS:
        return unmeasured(f"fewer than {MIN_SEEDS} seeds, or no temperature inside, below or above")
    inside = np.mean(within, axis=0)
    tests = [{t: welch(inside, one, "less") for t, one in side.items()} for side in sides]
    others = ", ".join(f"T={t:g} {errors[t].mean():.1f} (p {shown_p(p)})" for side in tests for t, p in side.items())
    shown = [max(side.values()) < LEVEL for side in tests]
    lowest = all(inside.mean() <= errors[t].mean() for side in sides for t in side)
    verdict = HOLDS if all(shown) else PART if any(shown) and lowest else FAILS
    return Verdict(verdict, f"T {low:g} to {high:g} {inside.mean():.1f} errors; {others}")


def falling(rows: Mapping[float, NDArray], what: str) -> Verdict:
    """Whether a measure falls along its ordered columns: Page's trend test, a row a seed."""
    data = np.stack([np.asarray(values, dtype=float) for values in rows.values()], axis=1)
    if data.shape[0] < MIN_SEEDS or data.shape[1] < 3:
        return unmeasured(f"fewer than {MIN_SEEDS} seeds or 3 points")
    p = float(stats.page_trend_test(data[:, ::-1]).pvalue)
    means = ", ".join(f"{key:g}: {value:.3g}" for key, value in zip(rows, data.mean(axis=0), strict=True))
    evidence = f"{what} at {means}; Page's trend test p {shown_p(p)}"
    return Verdict(verdict_of(data[:, -1].mean() < data[:, 0].mean(), [p]), evidence)


def share_above(counts: Sequence[int], totals: Sequence[int], share: float, what: str) -> Verdict:
    """Whether more than `share` of the totals are counted, each of a seed: by an exact binomial test of the rounded
    means, and by a t-test of the shares."""
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


def shown_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def tally(verdicts: Sequence[str]) -> str:
    """How many claims came to each verdict."""
    counts = {verdict: list(verdicts).count(verdict) for verdict in (HOLDS, PART, FAILS, UNMEASURED)}
    return ", ".join(f"{verdict} {count}" for verdict, count in counts.items() if count)
