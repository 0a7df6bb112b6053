"""Options: Kaldi-style overrides, help, errors of one line that name the nearest match, config.json back the same."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from asrkd.config import load, option_names, parse, save
from asrkd.errors import InputError
from asrkd.options import first_word, require_set_by_run, set_by_run, short_name


@dataclass(frozen=True)
class Train:
    """Training."""

    learning_rate: float = 0.1
    """Peak rate."""
    epochs: int = 3
    """Passes over the data."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of a training that no run starts."""
    capture: bool = True
    """Replay
    captured steps."""


@dataclass(frozen=True)
class Config:
    corpus_dir: Path | None = None
    """Where the corpus lies."""
    factors: tuple[float, ...] = (1.0,)
    """Speed factors."""
    num_jobs: int = field(default=2, metadata=short_name("nj"))
    """Processes."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the run."""
    train: Train = field(default_factory=Train, metadata=set_by_run("device"))

    def __post_init__(self) -> None:
        require_set_by_run(self)


@dataclass(frozen=True)
class Needed:
    name: str = field(metadata=first_word())
    """Name of the recipe."""
    runs: tuple[Path, ...]
    """Runs to read."""
    max_bad: float | None = 0.5
    """Fraction."""


def read(*argv: str) -> Config:
    return parse(Config(train=Train(epochs=9)), list(argv), "run.sh", "A test.")


def test_overrides_keep_the_recipes_own_defaults() -> None:
    config = read("--train.learning_rate=0.5", "--corpus-dir", "an4")
    assert config == Config(Path("an4"), (1.0,), train=Train(0.5, 9))


@pytest.mark.parametrize("argument", ["--trian.epochs=3", "--train.epoch=3"])
def test_unknown_option_names_the_nearest(argument: str) -> None:
    with pytest.raises(InputError, match=r"unknown option .*nearest is --train.epochs"):
        read(argument)


def test_wrong_type_is_one_sentence() -> None:
    with pytest.raises(InputError) as error:
        read("--train.epochs=x")
    expected = "Error parsing --train.epochs: invalid literal for int() with base 10: 'x' (expected --train.epochs INT)"
    assert str(error.value) == expected
    with pytest.raises(InputError, match=r"^invalid choice 'tpu' for argument '--device'. Expected one of "):
        read("--device=tpu")
    with pytest.raises(InputError, match=r"Missing value for argument '--corpus-dir'"):
        read("--corpus-dir")
    with pytest.raises(InputError, match="expected an option, found 4"):
        read("--num-jobs", "3", "4")


@pytest.mark.parametrize("value", ["x" * 300, "long words, with commas " * 20 + "end"])
def test_a_long_value_is_never_broken(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(InputError) as error:
        read(f"--device={value}")
    assert f"'{value}'" in str(error.value)
    assert os.environ["COLUMNS"] == "40"


def test_on_a_terminal_the_complaint_is_as_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """tyro colours what it writes when stdout is a terminal, whatever stderr is."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(InputError) as error:
        read("--train.epochs=x")
    assert str(error.value).isprintable() and "│" not in str(error.value)


def test_short_names_and_a_first_word() -> None:
    assert read("--nj", "7") == read("--nj=7") == read("--num_jobs=7") == Config(num_jobs=7, train=Train(epochs=9))
    needed = parse(Needed, ["an4", "--runs", "a", "b"], "asrkd init", "A test.")
    assert needed == Needed("an4", (Path("a"), Path("b")))
    assert parse(Needed, ["--name=an4", "--runs", "a"], "asrkd init", "A test.") == Needed("an4", (Path("a"),))
    with pytest.raises(InputError, match=r"expected --runs PATH ..., found none"):
        parse(Needed, ["an4"], "asrkd init", "A test.")


@dataclass(frozen=True)
class Words:
    model: Path = field(metadata=first_word())
    """Model."""
    audio: tuple[str, ...] = field(metadata=first_word())
    """Files."""
    beam: float = 1.0
    """Nats."""
    overwrite: bool = False
    """Again."""
    tags: tuple[str, ...] = ()
    """Tags."""


@pytest.mark.parametrize(
    "argv",
    [
        ["m", "a", "b", "--beam", "2"],
        ["--beam", "2", "m", "a", "b"],
        ["m", "--beam=2", "a", "b"],
        ["m", "a", "--beam", "2", "b"],
        ["--model", "m", "--beam=2", "--audio", "a", "b"],
        ["--beam=2", "--no-overwrite", "m", "a", "b"],
    ],
)
def test_bare_words_before_between_and_after_options(argv: list[str]) -> None:
    assert parse(Words, argv, "asrkd x", "A test.") == Words(Path("m"), ("a", "b"), 2.0)


def test_bare_words_that_look_like_options() -> None:
    assert parse(Words, ["m", "-", "--overwrite"], "asrkd x", "A test.") == Words(Path("m"), ("-",), overwrite=True)
    assert parse(Words, ["m", "--", "-a", "--b"], "asrkd x", "A test.") == Words(Path("m"), ("./-a", "./--b"))
    assert parse(Words, ["m", "a", "--tags", "x", "y"], "asrkd x", "A test.").tags == ("x", "y")
    with pytest.raises(InputError, match=r"expected AUDIO ..., found none"):
        parse(Words, ["m"], "asrkd x", "A test.")
    with pytest.raises(InputError, match="expected an option, found more"):
        parse(Needed, ["an4", "more", "--runs", "a"], "asrkd init", "A test.")
    assert "MODEL AUDIO ... [OPTION ...]" in shown(Words, "--help", common=())


@dataclass(frozen=True)
class OptionalWord:
    one: str = field(metadata=first_word())
    """Word."""
    other: str | None = field(default=None, metadata=first_word())
    """Another word."""


def test_a_bare_word_that_may_be_missing() -> None:
    assert parse(OptionalWord, ["a"], "asrkd x", "A test.") == OptionalWord("a")
    assert parse(OptionalWord, ["a", "b"], "asrkd x", "A test.") == OptionalWord("a", "b")
    assert "ONE [OTHER] [OPTION ...]" in shown(OptionalWord, "--help", common=())


def test_what_the_run_sets_is_refused_in_its_sections() -> None:
    with pytest.raises(InputError, match=r"--train.device: give --device"):
        read("--train.device=cuda")
    assert read("--device=cuda").train == Train(epochs=9)


def shown(default: Any, *argv: str, common: tuple[str, ...] = ("num-jobs", "train.epochs")) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as exit_:
        parse(default, list(argv), "recipes/x/run.sh", "The x\nrecipe.\n\nStages: 0.", common, ("run.sh --nj 4",))
    assert exit_.value.code == 0
    return printed.getvalue()


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--nj", "3", "--help"]])
def test_help_lists_common_options_with_their_defaults_and_examples(argv: list[str]) -> None:
    assert (
        shown(Config(train=Train(epochs=9)), *argv)
        == """\
usage: recipes/x/run.sh [OPTION ...]

The x recipe.

Stages: 0.

Common options (--help-all lists every option):
  --num-jobs INT, --nj INT    Processes. (default: 2)
  --train.epochs INT          Passes over the data. (default: 9)

Examples:
  run.sh --nj 4
"""
    )


def test_help_all_lists_every_option_by_section() -> None:
    lines = shown(Config(train=Train(epochs=9)), "--help-all").splitlines()
    assert lines[6:] == [
        "Options:",
        "  --corpus-dir PATH           Where the corpus lies. (default: none)",
        "  --factors FLOAT ...         Speed factors. (default: 1.0)",
        "  --num-jobs INT, --nj INT    Processes. (default: 2)",
        "  --device {cpu,cuda}         Device of the run. (default: cpu)",
        "",
        "train: Training.",
        "  --train.learning-rate FLOAT",
        "                              Peak rate. (default: 0.1)",
        "  --train.epochs INT          Passes over the data. (default: 9)",
        "  --train.capture, --train.no-capture",
        "                              Replay captured steps. (default: on)",
        "",
        "Examples:",
        "  run.sh --nj 4",
    ]


def test_help_of_required_options() -> None:
    lines = shown(Needed, "--help", common=()).splitlines()
    assert lines[0] == "usage: recipes/x/run.sh NAME --runs PATH ... [OPTION ...]"
    assert lines[6:10] == [
        "Options:",
        "  --name TEXT                 Name of the recipe. (required)",
        "  --runs PATH ...             Runs to read. (required)",
        "  --max-bad FLOAT|None        Fraction. (default: 0.5)",
    ]


def test_config_json_reads_back_the_same(tmp_path: Path) -> None:
    config = read("--factors", "0.9", "1.1", "--corpus-dir=x")
    save(config, tmp_path / "config.json")
    assert load(Config, tmp_path / "config.json") == config


def test_config_json_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"train": {"epoch": 3}}')
    with pytest.raises(InputError, match="epoch"):
        load(Config, tmp_path / "config.json")


def test_option_names() -> None:
    assert option_names(Config()) == [
        *("--corpus-dir", "--factors", "--num-jobs", "--nj", "--device"),
        *("--train.learning-rate", "--train.epochs", "--train.capture", "--train.no-capture"),
    ]


def test_an_argument_of_another_encoding_is_refused() -> None:
    argument = "--exp-dir=" + os.fsdecode(b"/tmp/\xe9t\xe9")
    with pytest.raises(InputError, match=r"--exp-dir=/tmp/\\udce9t\\udce9': expected a name in UTF-8"):
        parse(Config(), [argument], "test", "")
