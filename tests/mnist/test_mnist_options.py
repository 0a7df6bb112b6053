"""What the options of the MNIST recipe refuse, and which networks each of them re-trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_digits import PROFILES, SMALL, students_by_name

from asrkd.config import parse
from asrkd.errors import InputError
from asrkd.workflow.steps import step_stamps
from recipes.mnist.options import DigitsOptions, DigitsRun
from recipes.mnist.pipeline import build_steps, chosen_profile
from recipes.mnist.results import LABELS, label_of


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
        (["--compared.fraction=0"], r"expected a fraction in \(0, 1\]"),
        (["--compared.teachers", "0", "3"], r"--compared.teachers: .* above 0, found \(0, 3\)"),
        (["--compared.temperatures", "0"], r"--compared.temperatures: .* above 0, found \(0.0,\)"),
        (["--compared.widths", "-1"], "--compared.widths: .* above 0"),
        (["--compared.alphas", "1.5"], r"--compared.alphas: expected weights in \[0, 1\]"),
        (["--compared.label-smoothing=2"], r"--compared.label-smoothing: expected a weight in \[0, 1\)"),
        (["--teacher.jitter=-1"], "--teacher.jitter: expected at least 0 pixels"),
        (["--stage=13"], "expected 0 to 12"),
        (["--stop-stage=99"], "--stop-stage: expected 0 to 12, found 99"),
        (["--seed=-1"], "--seed: expected 0 to 1000000000000, found -1"),
        (["--student.soft.num-threads=-1"], "num_threads: expected at least 0, found -1"),
        (["--profile=slow"], "slow"),
    ],
)
def test_useless_and_impossible_options_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(DigitsOptions(), arguments, "run.sh", "")


def test_the_profile_is_read_before_the_other_options() -> None:
    assert chosen_profile(["--seed=1", "--profile=quick"]) == "quick"
    assert chosen_profile(["--profile", "quick", "--stage", "6"]) == "quick"
    assert chosen_profile([]) == chosen_profile(["--profile"]) == chosen_profile(["--profile=slow"]) == "full"


# Variants of SMALL by what they learn from.
HARD = {"baseline", "regularised", "label_smoothing", "longer", "small_set_hard"}
SMALL_SET = {"small_set_hard", "small_set_soft"}
STUDENTS = set(students_by_name(SMALL))
COMPARED = {name for name in STUDENTS if name.startswith("width")}
TAUGHT = STUDENTS - HARD
EVERY_NETWORK = {"teachers", "posteriors", *STUDENTS}


def stamps(options: DigitsOptions, corpus: tuple[Path, dict[str, str]]) -> dict[str, str]:
    """Stamp of each step."""
    run = DigitsRun(replace(options, corpus_dir=corpus[0]), PROFILES, "run.sh")
    return step_stamps(build_steps(run, corpus[1]))


def changed(options: Any, path: str, value: Any) -> Any:
    """The options with another value of `section.option`."""
    name, _, inner = path.partition(".")
    return replace(options, **{name: changed(getattr(options, name), inner, value) if inner else value})


def with_changes(changes: dict[str, Any]) -> DigitsOptions:
    """SMALL with other values."""
    options = SMALL
    for path, value in changes.items():
        options = changed(options, path, value)
    return options


@pytest.mark.parametrize(
    ("changes", "retrained"),
    [
        # Where the run computes, what it prints and how often it writes a checkpoint.
        ({"device": "auto", "exp_dir": Path("x"), "checkpoint_epochs": 99}, set()),
        ({"student.soft.num_threads": 3, "teacher.train.show_progress": True}, set()),
        ({"student.hard.compile": True, "compared.train.cuda_graph": False}, set()),
        ({"stage": 6, "stop_stage": 8, "only": "teachers", "dry_run": True, "list_steps": True}, set()),
        # One training each.
        ({"student.hard.epochs": 9}, {"baseline"}),
        ({"student.soft.epochs": 9}, {"distilled", "no_3", "only_7_8", "label_smoothing", "longer"}),
        ({"compared.train.epochs": 9}, COMPARED | SMALL_SET | {"logit_matching"}),
        ({"compared.train.precision": "bfloat16"}, COMPARED | SMALL_SET | {"logit_matching"}),
        ({"compared.label_smoothing": 0.2}, {"label_smoothing"}),
        ({"compared.fraction": 0.5}, SMALL_SET),
        ({"student.distil.t_squared": False}, TAUGHT - {"logit_matching"}),
        # The shape of every student. The control of experiment 7 has the teachers' regularisation.
        ({"student.model.max_norm": 2.0}, STUDENTS - {"regularised"}),
        ({"student.seeds": 4}, STUDENTS),
        # What changes the teachers reaches their students through the posteriors.
        ({"teacher.translations": False}, {"posteriors", *TAUGHT}),
        ({"teacher.train.epochs": 9}, {"teachers", "posteriors", "regularised", *TAUGHT}),
        ({"teacher.model.dropout": 0.4}, {"teachers", "posteriors", "regularised", *TAUGHT}),
        ({"teacher.jitter": 2}, {"teachers", "posteriors", "regularised", *TAUGHT}),
        # The division of the digits, and the seed of everything.
        ({"held_out": 90}, EVERY_NETWORK),
        ({"eval_set": "held-out"}, EVERY_NETWORK),
        ({"seed": 1}, EVERY_NETWORK),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_an_option_retrains_what_depends_on_it_and_nothing_else(
    toy_corpus: tuple[Path, dict[str, str]], changes: dict[str, Any], retrained: set[str]
) -> None:
    before, after = stamps(SMALL, toy_corpus), stamps(with_changes(changes), toy_corpus)
    stale = {name for name in before if before[name] != after[name]}
    assert ("score" in stale) == ("report" in stale) == bool(retrained), "scoring and report follow every change"
    assert {name.removeprefix("students/") for name in stale - {"score", "report"}} == retrained


def test_fewer_experiments_retrain_nothing(toy_corpus: tuple[Path, dict[str, str]]) -> None:
    every, first = stamps(SMALL, toy_corpus), stamps(replace(SMALL, experiments=(1,)), toy_corpus)
    assert {name for name in first if first[name] != every[name]} == {"score", "report"}


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({}, False),
        ({"device": "auto", "exp_dir": Path("x"), "stage": 11, "only": "score"}, False),
        ({"student.hard.num_threads": 4, "teacher.train.num_threads": 4}, False),
        ({"compared.train.show_progress": True, "student.soft.compile": True}, False),
        ({"student.hard.epochs": 9}, True),
        ({"eval_set": "held-out"}, True),
        ({"seed": 7}, True),
    ],
)
def test_the_label_reports_changed_options_unless_they_decide_nothing(changes: dict[str, Any], differs: bool) -> None:
    label = label_of(DigitsRun(with_changes(changes), PROFILES, "run.sh"))
    assert label.startswith(LABELS["full"])
    assert ("Options differ from the profile's" in label) == differs
