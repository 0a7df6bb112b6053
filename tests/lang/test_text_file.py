"""Sentences of a text file: their words by the rules of the run's texts, and refusals that name the line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from asrkd.errors import InputError
from asrkd.lang import text_file
from asrkd.lang.text_file import read_sentences
from asrkd.lang.text_rules import TextRules

NO_RULES = TextRules({})


def sentences(path: Path, rules: TextRules = NO_RULES) -> list[list[str]]:
    return list(read_sentences(path, rules))


@pytest.mark.parametrize("packed", [False, True])
def test_words_of_each_line(tmp_path: Path, packed: bool) -> None:
    data = "\ufeffgo – stop\r\n\n  don’t go\nend".encode()
    path = tmp_path / "text"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert sentences(path) == [["GO", "STOP"], ["DON'T", "GO"], ["END"]]


def test_rules_of_the_texts_hold(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("yes, [noise] no!\n", encoding="utf-8")
    assert sentences(path, TextRules({"NOISE": ""}, strip_punctuation=True)) == [["YES", "NO"]]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"A\nA <s> B\n", r"text:2: expected words, found <S>: remove it$"),
        (b"A <unk>\n", "text:1: expected words, found <UNK>: remove it$"),
        (b"A [laughter]\n", r"text:1: expected words, found \[LAUGHTER\]: remove it, or name it in --lang.tags"),
        (b"A\n\xff\n", "text:2: expected UTF-8, found byte 0xff"),
        (b"A\n" + b"B " * 20, "text:2: expected a sentence of at most 0 MiB"),
        (gzip.compress(b"A\n" * 99, mtime=0)[:-9], "text: expected a text, plain or gzip, found a damaged one"),
    ],
)
def test_what_is_no_sentence_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, expected: str
) -> None:
    monkeypatch.setattr(text_file, "LONGEST_LINE", 30)
    (tmp_path / "text").write_bytes(data)
    with pytest.raises(InputError, match=expected):
        sentences(tmp_path / "text")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such file"):
        sentences(tmp_path / "nowhere")
