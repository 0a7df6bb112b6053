"""The senones of all triphones, without a table of phones x phones x phones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asrkd.hmm.topology import NUM_STATES
from asrkd.hmm.tree import LEFT, RIGHT, SenoneTree
from asrkd.workflow.ragged import ranges

Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class TriphoneTable:
    """The pdf_ids of every triphone, and the left neighbours that the tree cannot distinguish.

    A tree asks few questions about the neighbours of one phone. Neighbours that answer all of them alike are one
    class, and the table has a cell for each (left class, phone, right class). Its size follows the questions of the
    tree: at most leaves squared per phone, and in practice a few cells per leaf.
    """

    num_phones: int
    """P."""
    left_class: Ints
    """[P, P]: (phone, left) -> the first left neighbour that gives the same pdf_ids with every right neighbour."""
    pdfs: Ints
    """[triples, NUM_STATES]: the different triples of pdf_ids, one pdf_id per HMM state, in lexicographic order."""
    row: Ints
    """[P, P]: (phone, left) -> the first cell of the left class."""
    column: Ints
    """[P, P]: (phone, right) -> the right class, counted from that cell."""
    cells: Ints
    """[cells]: row of `pdfs`."""

    @staticmethod
    def of(tree: SenoneTree) -> TriphoneTable:
        """The table of a tree."""
        num_phones = len(tree.phones)
        asked = _questions_by_phone(tree)
        left, right = (_classes(tree, asked[side]) for side in (LEFT, RIGHT))
        num_left, num_right = (classes.index.max(axis=1) + 1 for classes in (left, right))
        phone, cell = ranges(num_left * num_right)
        left_phone = left.members[left.first[phone] + cell // num_right[phone]]
        right_phone = right.members[right.first[phone] + cell % num_right[phone]]
        triphones = (torch.from_numpy(ids)[:, None].expand(-1, NUM_STATES) for ids in (left_phone, phone, right_phone))
        pdf_ids = tree.pdf_ids(*triphones, torch.arange(NUM_STATES).expand(len(phone), -1))
        pdfs, cells = np.unique(pdf_ids.numpy(), axis=0, return_inverse=True)
        cells = cells.ravel()
        first_cell = np.cumsum(num_left * num_right) - num_left * num_right
        left_class = np.empty((num_phones, num_phones), dtype=np.int64)
        for p in range(num_phones):
            table = cells[first_cell[p] :][: num_left[p] * num_right[p]].reshape(num_left[p], num_right[p])
            # Classes that differ in their answers may still lead to the same leaves.
            _, same_as, row = np.unique(table, axis=0, return_index=True, return_inverse=True)
            left_class[p] = left.members[left.first[p] + same_as[row.ravel()]][left.index[p]]
        row_of = first_cell[:, None] + left.index * num_right[:, None]
        return TriphoneTable(num_phones, left_class, pdfs, row_of, right.index, cells)

    def triple(self, left: Ints, phone: Ints, right: Ints) -> Ints:
        """Row of `pdfs` of each triphone; three integer arrays of one shape."""
        return self.cells[self.row[phone, left] + self.column[phone, right]]


@dataclass(frozen=True)
class _Classes:
    """The classes of neighbours of each phone, on one side."""

    index: Ints
    """[P, P]: (phone, neighbour) -> the neighbour's class among this phone's, in order of their first members."""
    members: Ints
    """The first member of each class, phone after phone."""
    first: Ints
    """[P]: where the classes of each phone begin in `members`."""


def _classes(tree: SenoneTree, asked: list[Ints]) -> _Classes:
    """Neighbours that give the same answers to all questions that a phone's trees ask about this side."""
    index, members = [], []
    for questions in asked:
        # A row that all answer alike: np.unique needs one where no question is asked.
        answers = np.vstack([np.zeros((1, len(tree.phones)), dtype=bool), tree.questions[questions]])
        _, first, same = np.unique(answers, axis=1, return_index=True, return_inverse=True)
        representatives = np.sort(first)
        index.append(np.searchsorted(representatives, first[same.ravel()]))
        members.append(representatives)
    sizes = np.array([len(one) for one in members])
    return _Classes(np.stack(index), np.concatenate(members), np.cumsum(sizes) - sizes)


def _questions_by_phone(tree: SenoneTree) -> dict[int, list[Ints]]:
    """For LEFT and RIGHT: the questions [Q] that each phone's trees ask about that neighbour."""
    phone = np.empty(len(tree.context), dtype=np.int64)
    nodes = np.arange(len(tree.phones) * NUM_STATES)
    phone[nodes] = nodes // NUM_STATES
    while nodes.size:
        parents = nodes[(tree.context[nodes] == LEFT) | (tree.context[nodes] == RIGHT)]
        nodes = np.concatenate([tree.yes[parents], tree.no[parents]])
        phone[nodes] = np.tile(phone[parents], 2)
    asked = {}
    for side in (LEFT, RIGHT):
        of_side = np.flatnonzero(tree.context == side)
        pairs = np.unique(np.stack([phone[of_side], tree.question[of_side]]), axis=1)
        bounds = np.searchsorted(pairs[0], np.arange(len(tree.phones) + 1))
        asked[side] = [pairs[1, start:end] for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
    return asked
