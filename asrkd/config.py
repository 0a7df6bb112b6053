"""Frozen dataclasses <-> `--section.option=value` on a command line <-> config.json of a run."""

from __future__ import annotations

import contextlib
import difflib
import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import dacite
import tyro

from asrkd.errors import InputError
from asrkd.files import read_object, reading, require_utf8, write_json
from asrkd.options import HELP, HELP_ALL, HelpPage, Option, options_of, print_and_exit, require_effect, usage_of_word

Config = TypeVar("Config")

NO_WRAPPING = 10**6  # columns of the terminal that tyro writes its complaints for: no value is that long


def parse(
    default: Config | type[Config],
    argv: Sequence[str],
    program: str,
    description: str,
    common: Sequence[str] = (),
    examples: Sequence[str] = (),
) -> Config:
    """The configuration that `argv` makes of `default`: an instance, or a dataclass where some options are required.

    Options are written as Kaldi and PyTorch users expect: `--stage 3`, `--train.epochs=20`; `_` and `-` are alike.
    `--help` lists the `common` options (all where none are named) and the examples, `--help-all` lists every option.

    Raises:
        InputError: an unknown option (the nearest known one is named), a value of the wrong type, or no value of a
            required option, an argument that is not UTF-8, or an option without effect (`NoEffect`).
        SystemExit: after printing the help.
    """
    for argument in argv:
        require_utf8(argument)
    options = options_of(default)
    arguments = _in_full(argv, options)
    given = {_name(argument) for argument in arguments if argument.startswith("-")}
    if given & {*HELP, HELP_ALL}:
        print_and_exit(HelpPage(program, description, default, common if HELP_ALL not in given else (), examples))
    known = {name for option in options for name in option.names}
    for name in (_name(argument) for argument in arguments if argument.startswith("--")):
        if name not in known:
            raise InputError(_unknown_option(name, option_names(default)))
    for option in options:
        if option.required and option.name not in given:
            expected = usage_of_word(option) if option.positional else f"{option.name} {option.values}"
            raise InputError(f"expected {expected}, found none ({HELP[0]} shows an example)")
    config, extra = _read(default, arguments, program)
    if extra:
        raise InputError(f"expected an option, found {extra[0]} ({HELP[0]} lists them)")
    require_effect(config, [option.name for option in options if given.intersection(option.names)])
    return config


def option_names(config: Any) -> list[str]:
    """Every option of a (nested) configuration that its command line lists, with its short name."""
    return [name for option in options_of(config) if option.listed for name in (*option.names, *option.aliases)]


def save(config: Any, path: Path) -> None:
    """Write the resolved configuration as JSON."""
    write_json(path, config)


def load(config_type: type[Config], path: Path, section: str | None = None, leave_out: Sequence[str] = ()) -> Config:
    """Read a configuration, or a section of one, back, without the sections `leave_out`.

    InputError for an unknown key or a value of the wrong type.
    """
    settings = dacite.Config(strict=True, cast=[Path, tuple])
    values = {name: value for name, value in read_object(path).items() if name not in leave_out}
    if section is not None:
        values = values.get(section)  # type: ignore[assignment]
        if not isinstance(values, dict):
            raise InputError(f"{path}: expected a configuration with {section}, found none")
    with reading(path, "a configuration"):
        try:
            return dacite.from_dict(config_type, values, settings)
        except dacite.DaciteError as error:
            raise InputError(f"{path}: {error}") from None


def _name(argument: str) -> str:
    """`--train.learning-rate` of `--train.learning_rate=0.1`."""
    return argument.partition("=")[0].replace("_", "-")


def _in_full(argv: Sequence[str], options: Sequence[Option]) -> list[str]:
    """The arguments with short names (`--nj 4`) and bare words (`asrkd init NAME`) as the options they mean."""
    by_alias = {alias: option.name for option in options for alias in option.aliases}
    arguments = [
        by_alias[_name(argument)] + argument[len(_name(argument)) :] if _name(argument) in by_alias else argument
        for argument in argv
    ]
    positional = [option for option in options if option.positional]
    if not positional:
        return arguments
    words, others = _bare_words(arguments, options)
    named = []
    for option in positional:
        if option.is_list and words:
            named += [option.name, *words]
            words = []
        elif words:
            named.append(f"{option.name}={words.pop(0)}")
    return [*words, *others, *named]


def _bare_words(arguments: Sequence[str], options: Sequence[Option]) -> tuple[list[str], list[str]]:
    """The words that belong to no option, and the other arguments. All words after `--` are bare."""
    by_name = {name: option for option in options for name in option.names}
    words: list[str] = []
    others: list[str] = []
    takes = 0.0  # values that the last option still takes
    for at, argument in enumerate(arguments):
        if argument == "--":
            # With its folder no name of a file is read as an option.
            words += [f"./{word}" if word.startswith("-") else word for word in arguments[at + 1 :]]
            break
        if argument.startswith("--"):
            option = by_name.get(_name(argument))
            is_whole = option is None or "=" in argument or len(option.names) > 1
            takes = 0 if is_whole else math.inf if option is not None and option.is_list else 1
            others.append(argument)
        elif takes or (argument.startswith("-") and argument != "-"):
            others.append(argument)
            takes = max(0, takes - 1)
        else:
            words.append(argument)
    return words, others


def _read(default: Config | type[Config], arguments: list[str], program: str) -> tuple[Config, list[str]]:
    """What tyro reads, and the arguments left over. InputError, in one line, for what it complains of."""
    complaint = io.StringIO()
    kind: type[Config] = default if isinstance(default, type) else type(default)
    given: Any = tyro.MISSING_NONPROP if isinstance(default, type) else default
    try:
        # With no terminal behind stdout and stderr, tyro writes without colours and frames.
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(io.StringIO()), _columns(NO_WRAPPING):
            return tyro.cli(kind, default=given, args=arguments, prog=program, return_unknown_args=True, add_help=False)
    except SystemExit:
        raise InputError(_with_advice(_one_line(complaint.getvalue()), options_of(default))) from None


@contextlib.contextmanager
def _columns(number: int) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(number)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _one_line(complaint: str) -> str:
    """tyro's complaint without its title, and with the values that it expected: sections between rules of dashes."""
    sections: list[list[str]] = [[]]
    for line in complaint.splitlines():
        text = line.strip()
        if text and set(text) == {"-"}:
            sections.append([])
        elif text:
            sections[-1].append(text)
    if len(sections) < 2:
        return complaint
    message = " ".join(sections[1])
    usage = next((section[1] for section in sections[2:] if section[0] == "Argument helptext:"), None)
    return f"{message} (expected {usage})" if usage else message


def _with_advice(complaint: str, options: Sequence[Option]) -> str:
    """A complaint of an option's value, with what always works."""
    advice = [one.metadata["advice"] for one in options if "advice" in one.metadata and f"'{one.name}'" in complaint]
    return f"{complaint} ({advice[0]})" if advice else complaint


def _unknown_option(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, [*known, *HELP, HELP_ALL], n=1, cutoff=0.0)
    return f"unknown option {name}; the nearest is {nearest[0]} ({HELP_ALL} lists all)"
