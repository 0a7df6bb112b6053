"""Every command that README.md and docs/ show has only options that there are."""

from __future__ import annotations

import inspect
import re
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest

pytest.importorskip("k2")
pytest.importorskip("lhotse")

from torch.distributed.run import get_args_parser

from asrkd.commands.main import COMMANDS, GROUPS
from asrkd.config import option_names
from asrkd.data.corpora.user import UserCorpusOptions
from asrkd.recipe.options import UserSpeechOptions

pytestmark = pytest.mark.k2

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    """Shown commands, an indented line each, without comments and with continued lines joined."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        found += [line.partition(" #")[0].strip() for line in text.splitlines() if line.startswith("    ")]
    return found


def shown(program: str) -> list[list[str]]:
    """The arguments of each command that runs a program; `[--option X]` may be left out and is looked at too."""
    pattern = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?{program} (.*)")
    return [shlex.split(re.sub(r"[\[\]]", "", found[1])) for line in commands() if (found := pattern.fullmatch(line))]


def options_of(arguments: list[str]) -> list[str]:
    return [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]


def recipe_options(name: str) -> set[str]:
    """What a recipe takes, or one that `asrkd init` made."""
    file = ROOT / "recipes" / name / "recipe.py"
    if not file.is_file():
        default = UserSpeechOptions(corpora=UserCorpusOptions(Path()))
    else:
        made: dict = {"__name__": "recipe", "__file__": str(file)}
        exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), made)
        default = made.get("DEFAULT") or made["FULL"]
    return {*option_names(default), "--help", "--profile"}


def test_recipes_take_the_options_that_are_shown() -> None:
    seen = 0
    for name in ("an4", "librispeech", "timit", "mnist", "books", "NAME"):
        known = recipe_options(name)
        for arguments in shown(rf"recipes/{name}/run\.sh"):
            assert set(options_of(arguments)) <= known, (name, arguments)
            seen += 1
    assert seen > 15


def test_verbs_take_the_options_that_are_shown() -> None:
    seen = 0
    for command, *arguments in shown("asrkd"):
        words = [command, *arguments]
        function = GROUPS[command][words[1]] if command in GROUPS else COMMANDS[command]
        known = {f"--{name.replace('_', '-')}" for name in inspect.signature(function).parameters}
        assert set(options_of(arguments)) <= known, words
        seen += 1
    assert seen > 6


def test_torchrun_takes_the_options_that_are_shown() -> None:
    """Written as torch 1.13 wants them; later ones take both ways."""
    parser: ArgumentParser = get_args_parser()
    lines = shown("torchrun")
    assert len(lines) == 2
    for arguments in lines:
        read = parser.parse_args(arguments)
        assert read.training_script == "recipes/an4/recipe.py"
        assert set(options_of(read.training_script_args)) <= recipe_options("an4")
