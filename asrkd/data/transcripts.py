"""Transcripts: files with a line per utterance, and the phone of a pause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asrkd.errors import InputError
from asrkd.files import read_lines

SILENCE = "SIL"
"""The phone of a pause."""

ParseLine = Callable[[str], tuple[str, str] | None]
"""Key and value of a line; None for a line to skip. ValueError, with what was expected, for a bad line."""


def read_table(path: Path, parse: ParseLine, kind: str = "transcript") -> dict[str, str]:
    """Values by key, such as words by utt_id, from a text file with one of them per line.

    InputError if the file cannot be read; naming file and line, for a bad line and for a second line with the same
    key. `kind` is the word for a value in that message.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        try:
            entry = parse(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: expected {error}, found {line.strip()[:60]!r}") from None
        if entry is None:
            continue
        key, value = entry
        if key in table:
            raise InputError(f"{path}:{number}: expected one {kind} of {key}, found two")
        table[key] = value
    return table
