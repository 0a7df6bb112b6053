"""The choice among students of a sweep: measure, ties, what is copied, and what the results say was tried."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from asrkd.files import read_json, write_json
from asrkd.recipe.choice import CHOICE_FILE, choice_content, choose, resolve, take
from asrkd.recipe.evaluate import source_of_gain
from asrkd.recipe.options import EnsembleOptions, SpeechOptions, StudentsOptions
from asrkd.recipe.students import distilled_sweep, dropout_sweep, students
from asrkd.recipe.trained import training_dir
from asrkd.recipe.tried import baseline_rows, pairs, sweep_rows


@pytest.fixture
def options(tmp_path: Path) -> SpeechOptions:
    swept = StudentsOptions(seeds=2, sweep_temperatures=(1.0, 2.0), sweep_dropouts=(0.1,), baseline_dropouts=(0.4,))
    return replace(SpeechOptions(exp_dir=tmp_path), students=swept)


def train(options: SpeechOptions, accuracy: float = 0.5, **nats: float) -> None:
    """Folders as trainings leave them, each with its development cross-entropy (others: 9)."""
    for student in students(options):
        folder = options.exp_dir / student.step
        folder.mkdir(parents=True, exist_ok=True)
        key = student.name.replace(".", "_")
        write_json(folder / "summary.json", {"dev_accuracy": accuracy, "dev_loss": nats.get(key, 9.0)})
        (folder / "model.safetensors").write_text(student.name)
        (folder / "stamp.json").write_text("{}")


def chosen(options: SpeechOptions) -> list[str]:
    found = []
    for sweep in (distilled_sweep(options), dropout_sweep(options)):
        assert sweep is not None
        folder = options.exp_dir / sweep.step
        folder.mkdir(parents=True, exist_ok=True)
        choose(sweep, options, folder)
        found.append(read_json(folder / CHOICE_FILE)["chosen"])
    return found


def test_the_lowest_cross_entropy_is_chosen_and_the_configured_one_among_equals(options: SpeechOptions) -> None:
    train(options)
    assert chosen(options) == ["sweep_T2_alpha0.7", "sweep_dropout0.2"]
    train(options, sweep_T1_alpha0_7=8.0, sweep_dropout0_4=8.0)
    assert chosen(options) == ["sweep_T1_alpha0.7", "sweep_dropout0.4"]
    train(options, sweep_T2_alpha0_7=math.nan, sweep_dropout0_2=math.nan)
    assert chosen(options) == ["sweep_T1_alpha0.7", "sweep_dropout0.4"]


def test_other_seeds_have_what_was_chosen(options: SpeechOptions) -> None:
    train(options, sweep_T2_alpha0_7_dropout0_1=1.0, sweep_dropout0_4=1.0)
    chosen(options)
    by_name = {student.name: resolve(student, options) for student in students(options)}
    second = by_name["distilled_seed1"]
    assert (second.seed, second.model.dropout) == (1, 0.1) and second.distil == options.distil
    assert by_name["baseline_dropout_seed1"].model.dropout == 0.4
    assert by_name["baseline"].model == options.student


def test_the_chosen_student_is_copied_and_names_its_training(options: SpeechOptions, tmp_path: Path) -> None:
    train(options, sweep_T1_alpha0_7=1.0)
    chosen(options)
    system = next(student for student in students(options) if student.name == "distilled")
    folder = tmp_path / "students" / "distilled"
    for path in folder.iterdir():
        path.unlink()
    take(system, options, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "summary.json"]
    assert (folder / "model.safetensors").read_text() == "sweep_T1_alpha0.7"
    assert training_dir(folder) == tmp_path / "students" / "sweep_T1_alpha0.7"
    assert training_dir(tmp_path / "students" / "baseline") == tmp_path / "students" / "baseline"


def test_the_content_of_a_choice_is_what_was_chosen(options: SpeechOptions, tmp_path: Path) -> None:
    folder = tmp_path / "choice" / "distilled"
    contents = []
    for nats in ({"sweep_T1_alpha0_7": 1.0}, {"sweep_T1_alpha0_7": 2.0}, {"sweep_T2_alpha0_7": 1.0}):
        train(options, **nats)
        chosen(options)
        contents.append(choice_content(folder))
    assert contents[0] == contents[1] != contents[2]


def test_results_name_the_strongest_baseline_and_mark_what_was_chosen(options: SpeechOptions) -> None:
    train(
        options, baseline=3.0, sweep_dropout0_2=2.0, sweep_dropout0_4=1.0, sweep_T1_alpha0_7=1.0, baseline_dropout=1.0
    )
    chosen(options)
    rows = sweep_rows(options)
    assert [(row["temperature"], row["dropout"]) for row in rows if row["chosen"]] == [(1.0, 0.0)]
    assert [(row["temperature"], row["dropout"]) for row in rows if row["configured"]] == [(2.0, 0.0)]
    hard = baseline_rows(options)
    assert [(row["system"], row["dropout"], row["chosen"]) for row in hard] == [
        ("baseline", 0.0, False),
        (None, 0.2, False),
        ("baseline_dropout", 0.4, True),
    ]
    compared = pairs(options, "baseline_dropout")
    assert {("distilled", "baseline_dropout"), ("ensemble", "baseline"), ("ensemble", "baseline_dropout")} <= {
        *compared
    }


def test_without_a_choice_what_is_not_configured_is_no_system(options: SpeechOptions) -> None:
    options = replace(options, students=replace(options.students, choose="configured"))
    train(options, baseline=3.0, baseline_dropout=4.0, sweep_dropout0_4=1.0, sweep_T1_alpha0_7=1.0)
    assert [row["configured"] for row in sweep_rows(options) if row["chosen"]] == [True]
    assert [row["system"] for row in baseline_rows(options) if row["chosen"]] == ["baseline"]


def test_one_teacher_is_no_ensemble(options: SpeechOptions) -> None:
    assert source_of_gain(options) == "ensemble"
    assert source_of_gain(replace(options, ensemble=EnsembleOptions(1))) == "teacher"
    assert source_of_gain(replace(options, posteriors_from=Path("store"))) is None


def test_a_teacher_without_dropout_has_no_second_baseline(options: SpeechOptions) -> None:
    plain = replace(options, teacher=replace(options.teacher, dropout=0.0))
    plain = replace(plain, students=StudentsOptions(baseline_dropouts=()))
    assert "baseline_dropout" not in {student.system for student in students(plain)}
