"""What every recipe shares: seeds, the configuration hash, precision of trained networks, the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from asrkd.errors import InputError
from asrkd.files import read_json, write_json
from asrkd.nnet import TrainOptions
from asrkd.recipe.command_line import run_recipe, stages_text
from asrkd.recipe.run_options import config_sha, save_config, with_absolute_paths
from asrkd.recipe.seeds import student_seed, teacher_seed
from asrkd.recipe.trained import trained_precision
from asrkd.workflow.provenance import command_of_all
from asrkd.workflow.steps import LAST_STAGE, Step


@dataclass(frozen=True)
class Section:
    """Options of a network."""

    train: TrainOptions = field(default_factory=TrainOptions)
    units: int = 3


@dataclass(frozen=True)
class Options:
    """Options of a small recipe."""

    corpus_dir: Path | None = None
    exp_dir: Path = Path("exp")
    stage: int = 0
    stop_stage: int = LAST_STAGE
    only: str | None = None
    dry_run: bool = False
    list_steps: bool = False
    device: str = "auto"
    num_jobs: int = 1
    network: Section = field(default_factory=Section)


def test_seeds_of_teachers_students_and_runs_are_distinct() -> None:
    kinds = (teacher_seed, student_seed)
    seeds = [seed_of(run, member) for run in range(3) for seed_of in kinds for member in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert (teacher_seed(0, 4), student_seed(0, 4), student_seed(2, 1)) == (4, 504, 2501)


def trained(value: TrainOptions) -> Options:
    return Options(network=Section(value))


@pytest.mark.parametrize(
    ("changed", "neutral"),
    [
        (Options(corpus_dir=Path("a"), exp_dir=Path("b"), stage=3, stop_stage=4, only="x"), True),
        (Options(dry_run=True, list_steps=True, device="cuda"), True),
        (Options(num_jobs=7), True),  # named by the caller
        (trained(TrainOptions(num_threads=3, show_progress=False, compile=True, cuda_graph=False)), True),
        (trained(TrainOptions(epochs=3)), False),
        (Options(network=Section(units=4)), False),
    ],
)
def test_the_configuration_hash_follows_options_that_decide_results(changed: Options, neutral: bool) -> None:
    assert (config_sha(Options(), num_jobs=1) == config_sha(changed, num_jobs=1)) == neutral


def test_relative_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    absolute = with_absolute_paths(Options(corpus_dir=Path("corpus")))
    assert (absolute.corpus_dir, absolute.exp_dir) == (tmp_path / "corpus", tmp_path / "exp")
    assert with_absolute_paths(Options()).corpus_dir is None


def test_scores_have_the_precision_of_the_training(tmp_path: Path) -> None:
    folders = [tmp_path / str(member) for member in range(3)]
    for folder, precision in zip(folders, ("bfloat16", "bfloat16", "float32"), strict=True):
        folder.mkdir()
        write_json(folder / "summary.json", {"precision": precision})
    assert trained_precision(folders[:2]) == "bfloat16"
    assert trained_precision(folders) == "float32", "one network was trained in float32"


def fill(name: str, content: dict[str, Any]) -> Any:
    return lambda out_dir: write_json(out_dir / name, content)


STEPS = [
    Step(0, "corpus", fill("files.json", {})),
    Step(11, "score", fill("results.json", {"errors": 4}), None, ("corpus",)),
    Step(12, "report", fill("report.json", {}), None, ("score",)),
]


def shown(results: Any) -> str:
    return f"{results['errors']} errors"


def test_a_run_saves_its_options_and_publishes_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(exp_dir=tmp_path / "exp", stage=0)
    run_recipe(STEPS, replace(options, stop_stage=0), shown)
    assert not (options.exp_dir / "results.json").exists()
    assert read_json(options.exp_dir / "config.json")["stop_stage"] == LAST_STAGE, "the options of the whole run"
    run_recipe(STEPS, replace(options, only="score"), shown)
    assert "errors" not in capsys.readouterr().out, "one of several runs publishes nothing"
    run_recipe(STEPS, options, shown)
    assert "4 errors\nresults: " in capsys.readouterr().out
    assert read_json(options.exp_dir / "results.json") == {"errors": 4}


@pytest.mark.parametrize("how", [{}, {"dry_run": True}, {"list_steps": True}])
def test_an_experiment_is_a_folder(tmp_path: Path, how: dict[str, bool]) -> None:
    exp = tmp_path / "exp"
    exp.touch()
    with pytest.raises(InputError, match=f"--exp-dir {exp}: expected a folder, found a file"):
        run_recipe(STEPS, Options(exp_dir=exp, **how), shown)


def test_a_listing_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_recipe(STEPS, Options(exp_dir=tmp_path / "exp", list_steps=True), shown)
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["corpus", "score", "report"]
    assert not (tmp_path / "exp").exists()


def test_the_command_of_the_whole_run_has_no_parts_and_no_listing() -> None:
    arguments = ["--stage", "3", "--stop_stage=5", "--only", "align", "--dry-run", "--list_steps", "--seed", "1"]
    assert command_of_all("run.sh", arguments) == "run.sh --seed 1"


def test_a_saved_configuration_is_of_the_whole_run(tmp_path: Path) -> None:
    save_config(Options(exp_dir=tmp_path, stage=6, stop_stage=8, only="score"))
    saved = read_json(tmp_path / "config.json")
    assert (saved["stage"], saved["stop_stage"], saved["only"]) == (0, LAST_STAGE, None)


def test_the_help_names_the_stages_of_the_recipe() -> None:
    assert stages_text((0, 8)).startswith("Stages: 0 corpus, 8 students. ")
