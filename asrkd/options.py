"""The options of a dataclass and the help that a command line prints of them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn

from asrkd.errors import InputError

HELP = ("--help", "-h")
HELP_ALL = "--help-all"

NAME_COLUMNS = 30
MAX_COLUMNS = 100
KINDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


def short_name(alias: str) -> Mapping[str, Any]:
    """Metadata of a field: another name of its option, e.g. `--nj` of `--num-jobs`."""
    return {"alias": f"--{alias}"}


def first_word() -> Mapping[str, Any]:
    """Metadata of a field: the command line's first word that belongs to no option is its value.

    The next such word is the value of the next such field. A field of several values takes all the words that are left.
    """
    return {"first_word": True}


def set_by_run(*names: str) -> Mapping[str, Any]:
    """Metadata of a section: options that the run's options of the same names set. They stay options in Python."""
    return {"set_by_run": names}


def advice(text: str) -> Mapping[str, Any]:
    """Metadata of a field: what always works, for the message that refuses another value."""
    return {"advice": text}


def added_later() -> Mapping[str, Any]:
    """Metadata of a field: at its default it is in no fingerprint, so that runs from before the option stay up to
    date."""
    return {"added_later": True}


@dataclass(frozen=True)
class NoEffect:
    """Options that change nothing in some configurations. Who gives one there expects something else.

    A dataclass of options lists such rules as NO_EFFECT; `require_effect` checks them.
    """

    options: tuple[str, ...]
    """Names of options; one that ends in a dot stands for a section."""
    when: Callable[[Any], bool]
    """Of the configuration: whether they change nothing."""
    because: str
    """The option that makes it so, and the one with which they have an effect."""


def require_effect(config: Any, given: Collection[str]) -> None:
    """InputError for an option of the command line, with its dashes, that another option leaves without effect.

    Defaults of a recipe are no such options: only what a person has `given` is refused.
    """
    for rule in getattr(type(config), "NO_EFFECT", ()):
        for name in given:
            named = any(name == one or (one.endswith(".") and name.startswith(one)) for one in rule.options)
            if named and rule.when(config):
                raise InputError(f"{name}: it has no effect {rule.because}")


def require_set_by_run(config: Any, prefix: str = "--") -> None:
    """InputError where an option of `set_by_run` has a value of its own, which the run would ignore."""
    for one in dataclasses.fields(config):
        section = getattr(config, one.name)
        if not dataclasses.is_dataclass(section):
            continue
        path = f"{prefix}{written(one.name)}."
        defaults = {option.name: option.default for option in dataclasses.fields(section)}
        for name in one.metadata.get("set_by_run", ()):
            if getattr(section, name) != defaults[name]:
                option = written(name)
                raise InputError(f"{path}{option}: give --{option}, which every step of the run follows")
        require_set_by_run(section, path)


def written(name: str) -> str:
    """A field's name as an option has it."""
    return name.replace("_", "-")


@dataclass(frozen=True)
class Option:
    """One option of a command line."""

    name: str
    """With its sections: `--train.epochs`."""
    section: str
    """The sections alone: `train`."""
    values: str
    """What follows the name: INT, PATH, {auto,cpu,cuda}; empty for a switch."""
    default: Any
    """MISSING where it is required."""
    help: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    listed: bool = True
    """False for an option that another one sets (`set_by_run`)."""

    @property
    def aliases(self) -> tuple[str, ...]:
        return (self.metadata["alias"],) if "alias" in self.metadata else ()

    @property
    def names(self) -> tuple[str, ...]:
        """A switch has a name that turns it on and one that turns it off."""
        if not isinstance(self.default, bool):
            return (self.name,)
        head, _, last = self.name.rpartition(".")
        return (self.name, f"{head}.no-{last}" if head else f"--no-{last.removeprefix('--')}")

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def positional(self) -> bool:
        return "first_word" in self.metadata

    @property
    def is_list(self) -> bool:
        return self.values.endswith("...")

    @property
    def usage(self) -> str:
        """`--num-jobs INT, --nj INT`; `--train.compile, --train.no-compile` of a switch."""
        return ", ".join(f"{name} {self.values}".rstrip() for name in (*self.names, *self.aliases))

    def lines(self, columns: int) -> str:
        """Name, help and default, the help in a column of its own."""
        default = "required" if self.required else f"default: {_shown(self.default)}"
        text = textwrap.wrap(f"{self.help} ({default})".lstrip(), columns - NAME_COLUMNS)
        indent = "\n" + " " * NAME_COLUMNS
        head = f"  {self.usage}"
        start = f"{head:{NAME_COLUMNS}}" if len(head) < NAME_COLUMNS - 1 else head + indent
        return start + indent.join(text)


@dataclass(frozen=True)
class HelpPage:
    """What `--help` prints; `str` makes the text, as wide as the terminal."""

    program: str
    description: str
    default: Any
    """A dataclass, or an instance of one."""
    common: Sequence[str] = ()
    """Names of the options to list, without the dashes; empty: all options, by sections."""
    examples: Sequence[str] = ()

    def __str__(self) -> str:
        columns = min(shutil.get_terminal_size().columns, MAX_COLUMNS)
        options = [option for option in options_of(self.default) if option.listed]
        parts = [_usage(self.program, options), *_wrapped(self.description, columns)]
        if self.common:
            by_name = {option.name: option for option in options}
            chosen = [by_name[f"--{name}"] for name in self.common]
            parts.append(_listed(f"Common options ({HELP_ALL} lists every option):", chosen, columns))
        else:
            descriptions = dict(_sections(self.default))
            for section in dict.fromkeys(option.section for option in options):
                title = f"{section}: {descriptions[section]}".rstrip(": ") if section else "Options:"
                parts.append(_listed(title, [one for one in options if one.section == section], columns))
        if self.examples:
            parts.append("\n".join(["Examples:", *(f"  {example}" for example in self.examples)]))
        return "\n\n".join(parts)


def print_and_exit(text: object) -> NoReturn:
    """Print help and exit with code 0, also where the reader stops early (`--help | head`)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to write at exit
    raise SystemExit(0)


def options_of(config: Any, section: str = "", hidden: Sequence[str] = ()) -> list[Option]:
    """Every option of a (nested) dataclass or instance: its own ones first, then those of its sections in order."""
    kind = config if isinstance(config, type) else type(config)
    hints, documents = typing.get_type_hints(kind), field_documents(kind)
    options, nested = [], []
    for one in dataclasses.fields(kind):
        value = _value(config, one)
        path = f"{section}.{written(one.name)}" if section else written(one.name)
        if dataclasses.is_dataclass(value):
            nested += options_of(value, path, one.metadata.get("set_by_run", ()))
            continue
        values = _values(hints[one.name], value)
        document = documents.get(one.name, "")
        options.append(Option(f"--{path}", section, values, value, document, one.metadata, one.name not in hidden))
    return options + nested


@cache
def field_documents(kind: type) -> Mapping[str, str]:
    """The text under each field of a dataclass and of those it extends, which Python does not keep at run time."""
    documents: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if dataclasses.is_dataclass(one):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
            assert isinstance(tree, ast.ClassDef)
            for node, below in pairwise(tree.body):
                if isinstance(node, ast.AnnAssign) and isinstance(below, ast.Expr):
                    documents[ast.unparse(node.target)] = " ".join(ast.literal_eval(below.value).split())
    return documents


def _value(config: Any, one: dataclasses.Field[Any]) -> Any:
    """The value of a field; of a dataclass that is no instance its default, MISSING where it has none."""
    if not isinstance(config, type):
        return getattr(config, one.name)
    return one.default if one.default_factory is MISSING else one.default_factory()


def _values(hint: Any, value: Any) -> str:
    """INT, PATH ..., {auto,cpu,cuda}; `|None` where None takes a value away."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [_values(one, value) for one in arguments if one is not type(None)]
        return "|".join([*kinds, *(["None"] if value not in (None, MISSING) else [])])
    if typing.get_origin(hint) is tuple:
        return f"{_values(arguments[0], value)} ..."
    return KINDS.get(hint, "")


def _sections(config: Any, section: str = "") -> Iterator[tuple[str, str]]:
    """Each section with what it is: the text under its field, or the first sentence of its dataclass."""
    kind = config if isinstance(config, type) else type(config)
    for one in dataclasses.fields(kind):
        value = _value(config, one)
        if dataclasses.is_dataclass(value):
            path = f"{section}.{written(one.name)}" if section else written(one.name)
            yield path, field_documents(kind).get(one.name) or (type(value).__doc__ or "").partition("\n")[0]
            yield from _sections(value, path)


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _usage(program: str, options: Sequence[Option]) -> str:
    needed = [usage_of_word(option) if option.positional else option.usage for option in options if option.required]
    others = [f"[{usage_of_word(option)}]" for option in options if option.positional and not option.required]
    others += ["[OPTION ...]"] if any(not option.required for option in options) else []
    return f"usage: {' '.join([program, *needed, *others])}"


def usage_of_word(option: Option) -> str:
    """`MODEL`; `AUDIO ...` where all words that are left belong to it."""
    return option.name.removeprefix("--").upper() + (" ..." if option.is_list else "")


def _wrapped(description: str, columns: int) -> list[str]:
    """Paragraphs; indented ones stay as they are written."""
    paragraphs = description.strip().split("\n\n")
    return [one if one.startswith(" ") else textwrap.fill(" ".join(one.split()), columns) for one in paragraphs]


def _listed(title: str, options: Sequence[Option], columns: int) -> str:
    return "\n".join([*textwrap.wrap(title, columns), *(option.lines(columns) for option in options)])
