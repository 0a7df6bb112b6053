"""The hypotheses of a lattice against all of its paths, and a wider lattice where one has too few."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from toy_model import SEARCH, path_scores, write_toy_language

from asrkd.graph.arrays import LatticeArrays
from asrkd.runtime import lattice as lattice_module
from asrkd.runtime.graph import WordGraph
from asrkd.runtime.lattice import FrameLattice
from asrkd.runtime.search import LATTICE_BEAM, Search

pytest.importorskip("kaldi_decoder")


def layered(rng: np.random.Generator, num_frames: int, width: int) -> FrameLattice:
    """A random lattice: one state at the begin, `width` after each frame, labels 0 to 2, all last states final."""
    src, dst = [], []
    for frame in range(num_frames):
        for source in range(1 if frame == 0 else width):
            for target in range(width):
                src.append(0 if frame == 0 else 1 + (frame - 1) * width + source)
                dst.append(1 + frame * width + target)
    num_states = 1 + num_frames * width
    final = np.full((num_states, 2), np.inf, np.float32)
    final[-width:] = rng.random((width, 2))
    columns = [np.array(column, dtype=np.int32) for column in (src, dst, [1] * len(src))]
    olabel = rng.integers(0, 3, len(src)).astype(np.int32)
    costs = rng.random((len(src), 2), dtype=np.float32)
    arrays = LatticeArrays(*columns, olabel, costs, final)
    frame_of_state = np.append(0, np.repeat(np.arange(num_frames) + 1, width))
    return FrameLattice(arrays, frame_of_state[arrays.src].astype(np.int32))


def all_hypotheses(lattice: FrameLattice) -> dict[tuple[int, ...], float]:
    """The cost of the best path of each sequence of labels, by going along all paths."""
    arrays, costs = lattice.arrays, {}
    paths: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    while paths:
        state, cost, labels = paths.pop()
        if np.isfinite(arrays.final[state]).all():
            costs[labels] = min(costs.get(labels, np.inf), cost + float(arrays.final[state].sum()))
        for arc in np.flatnonzero(arrays.src == state):
            label = int(arrays.olabel[arc])
            paths.append((int(arrays.dst[arc]), cost + float(lattice.cost[arc]), (*labels, label) if label else labels))
    return costs


@pytest.mark.parametrize("seed", range(5))
def test_hypotheses_are_those_of_all_paths(seed: int) -> None:
    lattice = layered(np.random.default_rng(seed), num_frames=5, width=3)
    costs = all_hypotheses(lattice)
    found = list(lattice.hypotheses())
    assert len(found) == len(set(found)) and set(found) == set(costs)
    assert [costs[labels] for labels in found] == pytest.approx(sorted(costs.values()), abs=1e-5)
    assert list(islice(lattice.hypotheses(), 4)) == found[:4]
    assert lattice.cost_to_end[0] == pytest.approx(min(costs.values()), abs=1e-5)


def test_a_search_for_hypotheses_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    lattice = layered(np.random.default_rng(0), num_frames=5, width=3)
    complete = list(lattice.hypotheses())
    monkeypatch.setattr(lattice_module, "MOST_VISITS", 40)
    some = list(lattice.hypotheses())
    assert 0 < len(some) < len(complete) and some == complete[: len(some)]


def test_alternatives_beyond_the_lattice_of_confidences(tmp_path: Path) -> None:
    """Speech that is clear: what else it may be is further from the best path than the lattice of confidences goes."""
    write_toy_language(tmp_path)
    search = Search(WordGraph.load(tmp_path, ("SIL",)), SEARCH)
    spoken = [("SIL", 6), ("A", 6), ("B", 9), ("SIL", 4), ("B", 6), ("A", 6), ("C", 8), ("SIL", 5)]
    scores = path_scores(spoken, margin=1.5).numpy()
    narrow = search._lattice(np.ascontiguousarray(scores), LATTICE_BEAM)
    assert narrow is not None
    num_near = len({" ".join(search.graph.text(labels)) for labels in narrow.hypotheses()})
    found = search.decode(scores, nbest=num_near + 3)
    assert found.text == "AB BA C"
    assert len(found.alternatives) == num_near + 2, "one less than was asked for: the best one is not among them"
    assert found.text not in found.alternatives and len(set(found.alternatives)) == len(found.alternatives)
