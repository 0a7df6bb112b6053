"""The expansion to HMM states: the example that the module describes, number by number."""

from __future__ import annotations

import numpy as np
import pytest

from asrkd.graph.arrays import NO_FINAL, from_rows
from asrkd.graph.hmm_states import ExpandedArcs, PdfCosts, expand
from asrkd.hmm.tree import LEAF, LEFT, SenoneTree

A, B = 1, 2


@pytest.fixture
def tree() -> SenoneTree:
    """The first state of B has pdf 9 behind an A, else 6; node 9 is the answer no, node 10 yes."""
    context = np.array([LEAF] * 6 + [LEFT] + [LEAF] * 4)
    question = np.array([0, 1, 2, 3, 4, 5, 0, 7, 8, 6, 9])
    yes, no = np.zeros(11, dtype=np.int64), np.zeros(11, dtype=np.int64)
    yes[6], no[6] = 10, 9
    return SenoneTree(("SIL", "A", "B"), np.array([[False, True, False]]), context, question, yes, no)


def expanded(tree: SenoneTree, costs: PdfCosts) -> ExpandedArcs:
    rows = [(0, 1, A + 1, 1, 1.0), (1, 2, A + 1, 0, 0.5), (1, 2, B + 1, 0, 0.25)]
    return expand(from_rows(rows, [NO_FINAL, NO_FINAL, 0.0]), tree, costs, num_words=1)


def test_the_example_of_the_module(tree: SenoneTree) -> None:
    hclg = expanded(tree, PdfCosts(np.zeros(10), np.zeros(10)))
    rows = zip(hclg.arcs.tolist(), hclg.cost.tolist(), hclg.words.tolist(), strict=True)
    between = [(*arc, cost, word) for arc, cost, word in rows if arc[0] != arc[1]]
    assert between == [
        (0, 1, 4, 1.25, 1),
        (1, 4, 5, 0.0, 0),
        (2, 5, 5, 0.0, 0),
        (3, 6, 8, 0.0, 0),
        (4, 7, 6, 0.0, 0),
        (5, 8, 6, 0.0, 0),
        (6, 9, 9, 0.0, 0),
        (7, 2, 4, 0.25, 0),
        (7, 3, 10, 0.0, 0),
        (8, 10, -1, 0.0, 0),
        (9, 10, -1, 0.0, 0),
    ]
    loops = [arc for arc in hclg.arcs.tolist() if arc[0] == arc[1]]
    assert [label for _, _, label in loops] == [4, 4, 10, 5, 5, 8, 6, 6, 9]
    assert hclg.word_sequences == ((), (0,))


def test_pdfs_cost_their_entry_and_each_further_frame(tree: SenoneTree) -> None:
    costs = PdfCosts(entry=np.arange(10) / 8, loop=np.arange(10) / 4)
    hclg, free = expanded(tree, costs), expanded(tree, PdfCosts(np.zeros(10), np.zeros(10)))
    pdf = hclg.arcs[:, 2] - 1
    is_loop = hclg.arcs[:, 0] == hclg.arcs[:, 1]
    added = np.where(is_loop, costs.loop[pdf], costs.entry[pdf])
    added[hclg.arcs[:, 2] == -1] = 0.0
    np.testing.assert_array_equal(hclg.cost, free.cost + added.astype(np.float32))
