"""The digits recipe: which networks it trains, what it refuses, how it judges claims, and a whole run on toy digits."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_digits import NUM_TRAIN, PROFILES, SMALL, write_corpus

from asrkd.config import parse
from asrkd.data.corpora.mnist import Digits
from asrkd.errors import InputError
from asrkd.files import read_json
from asrkd.nnet.models import ModelOptions
from asrkd.workflow.steps import STAMP_FILE, step_stamps
from recipes.mnist import claim_tests, paper
from recipes.mnist.claim_tests import FAILS, HOLDS, PART, UNMEASURED, Outcome
from recipes.mnist.data import DigitData, make_corpus
from recipes.mnist.estimate import Measured, extrapolate, training_flop
from recipes.mnist.options import DigitsOptions
from recipes.mnist.pipeline import build_steps, chosen_profile
from recipes.mnist.report import results_markdown
from recipes.mnist.results import config_sha, dark_knowledge, describe, remaining_errors, trainings
from recipes.mnist.score import PRIOR_ALL, PRIOR_ONE_SHIFT, TUNED_HELD_OUT, TUNED_ON_JUDGED, Scored, repair_biases
from recipes.mnist.variants import (
    HardLabels,
    SoftLabels,
    matching_points,
    students,
    teacher,
    teacher_points,
    width_points,
)
from recipes.mnist.verdicts import VERDICTS, Findings, evaluate_claims

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).parents[1].joinpath("toy_digits.py")
CAN_DRAW = importlib.util.find_spec("matplotlib") is not None
needs_pictures = pytest.mark.skipif(not CAN_DRAW, reason="no matplotlib, which draws the report")


def named(options: DigitsOptions) -> dict:
    return {variant.name: variant for variant in students(options)}


def test_baseline_and_distilled_differ_in_lesson_and_training_alone() -> None:
    options = DigitsOptions()
    baseline, distilled = named(options)["baseline"], named(options)["distilled"]
    assert isinstance(baseline.targets, HardLabels) and isinstance(distilled.targets, SoftLabels)
    assert baseline.model == distilled.model and baseline.model.dropout == 0 and baseline.jitter == 0
    assert baseline.member_seeds(0) == distilled.member_seeds(0)
    assert not set(teacher(options).member_seeds(0)) & set(baseline.member_seeds(0))


def test_every_experiment_has_its_variants_and_each_is_trained_once() -> None:
    options = DigitsOptions()
    by_name = named(options)
    assert len(by_name) == len(students(options))
    assert by_name["no_3"].classes == (0, 1, 2, 4, 5, 6, 7, 8, 9) and by_name["no_3"].excludes_held_out
    assert by_name["only_7_8"].classes == (7, 8)
    assert len(width_points(options)) == 4 * 9
    assert by_name["regularised"].model.dropout == options.teacher.model.dropout
    alike = replace(by_name["longer"], name="distilled", targets=by_name["distilled"].targets)
    assert alike == by_name["distilled"], "they differ in their targets alone"
    hard = replace(by_name["small_set_hard"], name="small_set_soft", targets=by_name["small_set_soft"].targets)
    assert hard == by_name["small_set_soft"]
    # The points that the α sweep, the count of teachers and the temperatures share are one variant.
    shared = "width800_T20_alpha1_teachers10"
    assert sum(shared == name for name in by_name) == 1
    quick = named(replace(options, experiments=(1, 3, 4)))
    assert sorted(quick) == ["baseline", "distilled", "no_3", "only_7_8"]


def profiles_of_the_recipe() -> tuple[DigitsOptions, DigitsOptions]:
    text = (ROOT / "recipes" / "mnist" / "recipe.py").read_text()
    namespace: dict = {"__name__": "recipe"}
    exec(compile(text, "recipe.py", "exec"), namespace)
    return namespace["QUICK"], namespace["FULL"]


def test_recipes_profiles_are_what_they_say() -> None:
    quick, full = profiles_of_the_recipe()
    assert (quick.profile, full.profile) == ("quick", "full")
    assert set(quick.experiments) == {1, 3, 4} and set(full.experiments) == {1, 2, 3, 4, 5, 6, 7}
    assert full.student.seeds >= 5 and quick.student.seeds >= 2
    for options, dropout in ((quick, 0.3), (full, 0.4)):
        distilled = named(options)["distilled"]
        assert distilled.jitter == 0 and distilled.model.dropout == distilled.model.input_dropout == 0
        assert distilled.targets.distil.temperature == 20 and distilled.model.hidden_dim == 800
        large = options.teacher
        assert large.jitter == 2 and large.model == ModelOptions(1200, 2, dropout, input_dropout=0.1, max_norm=3.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiments", "2", "3"], r"expected 1 and some of 2 to 7, found \(2, 3\)"),
        (["--experiments", "1", "9"], "expected 1 and some of 2 to 7"),
        (["--compared.teachers", "1", "12"], "at most --teacher.size 10, found 12"),
        (["--student.soft.seed=3"], "--student.soft.seed: give --seed"),
        (["--teacher.train.device=cuda"], "--teacher.train.device: give --device"),
        (["--student.hard.patience=2"], "neither patience nor newbob"),
        (["--student.seeds=0"], "--student.seeds: expected at least 1"),
        (["--compared.fraction=0"], r"expected a part in \(0, 1\]"),
        (["--compared.teachers", "0", "3"], r"--compared.teachers: .* above 0, found \(0, 3\)"),
        (["--compared.temperatures", "0"], r"--compared.temperatures: .* above 0, found \(0.0,\)"),
        (["--compared.widths", "-1"], "--compared.widths: .* above 0"),
        (["--compared.alphas", "1.5"], r"--compared.alphas: expected weights in \[0, 1\]"),
        (["--compared.label-smoothing=2"], r"--compared.label-smoothing: expected a part in \[0, 1\)"),
        (["--teacher.jitter=-1"], "--teacher.jitter: expected at least 0 pixels"),
        (["--stage=13"], "expected 0 to 12"),
        (["--stop-stage=99"], "--stop-stage: expected 0 to 12, found 99"),
        (["--seed=-1"], "--seed: expected 0 to 1000000000000, found -1"),
        (["--student.soft.num-threads=-1"], "num_threads: expected at least 0, found -1"),
        (["--profile=slow"], "slow"),
    ],
)
def test_options_that_would_be_ignored_or_cannot_work_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(DigitsOptions(), arguments, "run.sh", "")


def test_the_profile_is_found_before_the_options_are_read() -> None:
    assert chosen_profile(["--seed=1", "--profile=quick"]) == "quick"
    assert chosen_profile(["--profile", "quick", "--stage", "6"]) == "quick"
    assert chosen_profile([]) == chosen_profile(["--profile"]) == chosen_profile(["--profile=slow"]) == "full"


def test_committed_results_are_what_results_json_says() -> None:
    folder = ROOT / "recipes" / "mnist"
    results = read_json(folder / "results.json")
    assert results_markdown(results) == (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert results["config_sha"] == config_sha(profiles_of_the_recipe()[1]), "of the recipe's full profile"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("digits")
    return folder, write_corpus(folder)


@pytest.fixture(scope="module")
def data_of(corpus, tmp_path_factory: pytest.TempPathFactory):
    out_dir = tmp_path_factory.mktemp("corpus")
    make_corpus(corpus[0], corpus[1], out_dir)
    return lambda options: DigitData.open(out_dir, options)


def test_stamps_follow_what_decides_a_network_and_nothing_else(corpus) -> None:
    def stamps(**changes: object) -> dict[str, str]:
        options = replace(SMALL, corpus_dir=corpus[0], **changes)  # type: ignore[arg-type]
        return step_stamps(build_steps(options, PROFILES, "run.sh", corpus[1]))

    base = stamps()
    elsewhere = stamps(device="auto", exp_dir=Path("x"), checkpoint_epochs=99)
    assert {name for name in base if base[name] != elsewhere[name]} <= {"score", "report"}
    longer = stamps(student=replace(SMALL.student, soft=replace(SMALL.student.soft, epochs=9)))
    assert base["teachers"] == longer["teachers"] and base["students/baseline"] == longer["students/baseline"]
    assert base["students/distilled"] != longer["students/distilled"]
    assert base["students/no_3"] != longer["students/no_3"] and base["score"] != longer["score"]
    views = stamps(teacher=replace(SMALL.teacher, translations=False))
    assert base["teachers"] == views["teachers"] and base["students/baseline"] == views["students/baseline"]
    assert base["students/distilled"] != views["students/distilled"]
    assert all(base[name] != stamp for name, stamp in stamps(held_out=90).items() if name != "corpus")
    assert base["students/distilled"] == stamps(experiments=(1,))["students/distilled"]


def test_what_judges_is_never_learnt_and_what_tunes_only_by_others(data_of) -> None:
    tested, trial = data_of(SMALL), data_of(replace(SMALL, eval_set="held-out"))
    by_name = named(SMALL)
    assert len(tested.ids_for(by_name["distilled"], 0)) == NUM_TRAIN
    assert tested.ids_for(by_name["no_3"], 0).max() < NUM_TRAIN - 100
    assert not (tested.train.labels[tested.ids_for(by_name["no_3"], 0)] == 3).any()
    assert set(tested.train.labels[tested.ids_for(by_name["only_7_8"], 0)].tolist()) == {7, 8}
    assert torch.equal(tested.tuning.images, tested.train.images[-100:])
    assert torch.equal(trial.eval_set.images, trial.train.images[-100:])
    assert torch.equal(trial.tuning.images, trial.train.images[-200:-100])
    assert trial.ids_for(by_name["distilled"], 0).max() == NUM_TRAIN - 101
    assert trial.ids_for(by_name["no_3"], 0).max() < NUM_TRAIN - 200
    part = tested.ids_for(by_name["small_set_hard"], 0)
    assert len(part) == 0.3 * NUM_TRAIN and torch.equal(part, tested.ids_for(by_name["small_set_soft"], 0))
    with pytest.raises(InputError, match="at most a third of 600 training digits, found 201"):
        data_of(replace(SMALL, held_out=201))


def made_up_data(num_digits: int, seed: int) -> tuple[DigitData, Tensor, Tensor]:
    """Judged and tuning digits, and calibrated logits of two networks for each: labels are drawn from their softmax."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(2):
        logits = 4 * torch.randn(num_digits, 10, generator=generator)
        labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
        digits = Digits(torch.zeros(num_digits, 28, 28, dtype=torch.uint8), labels)
        found.append((digits, torch.stack([logits, logits + 0.01 * torch.randn(logits.shape, generator=generator)])))
    (eval_digits, logits), (tuning, held_out) = found
    # The digits before those that tune, whose classes are the prior, are as many of the same classes.
    train = Digits(torch.cat([tuning.images] * 2), torch.cat([tuning.labels] * 2))
    return DigitData(train, eval_digits, "made-up", 2 * num_digits, num_digits), logits, held_out


@pytest.mark.parametrize(("classes", "moved"), [((3,), -3.5), ((7, 8), 7.6)])
def test_each_way_of_repairing_biases_recovers_the_known_shift(classes: tuple[int, ...], moved: float) -> None:
    data, logits, held_out = made_up_data(4000, 1)
    perfect = int((logits[0].argmax(dim=1) != data.eval_set.labels).sum())
    for wrong in (logits, held_out):
        wrong[:, :, list(classes)] += moved
    before = Scored(teacher(SMALL), logits.argmax(dim=2), data.eval_set.labels)
    found, reason = repair_biases(before, logits, held_out, data, classes)
    assert reason is None
    assert [one.way for one in found] == [TUNED_ON_JUDGED, TUNED_HELD_OUT, PRIOR_ONE_SHIFT, PRIOR_ALL]
    for one in found:
        tolerance = 0.15 if "prior" in one.way else 1.0  # errors are flat about the best shift, posteriors are not
        assert one.shifts == pytest.approx([-moved, -moved], abs=tolerance)
        assert one.scored.outcome.errors.max() < 1.05 * perfect < 0.9 * before.outcome.errors.min()


def outcome(*errors: int, num_digits: int = 1000, seed: int = 0) -> Outcome:
    """Networks with so many errors each, on digits of which some are harder than others."""
    chance = np.random.default_rng(seed)
    hard = chance.random(num_digits) ** 8 + 1e-9
    wrong = np.zeros((len(errors), num_digits), dtype=bool)
    for row, count in zip(wrong, errors, strict=True):
        row[chance.choice(num_digits, count, replace=False, p=hard / hard.sum())] = True
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
    judged = claim_tests.fewer_errors(outcome(*ours), outcome(*theirs, seed=1), ("ours", "theirs"))
    assert judged.verdict == verdict, judged.evidence
    assert f"ours {np.mean(ours):.1f}, theirs {np.mean(theirs):.1f} errors" in judged.evidence
    assert ("no test over seeds" in judged.evidence) == (len(ours) < 3)


def test_the_same_networks_are_not_better_than_themselves() -> None:
    one = outcome(40, 41, 42)
    assert claim_tests.fewer_errors(one, one, ("a", "b")).verdict == FAILS
    assert claim_tests.fewer_over_digits(one, one) == 1.0
    assert claim_tests.welch(np.array([5, 5]), np.array([5, 5]), "less") == 1.0
    assert claim_tests.welch(np.array([4, 4]), np.array([5, 5]), "less") == 0.0


def test_more_seeds_do_not_tilt_the_signs() -> None:
    """Networks that err alike, each on digits of its own: ten of them err on five times as many digits as two."""
    own = (
        np.eye(100, dtype=bool).reshape(10, 10, 100).sum(axis=1).astype(bool)
    )  # seed m errs on digits 10 m to 10 m + 9
    two, ten = Outcome(own[:2]), Outcome(own[::-1])
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

    def judged(*errors: int) -> claim_tests.Verdict:
        return claim_tests.most_of_gain(baseline, best, outcome(*errors, seed=2), 0.7, names)

    assert judged(50, 53, 51).verdict == HOLDS
    assert judged(110, 108, 112).verdict == PART
    share = (np.mean([150, 146, 152]) - 110) / (np.mean([150, 146, 152]) - np.mean([60, 67, 64]))
    assert f"110.0 errors: {100 * share:.0f}% of the way" in judged(110, 108, 112).evidence
    assert judged(180, 185, 179).verdict == FAILS
    assert "not shown that a teacher" in claim_tests.most_of_gain(best, baseline, best, 0.7, names).evidence
    assert claim_tests.share_of_gain(baseline, outcome(148, 149, 150, seed=1), best) is None, "too little to be divided"
    assert claim_tests.share_of_gain(baseline, best, baseline) == claim_tests.Share(0.0, 0.0, 0.0)
    assert claim_tests.share_of_gain(baseline, best, best).value == 1.0


def test_the_interval_of_a_share_has_the_spread_of_the_seeds_in_it() -> None:
    baseline, best = outcome(150, 150, 150), outcome(60, 60, 60, seed=1)
    same, apart = outcome(100, 100, 100, seed=2), outcome(70, 100, 130, seed=2)
    widths = [
        share.high - share.low for one in (same, apart) if (share := claim_tests.share_of_gain(baseline, best, one))
    ]
    assert widths[1] > 1.3 * widths[0]


def test_temperatures_alike() -> None:
    same = {8.0: outcome(100, 101, 99, 100), 12.0: outcome(101, 100, 100, 99), 20.0: outcome(99, 100, 102, 101)}
    apart = {8.0: outcome(100, 101, 99, 100), 20.0: outcome(160, 161, 158, 163)}
    noisy = {8.0: outcome(80, 130, 95, 110), 20.0: outcome(100, 70, 140, 90)}
    assert claim_tests.alike({"300": same, "800": same}).verdict == HOLDS
    assert claim_tests.alike({"300": apart}).verdict == FAILS
    assert claim_tests.alike({"300": noisy}).verdict == FAILS, "nothing is shown"
    assert claim_tests.alike({"300": same, "800": apart}).verdict == PART
    assert claim_tests.alike({"300": {8.0: outcome(1, 2), 20.0: outcome(1, 2)}}).verdict == UNMEASURED


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
    assert claim_tests.falling(uneven, "errors").verdict == FAILS, "a fall that chance would make"
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


def scored_with(*errors: int, num_digits: int = 400, label: int = 0, seed: int = 0) -> Scored:
    """Networks with so many errors each on digits of one class, each network's drawn anew."""
    chance = torch.Generator().manual_seed(seed)
    predictions = torch.full((len(errors), num_digits), label)
    for row, count in zip(predictions, errors, strict=True):
        row[torch.randperm(num_digits, generator=chance)[:count]] = label + 1
    return Scored(teacher(SMALL), predictions, torch.full((num_digits,), label))


def findings_of(made: dict[str, Scored], **changes: object) -> Findings:
    together = Outcome(np.zeros((1, 400), dtype=bool))
    return Findings(replace(SMALL, **changes), made, {}, {}, together)  # type: ignore[arg-type]


def test_temperatures_above_8_are_judged_without_8_itself() -> None:
    options = replace(SMALL, compared=replace(SMALL.compared, widths=(300,), temperatures=(8.0, 12.0, 20.0)))
    errors = {8.0: (90, 91, 92), 12.0: (40, 41, 39), 20.0: (41, 40, 40)}
    made = {v.name: scored_with(*errors[t]) for (_, t), v in width_points(options)}
    judged = VERDICTS["high_alike"](findings_of(made, compared=options.compared, experiments=(1, 2)))
    assert judged.verdict == HOLDS and "T=8 " not in judged.evidence


def test_more_teachers_are_better_in_part_at_most() -> None:
    names = {size: variant.name for size, variant in teacher_points(SMALL)}
    errors = {1: (90, 91, 92), 2: (60, 61, 62), 3: (40, 39, 41)}
    judged = VERDICTS["more_teachers"](findings_of({names[size]: scored_with(*errors[size]) for size in names}))
    assert judged.verdict == PART and "the teachers are the same" in judged.evidence


@pytest.mark.parametrize(("at_the_highest", "verdict"), [(0, HOLDS), (30, PART)])
def test_matching_is_the_limit_only_if_in_the_end_it_is_as_like_as_its_own_seeds(at_the_highest, verdict) -> None:
    """Two seeds of logit matching differ on 20 of 400 digits."""
    matched = scored_with(0, 0, 0)
    for place, row in enumerate(matched.predictions):
        row[10 * place : 10 * place + 10] = 5
    made = {"logit_matching": matched}
    for differing, (_, variant) in zip((90, 60, at_the_highest), matching_points(SMALL), strict=True):
        predictions = matched.predictions.clone()
        predictions[:, -differing or 400 :] = 7
        made[variant.name] = Scored(matched.variant, predictions, matched.labels)
    judged = VERDICTS["matching_limit"](findings_of(made))
    assert judged.verdict == verdict, judged.evidence
    assert "two seeds of logit matching: 5%" in judged.evidence


def test_every_claim_has_a_judge_and_an_unmade_experiment_is_not_judged() -> None:
    assert {claim.key for claim in paper.CLAIMS} == set(VERDICTS)
    labels = torch.zeros(50, dtype=torch.long)

    def scored(*errors: int) -> Scored:
        predictions = torch.zeros(len(errors), 50, dtype=torch.long)
        for row, count in zip(predictions, errors, strict=True):
            row[:count] = 1
        return Scored(teacher(SMALL), predictions, labels)

    made = {"teacher": scored(3, 4, 2), "distilled": scored(5, 4, 5), "baseline": scored(30, 31, 29)}
    judged = evaluate_claims(Findings(replace(SMALL, experiments=(1,)), made, {}, {}, made["teacher"].outcome))
    assert judged["teacher_better"].verdict == judged["distilled_better"].verdict == HOLDS
    assert {judged[claim.key].verdict for claim in paper.CLAIMS if claim.experiment != 1} == {UNMEASURED}


def test_remaining_errors_are_ranked_by_the_seeds_that_make_them() -> None:
    labels = torch.tensor([4, 5, 6, 7])
    predictions = torch.tensor([[4, 0, 6, 1], [4, 0, 6, 7], [4, 2, 6, 1]])
    found = remaining_errors(Scored(teacher(SMALL), predictions, labels))
    assert found == {
        "by_some_seed": 2,
        "by_every_seed": 1,
        "digits": [
            {"digit": 1, "label": 5, "predicted": [0, 0, 2]},
            {"digit": 3, "label": 7, "predicted": [1, 7, 1]},
        ],
    }


def test_dark_knowledge_is_the_digit_whose_targets_are_unlike_its_class() -> None:
    """Digit 1 is also a 5, digit 2 is not surely a 0, digit 3 is alike the most, digit 4 may not be learnt."""
    labels = torch.tensor([0, 0, 0, 0, 1])
    logits = torch.full((2, 5, 10), -10.0)
    logits[:, :4, 0] = 9.0
    logits[:, 1, 5] = 4.0
    logits[:, 2, 6] = 8.5
    digits = Digits(torch.zeros(5, 28, 28, dtype=torch.uint8), labels)
    found = dark_knowledge(logits, DigitData(digits, digits, "made-up", 4, 1), SMALL)
    assert [(row["digit"], row["label"]) for row in found] == [(1, 0)]
    assert found[0]["probs"][0] == pytest.approx(1 / (1 + np.exp(-5.0)), abs=1e-4)
    assert sum(found[0]["softened"]) == pytest.approx(1.0)
    softened = torch.softmax(logits[0, :4] / 20, dim=1)
    told = (softened[1] * (softened[1] / softened.mean(dim=0)).log()).sum()
    assert found[0]["told"] == pytest.approx(float(told)) and found[0]["told"] > 0


def test_the_full_profile_is_extrapolated_by_work_at_the_rate_of_the_nearest_network(data_of) -> None:
    data = data_of(SMALL)
    one = replace(SMALL, experiments=(1,), teacher=replace(SMALL.teacher, size=2))
    macs = {"teacher": 784 * 40 + 40 * 40 + 400, "student": 784 * 24 + 24 * 24 + 240}
    measured = [
        Measured(macs["teacher"], flop=1e6, seconds=2.0, kind=(True, "sgd", False)),
        Measured(macs["student"], flop=1e6, seconds=1.0, kind=(False, "sgd", False)),
        Measured(macs["student"], flop=1e6, seconds=3.0, kind=(False, "sgd", True)),
        Measured(macs["student"] * 9, flop=1e6, seconds=50.0, kind=(False, "sgd", True)),
        Measured(macs["student"], flop=1e6, seconds=70.0, kind=(False, "adamw", True)),
    ]
    found = extrapolate(
        one, replace(one, teacher=replace(one.teacher, translations=False)), data, measured, 3.0, 784, 10
    )
    epochs = SMALL.student.hard.epochs
    large, small = training_flop(macs["teacher"], 600, epochs, 2), training_flop(macs["student"], 600, epochs, 3)
    assert large == 6 * macs["teacher"] * 600 * epochs * 2
    assert found["training_flop"] == large + 2 * small
    assert found["training_seconds"] == pytest.approx((2 * large + small + 3 * small) / 1e6)
    assert found["posteriors_seconds"] == 3.0 * 9
    assert found["seconds"] == found["training_seconds"] + 27.0


def test_trainings_are_told_once_each() -> None:
    rows = trainings([teacher(SMALL), *students(SMALL)])
    assert len(rows) == 1 and rows[0]["networks"][:3] == ["teacher", "baseline", "distilled"]
    soft = replace(SMALL.student.soft, optimizer="adamw", epochs=3)
    alone, others = sorted(
        trainings([teacher(SMALL), *students(replace(SMALL, student=replace(SMALL.student, soft=soft)))]),
        key=lambda row: row["optimizer"],
    )
    assert alone["networks"] == ["distilled", "no_3", "only_7_8", "label_smoothing", "longer"]
    assert others["optimizer"] == "sgd" and "baseline" in others["networks"]


def test_descriptions_name_what_differs() -> None:
    by_name = named(SMALL)
    assert describe(by_name["distilled"]) == "2×24, T=20, α=1, 3 teachers"
    assert describe(by_name["label_smoothing"]) == "2×24, hard labels, smoothed 0.1"
    assert describe(by_name["logit_matching"]) == "2×24, squared logit differences, 3 teachers"
    assert describe(by_name["only_7_8"]).endswith("classes 78")
    decayed = replace(by_name["distilled"], train=replace(by_name["distilled"].train, weight_decay=0.1))
    assert describe(decayed) == "2×24, weights decayed by 0.1, T=20, α=1, 3 teachers"
    assert describe(by_name["regularised"]) == "2×24, dropout 0.1/0.2, max-norm 3.5, ±1 px, hard labels"
    assert describe(by_name["small_set_soft"]).endswith("30% of the digits")


def run_recipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=environment, timeout=1200
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """A run of every experiment on toy digits, its report too where that can be drawn: folder, arguments, output."""
    folder = tmp_path_factory.mktemp("run")
    arguments = [str(folder / "corpus"), f"--exp-dir={folder / 'exp'}", *([] if CAN_DRAW else ["--stop-stage=11"])]
    done = run_recipe(*arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "exp", arguments, done.stdout


def test_a_whole_run_leaves_results_for_every_variant_and_claim(whole_run) -> None:
    exp, _, printed = whole_run
    results = read_json(exp / "score" / "results.json")
    assert set(results["systems"]) == {"teacher", *named(SMALL)}
    for name, system in results["systems"].items():
        assert len(system["errors"]) == len(system["seeds"]) == 3
        assert system["best"] <= system["mean"] <= system["worst"] < 200, name
    assert results["systems"]["baseline"]["mean"] < 60, "it learns"
    assert {claim["verdict"] for claim in results["claims"]} <= {HOLDS, PART, FAILS, UNMEASURED}
    assert results["transfer"]["no_3"]["rows"][0]["way"] == "before"
    assert results["transfer"]["no_3"]["rows"][0]["errors"] == results["systems"]["no_3"]["errors"]
    assert len(results["sweep"]) == 8 and len(results["controls"]) == 5
    assert results["together"]["teachers"] == 3 and results["together"]["views"] == 9
    assert results["together"]["errors"] < 60
    assert results["label"].startswith("Full profile;")
    assert set(results["systems"]["baseline"]) > {"learnt_accuracy", "eval_accuracy"}
    assert results["environment"]["networks made by"].startswith(f"torch {torch.__version__.partition('+')[0]}")
    assert "distilled: loss" in printed


@needs_pictures
def test_a_report_has_every_figure_and_the_results_open_with_the_command(whole_run) -> None:
    exp, _, printed = whole_run
    assert printed.count("holds") and f"results: {exp / 'results.json'}" in printed
    assert read_json(exp / "results.json") == read_json(exp / "score" / "results.json")
    page = (exp / "report" / "report.html").read_text()
    for key in ("summary", "scorecard", *(f"experiment-{n}" for n in range(1, 8)), "dark", "filters", "errors", "run"):
        assert f'<section id="{key}"' in page
    assert page.count("<svg") >= 10 and "data:image/png" in page
    assert not re.search(r'(?:src|href)="https?:', page), "self-contained"
    markdown = (exp / "report" / "RESULTS.md").read_text()
    assert markdown.startswith("```sh\nrecipes/mnist/run.sh --corpus-dir=")
    assert "## Scorecard" in markdown and "tuned on held-out digits" in markdown
    assert "| teacher, baseline, distilled" in markdown.split("## How they were trained")[1]


@needs_pictures
def test_names_and_commands_are_escaped(whole_run) -> None:
    exp, _, _ = whole_run
    from recipes.mnist.page import digits_page
    from recipes.mnist.report import first_layers

    results = read_json(exp / "results.json")
    results["command"] = "run.sh --exp-dir='<script>alert(1)</script>'"
    results["claims"][0]["evidence"] = "<img src=x onerror=alert(2)> | a `b`"
    page = digits_page(results, DigitData.open(exp / "corpus", SMALL), first_layers(exp))
    assert "<script>alert(1)" not in page and "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "<img src=x" not in results_markdown(results).replace(results["command"], "")


@needs_pictures
def test_the_report_can_be_made_again_by_itself(whole_run) -> None:
    exp, arguments, _ = whole_run
    (exp / "report" / "report.html").unlink()
    (exp / "report" / STAMP_FILE).unlink()
    done = run_recipe(*arguments, "--stage=12")
    assert done.returncode == 0, done.stderr
    assert (exp / "report" / "report.html").is_file()
    assert "--stage" not in (exp / "report" / "RESULTS.md").read_text()


def test_a_second_run_does_nothing_and_a_changed_option_is_told(whole_run) -> None:
    _, arguments, _ = whole_run
    again = run_recipe(*arguments)
    assert again.returncode == 0
    assert not [line for line in again.stdout.splitlines() if line.startswith("==")]
    refused = run_recipe(*arguments, "--stage=11", "--student.soft.epochs=7")
    assert refused.returncode == 2
    assert "another configuration" in refused.stderr and len(refused.stderr.splitlines()) == 1


@needs_pictures
def test_the_quick_profile_is_labelled_and_says_what_it_did_not_measure(tmp_path: Path) -> None:
    done = run_recipe(str(tmp_path / "corpus"), "--profile=quick", f"--exp-dir={tmp_path / 'exp'}", "--judge=held-out")
    assert done.returncode == 0, done.stderr[-2000:]
    results = read_json(tmp_path / "exp" / "results.json")
    assert (
        "not the paper's comparison" in results["label"] and results["evaluated_on"] == "100 held-out training digits"
    )
    by_experiment = {claim["experiment"]: claim["verdict"] for claim in results["claims"]}
    assert {by_experiment[number] for number in (2, 5, 6, 7)} == {UNMEASURED}
    assert UNMEASURED not in {by_experiment[number] for number in (1, 3, 4)}
    assert results["full_profile_estimate"]["seconds"] > 0
    assert "extrapolated, not measured" in (tmp_path / "exp" / "report" / "RESULTS.md").read_text()
    assert "Options differ from the profile's" in results["label"], "the judge was changed"
    assert results["systems"]["teacher"]["paper_errors"] is None, "the paper counts on test digits"


def test_a_wrong_corpus_is_one_line(tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "mnist" / "recipe.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    write_corpus(tmp_path / "corpus")
    for folder, message in ((tmp_path / "nowhere", "no such folder"), (tmp_path / "corpus", "expected content of MD5")):
        done = subprocess.run(
            [sys.executable, str(recipe), f"--corpus-dir={folder}"], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 2
        assert message in done.stderr and len(done.stderr.splitlines()) == 1
