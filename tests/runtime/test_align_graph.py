"""The graph of a text and its best path, against all phone sequences and a textbook's Viterbi of each."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkd.errors import InputError
from asrkd.hmm.tree import LEAF, LEFT, RIGHT, SenoneTree
from asrkd.runtime.align_graph import NO_WORD, ContextTree, GraphWeights, TextGraph, text_graph
from asrkd.runtime.align_search import Path as BestPath
from asrkd.runtime.align_search import _Search, best_path

SIL, A, B = range(3)
NUM_PDFS = 12
Prons = list[list[list[int]]]


def senone_tree() -> SenoneTree:
    """Its roots are nodes 0 to 8. A's first state asks whether SIL is on its left, and if not, whether B is on its
    right; B's last state asks whether A is on its right."""
    context = np.full(15, LEAF)
    question = np.zeros(15, dtype=np.int64)
    yes, no = np.zeros(15, dtype=np.int64), np.zeros(15, dtype=np.int64)
    for node, side, row, first in ((3, LEFT, 0, 9), (10, RIGHT, 2, 11), (8, RIGHT, 1, 13)):
        context[node], question[node], yes[node], no[node] = side, row, first, first + 1
    leaves = np.flatnonzero(context == LEAF)
    question[leaves] = np.arange(len(leaves))
    return SenoneTree(("SIL", "A", "B"), np.eye(3, dtype=bool), context, question, yes, no)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> ContextTree:
    path = tmp_path_factory.mktemp("tree") / "tree.json"
    senone_tree().save(path)
    return ContextTree.load(path)


def weights(silence: float = -0.5) -> GraphWeights:
    rng = np.random.default_rng(1)
    return GraphWeights(silence, -rng.uniform(0.1, 1.0, NUM_PDFS), -rng.uniform(0.1, 1.0, NUM_PDFS))


def test_the_senones_are_those_of_the_senone_tree(tree: ContextTree) -> None:
    import torch

    full = senone_tree()
    assert full.num_pdfs == NUM_PDFS
    for left, phone, right in itertools.product(range(3), repeat=3):
        expected = [int(full.pdf_ids(*map(torch.tensor, (left, phone, right, state)))) for state in range(3)]
        assert tree.pdf_ids(left, phone, right) == tuple(expected)


def test_damaged_and_missing_trees(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected the senone tree of the model, found none"):
        ContextTree.load(tmp_path / "tree.json")
    (tmp_path / "tree.json").write_text("{}")
    with pytest.raises(InputError, match="expected a senone tree, found something else"):
        ContextTree.load(tmp_path / "tree.json")


def sequences(prons: Prons, with_silence: bool) -> list[tuple[list[int], int]]:
    """All phone sequences of a text, and how many of their phones are silence."""
    found = []
    for chosen in itertools.product(*prons):
        for pauses in itertools.product((False, True), repeat=(len(prons) + 1) if with_silence else 0):
            phones: list[int] = []
            for slot in range(len(prons) + 1):
                phones += [SIL] if pauses and pauses[slot] else []
                phones += chosen[slot] if slot < len(prons) else []
            found.append((phones, sum(pauses)))
    return found


def linear_viterbi(scores: np.ndarray, pdfs: list[int], costs: GraphWeights, scale: float) -> float:
    """The weight of the best path through a row of states."""
    total = [-math.inf] * len(pdfs)
    for frame, row in enumerate(scores):
        new = []
        for state, pdf in enumerate(pdfs):
            before = (0.0 if frame == 0 else -math.inf) if state == 0 else (total[state - 1] if frame else -math.inf)
            new.append(max(total[state] + costs.loop[pdf], before + costs.entry[pdf]) + scale * row[pdf])
        total = new
    return total[-1]


def expected_weight(scores: np.ndarray, prons: Prons, tree: ContextTree, costs: GraphWeights, scale: float) -> float:
    best = -math.inf
    for phones, pauses in sequences(prons, costs.silence > -math.inf):
        framed = [SIL, *phones, SIL]
        pdfs = [pdf for n in range(1, len(framed) - 1) for pdf in tree.pdf_ids(*framed[n - 1 : n + 2])]
        weight = linear_viterbi(scores, pdfs, costs, scale) + (pauses * costs.silence if pauses else 0.0)
        best = max(best, weight)
    return best


def weight_of(path: BestPath, graph: TextGraph, scores: np.ndarray, costs: GraphWeights, scale: float) -> float:
    """The weight of a path, which must be one of the graph."""
    assert graph.is_first[path.units[0]] and path.states[0] == 0
    assert graph.is_last[path.units[-1]] and path.states[-1] == 2
    total, previous = 0.0, None
    for frame, (unit, state) in enumerate(zip(path.units.tolist(), path.states.tolist(), strict=True)):
        pdf = graph.pdfs[unit, state]
        if previous == (unit, state):
            total += costs.loop[pdf]
        else:
            total += costs.entry[pdf] + (graph.weight[unit] if state == 0 else 0.0)
            if previous is not None and state == 0:
                assert previous[1] == 2 and previous[0] in graph.predecessors[unit]
            elif previous is not None:
                assert previous == (unit, state - 1)
        total += scale * float(scores[frame, pdf])
        previous = unit, state
    return total


PRONS = st.lists(
    st.lists(st.lists(st.sampled_from([A, B]), min_size=1, max_size=2), min_size=1, max_size=2),
    min_size=1,
    max_size=3,
)


@given(PRONS, st.integers(0, 16), st.sampled_from([-0.5, 0.3, -math.inf]), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_best_path_is_that_of_all_phone_sequences(
    tree: ContextTree, prons: Prons, num_frames: int, silence: float, seed: int
) -> None:
    scores = np.random.default_rng(seed).normal(0.0, 3.0, (num_frames, NUM_PDFS)).astype(np.float32)
    costs = weights(silence)
    graph = text_graph(prons, tree, costs)
    path = best_path([scores[:5], scores[5:]], num_frames, graph, costs, 0.5)
    expected = expected_weight(scores, prons, tree, costs, 0.5)
    if expected == -math.inf:
        assert path is None
        return
    assert path is not None
    assert weight_of(path, graph, scores, costs, 0.5) == pytest.approx(expected, abs=1e-4)
    narrow = best_path([scores], num_frames, graph, costs, 0.5, beam=1000.0)
    assert narrow is not None and (narrow.units == path.units).all() and (narrow.states == path.states).all()


def test_words_of_a_graph_are_in_order(tree: ContextTree) -> None:
    graph = text_graph([[[A], [A, B]], [[B]]], tree, weights())
    assert [word for word, _ in itertools.groupby(graph.word.tolist())] == [NO_WORD, 0, NO_WORD, 1, NO_WORD]
    assert graph.min_frames == 6
    size = len(graph.phone)
    assert all(before < unit or before == size for unit in range(size) for before in graph.predecessors[unit])
    with pytest.raises(ValueError, match="at least one word"):
        text_graph([], tree, weights())


def test_long_texts_are_searched_near_the_best_path(tree: ContextTree, monkeypatch: pytest.MonkeyPatch) -> None:
    costs, prons = weights(), [[[A]], [[B]]] * 40
    graph = text_graph(prons, tree, costs)
    phones = [SIL, *[A, B] * 40, SIL]
    pdfs = [pdf for n in range(1, len(phones) - 1) for pdf in tree.pdf_ids(*phones[n - 1 : n + 2])]
    scores = np.full((2 * len(pdfs), NUM_PDFS), -20.0, np.float32)
    scores[np.arange(len(scores)), np.repeat(pdfs, 2)] = 0.0
    exact = best_path([scores], len(scores), graph, costs, 1.0)
    monkeypatch.setattr("asrkd.runtime.align_search.MOST_BYTES", 100_000)
    with pytest.raises(MemoryError):
        best_path([scores], len(scores), graph, costs, 1.0)
    monkeypatch.setattr("asrkd.runtime.align_search.EXACT_CELLS", 1000)
    monkeypatch.setattr("asrkd.runtime.align_search.SETTLE_FRAMES", 30)
    narrow = best_path([scores], len(scores), graph, costs, 1.0)
    assert exact is not None and narrow is not None
    for one, other in zip(narrow, exact, strict=True):
        assert (one == other).all()
    assert (exact.misfit == 0.0).all()
    assert (graph.pdfs[exact.units, exact.states] == np.repeat(pdfs, 2)).all()


def test_memory_does_not_grow_with_the_length(tree: ContextTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen times the text: as many bytes are not final at most, and the path is that of an exact search."""
    monkeypatch.setattr("asrkd.runtime.align_search.SETTLE_FRAMES", 50)
    costs, rng = weights(), np.random.default_rng(2)
    most = {}
    for repeats in (20, 300):
        graph = text_graph([[[A]], [[B]]] * repeats, tree, costs)
        phones = [SIL, *[A, B] * repeats, SIL]
        pdfs = [pdf for n in range(1, len(phones) - 1) for pdf in tree.pdf_ids(*phones[n - 1 : n + 2])]
        scores = rng.normal(-12.0, 1.0, (2 * len(pdfs), NUM_PDFS)).astype(np.float32)
        scores[np.arange(len(scores)), np.repeat(pdfs, 2)] += 12.0
        search = _Search(graph, costs, 1.0, beam=60.0)
        most[repeats] = 0
        for row in scores:
            search.advance(row[None])
            most[repeats] = max(most[repeats], search._num_bytes)
        path, exact = search.path(), best_path([scores], len(scores), graph, costs, 1.0, beam=math.inf)
        assert path is not None and exact is not None
        assert (path.units == exact.units).all() and (path.misfit == exact.misfit).all()
        assert len(path.units) == len(scores)
    assert most[300] < 2 * most[20]
