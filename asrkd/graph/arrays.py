"""FSTs as numpy arrays, to and from kaldifst by way of OpenFst's binary files.

Whole arrays cross over at once: one call an arc took two thirds of the time to build a 20,000-word graph.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kaldifst
import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

FST_MAGIC = 2125659606
VECTOR_VERSION = 2
# OpenFst's property bits that claim nothing beyond "expanded, mutable": it computes the others when asked.
VECTOR_PROPERTIES = 3
NO_FINAL = math.inf
# (source, destination, input label, output label, cost)
ArcRow = tuple[int, int, int, int, float]
_ARC = np.dtype([("ilabel", "<i4"), ("olabel", "<i4"), ("cost", "<f4"), ("dst", "<i4")])
_CONST_STATE = np.dtype([("final", "<f4"), ("first", "<u4"), ("arcs", "<u4"), ("ieps", "<u4"), ("oeps", "<u4")])
_WORDS_A_STATE, _WORDS_AN_ARC = (
    3,
    4,
)  # 4-byte words in a vector FST's file: final cost and an int64 count; an arc


@dataclass(frozen=True)
class FstArrays:
    """A weighted transducer in the tropical semiring; costs are negated natural logs. Arcs are ordered by
    `src`."""

    src: Ints
    """[arcs] state an arc leaves."""
    dst: Ints
    """[arcs] state it enters."""
    ilabel: Ints
    """[arcs] input label, 0 for epsilon."""
    olabel: Ints
    """[arcs] output label, 0 for epsilon."""
    cost: Floats
    """[arcs] negated natural log."""
    final: Floats
    """[states] cost of ending there, infinite where one may not."""
    start: int = 0
    """The initial state."""

    @property
    def num_states(self) -> int:
        """States."""
        return len(self.final)

    @property
    def num_arcs(self) -> int:
        """Arcs."""
        return len(self.src)

    def where(self, chosen: NDArray[np.bool_]) -> FstArrays:
        """The same states with the chosen arcs alone."""
        src, dst, ilabel, olabel = (column[chosen] for column in (self.src, self.dst, self.ilabel, self.olabel))
        return FstArrays(src, dst, ilabel, olabel, self.cost[chosen], self.final, self.start)

    def digest(self) -> str:
        """SHA-256 of all arrays, for fingerprints."""
        digest = hashlib.sha256(str(self.start).encode())
        for column in (self.src, self.dst, self.ilabel, self.olabel, self.cost, self.final):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def sorted_by_source(
    src: ArrayLike,
    dst: ArrayLike,
    ilabel: ArrayLike,
    olabel: ArrayLike,
    cost: ArrayLike,
    final: ArrayLike,
    start: int = 0,
) -> FstArrays:
    """An FstArrays of arcs given in any order, those of one state keeping theirs."""
    source = np.asarray(src, dtype=np.int32)
    order = np.argsort(source, kind="stable")
    return FstArrays(
        source[order],
        np.asarray(dst, dtype=np.int32)[order],
        np.asarray(ilabel, dtype=np.int32)[order],
        np.asarray(olabel, dtype=np.int32)[order],
        np.asarray(cost, dtype=np.float32)[order],
        np.asarray(final, dtype=np.float32),
        start,
    )


def from_rows(rows: Sequence[ArcRow], final: ArrayLike, start: int = 0) -> FstArrays:
    """An FstArrays of arcs given one by one, in any order."""
    src, dst, ilabel, olabel, cost = zip(*rows, strict=True)
    return sorted_by_source(src, dst, ilabel, olabel, cost, final, start)


def to_kaldifst(fst: FstArrays) -> kaldifst.StdVectorFst:
    """The same FST as a kaldifst.StdVectorFst."""
    counts = np.bincount(fst.src, minlength=fst.num_states)
    words = np.zeros(_WORDS_A_STATE * fst.num_states + _WORDS_AN_ARC * fst.num_arcs, dtype="<i4")
    first_arc = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    state_at = _WORDS_A_STATE * np.arange(fst.num_states) + _WORDS_AN_ARC * first_arc
    words[state_at] = fst.final.view("<i4")
    words[state_at + 1] = counts
    arc_at = _WORDS_A_STATE * (fst.src.astype(np.int64) + 1) + _WORDS_AN_ARC * np.arange(fst.num_arcs)
    for offset, column in enumerate((fst.ilabel, fst.olabel, fst.cost.view("<i4"), fst.dst)):
        words[arc_at + offset] = column
    header = b"".join(
        (
            np.int32(FST_MAGIC).tobytes(),
            _named("vector"),
            _named("standard"),
            np.array([VECTOR_VERSION, 0], dtype="<i4").tobytes(),
            np.array([VECTOR_PROPERTIES, fst.start, fst.num_states, fst.num_arcs], dtype="<i8").tobytes(),
        )
    )
    with tempfile.TemporaryDirectory(prefix="asrkd-fst-") as folder:
        path = Path(folder, "vector.fst")
        with path.open("wb") as file:
            file.write(header)
            file.write(words.tobytes())
        return kaldifst.StdVectorFst.read(str(path))


def from_kaldifst(fst: kaldifst.StdFst) -> FstArrays:
    """A kaldifst FST's arrays, read from its constant form, in which all arcs lie in one block."""
    with tempfile.TemporaryDirectory(prefix="asrkd-fst-") as folder:
        path = Path(folder, "const.fst")
        if not kaldifst.StdConstFst(fst).write(str(path)):
            raise OSError(f"{path}: could not write an FST")
        content = path.read_bytes()
    position = np.dtype("<i4").itemsize
    for expected in ("const", "standard"):
        name = _named(expected)
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


def _named(text: str) -> bytes:
    return np.int32(len(text)).tobytes() + text.encode()
