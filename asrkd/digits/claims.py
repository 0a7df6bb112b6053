"""The paper's claims, each judged by a test: holds, holds in part, does not hold here.

A difference between two variants is tested twice. Over digits: the exact sign test of the digits that one has right
in more seeds than the other, which asks whether these networks differ on digits like these. Over seeds, with three of
them or more: Welch's t-test of the error counts, which asks whether other seeds would differ alike. A claim holds
when every test that can be made says so at the 5% level.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
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
class Judgement:
    """A verdict and the evidence in a sentence."""

    verdict: str
    evidence: str


def unmeasured(reason: str = "") -> Judgement:
    return Judgement(UNMEASURED, reason)


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


def fewer_errors(a: Outcome, b: Outcome, names: tuple[str, str]) -> Judgement:
    """Whether variant a errs less than b."""
    tests = {"over digits": fewer_over_digits(a, b)}
    if min(len(a.errors), len(b.errors)) >= MIN_SEEDS:
        tests["over seeds"] = welch(a.errors, b.errors, "less")
    shown = ", ".join(f"p {shown_p(p)} {name}" for name, p in tests.items())
    missing = "" if len(tests) == 2 else f"; fewer than {MIN_SEEDS} seeds, so no test over seeds"
    evidence = f"{names[0]} {a.mean:.1f}, {names[1]} {b.mean:.1f} errors; {shown}{missing}"
    if a.mean < b.mean and max(tests.values()) < LEVEL:
        return Judgement(HOLDS, evidence)
    if a.mean < b.mean and min(tests.values()) < LEVEL:
        return Judgement(PART, evidence)
    return Judgement(FAILS, evidence)


def fewer_than_each(a: Outcome, others: Mapping[str, Outcome], name: str) -> Judgement:
    """Whether variant a errs less than every one of the others."""
    found = {other: fewer_errors(a, outcome, (name, other)) for other, outcome in others.items()}
    evidence = "; ".join(f"{judgement.evidence} ({judgement.verdict})" for judgement in found.values())
    verdicts = {judgement.verdict for judgement in found.values()}
    return Judgement(HOLDS if verdicts == {HOLDS} else FAILS if verdicts == {FAILS} else PART, evidence)


def gain_recovered(baseline: Outcome, teacher: Outcome, distilled: Outcome, wanted: float, seed: int = 0) -> Judgement:
    """Whether the student has at least `wanted` of the teacher's gain, by a bootstrap over digits."""
    rates = [outcome.wrong.mean(axis=0) for outcome in (baseline, teacher, distilled)]
    base, top, student = (float(rate.sum()) for rate in rates)
    if top >= base:
        return Judgement(FAILS, f"the teacher ({top:.1f} errors) is no better than the baseline ({base:.1f})")
    weights = np.random.default_rng(seed).multinomial(
        len(rates[0]), np.full(len(rates[0]), 1 / len(rates[0])), size=2000
    )
    draws = weights @ np.stack(rates, axis=1)
    gains = draws[:, 0] - draws[:, 1]
    shares = ((draws[:, 0] - draws[:, 2])[gains > 0]) / gains[gains > 0]
    low, high = np.percentile(shares, [2.5, 97.5])
    share = (base - student) / (base - top)
    evidence = (
        f"{100 * share:.0f}% of the gain from {base:.1f} to {top:.1f} errors, 95% interval over digits "
        f"[{100 * low:.0f}, {100 * high:.0f}]; wanted {100 * wanted:.0f}%"
    )
    return Judgement(HOLDS if low >= wanted else PART if low > 0 else FAILS, evidence)


def alike(groups: Mapping[str, Mapping[float, Outcome]]) -> Judgement:
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
    verdict = HOLDS if set(verdicts) == {HOLDS} else FAILS if set(verdicts) == {FAILS} else PART
    return Judgement(verdict, "; ".join(evidence))


def range_is_best(by_temperature: Mapping[float, Outcome], low: float, high: float) -> Judgement:
    """Whether temperatures from `low` to `high` err less than lower ones, and less than higher ones."""
    inside, below, above = (
        np.concatenate([o.errors for t, o in by_temperature.items() if chosen(t)] or [np.array([], dtype=np.int64)])
        for chosen in (lambda t: low <= t <= high, lambda t: t < low, lambda t: t > high)
    )
    if min(len(inside), len(below), len(above)) < MIN_SEEDS:
        return unmeasured(f"fewer than {MIN_SEEDS} networks inside, below or above")
    tests = [welch(inside, outside, "less") for outside in (below, above)]
    evidence = (
        f"T {low:g} to {high:g} {inside.mean():.1f} errors, lower {below.mean():.1f} (p {shown_p(tests[0])}), "
        f"higher {above.mean():.1f} (p {shown_p(tests[1])})"
    )
    smaller = [p < LEVEL for p in tests]
    return Judgement(HOLDS if all(smaller) else PART if any(smaller) else FAILS, evidence)


def falling(rows: Mapping[float, NDArray], what: str) -> Judgement:
    """Whether a measure falls along its ordered columns: Page's trend test, a row a seed."""
    data = np.stack([np.asarray(values, dtype=float) for values in rows.values()], axis=1)
    if data.shape[0] < MIN_SEEDS or data.shape[1] < 3:
        return unmeasured(f"fewer than {MIN_SEEDS} seeds or 3 points")
    p = float(stats.page_trend_test(data[:, ::-1]).pvalue)
    means = ", ".join(f"{key:g}: {value:.3g}" for key, value in zip(rows, data.mean(axis=0), strict=True))
    evidence = f"{what} at {means}; Page's trend test p {shown_p(p)}"
    falls = data[:, -1].mean() < data[:, 0].mean()
    return Judgement(HOLDS if falls and p < LEVEL else PART if falls else FAILS, evidence)


def share_above(count: int, total: int, share: float, what: str) -> Judgement:
    """Whether more than `share` of `total` are such, by an exact binomial test."""
    if total == 0:
        return Judgement(FAILS, f"no {what} to count")
    p = float(stats.binomtest(count, total, share, alternative="greater").pvalue)
    evidence = f"{count} of {total} {what} ({100 * count / total:.1f}%), more than {100 * share:.0f}%: p {shown_p(p)}"
    return Judgement(HOLDS if p < LEVEL else PART if count > share * total else FAILS, evidence)


def shown_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def tally(verdicts: Sequence[str]) -> str:
    """How many claims came to each verdict."""
    counts = {verdict: list(verdicts).count(verdict) for verdict in (HOLDS, PART, FAILS, UNMEASURED)}
    return ", ".join(f"{verdict} {count}" for verdict, count in counts.items() if count)
