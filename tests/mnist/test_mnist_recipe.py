"""The whole MNIST recipe on synthetic digits, run as a command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from optional_packages import is_installed
from toy_digits import NUM_TEST, NUM_TRAIN, SMALL, students_by_name, write_corpus

from asrkd.files import read_json
from asrkd.workflow.steps import STAMP_FILE
from recipes.mnist.claim_tests import FAILS, HOLDS, PART, UNMEASURED
from recipes.mnist.data import DigitData
from recipes.mnist.markdown import results_markdown

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).parents[1].joinpath("toy_digits.py")
CAN_DRAW = is_installed("matplotlib")


def run_recipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=environment, timeout=1200
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """A run of every experiment on synthetic digits, with its report if possible: folder, arguments, output."""
    folder = tmp_path_factory.mktemp("run")
    arguments = [str(folder / "corpus"), f"--exp-dir={folder / 'exp'}", *([] if CAN_DRAW else ["--stop-stage=11"])]
    done = run_recipe(*arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "exp", arguments, done.stdout


def test_a_whole_run_has_results_for_every_variant_and_claim(whole_run) -> None:
    exp, _, printed = whole_run
    results = read_json(exp / "score" / "results.json")
    assert set(results["systems"]) == {"teacher", *students_by_name(SMALL)}
    for name, system in results["systems"].items():
        assert len(system["errors"]) == len(system["seeds"]) == 3
        assert system["best"] <= system["mean"] <= system["worst"] < 200, name
    assert results["systems"]["baseline"]["mean"] < 60, "it learns"
    assert {claim["verdict"] for claim in results["claims"]} <= {HOLDS, PART, FAILS, UNMEASURED}
    assert results["transfer"]["no_3"]["rows"][0]["method"] == "before"
    assert results["transfer"]["no_3"]["rows"][0]["errors"] == results["systems"]["no_3"]["errors"]
    assert len(results["sweep"]) == 8 and len(results["controls"]) == 5
    assert results["ensemble"]["teachers"] == 3 and results["ensemble"]["shifts"] == 9
    assert results["ensemble"]["errors"] < 60
    assert results["corpus"] == {"train": NUM_TRAIN, "eval": NUM_TEST, "held_out": 100}
    assert results["label"].startswith("Full profile;")
    assert set(results["systems"]["baseline"]) > {"train_accuracy", "eval_accuracy"}
    for system in results["systems"].values():
        assert system["torch"].startswith(torch.__version__.partition("+")[0])
        assert {"git_sha", "code", "finished", "device"} <= set(system)
    assert "distilled: loss" in printed


@pytest.mark.needs("matplotlib", "jinja2")
def test_a_report_has_every_figure_and_the_results_start_with_the_command(whole_run) -> None:
    exp, _, printed = whole_run
    assert printed.count("holds") and f"results: {exp / 'results.json'}" in printed
    assert read_json(exp / "results.json") == read_json(exp / "score" / "results.json")
    page = (exp / "report" / "report.html").read_text()
    for key in ("summary", "claims", *(f"experiment-{n}" for n in range(1, 8)), "dark", "filters", "errors", "run"):
        assert f'<section id="{key}"' in page
    assert page.count("<svg") >= 10 and "data:image/png" in page
    assert not re.search(r'(?:src|href)="https?:', page), "self-contained"
    markdown = (exp / "report" / "RESULTS.md").read_text()
    assert markdown.startswith("```sh\nrecipes/mnist/run.sh --corpus-dir=")
    assert "## The paper's claims" in markdown and "tuned on held-out digits" in markdown
    assert "| teacher, baseline, distilled" in markdown.split("## How they were trained")[1]


@pytest.mark.needs("matplotlib", "jinja2")
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


@pytest.mark.needs("matplotlib", "jinja2")
def test_the_report_can_be_made_again_alone(whole_run) -> None:
    exp, arguments, _ = whole_run
    (exp / "report" / "report.html").unlink()
    (exp / "report" / STAMP_FILE).unlink()
    done = run_recipe(*arguments, "--stage=12")
    assert done.returncode == 0, done.stderr
    assert (exp / "report" / "report.html").is_file()
    assert "--stage" not in (exp / "report" / "RESULTS.md").read_text()


def test_a_second_run_does_nothing_and_a_changed_option_is_reported(whole_run) -> None:
    _, arguments, _ = whole_run
    again = run_recipe(*arguments)
    assert again.returncode == 0
    assert not [line for line in again.stdout.splitlines() if line.startswith("==")]
    listed = run_recipe(*arguments, "--dry-run", "--student.soft.epochs=7")
    stale = {line.split()[1]: line for line in listed.stdout.splitlines()}
    assert stale["students/distilled"].endswith("options changed: train.epochs 6 -> 7")
    assert "students/baseline" not in stale
    refused = run_recipe(*arguments, "--stage=11", "--student.soft.epochs=7")
    assert refused.returncode == 2
    assert "another configuration" in refused.stderr and len(refused.stderr.splitlines()) == 1


@pytest.mark.needs("matplotlib", "jinja2")
def test_the_quick_profile_is_labelled_and_lists_unmeasured_claims(tmp_path: Path) -> None:
    done = run_recipe(
        str(tmp_path / "corpus"), "--profile=quick", f"--exp-dir={tmp_path / 'exp'}", "--eval-set=held-out"
    )
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
    assert "Options differ from the profile's" in results["label"], "the evaluation digits were changed"
    assert results["systems"]["teacher"]["paper_errors"] is None, "the paper counts errors on test digits"


def test_a_student_learns_from_the_teachers_answers_to_mixtures_of_digits(tmp_path: Path) -> None:
    """Its step reads the teachers and not what stage 7 made of them."""
    arguments = [str(tmp_path / "corpus"), f"--exp-dir={tmp_path / 'exp'}", "--experiments", "1", "--stop-stage=8"]
    online = ["--student.distil.targets=online", "--student.mix=0.5"]
    done = run_recipe(*arguments, *online)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    stamp = read_json(tmp_path / "exp" / "students" / "distilled" / STAMP_FILE)
    assert set(stamp["inputs"]) == {"corpus", "teachers"}
    history = read_json(tmp_path / "exp" / "students" / "distilled" / "history.json")
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    again = run_recipe(*arguments, *online, "--list-steps").stdout.splitlines()
    assert len(again) == 5 and all(line.endswith("up to date") for line in again), again
    stored = run_recipe(*arguments, "--dry-run").stdout
    assert "students/distilled" in stored and "posteriors" not in stored


def test_a_wrong_corpus_is_a_one_line_error(tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "mnist" / "recipe.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    write_corpus(tmp_path / "corpus")
    for folder, message in ((tmp_path / "nowhere", "no such folder"), (tmp_path / "corpus", "expected content of MD5")):
        done = subprocess.run(
            [sys.executable, str(recipe), f"--corpus-dir={folder}"], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 2
        assert message in done.stderr and len(done.stderr.splitlines()) == 1
