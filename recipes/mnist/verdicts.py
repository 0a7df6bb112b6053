"""The test of each of the paper's claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from numpy.typing import NDArray

from recipes.mnist import claim_tests, paper
from recipes.mnist.claim_tests import Outcome, Verdict
from recipes.mnist.options import DigitsOptions
from recipes.mnist.score import TUNED_HELD_OUT, BiasRepair, Repaired, Scored, disagreement_percent
from recipes.mnist.variants import logit_matching, matching_points, teacher_points, width_points

WIDE = 300
HIGH_TEMPERATURE = 8.0
BEST_RANGE = 2.5, 4.0
NARROW = 30
CONTROLS = ("label_smoothing", "regularised", "longer")
MIXED_LABELS = "mixed_labels"


@dataclass(frozen=True)
class Findings:
    """Everything that was measured."""

    options: DigitsOptions
    scored: Mapping[str, Scored]
    """Each variant by its name."""
    repairs: Mapping[str, BiasRepair]
    """Bias repairs of the variants of experiments 3 and 4, by their name."""
    ensemble: Outcome
    """The teachers' geometric mean, from which the soft targets are made: [1, N]."""

    def outcome(self, name: str) -> Outcome:
        """Wrong answers of a variant."""
        return self.scored[name].outcome

    def fewer(self, a: str, b: str) -> Verdict:
        """Whether variant a has fewer errors than variant b."""
        return claim_tests.fewer_errors(self.outcome(a), self.outcome(b), (a, b))


def evaluate_claims(findings: Findings) -> dict[str, Verdict]:
    """The verdict on each of the paper's claims, by its key. Claims of experiments that were not run are unmeasured."""
    chosen = findings.options.experiments
    return {
        claim.key: VERDICTS[claim.key](findings) if claim.experiment in chosen else claim_tests.unmeasured()
        for claim in paper.CLAIMS
    }


def _gain_recovered(findings: Findings) -> Verdict:
    baseline, teacher, distilled = (findings.outcome(name) for name in ("baseline", "teacher", "distilled"))
    names = "the baseline", "one teacher"
    verdict = claim_tests.most_of_gain(baseline, teacher, distilled, paper.REQUIRED_GAIN, names)
    gain = claim_tests.gain_recovered(baseline, findings.ensemble, distilled)
    if gain.value is None:
        return verdict
    of_ensemble = f"{100 * gain.value:.0f}% of the gain to the ensemble of teachers ({findings.ensemble.mean:.0f})"
    return Verdict(verdict.verdict, f"{verdict.evidence}; {of_ensemble}")


def _high_temperatures(findings: Findings) -> Verdict:
    points = width_points(findings.options)
    if 5 in findings.options.experiments:
        width = findings.options.student.model.hidden_dim
        points += [((width, temperature), variant) for temperature, variant in matching_points(findings.options)]
    groups: dict[str, dict[float, Outcome]] = {}
    for (width, temperature), variant in points:
        if width >= WIDE and temperature > HIGH_TEMPERATURE:
            groups.setdefault(f"{width} units", {})[temperature] = findings.outcome(variant.name)
    if not groups:
        return claim_tests.unmeasured(f"no width of {WIDE} or more at high temperatures")
    return claim_tests.similar_errors(groups)


def _narrow_best(findings: Findings) -> Verdict:
    by_temperature = {
        temperature: findings.outcome(variant.name)
        for (width, temperature), variant in width_points(findings.options)
        if width == NARROW
    }
    return claim_tests.range_is_best(by_temperature, *BEST_RANGE)


def _errors_on_threes(findings: Findings) -> Verdict:
    scored = findings.scored["no_3"]
    return claim_tests.share_above(scored.errors_on((3,)), scored.outcome.errors.tolist(), 0.5, "errors are on threes")


def _repaired(name: str) -> Callable[[Findings], Verdict]:
    """Whether biases tuned on held-out digits remove most errors that are due to the missing classes."""

    def verdict(findings: Findings) -> Verdict:
        before, after = findings.outcome(name), _held_out_repair(findings, name).scored.outcome
        fewer = claim_tests.fewer_errors(after, before, ("after", "before"), same_networks=True)
        names = "before", "a complete transfer set"
        most = claim_tests.most_of_gain(before, findings.outcome("distilled"), after, paper.REQUIRED_REPAIR, names)
        return Verdict(claim_tests.weakest(fewer.verdict, most.verdict), f"{fewer.evidence}; {most.evidence}")

    return verdict


def _threes_right(findings: Findings) -> Verdict:
    scored = _held_out_repair(findings, "no_3").scored
    total = int((scored.labels == 3).sum())
    right = [total - errors for errors in scored.errors_on((3,))]
    return claim_tests.share_above(right, [total] * len(right), paper.REQUIRED_THREES, "threes are right")


def _held_out_repair(findings: Findings, name: str) -> Repaired:
    """The repair that did not use the labels of the evaluation digits."""
    return next(one for one in findings.repairs[name].repaired if one.method == TUNED_HELD_OUT)


def _matching_limit(findings: Findings) -> Verdict:
    """Whether students approach logit matching as the temperature rises.

    At the highest temperature they must differ from it as little as its own seeds do from each other (within
    SIMILAR_WITHIN).
    """
    matched = findings.scored[logit_matching(findings.options).name]
    columns = {
        temperature: disagreement_percent(findings.scored[variant.name], matched)
        for temperature, variant in sorted(matching_points(findings.options), key=lambda point: point[0])
    }
    verdict = claim_tests.falling(columns, "digits classified differently from logit matching, %,")
    floor = float(disagreement_percent(matched, matched).mean())
    evidence = f"{verdict.evidence}; two seeds of logit matching: {floor:.3g}%"
    reaches_floor = float(columns[max(columns)].mean()) <= (1.0 + claim_tests.SIMILAR_WITHIN) * floor
    outcome = claim_tests.PART if verdict.verdict == claim_tests.HOLDS and not reaches_floor else verdict.verdict
    return Verdict(outcome, evidence)


def _more_teachers(findings: Findings) -> Verdict:
    """Whether errors fall with the number of teachers. It holds in part at most: there is one draw of teachers."""
    points = sorted(teacher_points(findings.options), key=lambda point: point[0])
    columns: dict[float, NDArray] = {size: findings.outcome(variant.name).errors for size, variant in points}
    verdict = claim_tests.falling(columns, "errors with teachers")
    evidence = f"{verdict.evidence}, over students alone: the teachers are the same for all of them"
    return Verdict(claim_tests.weakest(verdict.verdict, claim_tests.PART), evidence)


def _small_set(findings: Findings) -> Verdict:
    verdict = findings.fewer("small_set_soft", "small_set_hard")
    return Verdict(verdict.verdict, f"{verdict.evidence}, for one draw of the training digits")


def _controls(findings: Findings) -> Verdict:
    names = (*CONTROLS, MIXED_LABELS) if findings.options.student.mix else CONTROLS
    others = {name: findings.outcome(name) for name in names}
    return claim_tests.fewer_than_each(findings.outcome("distilled"), others, "distilled")


VERDICTS: Mapping[str, Callable[[Findings], Verdict]] = {
    "teacher_better": lambda findings: findings.fewer("teacher", "baseline"),
    "distilled_better": lambda findings: findings.fewer("distilled", "baseline"),
    "gain_recovered": _gain_recovered,
    "high_temperatures": _high_temperatures,
    "narrow_best": _narrow_best,
    "errors_on_threes": _errors_on_threes,
    "threes_repaired": _repaired("no_3"),
    "threes_right": _threes_right,
    "two_classes_repaired": _repaired("only_7_8"),
    "matching_limit": _matching_limit,
    "small_set": _small_set,
    "more_teachers": _more_teachers,
    "controls": _controls,
}
