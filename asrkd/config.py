"""Frozen dataclasses <-> `--section.option=value` overrides <-> the resolved config.json beside every result."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import dacite
import tyro

from asrkd.errors import InputError, boxed_sections
from asrkd.files import read_json, write_json

Config = TypeVar("Config")


def parse(default: Config, argv: list[str], program: str, description: str) -> Config:
    """The configuration that `argv` makes of `default`.

    Options are written as Kaldi and PyTorch users expect: `--stage 3`, `--train.epochs=20`; `_` and `-` are alike.

    Raises:
        InputError: an unknown option (the nearest known one is named) or a value of the wrong type.
        SystemExit: after printing `--help`.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config, unknown = tyro.cli(
                type(default),
                args=argv,
                default=default,
                prog=program,
                description=description,
                return_unknown_args=True,
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        sections = boxed_sections(complaint.getvalue())
        raise InputError(" ".join(sections[0]) if sections else complaint.getvalue().strip()) from None
    if unknown:
        raise InputError(_unknown_option(unknown[0], option_names(default)))
    return config


def option_names(config: Any, prefix: str = "--") -> list[str]:
    """Every option of a (nested) configuration as it is written on the command line."""
    names = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = prefix + field.name.replace("_", "-")
        names += option_names(value, name + ".") if dataclasses.is_dataclass(value) else [name]
    return names


def save(config: Any, path: Path) -> None:
    """Write the resolved configuration as JSON."""
    write_json(path, config)


def load(config_type: type[Config], path: Path, section: str | None = None, leave_out: Sequence[str] = ()) -> Config:
    """Read a configuration, or a section of one, back, the sections `leave_out` apart.

    InputError for an unknown key or a value of the wrong type.
    """
    settings = dacite.Config(strict=True, cast=[Path, tuple])
    found = {name: value for name, value in read_json(path).items() if name not in leave_out}
    try:
        return dacite.from_dict(config_type, found if section is None else found[section], settings)
    except (KeyError, TypeError):
        raise InputError(f"{path}: expected a configuration with {section}, found none") from None
    except dacite.DaciteError as error:
        raise InputError(f"{path}: {error}") from None


def _unknown_option(argument: str, known: list[str]) -> str:
    name = argument.split("=")[0]
    nearest = difflib.get_close_matches(name.replace("_", "-"), [*known, "--help"], n=1, cutoff=0.0)
    return f"unknown option {name}; the nearest is {nearest[0]} (--help lists all)"
