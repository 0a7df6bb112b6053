"""Matrices by utt_id as other systems leave them: numpy files, or Kaldi's archives with their scp."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.files import read_lines

Matrix = NDArray[Any]
# What numpy lets through of a file that is something else, is cut short or is damaged.
NO_ARRAY = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class MatrixFiles(Mapping[str, Matrix]):
    """utt_id -> matrix, read when asked for."""

    where: Mapping[str, Any]
    read: Callable[[Any], Matrix]

    def __getitem__(self, utt_id: str) -> Matrix:
        return self.read(self.where[utt_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self.where)

    def __len__(self) -> int:
        return len(self.where)


def open_posteriors(path: Path) -> Mapping[str, Matrix]:
    """The matrices of a folder of <utt_id>.npy, of one .npz, or of Kaldi archives by their .scp. InputError if none."""
    if path.is_dir():
        found = MatrixFiles({file.stem: file for file in sorted(path.glob("*.npy"))}, _read_npy)
    elif not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    elif path.suffix == ".npz":
        found = _open_npz(path)
    elif path.suffix == ".scp":
        found = MatrixFiles(_scp_entries(path), _kaldi_reader())
    else:
        how = " (of an .ark: copy-matrix ark:FILE.ark ark,scp:NEW.ark,NEW.scp)" if path.suffix == ".ark" else ""
        raise InputError(f"{path}: expected a folder of <utt_id>.npy, an .npz or a Kaldi .scp{how}, found none of them")
    if not found:
        raise InputError(f"{path}: expected <utt_id>.npy files or entries, found none")
    return found


def _read_npy(file: Path) -> Matrix:
    try:
        matrix = np.load(file, allow_pickle=False)
    except NO_ARRAY as error:
        raise InputError(f"{file}: expected a numpy matrix, found something else ({error})") from None
    if not isinstance(matrix, np.ndarray):
        raise InputError(f"{file}: expected a numpy matrix, found an .npz")
    return matrix


def _open_npz(path: Path) -> MatrixFiles:
    try:
        archive = np.load(path, allow_pickle=False)
    except NO_ARRAY as error:
        raise InputError(f"{path}: expected an .npz, found something else ({error})") from None
    if isinstance(archive, np.ndarray):
        raise InputError(f"{path}: expected an .npz, found an .npy")

    def read(name: str) -> Matrix:
        try:
            matrix: Matrix = archive[name]
        except NO_ARRAY as error:
            raise InputError(f"{path}: {name}: expected a matrix, found something else ({error})") from None
        return matrix

    return MatrixFiles({name: name for name in archive.files}, read)


def _scp_entries(path: Path) -> dict[str, str]:
    """utt_id -> `file:offset` of each line. A command that Kaldi would pipe from is refused, not run."""
    entries: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split(maxsplit=1)
        if len(fields) != 2 or "|" in line:
            raise InputError(f"{path}:{number}: expected `utt_id file:offset`, found {line!r}")
        if fields[0] in entries:
            raise InputError(f"{path}:{number}: {fields[0]}: expected one entry of this id, found two")
        entries[fields[0]] = fields[1].strip()
    return entries


def _kaldi_reader() -> Callable[[str], Matrix]:
    try:
        import kaldi_native_io
    except ImportError:
        raise InputError("Kaldi archives: kaldi_native_io is not installed: `make setup` brings it") from None

    def read(where: str) -> Matrix:
        try:
            return np.array(kaldi_native_io.FloatMatrix.read(where).numpy())
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{where}: expected a Kaldi matrix, found none ({reason})") from None

    return read
