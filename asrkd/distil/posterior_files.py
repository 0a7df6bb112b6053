"""Matrices by utt_id in the files of other systems: numpy files, or Kaldi archives with their .scp."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.files import find_file, read_lines
from asrkd.unicode import clean

Matrix = NDArray[Any]
# macOS writes a file of attributes with this prefix for each file.
HIDDEN = "._"
# What follows the file in an entry of an .scp: `:offset`, `[first:last]`.
# No bracket inside brackets: a line of thousands of them would take hours.
LOCATION = re.compile(r"(.*?)(?::(\d+))?(\[[^\[\]]*\])?", re.DOTALL)
# Kaldi's binary matrices: the token, where the numbers of rows and columns are behind it, and the bytes of the data.
BINARY = b"\0B"
HEAD_BYTES = 32
KALDI_LAYOUTS: dict[bytes, tuple[str, Callable[[int, int], int]]] = {
    b"FM ": ("<xixi", lambda rows, columns: 4 * rows * columns),
    b"DM ": ("<xixi", lambda rows, columns: 8 * rows * columns),
    b"CM ": ("<8xii", lambda rows, columns: (8 + rows) * columns),
    b"CM2 ": ("<8xii", lambda rows, columns: 2 * rows * columns),
    b"CM3 ": ("<8xii", lambda rows, columns: rows * columns),
}
# What numpy raises for a file of another kind, or one that is truncated or damaged.
NOT_AN_ARRAY = (
    *(ValueError, EOFError, OSError, MemoryError, OverflowError, RuntimeError, SyntaxError, TokenError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


@dataclass(frozen=True)
class MatrixFiles(Mapping[str, Matrix]):
    """utt_id -> matrix; a matrix is read when it is looked up."""

    locations: Mapping[str, Any]
    """utt_id -> what `read` takes: a file, or a position in one."""
    read: Callable[[Any], Matrix]

    def __getitem__(self, utt_id: str) -> Matrix:
        return self.read(self.locations[utt_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self.locations)

    def __len__(self) -> int:
        return len(self.locations)


def open_posteriors(path: Path) -> Mapping[str, Matrix]:
    """The matrices in a folder of <utt_id>.npy, in one .npz, or in Kaldi archives through their .scp.

    InputError if `path` is none of these, or has no matrix.
    """
    if path.is_dir():
        matrices = MatrixFiles(
            {clean(file.stem): file for file in sorted(path.glob("*.npy")) if not file.name.startswith(HIDDEN)},
            _read_npy,
        )
    elif not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    elif path.suffix == ".npz":
        matrices = _open_npz(path)
    elif path.suffix == ".scp":
        matrices = MatrixFiles(_scp_entries(path), _kaldi_reader())
    else:
        hint = " (for an .ark: copy-matrix ark:FILE.ark ark,scp:NEW.ark,NEW.scp)" if path.suffix == ".ark" else ""
        raise InputError(
            f"{path}: expected a folder of <utt_id>.npy, an .npz or a Kaldi .scp{hint}, found another file"
        )
    if not matrices:
        raise InputError(f"{path}: expected <utt_id>.npy files or entries, found none")
    return matrices


def _read_npy(file: Path) -> Matrix:
    try:
        matrix = np.load(file, allow_pickle=False)
    except NOT_AN_ARRAY as error:
        raise InputError(f"{file}: expected a numpy matrix, found something else ({error})") from None
    if not isinstance(matrix, np.ndarray):
        raise InputError(f"{file}: expected a numpy matrix, found an .npz")
    return matrix


def _open_npz(path: Path) -> MatrixFiles:
    try:
        archive = np.load(path, allow_pickle=False)
    except NOT_AN_ARRAY as error:
        raise InputError(f"{path}: expected an .npz, found something else ({error})") from None
    if isinstance(archive, np.ndarray):
        raise InputError(f"{path}: expected an .npz, found an .npy")

    def read(name: str) -> Matrix:
        try:
            matrix = archive[name]
        except NOT_AN_ARRAY as error:
            raise InputError(f"{path}: {name}: expected a matrix, found something else ({error})") from None
        if not isinstance(matrix, np.ndarray):
            raise InputError(f"{path}: {name}: expected a matrix, found another kind of file in the .npz")
        return matrix

    return MatrixFiles({clean(name): name for name in archive.files}, read)


def _scp_entries(path: Path) -> dict[str, str]:
    """utt_id -> `file:offset` of each line. InputError for a command that Kaldi would run and read from."""
    entries: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split(maxsplit=1)
        if len(fields) != 2 or "|" in line or fields[1].strip() == "-":  # a command, or standard input
            raise InputError(f"{path}:{number}: expected `utt_id file:offset`, found {line!r}")
        if fields[0] in entries:
            raise InputError(f"{path}:{number}: {fields[0]}: expected one entry of this id, found two")
        entries[fields[0]] = _as_on_disk(fields[1].strip())
    return entries


def _as_on_disk(location: str) -> str:
    """An .scp entry with its file as the disk spells it."""
    file = LOCATION.fullmatch(location)[1]  # type: ignore[index]  # it matches any text
    found = None if Path(file).is_file() else find_file(Path(file))
    return location if found is None else f"{found}{location[len(file) :]}"


def _kaldi_reader() -> Callable[[str], Matrix]:
    try:
        import kaldi_native_io
    except ImportError:
        raise InputError("Kaldi archives: kaldi_native_io is not installed: run `make setup`") from None

    def read(location: str) -> Matrix:
        _require_kaldi_matrix(location)
        try:
            return np.array(kaldi_native_io.FloatMatrix.read(location).numpy())
        except RuntimeError as error:
            reason = (str(error).strip() or "unreadable").splitlines()[-1]
            raise InputError(f"{location}: expected a Kaldi matrix, found none ({reason})") from None

    return read


def _require_kaldi_matrix(location: str) -> None:
    """InputError unless an .scp entry is in a file, and the whole of its matrix, if that is a binary one.

    The library waits for a pipe or `-`, and a damaged size ends the process (kaldi_native_io 1.23).
    """
    path, offset, _ = LOCATION.fullmatch(location).groups()  # type: ignore[union-attr]  # it matches any text
    if not Path(path).is_file():
        raise InputError(
            f"{location}: expected a Kaldi matrix, found no such file (paths in an .scp start from this folder)"
        )
    with open(path, "rb") as file:
        file.seek(min(int(offset or 0), Path(path).stat().st_size))
        head, data_start = file.read(HEAD_BYTES), file.tell()
        num_left = file.seek(0, SEEK_END) - data_start
    if not head:
        raise InputError(f"{location}: expected a Kaldi matrix, found the end of the file")
    if not head.startswith(BINARY):
        return
    for token, (layout, data_bytes) in KALDI_LAYOUTS.items():
        sizes_start = len(BINARY) + len(token)
        if head[len(BINARY) :].startswith(token) and len(head) >= sizes_start + struct.calcsize(layout):
            num_rows, num_columns = struct.unpack_from(layout, head, sizes_start)
            num_bytes = sizes_start + struct.calcsize(layout) + data_bytes(num_rows, num_columns)
            if min(num_rows, num_columns) >= 0 and num_bytes <= len(head) + num_left:
                return
            raise InputError(
                f"{location}: expected a Kaldi matrix, found one of {num_rows} rows and {num_columns} columns in a "
                "file that is shorter: damaged, or cut off"
            )
    raise InputError(f"{location}: expected a Kaldi matrix, found none (it begins with {head[:5]!r})")
