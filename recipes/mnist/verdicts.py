"""Which test judges which claim of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from recipes.mnist import claim_tests, paper
from recipes.mnist.claim_tests import Verdict
from recipes.mnist.options import DigitsOptions
from recipes.mnist.score import TUNED_HELD_OUT, Repaired, Scored, disagreement_percent
from recipes.mnist.variants import logit_matching, matching_points, teacher_points, width_points

WIDE = 300
HIGH_TEMPERATURE = 8.0
BEST_RANGE = 2.5, 4.0
NARROW = 30
CONTROLS = ("label_smoothing", "regularised", "longer")


@dataclass(frozen=True)
class Findings:
    """Everything measured: variants by name, and the repaired ones."""

    options: DigitsOptions
    scored: Mapping[str, Scored]
    repaired: Mapping[str, list[Repaired]]
    no_match: Mapping[str, str]
    """Why no biases of a variant match the class prior, where none do."""
    together: claim_tests.Outcome
    """The teachers' geometric mean, as it makes the soft targets: one row."""

    def fewer(self, a: str, b: str) -> Verdict:
        return claim_tests.fewer_errors(self.scored[a].outcome, self.scored[b].outcome, (a, b))


def evaluate_claims(findings: Findings) -> dict[str, Verdict]:
    """A judgement for each claim, in the paper's order; unmeasured where its experiment was not made."""
    found = {}
    for claim in paper.CLAIMS:
        made = claim.experiment in findings.options.experiments
        found[claim.key] = VERDICTS[claim.key](findings) if made else claim_tests.unmeasured()
    return found


def _gain_recovered(findings: Findings) -> Verdict:
    baseline, teacher, distilled = (findings.scored[name].outcome for name in ("baseline", "teacher", "distilled"))
    verdict = claim_tests.most_of_gain(baseline, teacher, distilled, paper.GAIN_WANTED, ("the baseline", "one teacher"))
    share = claim_tests.share_of_gain(baseline, findings.together, distilled)
    if share is None:
        return verdict
    more = f"{100 * share.value:.0f}% of the way to all teachers together ({findings.together.mean:.0f})"
    return Verdict(verdict.verdict, f"{verdict.evidence}; {more}")


def _high_alike(findings: Findings) -> Verdict:
    points = width_points(findings.options)
    if 5 in findings.options.experiments:
        width = findings.options.student.model.hidden_dim
        points += [((width, temperature), variant) for temperature, variant in matching_points(findings.options)]
    groups: dict[str, dict[float, claim_tests.Outcome]] = {}
    for (width, temperature), variant in points:
        if width >= WIDE and temperature > HIGH_TEMPERATURE:
            groups.setdefault(f"{width} units", {})[temperature] = findings.scored[variant.name].outcome
    return (
        claim_tests.alike(groups)
        if groups
        else claim_tests.unmeasured(f"no width of {WIDE} or more at high temperatures")
    )


def _narrow_best(findings: Findings) -> Verdict:
    by_temperature = {
        temperature: findings.scored[variant.name].outcome
        for (width, temperature), variant in width_points(findings.options)
        if width == NARROW
    }
    return claim_tests.range_is_best(by_temperature, *BEST_RANGE)


def _threes_blamed(findings: Findings) -> Verdict:
    scored = findings.scored["no_3"]
    return claim_tests.share_above(scored.errors_on((3,)), scored.outcome.errors.tolist(), 0.5, "errors are on threes")


def _repaired(name: str) -> Callable[[Findings], Verdict]:
    """Whether biases tuned on held-out digits leave fewer errors, and mend most of what the transfer set costs."""

    def verdict(findings: Findings) -> Verdict:
        before, after = findings.scored[name].outcome, _honest(findings, name).scored.outcome
        fewer = claim_tests.fewer_errors(after, before, ("after", "before"), same_networks=True)
        complete = findings.scored["distilled"].outcome
        most = claim_tests.most_of_gain(
            before, complete, after, paper.MENDED_WANTED, ("before", "a complete transfer set")
        )
        return Verdict(claim_tests.weakest(fewer.verdict, most.verdict), f"{fewer.evidence}; {most.evidence}")

    return verdict


def _threes_known(findings: Findings) -> Verdict:
    scored = _honest(findings, "no_3").scored
    total = int((scored.labels == 3).sum())
    right = [total - errors for errors in scored.errors_on((3,))]
    return claim_tests.share_above(right, [total] * len(right), paper.THREES_WANTED, "threes are right")


def _honest(findings: Findings, name: str) -> Repaired:
    return next(one for one in findings.repaired[name] if one.way == TUNED_HELD_OUT)


def _matching_limit(findings: Findings) -> Verdict:
    """Whether students at higher temperatures are more like logit matching, in the end as like as its own seeds are
    to each other (within ALIKE)."""
    matched = findings.scored[logit_matching(findings.options).name]
    rows = {
        temperature: disagreement_percent(findings.scored[variant.name], matched)
        for temperature, variant in sorted(matching_points(findings.options), key=lambda point: point[0])
    }
    verdict = claim_tests.falling(rows, "digits classed otherwise than by logit matching, %,")
    floor = float(disagreement_percent(matched, matched).mean())
    evidence = f"{verdict.evidence}; two seeds of logit matching: {floor:.3g}%"
    as_like = float(rows[max(rows)].mean()) <= (1.0 + claim_tests.ALIKE) * floor
    outcome = claim_tests.PART if verdict.verdict == claim_tests.HOLDS and not as_like else verdict.verdict
    return Verdict(outcome, evidence)


def _more_teachers(findings: Findings) -> Verdict:
    """Whether errors fall with the number of teachers; at most in part, for there is one draw of teachers."""
    points = sorted(teacher_points(findings.options), key=lambda point: point[0])
    verdict = claim_tests.falling(
        {size: findings.scored[v.name].outcome.errors for size, v in points}, "errors with teachers"
    )
    evidence = f"{verdict.evidence}, over students alone: the teachers are the same for all of them"
    return Verdict(claim_tests.weakest(verdict.verdict, claim_tests.PART), evidence)


def _small_set(findings: Findings) -> Verdict:
    verdict = findings.fewer("small_set_soft", "small_set_hard")
    return Verdict(verdict.verdict, f"{verdict.evidence}, of one draw of the digits that they learn")


def _controls(findings: Findings) -> Verdict:
    others = {name: findings.scored[name].outcome for name in CONTROLS}
    return claim_tests.fewer_than_each(findings.scored["distilled"].outcome, others, "distilled")


VERDICTS: Mapping[str, Callable[[Findings], Verdict]] = {
    "teacher_better": lambda findings: findings.fewer("teacher", "baseline"),
    "distilled_better": lambda findings: findings.fewer("distilled", "baseline"),
    "gain_recovered": _gain_recovered,
    "high_alike": _high_alike,
    "narrow_best": _narrow_best,
    "threes_blamed": _threes_blamed,
    "threes_repaired": _repaired("no_3"),
    "threes_known": _threes_known,
    "two_repaired": _repaired("only_7_8"),
    "matching_limit": _matching_limit,
    "small_set": _small_set,
    "more_teachers": _more_teachers,
    "controls": _controls,
}
