"""Ways to damage a file: its bytes, its numbers and words, the values of its JSON, the header of its safetensors."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

# Numbers that readers do not expect.
NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"65536",
    b"2147483648",
    b"-9223372036854775809",
    b"1e308",
    b"1e999",
    b"nan",
    b"0x10",
    b"9" * 30,
)
VALUES: tuple[Any, ...] = (None, True, 0, -1, 10**12, 10**30, 1e308, "", "x", "\ud800", [], {}, [None], {"x": 1}, [[]])
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
DEEP = b"[" * 100_000
GZIP_MAGIC, ZIP_MAGIC, SAFETENSORS_HEADER_LIMIT = b"\x1f\x8b", b"PK\x03\x04", 1 << 20


class Edit(NamedTuple):
    """One damage. The same edit of the same bytes gives the same bytes."""

    kind: str
    where: float
    """Place in the file, from 0 (its beginning) up to 1."""
    value: int
    """What is put there: an index or a byte."""


def damage(data: bytes, edits: list[Edit]) -> bytes:
    """`data` with all edits, one after the other."""
    for edit in edits:
        data = KINDS[edit.kind](data, edit)
    return data


def random_edits(rng: random.Random) -> list[Edit]:
    """One to four edits."""
    return [Edit(rng.choice(list(KINDS)), rng.random(), rng.randrange(1 << 16)) for _ in range(rng.randint(1, 4))]


def _at(data: bytes, edit: Edit) -> int:
    return min(len(data), int(edit.where * len(data)))


def _flip(data: bytes, edit: Edit) -> bytes:
    if not data:
        return data
    place = min(_at(data, edit), len(data) - 1)
    return data[:place] + bytes([data[place] ^ 1 << edit.value % 8]) + data[place + 1 :]


def _flip_early(data: bytes, edit: Edit) -> bytes:
    """Headers are at the beginning."""
    return _flip(data[:128], edit) + data[128:]


def _truncate(data: bytes, edit: Edit) -> bytes:
    return data[: _at(data, edit)]


def _insert(data: bytes, edit: Edit) -> bytes:
    place = _at(data, edit)
    return data[:place] + bytes([edit.value % 256]) * (1 + edit.value // 256 % 8) + data[place:]


def _delete(data: bytes, edit: Edit) -> bytes:
    place = _at(data, edit)
    return data[:place] + data[place + 1 + edit.value % 64 :]


def _double(data: bytes, edit: Edit) -> bytes:
    place = _at(data, edit)
    return data[: place + 1 + edit.value % 256] + data[place:]


def _deepen(data: bytes, edit: Edit) -> bytes:
    place = _at(data, edit)
    return data[:place] + DEEP[: 1 + edit.value] + data[place:]


def _number(data: bytes, edit: Edit) -> bytes:
    found = list(NUMBER.finditer(data[:SAFETENSORS_HEADER_LIMIT]))
    if not found:
        return data
    one = found[min(int(edit.where * len(found)), len(found) - 1)]
    return data[: one.start()] + NUMBERS[edit.value % len(NUMBERS)] + data[one.end() :]


def _words(data: bytes, edit: Edit) -> bytes:
    """Exchange two words."""
    words = re.split(rb"(\s+)", data)
    if len(words) < 3:
        return data
    one, other = int(edit.where * (len(words) - 1)) // 2 * 2, edit.value % (len(words) // 2 + 1) * 2
    words[one], words[other] = words[other], words[one]
    return b"".join(words)


def _lines(data: bytes, edit: Edit) -> bytes:
    """Exchange two lines, or repeat one."""
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return data
    one, other = int(edit.where * len(lines)), edit.value % len(lines)
    if edit.value & 1:
        lines.insert(other, lines[one])
    else:
        lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def _json(data: bytes, edit: Edit) -> bytes:
    """Replace or remove a value of a JSON file, or of a line of JSON."""
    lines = data.split(b"\n")
    number = min(int(edit.where * len(lines)), len(lines) - 1)
    for text, rebuild in (
        (data, lambda new: new),
        (lines[number], lambda new: b"\n".join([*lines[:number], new, *lines[number + 1 :]])),
    ):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        return rebuild(json.dumps(_changed(value, edit)).encode())
    return data


def _changed(value: Any, edit: Edit) -> Any:
    """A JSON value with another value somewhere in it."""
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(places) < 2000:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            places.append((one, key))
            waiting.append(one[key])
    new = VALUES[edit.value % len(VALUES)]
    if not places:
        return new
    parent, key = places[min(int(edit.where * len(places)), len(places) - 1)]
    if edit.value % 5 == 0:
        del parent[key]
    else:
        parent[key] = new
    return value


def _header(data: bytes, edit: Edit) -> bytes:
    """A value of the header of a safetensors file; JSON within its metadata is changed as JSON."""
    if len(data) < 8:
        return data
    (length,) = struct.unpack("<Q", data[:8])
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = header.get("__metadata__")
    except (ValueError, RecursionError, AttributeError):
        return data
    if isinstance(metadata, dict) and metadata and edit.value & 1:
        key = list(metadata)[edit.value // 2 % len(metadata)]
        metadata[key] = _json(str(metadata[key]).encode(), edit).decode(errors="replace")
    else:
        header = _changed(header, edit)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _inside(data: bytes, edit: Edit) -> bytes:
    """What is packed, as gzip or zip, damaged and packed again: otherwise a checksum finds every damage."""
    kinds = [name for name in KINDS if name not in ("inside", "deepen")]
    inner = Edit(kinds[edit.value % len(kinds)], edit.where, edit.value)
    try:
        if data.startswith(GZIP_MAGIC):
            return gzip.compress(damage(gzip.decompress(data), [inner]), 1)
        if data.startswith(ZIP_MAGIC):
            return _zip(data, inner)
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error, struct.error):
        return data
    return data


def _zip(data: bytes, edit: Edit) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new:
        names = old.namelist()
        chosen = names[edit.value % len(names)]
        for name in names:
            content = old.read(name)
            new.writestr(name, damage(content, [edit]) if name == chosen else content)
    return packed.getvalue()


KINDS = {
    "flip": _flip,
    "flip early": _flip_early,
    "truncate": _truncate,
    "insert": _insert,
    "delete": _delete,
    "double": _double,
    "deepen": _deepen,
    "number": _number,
    "words": _words,
    "lines": _lines,
    "json": _json,
    "header": _header,
    "inside": _inside,
}
