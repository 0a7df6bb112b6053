"""Sentences of a text file for a language model, one a line, however large the file is."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from asrkd.errors import InputError
from asrkd.files import GZIP_MAGIC
from asrkd.lang.ngram import BOS, EOS, UNK
from asrkd.lang.tags import is_tag
from asrkd.lang.text_rules import TextRules
from asrkd.unicode import upper_case

LONGEST_LINE = 1 << 20  # bytes; a sentence has some hundred
_MARKS = frozenset({BOS, EOS, UNK, UNK.upper(), BOS.upper(), EOS.upper()})


def read_sentences(path: Path | str, rules: TextRules) -> Iterator[list[str]]:
    """The words of each line, in upper case, by the rules of the run's texts; blank lines are no sentences.

    The file is UTF-8, plain or gzip, and is read line by line. InputError, naming file and line, if it is missing or
    damaged, for a line above LONGEST_LINE, and for tags that the rules do not name, `<s>`, `</s>` and `<unk>` too.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            is_packed = file.peek(2)[:2] == GZIP_MAGIC
            yield from _sentences(path, gzip.GzipFile(fileobj=file) if is_packed else file, rules)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: expected a text, plain or gzip, found a damaged one ({error})") from None


def _sentences(path: Path, file: IO[bytes] | gzip.GzipFile, rules: TextRules) -> Iterator[list[str]]:
    number = 0
    while data := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(data) > LONGEST_LINE:
            raise InputError(f"{path}:{number}: expected a sentence of at most {LONGEST_LINE >> 20} MiB")
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise InputError(f"{path}:{number}: expected UTF-8, found byte 0x{byte:02x}") from None
        words = rules.apply(upper_case(line)).split()
        if "<" in line or "[" in line:
            _require_no_tags(f"{path}:{number}", words, rules)
        if words:
            yield words


def _require_no_tags(where: str, words: list[str], rules: TextRules) -> None:
    for word in words:
        if word in _MARKS or (is_tag(word) and not rules.is_noise(word)):
            advice = "remove it" if word in _MARKS else "remove it, or name it in --lang.tags"
            raise InputError(f"{where}: expected words, found {word}: {advice}")
