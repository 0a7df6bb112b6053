"""FSTs as numpy arrays, to and from kaldifst through OpenFst's binary files.

Whole arrays are passed at once. One call per arc took two thirds of the time of building a 20,000-word graph.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import tempfile
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import kaldifst

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

FST_MAGIC = 2125659606
FILE_VERSION = 2
# OpenFst's property bits "expanded" and "mutable". It computes the others when they are needed.
CONST_PROPERTIES, VECTOR_PROPERTIES = 1, 3
NO_FINAL = math.inf
# (source, destination, input label, output label, cost)
ArcRow = tuple[int, int, int, int, float]
_ARC = np.dtype([("ilabel", "<i4"), ("olabel", "<i4"), ("cost", "<f4"), ("dst", "<i4")])
_LATTICE_ARC_TYPE = "lattice4"  # OpenFst's name for arcs with two float weights
_CONST_STATE = np.dtype([("final", "<f4"), ("first", "<u4"), ("arcs", "<u4"), ("ieps", "<u4"), ("oeps", "<u4")])
# 4-byte words in a vector FST's file: a state has its final cost and an int64 count, an arc has four fields.
_WORDS_PER_STATE, _WORDS_PER_ARC = 3, 4
# In a lattice's file every cost is two floats.
_WORDS_PER_LATTICE_STATE, _WORDS_PER_LATTICE_ARC = 4, 5


@dataclass(frozen=True)
class FstArrays:
    """A weighted transducer in the tropical semiring; costs are negated natural logs. Arcs are ordered by `src`."""

    src: Ints
    """[arcs] source state."""
    dst: Ints
    """[arcs] destination state."""
    ilabel: Ints
    """[arcs] input label, 0 for epsilon."""
    olabel: Ints
    """[arcs] output label, 0 for epsilon."""
    cost: Floats
    """[arcs] negated natural log."""
    final: Floats
    """[states] cost of ending in a state, infinite in states that are not final."""
    start: int = 0
    """The initial state."""

    @property
    def num_states(self) -> int:
        """Number of states."""
        return len(self.final)

    @property
    def num_arcs(self) -> int:
        """Number of arcs."""
        return len(self.src)

    def where(self, chosen: NDArray[np.bool_]) -> FstArrays:
        """All states, and only the chosen arcs."""
        src, dst, ilabel, olabel = (column[chosen] for column in (self.src, self.dst, self.ilabel, self.olabel))
        return FstArrays(src, dst, ilabel, olabel, self.cost[chosen], self.final, self.start)

    def digest(self) -> str:
        """SHA-256 of all arrays, for fingerprints."""
        digest = hashlib.sha256(str(self.start).encode())
        for column in (self.src, self.dst, self.ilabel, self.olabel, self.cost, self.final):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def sorted_by_source(columns: Sequence[ArrayLike], final: ArrayLike, start: int = 0) -> FstArrays:
    """An FST of arcs in any order; the arcs of one state stay in order.

    `columns`: source, destination, input label, output label and cost, [arcs] each.
    """
    *labels, cost = columns
    src, dst, ilabel, olabel = (np.asarray(column, dtype=np.int32) for column in labels)
    order = np.argsort(src, kind="stable")
    return FstArrays(
        src[order],
        dst[order],
        ilabel[order],
        olabel[order],
        np.asarray(cost, dtype=np.float32)[order],
        np.asarray(final, dtype=np.float32),
        start,
    )


class ArcList:
    """Arcs that are added one by one, stored as numbers: one tuple per arc would take ten times the memory."""

    def __init__(self) -> None:
        self._labels = tuple(array("i") for _ in range(4))
        self._cost = array("f")

    def add(self, src: int, dst: int, ilabel: int, olabel: int, cost: float) -> None:
        """Add an arc."""
        for column, value in zip(self._labels, (src, dst, ilabel, olabel), strict=True):
            column.append(value)
        self._cost.append(cost)

    def fst(self, final: ArrayLike, start: int = 0) -> FstArrays:
        """The FST of all arcs."""
        return sorted_by_source([np.asarray(column) for column in (*self._labels, self._cost)], final, start)


def from_rows(rows: Sequence[ArcRow], final: ArrayLike, start: int = 0) -> FstArrays:
    """An FST of arcs as rows, in any order."""
    return sorted_by_source(list(zip(*rows, strict=True)), final, start)


def to_kaldifst(fst: FstArrays) -> kaldifst.StdVectorFst:
    """The same FST for kaldifst."""
    counts = np.bincount(fst.src, minlength=fst.num_states)
    words = np.zeros(_WORDS_PER_STATE * fst.num_states + _WORDS_PER_ARC * fst.num_arcs, dtype="<i4")
    first_arc = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    state_at = _WORDS_PER_STATE * np.arange(fst.num_states) + _WORDS_PER_ARC * first_arc
    words[state_at] = fst.final.view("<i4")
    words[state_at + 1] = counts
    arc_at = _WORDS_PER_STATE * (fst.src.astype(np.int64) + 1) + _WORDS_PER_ARC * np.arange(fst.num_arcs)
    for offset, column in enumerate((fst.ilabel, fst.olabel, fst.cost.view("<i4"), fst.dst)):
        words[arc_at + offset] = column
    header = _header("vector", [VECTOR_PROPERTIES, fst.start, fst.num_states, fst.num_arcs])
    with tempfile.TemporaryDirectory(prefix="asrkd-fst-") as folder:
        path = Path(folder, "vector.fst")
        with path.open("wb") as file:
            file.write(header)
            file.write(words.tobytes())
        import kaldifst  # here: the options of decoding are read where it is missing

        return kaldifst.StdVectorFst.read(str(path))


def to_const_kaldifst(fst: FstArrays) -> kaldifst.StdConstFst:
    """The same FST in constant form: all arcs in one block, which a search reads sooner and nobody can change."""
    import kaldifst

    with tempfile.TemporaryDirectory(prefix="asrkd-fst-") as folder:
        path = Path(folder, "const.fst")
        write_const_fst(fst, path)
        return kaldifst.StdConstFst.read(str(path))


def write_const_fst(fst: FstArrays, path: Path) -> None:
    """Write an FST as OpenFst's constant kind, for everything that reads OpenFst's files."""
    states = np.zeros(fst.num_states, dtype=_CONST_STATE)
    states["final"] = fst.final
    states["arcs"] = np.bincount(fst.src, minlength=fst.num_states)
    states["first"] = np.append(0, np.cumsum(states["arcs"], dtype=np.int64)[:-1])
    for name, label in (("ieps", fst.ilabel), ("oeps", fst.olabel)):
        states[name] = np.bincount(fst.src[label == 0], minlength=fst.num_states)
    arcs = np.empty(fst.num_arcs, dtype=_ARC)
    for name, column in (("ilabel", fst.ilabel), ("olabel", fst.olabel), ("cost", fst.cost), ("dst", fst.dst)):
        arcs[name] = column
    with path.open("wb") as file:
        file.write(_header("const", [CONST_PROPERTIES, fst.start, fst.num_states, fst.num_arcs]))
        states.tofile(file)
        arcs.tofile(file)


def _header(kind: str, numbers: Sequence[int]) -> bytes:
    """Of an OpenFst file; numbers: properties, start, states, arcs."""
    fields = np.array([FILE_VERSION, 0], dtype="<i4").tobytes(), np.array(numbers, dtype="<i8").tobytes()
    return b"".join((np.int32(FST_MAGIC).tobytes(), _pascal_string(kind), _pascal_string("standard"), *fields))


@dataclass(frozen=True)
class LatticeArrays:
    """A lattice of Kaldi's: a transducer with two costs on each arc. Arcs are ordered by `src`."""

    src: Ints
    """[arcs] source state."""
    dst: Ints
    """[arcs] destination state."""
    ilabel: Ints
    """[arcs] input label, 0 for epsilon."""
    olabel: Ints
    """[arcs] output label, 0 for epsilon."""
    costs: Floats
    """[arcs, 2] of the graph, and of the scaled acoustic scores."""
    final: Floats
    """[states, 2] costs of ending in a state, infinite in states that are not final."""


def lattice_arrays(lattice: kaldifst.Lattice) -> LatticeArrays:
    """The arrays of a lattice.

    OSError if the file cannot be written, ValueError if it is not a vector of OpenFst's.
    """
    content = _written(lattice.write)
    name = np.int32(FST_MAGIC).tobytes() + _pascal_string("vector") + _pascal_string(_LATTICE_ARC_TYPE)
    if not content.startswith(name):
        raise ValueError(f"expected a vector of {_LATTICE_ARC_TYPE} arcs, found {content[:40]!r}")
    num_states = int(np.frombuffer(content, "<i8", 4, len(name) + 8)[2])
    words = np.frombuffer(content, "<i4", offset=len(name) + 8 + 32)
    counts = np.empty(num_states, dtype=np.int64)
    states = np.empty(num_states, dtype=np.int64)  # word at which each begins
    view, position = memoryview(content)[len(content) - words.nbytes :].cast("i"), 0
    for state in range(num_states):
        count = view[position + 2]  # the low half
        states[state], counts[state] = position, count
        position += _WORDS_PER_LATTICE_STATE + _WORDS_PER_LATTICE_ARC * count
    source = np.repeat(np.arange(num_states, dtype=np.int32), counts)
    num_before = np.cumsum(counts) - counts
    arc_at = (states + _WORDS_PER_LATTICE_STATE - _WORDS_PER_LATTICE_ARC * num_before)[source]
    arc_at += _WORDS_PER_LATTICE_ARC * np.arange(len(source))
    ilabel, olabel, graph_cost, acoustic_cost, dst = (words[arc_at + n] for n in range(_WORDS_PER_LATTICE_ARC))
    costs = np.stack([graph_cost, acoustic_cost], axis=1).view("<f4")
    final = np.stack([words[states], words[states + 1]], axis=1).view("<f4")
    return LatticeArrays(source, dst, ilabel, olabel, costs, final)


def _written(write: Callable[[str], bool]) -> bytes:
    """What a function writes into the file that it is given. OSError if it fails.

    The file is in memory where the system has such files: a search asks for its best path five times a second, and a
    folder on a disk takes milliseconds.
    """
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        with open(os.memfd_create("asrkd-fst"), "rb") as file:
            if not write(f"/proc/self/fd/{file.fileno()}"):
                raise OSError(errno.ENOMEM, "could not write an FST into memory")
            return file.read()
    with tempfile.TemporaryDirectory(prefix="asrkd-fst-") as folder:
        path = Path(folder, "written.fst")
        if not write(str(path)):
            raise OSError(errno.EIO, "could not write an FST (is the disk full?)", str(path))
        return path.read_bytes()


def arcs_of_lattice(lattice: kaldifst.Lattice) -> tuple[Ints, Ints, Ints]:
    """Source, destination and output label of each arc of a lattice of Kaldi's, in the order of their sources.

    Errors as of `lattice_arrays`.
    """
    arrays = lattice_arrays(lattice)
    return arrays.src, arrays.dst, arrays.olabel


def from_kaldifst(fst: kaldifst.StdFst) -> FstArrays:
    """The arrays of a kaldifst FST, from its constant form, where all arcs are in one block.

    OSError if the file cannot be written, ValueError if it is not a plain constant FST.
    """
    import kaldifst  # here: as in to_kaldifst

    content = _written(kaldifst.StdConstFst(fst).write)
    position = np.dtype("<i4").itemsize
    for expected in ("const", "standard"):
        name = _pascal_string(expected)
        if content[position : position + len(name)] != name:
            raise ValueError(f"expected a {expected} FST, found {content[:40]!r}")
        position += len(name)
    _, flags = np.frombuffer(content, "<i4", 2, position)
    if flags:
        raise ValueError(f"expected an FST without symbol tables and unaligned, found flags {flags}")
    _, start, num_states, num_arcs = (int(field) for field in np.frombuffer(content, "<i8", 4, position + 8))
    position += 8 + 32
    states = np.frombuffer(content, _CONST_STATE, num_states, position)
    arcs = np.frombuffer(content, _ARC, num_arcs, position + states.nbytes)
    src = np.repeat(np.arange(num_states, dtype=np.int32), states["arcs"])
    dst, ilabel, olabel, cost = (np.ascontiguousarray(arcs[name]) for name in ("dst", "ilabel", "olabel", "cost"))
    return FstArrays(src, dst, ilabel, olabel, cost, np.ascontiguousarray(states["final"]), start)


def _pascal_string(text: str) -> bytes:
    """A string as OpenFst writes it: its length and its bytes."""
    return np.int32(len(text)).tobytes() + text.encode()
