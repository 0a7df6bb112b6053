"""Options: Kaldi-style overrides, unknown keys name the nearest match, config.json reads back the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from asrkd.config import load, option_names, parse, save
from asrkd.errors import InputError


@dataclass(frozen=True)
class Train:
    """Training."""

    learning_rate: float = 0.1
    """Peak rate."""
    epochs: int = 3
    """Passes over the data."""


@dataclass(frozen=True)
class Config:
    corpus_dir: Path | None = None
    """Where the corpus lies."""
    factors: tuple[float, ...] = (1.0,)
    """Speed factors."""
    train: Train = field(default_factory=Train)


def read(*argv: str) -> Config:
    return parse(Config(train=Train(epochs=9)), list(argv), "run.sh", "A test.")


def test_overrides_keep_the_recipes_own_defaults() -> None:
    config = read("--train.learning_rate=0.5", "--corpus-dir", "an4")
    assert config == Config(Path("an4"), (1.0,), Train(0.5, 9))


@pytest.mark.parametrize("argument", ["--trian.epochs=3", "--train.epoch=3"])
def test_unknown_option_names_the_nearest(argument: str) -> None:
    with pytest.raises(InputError, match=r"unknown option .*nearest is --train.epochs"):
        read(argument)


def test_wrong_type_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"--train.epochs.*'x'") as error:
        read("--train.epochs=x")
    assert "│" not in str(error.value)


def test_config_json_reads_back_the_same(tmp_path: Path) -> None:
    config = read("--factors", "0.9", "1.1", "--corpus-dir=x")
    save(config, tmp_path / "config.json")
    assert load(Config, tmp_path / "config.json") == config


def test_config_json_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"train": {"epoch": 3}}')
    with pytest.raises(InputError, match="epoch"):
        load(Config, tmp_path / "config.json")


def test_option_names() -> None:
    assert option_names(Config()) == ["--corpus-dir", "--factors", "--train.learning-rate", "--train.epochs"]
