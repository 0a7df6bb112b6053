"""Tables with a line per key: what is read, and that bad lines are named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from asrkd.data.transcripts import read_table
from asrkd.errors import InputError


def parse(line: str) -> tuple[str, str] | None:
    if line.startswith("#"):
        return None
    key, comma, value = line.partition(",")
    if not comma:
        raise ValueError("a key, a comma and words")
    return key, value.strip()


def test_keys_and_values_are_read(tmp_path: Path) -> None:
    text = "# comment\nu1, GO ON\nu2,\n"
    (tmp_path / "plain.txt").write_text(text)
    (tmp_path / "packed").write_bytes(gzip.compress(text.encode()))
    assert read_table(tmp_path / "plain.txt", parse) == {"u1": "GO ON", "u2": ""}
    assert read_table(tmp_path / "packed", parse) == {"u1": "GO ON", "u2": ""}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no words", r"t\.txt:2: expected a key, a comma and words, found 'no words'"),
        ("u1, AGAIN", r"t\.txt:2: expected one transcript of u1, found two"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "t.txt").write_text(f"u1, GO\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.txt", parse)


def test_another_word_for_the_value(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("u1, x\nu1, y\n")
    with pytest.raises(InputError, match="expected one line of u1, found two"):
        read_table(tmp_path / "t.txt", parse, kind="line")
