"""`asrkd`: reads the name of a subcommand, and runs it with its options."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

import asrkd
from asrkd.commands import (
    align,
    compare,
    decode,
    doctor,
    estimate,
    export,
    init,
    posteriors,
    results,
    serve,
    transcribe,
)
from asrkd.commands.command import Command
from asrkd.errors import InputError, one_line_errors
from asrkd.options import HELP, print_and_exit
from asrkd.terminal import require_utf8_mode

DESCRIPTION = """Distil acoustic models: an ensemble's senone posteriors are the targets of one small network.

Recipes do the work, from a corpus to a table of results:

  recipes/prompts/run.sh       a demonstration on 25 minutes of one speaker
  recipes/an4/run.sh           AN4, 42 minutes of read speech
  recipes/librispeech/run.sh   LibriSpeech, from 5 to 960 hours
  recipes/timit/run.sh         TIMIT, phone error rates
  recipes/mnist/run.sh         the paper's experiments on digits

Their --help lists stages, common options and examples. The subcommands of `asrkd` prepare runs, inspect them, and use
what they have trained:"""
EXIT_CODES = (
    "Exit codes: 0 done, 2 an error that you can mend (one line says how). `asrkd doctor --help` lists its own."
)

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        align.COMMAND,
        compare.COMMAND,
        decode.COMMAND,
        doctor.COMMAND,
        estimate.COMMAND,
        export.COMMAND,
        init.COMMAND,
        posteriors.IMPORT,
        results.COMMAND,
        serve.COMMAND,
        transcribe.COMMAND,
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit code. Bad input: one line on stderr, exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        print(f"asrkd {asrkd.__version__}")
        return 0
    if argv is None:
        require_utf8_mode()
    with one_line_errors("asrkd"):
        return dispatch(arguments)


def dispatch(arguments: Sequence[str]) -> int:
    """Run the subcommand that `arguments` begin with. InputError for an unknown one, and for what it refuses."""
    words = [argument for argument in arguments[:2] if not argument.startswith("-")]
    for name in (" ".join(words), *words[:1]):
        if name in COMMANDS:
            return _run(COMMANDS[name], arguments[len(name.split()) :])
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    if set(arguments) <= {*HELP, *groups}:
        print_and_exit(overview())
    if not words:
        raise InputError(f"expected a command ({', '.join(COMMANDS)}), found {arguments[0]}")
    given = " ".join(words) if words[0] in groups else words[0]
    nearest = difflib.get_close_matches(given, COMMANDS, n=1, cutoff=0.0)
    raise InputError(f"unknown command {given}; the nearest is {nearest[0]} ({HELP[0]} lists all)")


def overview() -> str:
    """The help of `asrkd`: a line for each command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}   {command.summary}" for name, command in COMMANDS.items()]
    usage = "usage: asrkd COMMAND [OPTION ...]     (asrkd COMMAND --help lists its options)"
    return "\n\n".join([usage, DESCRIPTION, "\n".join(lines), EXIT_CODES])


def _run(command: Command, arguments: Sequence[str]) -> int:
    try:
        from asrkd import config
    except ImportError as error:
        advice = "run `make setup`, or `python -m asrkd.commands.doctor`"
        raise InputError(f"{error.name} is not installed: {advice}") from None
    description = f"{command.summary}\n\n{command.description}"
    try:
        options = config.parse(
            command.options(), arguments, f"asrkd {command.name}", description, command.common, command.examples
        )
        return command.run(options)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "asrkd"):
            raise
        raise InputError(
            f"asrkd {command.name} needs {package}, which is not installed: `make setup` makes an environment for it "
            "(`asrkd doctor` lists what is missing)"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
