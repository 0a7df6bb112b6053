"""Lines of a text file, plain or gzip, with errors that name the file and the line."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from asrkd.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"


def read_lines(path: Path | str) -> list[str]:
    """The lines of a UTF-8 file, without their ends; gzip is recognised by its content.

    InputError if the file is missing or cannot be read, a damaged gzip, or not UTF-8 (naming the first bad line).
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be read, found none ({error.strerror})") from None
    if data.startswith(GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: expected gzip, found a damaged one ({error})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise InputError(f"{path}:{number}: expected UTF-8, found byte 0x{byte:02x}") from None
    # Not splitlines(): it also splits at U+0085 and U+2028, which a word may hold.
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines
