"""A lattice of Kaldi's as arrays, against one that is written arc by arc."""

from __future__ import annotations

import os

import numpy as np
import pytest

from asrkd.graph.arrays import lattice_arrays

kaldifst = pytest.importorskip("kaldifst")

# (source, input label, output label, cost of the graph, acoustic cost, destination)
ARCS = [(0, 3, 7, 0.5, -1.25, 1), (0, 4, 0, 0.25, 2.0, 2), (1, 1, 0, 0.0, 0.125, 2)]


@pytest.mark.parametrize("in_memory", [True, False])
def test_every_state_has_its_arcs(monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    if in_memory and not hasattr(os, "memfd_create"):
        pytest.skip("no files in memory here")
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    lattice = kaldifst.Lattice()
    for _ in range(3):
        lattice.add_state()
    lattice.start = 0
    for src, ilabel, olabel, graph, acoustic, dst in ARCS:
        arc = kaldifst.LatticeArc(ilabel, olabel, kaldifst.LatticeWeight(graph, acoustic), dst)
        lattice.add_arc(src, arc)
    lattice.set_final(2, kaldifst.LatticeWeight(1.5, 0.75))
    arrays = lattice_arrays(lattice)
    columns = zip(arrays.src, arrays.ilabel, arrays.olabel, *arrays.costs.T, arrays.dst, strict=True)
    assert [tuple(arc) for arc in columns] == ARCS
    assert np.array_equal(arrays.final, np.float32([[np.inf, np.inf], [np.inf, np.inf], [1.5, 0.75]]))


def test_a_lattice_without_arcs() -> None:
    lattice = kaldifst.Lattice()
    lattice.add_state()
    lattice.start = 0
    arrays = lattice_arrays(lattice)
    assert len(arrays.src) == len(arrays.dst) == 0 and arrays.costs.shape == (0, 2) and arrays.final.shape == (1, 2)
