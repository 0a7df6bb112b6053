"""The table of all triphones: what the tree itself gives for each, in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkd.graph.triphones import TriphoneTable
from asrkd.hmm.topology import NUM_STATES
from asrkd.hmm.tree import LEAF, LEFT, RIGHT, SenoneTree


def random_tree(num_phones: int, num_leaves: int, seed: int) -> SenoneTree:
    """A tree in which random leaves are split by random questions until there are `num_leaves`."""
    generator = np.random.default_rng(seed)
    num_roots = num_phones * NUM_STATES
    questions = generator.random((3 * num_phones, num_phones)) < generator.random((3 * num_phones, 1))
    context, question, yes, no = [LEAF] * num_roots, [0] * num_roots, [0] * num_roots, [0] * num_roots
    leaves = list(range(NUM_STATES, num_roots))
    for _ in range(num_leaves - num_roots):
        node = leaves.pop(int(generator.integers(len(leaves))))
        context[node], question[node] = (LEFT, RIGHT)[generator.integers(2)], int(generator.integers(len(questions)))
        for children in (yes, no):
            children[node] = len(context)
            leaves.append(len(context))
            for values, value in ((context, LEAF), (question, 0), (yes, 0), (no, 0)):
                values.append(value)
    nodes = [np.array(values, dtype=np.int64) for values in (context, question, yes, no)]
    is_leaf = nodes[0] == LEAF
    nodes[1][is_leaf] = np.arange(is_leaf.sum())
    return SenoneTree(("SIL", *(f"P{n:03d}" for n in range(1, num_phones))), questions, *nodes)


@settings(max_examples=40, deadline=None)
@given(num_phones=st.integers(2, 12), extra=st.integers(0, 150), seed=st.integers(0, 1000))
def test_every_triphone_has_the_pdfs_of_the_tree(num_phones: int, extra: int, seed: int) -> None:
    tree = random_tree(num_phones, num_phones * NUM_STATES + extra, seed)
    table = TriphoneTable.of(tree)
    left, phone, right = np.indices((num_phones,) * 3)
    triple = table.triple(left, phone, right)
    triphone = [torch.from_numpy(ids) for ids in (left, phone, right)]
    for state in range(NUM_STATES):
        pdf_ids = tree.pdf_ids(*triphone, torch.full(triple.shape, state))
        assert torch.equal(torch.from_numpy(table.pdfs[:, state][triple]), pdf_ids)
    rows = [tuple(row) for row in table.pdfs.tolist()]
    assert rows == sorted(set(rows))
    for p in range(num_phones):
        same = (triple[:, None, p] == triple[None, :, p]).all(-1)  # [left, left]
        np.testing.assert_array_equal(table.left_class[p], same.argmax(axis=1))


def test_five_hundred_units_need_little_memory() -> None:
    """A table of 500 x 500 x 500 triphones would take a gigabyte, and several to build."""
    tree = random_tree(500, 2000, seed=0)
    tracemalloc.start()
    table = TriphoneTable.of(tree)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 40e6
    assert len(table.cells) < 2 * 2000
