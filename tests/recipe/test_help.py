"""--help of the recipes: ten options with their defaults, stages and examples; --help-all: every option of tyro's."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
from pathlib import Path

import pytest
import tyro
from optional_packages import skip_without

from asrkd.config import parse
from asrkd.errors import InputError
from asrkd.options import options_of
from asrkd.recipe.options import LibrispeechSpeechOptions, SpeechOptions

ROOT = Path(__file__).resolve().parents[2]
SET_BY_RUN = ("--train.seed", "--train.device")


def help_of(recipe: str, *argv: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    if recipe != "mnist":
        skip_without("lhotse", "kaldifst", "kaldialign", "soundfile")
    monkeypatch.setattr(sys, "argv", ["recipe.py", *argv])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / "recipes" / recipe / "recipe.py"), run_name="__main__")
    assert exit_.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("recipe", "stages", "default", "num_options"),
    [
        ("an4", "8 students, 9 graph", "exp/an4)", 12),
        ("librispeech", "8 students, 9 graph", "(default: 1024)", 12),
        ("timit", "8 students, 9 graph", "exp/timit)", 12),
        ("prompts", "8 students, 9 graph", "(default: 4)", 12),
        ("mnist", "8 students, 11 score", "(default: 10)", 10),
    ],
)
def test_help_is_a_page(
    recipe: str,
    stages: str,
    default: str,
    num_options: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = help_of(recipe, "--help", monkeypatch=monkeypatch, capsys=capsys)
    assert len(re.findall(r"^  --", shown, re.MULTILINE)) == num_options
    assert stages in " ".join(shown.split()) and default in shown
    assert len(re.findall(rf"^  recipes/{recipe}/run.sh --", shown, re.MULTILINE)) == 2
    assert len(shown.splitlines()) < 60
    every = help_of(recipe, "--help-all", monkeypatch=monkeypatch, capsys=capsys)
    assert set(re.findall(r"^  (--\S+)", shown, re.MULTILINE)) < set(re.findall(r"^  (--\S+)", every, re.MULTILINE))
    assert not re.search(r"(train|hard|soft)\.(seed|device) ", every)


@pytest.mark.parametrize("options", [SpeechOptions(), LibrispeechSpeechOptions()])
def test_the_options_are_those_that_tyro_reads(options: SpeechOptions) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        tyro.cli(type(options), default=options, args=["--help"])
    read = set(re.findall(r"--[a-z][a-z0-9.-]*", printed.getvalue())) - {"--help"}
    assert {name for option in options_of(options) for name in option.names} == read
    assert {option.name for option in options_of(options) if not option.listed} == set(SET_BY_RUN)
    assert all(option.help and (option.values or isinstance(option.default, bool)) for option in options_of(options))


@pytest.mark.parametrize("name", SET_BY_RUN)
def test_what_the_run_sets_is_refused_with_the_option_to_give(name: str) -> None:
    run_option = f"--{name.rpartition('.')[2]}"
    value = "cuda" if name.endswith("device") else "7"
    with pytest.raises(InputError, match=f"{name}: give {run_option}, "):
        parse(SpeechOptions(), [name, value], "run.sh", "")
    assert parse(SpeechOptions(), [run_option, value], "run.sh", "") != SpeechOptions()


def test_kaldis_name_of_the_number_of_jobs() -> None:
    assert parse(SpeechOptions(), ["--nj", "7"], "run.sh", "").num_jobs == 7
