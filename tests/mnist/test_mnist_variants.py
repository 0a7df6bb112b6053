"""Which networks the MNIST recipe trains, on which digits, and how results.json describes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy_digits import NUM_TRAIN, SMALL, students_by_name

from asrkd.errors import InputError
from asrkd.nnet.model_options import ModelOptions
from recipes.mnist.descriptions import describe, trainings
from recipes.mnist.options import DigitsOptions
from recipes.mnist.recipe import FULL, QUICK
from recipes.mnist.variants import HardLabels, OnlineSoftLabels, SoftLabels, students, teacher, width_points


def test_baseline_and_distilled_differ_only_in_targets_and_training() -> None:
    options = DigitsOptions()
    baseline, distilled = students_by_name(options)["baseline"], students_by_name(options)["distilled"]
    assert isinstance(baseline.targets, HardLabels) and isinstance(distilled.targets, SoftLabels)
    assert baseline.model == distilled.model and baseline.model.dropout == 0 and baseline.jitter == 0
    assert baseline.member_seeds(0) == distilled.member_seeds(0)
    assert not set(teacher(options).member_seeds(0)) & set(baseline.member_seeds(0))


def test_every_experiment_has_its_variants_without_repetition() -> None:
    options = DigitsOptions()
    by_name = students_by_name(options)
    assert len(by_name) == len(students(options))
    assert by_name["no_3"].classes == (0, 1, 2, 4, 5, 6, 7, 8, 9) and by_name["no_3"].excludes_held_out
    assert by_name["only_7_8"].classes == (7, 8)
    assert len(width_points(options)) == 4 * 9
    assert by_name["regularised"].model.dropout == options.teacher.model.dropout
    as_distilled = replace(by_name["longer"], name="distilled", targets=by_name["distilled"].targets)
    assert as_distilled == by_name["distilled"], "they differ only in their targets"
    hard = replace(by_name["small_set_hard"], name="small_set_soft", targets=by_name["small_set_soft"].targets)
    assert hard == by_name["small_set_soft"]
    # The α sweep, the number of teachers and the temperatures share one variant.
    shared = "width800_T20_alpha1_teachers10"
    assert sum(shared == name for name in by_name) == 1
    quick = students_by_name(replace(options, experiments=(1, 3, 4)))
    assert sorted(quick) == ["baseline", "distilled", "no_3", "only_7_8"]


def test_online_targets_are_those_of_the_distilled_student_and_its_transfer_sets() -> None:
    small = SMALL.student
    online = replace(SMALL, student=replace(small, distil=replace(small.distil, targets="online"), mix=0.5))
    before, after = students_by_name(SMALL), students_by_name(online)
    changed = {name for name in before if before[name].stamp_options != after[name].stamp_options}
    assert changed == {"distilled", "no_3", "only_7_8"} and set(after) - set(before) == {"mixed_labels"}
    for name in changed:
        assert (before[name].taught_by, after[name].taught_by) == ("posteriors", "teachers")
        assert isinstance(after[name].targets, OnlineSoftLabels) and after[name].mix == 0.5
    control = after["mixed_labels"]
    assert control.taught_by is None
    assert replace(control, name="distilled", targets=after["distilled"].targets) == after["distilled"]
    assert describe(after["distilled"]) == "2×24, T=20, α=1, 3 teachers, online, 50% of the digits mixed"
    assert "mix" not in before["distilled"].stamp_options
    with pytest.raises(InputError, match=r"--student.mix: expected --student.distil.targets online, .* found stored"):
        replace(small, mix=0.5)
    with pytest.raises(InputError, match=r"--student.mix: expected a fraction in \[0, 1\], found 2"):
        replace(online.student, mix=2)


def test_profiles_follow_the_paper() -> None:
    assert (QUICK.profile, FULL.profile) == ("quick", "full")
    assert set(QUICK.experiments) == {1, 3, 4} and set(FULL.experiments) == {1, 2, 3, 4, 5, 6, 7}
    assert FULL.student.seeds >= 5 and QUICK.student.seeds >= 2
    for options, dropout in ((QUICK, 0.3), (FULL, 0.4)):
        distilled = students_by_name(options)["distilled"]
        assert distilled.jitter == 0 and distilled.model.dropout == distilled.model.input_dropout == 0
        assert distilled.targets.distil.temperature == 20 and distilled.model.hidden_dim == 800
        large = options.teacher
        assert large.jitter == 2 and large.model == ModelOptions(1200, 2, dropout, input_dropout=0.1, max_norm=3.5)


def test_evaluation_digits_are_never_learnt_and_held_out_ones_only_by_others(data_of) -> None:
    tested, trial = data_of(SMALL), data_of(replace(SMALL, eval_set="held-out"))
    by_name = students_by_name(SMALL)
    assert len(tested.train_ids(by_name["distilled"], 0)) == NUM_TRAIN
    assert tested.train_ids(by_name["no_3"], 0).max() < NUM_TRAIN - 100
    assert not (tested.train.labels[tested.train_ids(by_name["no_3"], 0)] == 3).any()
    assert set(tested.train.labels[tested.train_ids(by_name["only_7_8"], 0)].tolist()) == {7, 8}
    assert torch.equal(tested.held_out.images, tested.train.images[-100:])
    assert torch.equal(trial.eval_set.images, trial.train.images[-100:])
    assert torch.equal(trial.held_out.images, trial.train.images[-200:-100])
    assert trial.train_ids(by_name["distilled"], 0).max() == NUM_TRAIN - 101
    assert trial.train_ids(by_name["no_3"], 0).max() < NUM_TRAIN - 200
    part = tested.train_ids(by_name["small_set_hard"], 0)
    assert len(part) == 0.3 * NUM_TRAIN and torch.equal(part, tested.train_ids(by_name["small_set_soft"], 0))
    with pytest.raises(InputError, match="at most a third of 600 training digits, found 201"):
        data_of(replace(SMALL, held_out=201))


def test_trainings_are_listed_once_each() -> None:
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
    by_name = students_by_name(SMALL)
    assert describe(by_name["distilled"]) == "2×24, T=20, α=1, 3 teachers"
    assert describe(by_name["label_smoothing"]) == "2×24, hard labels, smoothed 0.1"
    assert describe(by_name["logit_matching"]) == "2×24, squared logit differences, 3 teachers"
    assert describe(by_name["only_7_8"]).endswith("classes 78")
    decayed = replace(by_name["distilled"], train=replace(by_name["distilled"].train, weight_decay=0.1))
    assert describe(decayed) == "2×24, weight decay 0.1, T=20, α=1, 3 teachers"
    assert describe(by_name["regularised"]) == "2×24, dropout 0.1/0.2, max-norm 3.5, ±1 px, hard labels"
    assert describe(by_name["small_set_soft"]).endswith("30% of the digits")
