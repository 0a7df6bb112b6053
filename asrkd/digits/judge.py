"""Which test judges which claim of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from asrkd.digits import claims, paper
from asrkd.digits.claims import Judgement
from asrkd.digits.options import DigitsOptions
from asrkd.digits.score import TUNED_HELD_OUT, Repaired, Scored, disagreement_percent
from asrkd.digits.variants import logit_matching, matching_points, teacher_points, width_points

WIDE = 300
HIGH_TEMPERATURE = 8.0
BEST_RANGE = 2.5, 4.0
NARROW = 30
CONTROLS = ("label_smoothing", "regularised", "longer", "same_training")


@dataclass(frozen=True)
class Findings:
    """Everything measured: variants by name, and the repaired ones."""

    options: DigitsOptions
    scored: Mapping[str, Scored]
    repaired: Mapping[str, list[Repaired]]
    no_match: Mapping[str, str]
    """Why no biases of a variant match the class prior, where none do."""

    def fewer(self, a: str, b: str) -> Judgement:
        return claims.fewer_errors(self.scored[a].outcome, self.scored[b].outcome, (a, b))


def judge_claims(findings: Findings) -> dict[str, Judgement]:
    """A judgement for each claim, in the paper's order; unmeasured where its experiment was not made."""
    found = {}
    for claim in paper.CLAIMS:
        made = claim.experiment in findings.options.experiments
        found[claim.key] = JUDGES[claim.key](findings) if made else claims.unmeasured()
    return found


def _gain_recovered(findings: Findings) -> Judgement:
    baseline, teacher, distilled = (findings.scored[name].outcome for name in ("baseline", "teacher", "distilled"))
    return claims.gain_recovered(baseline, teacher, distilled, paper.GAIN_WANTED)


def _high_alike(findings: Findings) -> Judgement:
    groups: dict[str, dict[float, claims.Outcome]] = {}
    for (width, temperature), variant in width_points(findings.options):
        if width >= WIDE and temperature >= HIGH_TEMPERATURE:
            groups.setdefault(f"{width} units", {})[temperature] = findings.scored[variant.name].outcome
    return claims.alike(groups) if groups else claims.unmeasured(f"no width of {WIDE} or more at high temperatures")


def _narrow_best(findings: Findings) -> Judgement:
    by_temperature = {
        temperature: findings.scored[variant.name].outcome
        for (width, temperature), variant in width_points(findings.options)
        if width == NARROW
    }
    return claims.range_is_best(by_temperature, *BEST_RANGE)


def _threes_blamed(findings: Findings) -> Judgement:
    scored = findings.scored["no_3"]
    threes = round(float(np.mean(scored.errors_on((3,)))))
    what = "errors (means over seeds) are on threes"
    return claims.share_above(threes, round(scored.outcome.mean), 0.5, what)


def _repaired(name: str, wanted: float) -> Callable[[Findings], Judgement]:
    """Whether biases tuned on held-out digits leave fewer errors; in part if more than `wanted` of them stay."""

    def judge(findings: Findings) -> Judgement:
        before = findings.scored[name].outcome
        after = _honest(findings, name).scored.outcome
        judgement = claims.fewer_errors(after, before, ("after", "before"))
        if judgement.verdict == claims.HOLDS and after.mean > wanted * before.mean:
            return Judgement(claims.PART, f"{judgement.evidence}; more than {100 * wanted:.0f}% of the errors stay")
        return judgement

    return judge


def _threes_known(findings: Findings) -> Judgement:
    scored = _honest(findings, "no_3").scored
    total = int((scored.labels == 3).sum())
    right = total - round(float(np.mean(scored.errors_on((3,)))))
    judgement = claims.share_above(right, total, paper.THREES_WANTED, "threes (mean over seeds) are right")
    if judgement.verdict == claims.FAILS and right > total / 2:
        return Judgement(claims.PART, judgement.evidence)
    return judgement


def _honest(findings: Findings, name: str) -> Repaired:
    return next(one for one in findings.repaired[name] if one.way == TUNED_HELD_OUT)


def _matching_limit(findings: Findings) -> Judgement:
    matched = findings.scored[logit_matching(findings.options).name]
    rows = {
        temperature: disagreement_percent(findings.scored[variant.name], matched)
        for temperature, variant in sorted(matching_points(findings.options), key=lambda point: point[0])
    }
    return claims.falling(rows, "digits classed otherwise than by logit matching, %,")


def _more_teachers(findings: Findings) -> Judgement:
    points = sorted(teacher_points(findings.options), key=lambda point: point[0])
    return claims.falling({size: findings.scored[v.name].outcome.errors for size, v in points}, "errors with teachers")


def _controls(findings: Findings) -> Judgement:
    others = {name: findings.scored[name].outcome for name in CONTROLS}
    return claims.fewer_than_each(findings.scored["distilled"].outcome, others, "distilled")


JUDGES: Mapping[str, Callable[[Findings], Judgement]] = {
    "teacher_better": lambda findings: findings.fewer("teacher", "baseline"),
    "distilled_better": lambda findings: findings.fewer("distilled", "baseline"),
    "gain_recovered": _gain_recovered,
    "high_alike": _high_alike,
    "narrow_best": _narrow_best,
    "threes_blamed": _threes_blamed,
    "threes_repaired": _repaired("no_3", wanted=0.6),
    "threes_known": _threes_known,
    "two_repaired": _repaired("only_7_8", wanted=0.5),
    "matching_limit": _matching_limit,
    "small_set": lambda findings: findings.fewer("small_set_soft", "small_set_hard"),
    "more_teachers": _more_teachers,
    "controls": _controls,
}
