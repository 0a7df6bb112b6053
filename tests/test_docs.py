"""README.md and docs/: commands have only options that exist, links and named files too; one version everywhere."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.run import get_args_parser

import asrkd
from asrkd import config
from asrkd.commands.main import COMMANDS
from asrkd.config import option_names
from asrkd.data.corpora.user import UserCorpusOptions
from asrkd.recipe.options import UserSpeechOptions

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MORE_PAGES = [ROOT / name for name in ("BENCHMARKS.md", "CHANGELOG.md", "LOG.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")


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


def recipe_default(name: str) -> Any:
    """The options of a recipe, or of one that `asrkd init` made."""
    file = ROOT / "recipes" / name / "recipe.py"
    if not file.is_file():
        return UserSpeechOptions(corpora=UserCorpusOptions(Path()))
    made: dict = {"__name__": "recipe", "__file__": str(file)}
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), made)
    return made.get("DEFAULT") or made["FULL"]


def recipe_options(name: str) -> set[str]:
    """What a recipe takes."""
    return {*option_names(recipe_default(name)), "--help", "--help-all", "--profile"}


def test_recipes_take_the_options_that_are_shown() -> None:
    seen = 0
    for name in ("an4", "prompts", "librispeech", "timit", "mnist", "books", "NAME"):
        known = recipe_options(name)
        for arguments in shown(rf"recipes/{name}/run\.sh"):
            assert set(options_of(arguments)) <= known, (name, arguments)
            seen += 1
    assert seen > 40


def test_recipes_accept_what_is_shown() -> None:
    """With the recipe's own defaults: options that exclude each other, or that have no effect, are errors."""
    seen = 0
    for name in ("an4", "prompts", "librispeech", "timit"):
        for arguments in shown(rf"recipes/{name}/run\.sh"):
            if not {"--help", "--help-all", "..."} & set(arguments):
                config.parse(recipe_default(name), arguments, name, "")
                seen += 1
    assert seen > 40


def test_commands_take_the_options_that_are_shown() -> None:
    seen = 0
    for arguments in shown("asrkd"):
        if arguments == ["--help"]:
            continue
        name = next(name for name in COMMANDS if arguments[: len(name.split())] == name.split())
        assert set(options_of(arguments)) <= {*option_names(COMMANDS[name].options()), "--help"}, arguments
        seen += 1
    assert seen > 10


def test_torchrun_takes_the_options_that_are_shown() -> None:
    """Written as torch 1.13 wants them; later ones take both ways."""
    parser: ArgumentParser = get_args_parser()
    lines = shown("torchrun")
    assert len(lines) == 2
    for arguments in lines:
        read = parser.parse_args(arguments)
        assert read.training_script == "recipes/an4/recipe.py"
        assert set(options_of(read.training_script_args)) <= recipe_options("an4")


def anchors(page: Path) -> set[str]:
    """What `#...` of a link to a page can name: its headings as GitHub and mkdocs write them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *MORE_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"^ {4}.*$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for target in LINK.findall(text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def test_files_and_modules_that_are_named_exist() -> None:
    named = set()
    for page in PAGES:
        for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
            if re.fullmatch(r"(asrkd|recipes|local|tests|docs)/[\w/.]+\w", code):
                named.add(code)
            elif re.fullmatch(r"asrkd(\.\w+)+", code):
                named.add(code.replace(".", "/"))
    examples = ("recipes/NAME", "recipes/books")
    missing = sorted(name for name in named if not name.startswith(examples) and not is_there(name))
    assert not missing
    assert len(named) > 20


def is_there(name: str) -> bool:
    """Whether a path is a file or folder, a module, or what a module defines (asrkd/nnet/train)."""
    path = ROOT / name
    if path.exists() or path.with_suffix(".py").is_file():
        return True
    module, attribute = path.parent, path.name
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    return file.is_file() and re.search(rf"\b{attribute}\b", file.read_text(encoding="utf-8")) is not None


def test_one_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = re.search(r"^## (\S+?),", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"\nversion: {asrkd.__version__}\n" in citation
    assert changes is not None and changes[1] == asrkd.__version__
