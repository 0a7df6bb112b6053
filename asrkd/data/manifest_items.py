"""The items of a Lhotse manifest: one JSON object per line, a JSON array, or YAML; each of them plain or gzipped.

Lhotse's own reader is not used. It runs a path that begins with `pipe:` in a shell, takes values of any type, and its
errors name neither line nor field.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from asrkd.errors import InputError
from asrkd.files import GZIP_MAGIC, require_expansion

LONGEST_LINE = 16 << 20  # bytes; an item of Lhotse has some hundred
LARGEST_ARRAY = 1 << 30  # bytes of a .json, which is in memory as a whole; a .jsonl has no limit
LARGEST_YAML = 32 << 20  # bytes; PyYAML takes some fifty times as much memory
LONGEST_INTEGER = 19  # digits; Python's int() takes quadratic time
URL = re.compile(r"file:/|[A-Za-z][A-Za-z0-9+.-]+://")
"""How a path begins that is none. Lhotse and Kaldi would search for a file of that name."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that no id, speaker, path or word has: controls, ends of lines, halves of UTF-16 pairs."""
_BOM = b"\xef\xbb\xbf"
_BLOCK_BYTES = 1 << 20
_BLANK = " \t\r\n"

Fields = Mapping[str, Any]


def read_items(path: Path, expected: str) -> Iterator[tuple[str, Fields]]:
    """File with line, or with number of the item in YAML, and fields of each item; `expected` is what errors expect.

    InputError, naming file and line, if the file cannot be read, is damaged, is not UTF-8, expands without end, or has
    anything but objects with distinct keys and finite numbers.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            yield from _items(_Stream(path, file), expected)
    except PermissionError:
        raise InputError(f"{path}: expected a file that can be read, found none (permission denied)") from None
    except (OSError, EOFError, zlib.error) as error:  # gzip's errors are among them
        raise InputError(f"{path}: expected {expected}, found something else ({error})") from None


class _Stream:
    """The bytes of a file, unpacked if it is a gzip. InputError where they are too many."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self.path = path
        self._packed = file if file.peek(2)[:2] == GZIP_MAGIC else None
        self._file: Any = gzip.GzipFile(fileobj=file) if self._packed else file
        self._num_bytes = 0
        if self._file.peek(len(_BOM))[: len(_BOM)] == _BOM:
            self._file.read(len(_BOM))

    def first_character(self) -> bytes:
        """The first byte that is not blank, if it is near."""
        head: bytes = self._file.peek(_BLOCK_BYTES)
        return head.lstrip()[:1]

    def lines(self) -> Iterator[tuple[int, str]]:
        number = 0
        while data := self._counted(self._file.readline(LONGEST_LINE + 1)):
            number += 1
            if len(data) > LONGEST_LINE:
                raise InputError(f"{self.path}:{number}: expected lines of at most {LONGEST_LINE >> 20} MiB")
            yield number, self._decoded(data, number)

    def whole(self, limit: int) -> str:
        blocks, size = [], 0
        while block := self._counted(self._file.read(_BLOCK_BYTES)):
            blocks.append(block)
            size += len(block)
            if size > limit:
                raise InputError(
                    f"{self.path}: expected at most {limit >> 20} MiB in this format: write the manifest as .jsonl"
                )
        return self._decoded(b"".join(blocks), 1)

    def _counted(self, data: bytes) -> bytes:
        self._num_bytes += len(data)
        if self._packed:
            require_expansion(self.path, self._num_bytes, self._packed.tell())
        return data

    def _decoded(self, data: bytes, number: int) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            number += data[: error.start].count(b"\n")
            raise InputError(f"{self.path}:{number}: expected UTF-8, found byte 0x{data[error.start]:02x}") from None


def _items(stream: _Stream, expected: str) -> Iterator[tuple[str, Fields]]:
    names, mark = stream.path.name.lower().removesuffix(".gz"), ":"
    if names.endswith((".yaml", ".yml")):
        items: Iterator[tuple[int, Any]] = _yaml_items(stream, expected)
        mark = ": item "
    elif stream.first_character() == b"[":
        items = _array_items(stream)
    else:
        items = _line_items(stream)
    for number, item in items:
        where = f"{stream.path}{mark}{number}"
        if not isinstance(item, dict) or not all(isinstance(key, str) for key in item):
            raise InputError(f"{where}: expected an item of {expected}, found {described(item)}")
        yield where, item


def _line_items(stream: _Stream) -> Iterator[tuple[int, Any]]:
    for number, line in stream.lines():
        if line.strip():
            yield number, _parsed(stream.path, number, _DECODER.decode, line)


def _array_items(stream: _Stream) -> Iterator[tuple[int, Any]]:
    """One item after the other, so that the memory is that of the text."""
    text = stream.whole(LARGEST_ARRAY)
    position, number, at = text.index("[") + 1, 1, 0
    while True:
        position = _after_blanks(text, position)
        number, at = number + text.count("\n", at, position), position
        if text[position : position + 1] == "]":
            break
        item, position = _parsed(stream.path, number, _DECODER.raw_decode, text, position)
        yield number, item
        position = _after_blanks(text, position)
        if text[position : position + 1] == ",":
            position += 1
        elif text[position : position + 1] != "]":
            raise InputError(f"{stream.path}:{number}: expected `,` or `]` after this item of the array")
    if text[position + 1 :].strip():
        number += text.count("\n", at, _after_blanks(text, position + 1))
        raise InputError(f"{stream.path}:{number}: expected one JSON array, found more after it")


def _after_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANK:
        position += 1
    return position


def _yaml_items(stream: _Stream, expected: str) -> Iterator[tuple[int, Any]]:
    from asrkd.data.manifest_yaml import YamlError, load_yaml  # exported models read JSON alone, without PyYAML

    try:
        items = load_yaml(stream.whole(LARGEST_YAML))
    except YamlError as error:
        raise InputError(f"{stream.path}: expected {expected}, found something else ({error!s:.120})") from None
    if not isinstance(items, list):
        raise InputError(f"{stream.path}: expected {expected}, found {described(items)}")
    yield from enumerate(items, start=1)


def _parsed(path: Path, number: int, parse: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a JSON decoder. InputError with file and line for its errors."""
    try:
        return parse(*arguments)
    except RecursionError:
        raise InputError(f"{path}:{number}: expected a JSON object, found one that is nested too deep") from None
    except ValueError as error:
        raise InputError(f"{path}:{number}: expected a JSON object, found something else ({error!s:.80})") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)} twice")
    return fields


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)


def _not_finite(name: str) -> float:
    raise ValueError(f"{name}, which is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_int=_integer, parse_constant=_not_finite)


def described(value: object) -> str:
    """A value of a manifest, for messages. A list or an object is not printed: it may be endless."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value!r:.30}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return (
        "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else f"a {type(value).__name__}"
    )
