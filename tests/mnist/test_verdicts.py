"""Which test each of the paper's claims has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_digits import SMALL

from recipes.mnist import paper
from recipes.mnist.claim_tests import HOLDS, PART, UNMEASURED, Outcome
from recipes.mnist.score import Scored
from recipes.mnist.variants import matching_points, teacher, teacher_points, width_points
from recipes.mnist.verdicts import VERDICTS, Findings, evaluate_claims


def scored_with(*errors: int, num_digits: int = 400, label: int = 0, seed: int = 0) -> Scored:
    """Networks with these numbers of errors on digits of one class, drawn anew for each network."""
    rng = torch.Generator().manual_seed(seed)
    predictions = torch.full((len(errors), num_digits), label)
    for row, count in zip(predictions, errors, strict=True):
        row[torch.randperm(num_digits, generator=rng)[:count]] = label + 1
    return Scored(teacher(SMALL), predictions, torch.full((num_digits,), label))


def findings_of(scored: dict[str, Scored], **changes: object) -> Findings:
    ensemble = Outcome(np.zeros((1, 400), dtype=bool))
    return Findings(replace(SMALL, **changes), scored, {}, ensemble)  # type: ignore[arg-type]


def test_temperatures_above_8_do_not_include_8() -> None:
    options = replace(SMALL, compared=replace(SMALL.compared, widths=(300,), temperatures=(8.0, 12.0, 20.0)))
    errors = {8.0: (90, 91, 92), 12.0: (40, 41, 39), 20.0: (41, 40, 40)}
    scored = {v.name: scored_with(*errors[t]) for (_, t), v in width_points(options)}
    result = VERDICTS["high_temperatures"](findings_of(scored, compared=options.compared, experiments=(1, 2)))
    assert result.verdict == HOLDS and "T=8 " not in result.evidence


def test_more_teachers_are_better_in_part_at_most() -> None:
    names = {size: variant.name for size, variant in teacher_points(SMALL)}
    errors = {1: (90, 91, 92), 2: (60, 61, 62), 3: (40, 39, 41)}
    result = VERDICTS["more_teachers"](findings_of({names[size]: scored_with(*errors[size]) for size in names}))
    assert result.verdict == PART and "the teachers are the same" in result.evidence


@pytest.mark.parametrize(("at_the_highest", "verdict"), [(0, HOLDS), (30, PART)])
def test_matching_is_the_limit_only_if_differences_fall_to_those_of_its_seeds(at_the_highest, verdict) -> None:
    """Two seeds of logit matching differ on 20 of 400 digits."""
    matched = scored_with(0, 0, 0)
    for index, row in enumerate(matched.predictions):
        row[10 * index : 10 * index + 10] = 5
    scored = {"logit_matching": matched}
    for differing, (_, variant) in zip((90, 60, at_the_highest), matching_points(SMALL), strict=True):
        predictions = matched.predictions.clone()
        predictions[:, -differing or 400 :] = 7
        scored[variant.name] = Scored(matched.variant, predictions, matched.labels)
    result = VERDICTS["matching_limit"](findings_of(scored))
    assert result.verdict == verdict, result.evidence
    assert "two seeds of logit matching: 5%" in result.evidence


def test_every_claim_has_a_test_and_claims_of_other_experiments_are_unmeasured() -> None:
    assert {claim.key for claim in paper.CLAIMS} == set(VERDICTS)
    labels = torch.zeros(50, dtype=torch.long)

    def scored(*errors: int) -> Scored:
        predictions = torch.zeros(len(errors), 50, dtype=torch.long)
        for row, count in zip(predictions, errors, strict=True):
            row[:count] = 1
        return Scored(teacher(SMALL), predictions, labels)

    variants = {"teacher": scored(3, 4, 2), "distilled": scored(5, 4, 5), "baseline": scored(30, 31, 29)}
    options = replace(SMALL, experiments=(1,))
    verdicts = evaluate_claims(Findings(options, variants, {}, variants["teacher"].outcome))
    assert verdicts["teacher_better"].verdict == verdicts["distilled_better"].verdict == HOLDS
    assert {verdicts[claim.key].verdict for claim in paper.CLAIMS if claim.experiment != 1} == {UNMEASURED}
