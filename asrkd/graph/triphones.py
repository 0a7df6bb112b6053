"""The senones of all triphones, without a table of phones x phones x phones."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
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

    A tree asks few questions about the neighbours of one phone. The neighbours that answer all of them alike are one
    class, and the table has one cell per left class and right class of each phone. So its size depends on the
    questions of the tree, not on the cube of the number of phones P.
    """

    num_phones: int
    """P."""
    left_class: Ints
    """[P, P]: (phone, left) -> the first left neighbour that gives the same pdf_ids with every right neighbour."""
    pdfs: Ints
    """[triples, NUM_STATES]: the different triples of pdf_ids, in lexicographic order."""
    row: Ints
    """[P, P]: (phone, left) -> the first cell of the left class."""
    column: Ints
    """[P, P]: (phone, right) -> the right class; it is added to the first cell of a left class."""
    cells: Ints
    """[cells]: row of `pdfs`."""

    @staticmethod
    def of(tree: SenoneTree) -> TriphoneTable:
        """The table of a tree."""
        left, right = (_Classes.of(tree, side) for side in (LEFT, RIGHT))
        sizes = left.number * right.number
        phone, cell = ranges(sizes)
        triphones = (left.first_member(phone, cell // right.number[phone]), phone)
        pdfs, cells = _distinct(tree, *triphones, right.first_member(phone, cell % right.number[phone]))
        left_class = np.empty_like(left.index)
        for p, of_phone in enumerate(np.split(cells, np.cumsum(sizes)[:-1])):
            # Neighbours that answer differently may still get the same pdf_ids.
            _, first, same = np.unique(
                of_phone.reshape(left.number[p], -1), axis=0, return_index=True, return_inverse=True
            )
            left_class[p] = left.first_member(p, first[same.ravel()])[left.index[p]]
        row = (np.cumsum(sizes) - sizes)[:, None] + left.index * right.number[:, None]
        return TriphoneTable(len(tree.phones), left_class, pdfs, row, right.index, cells)

    def triple(self, left: Ints, phone: Ints, right: Ints) -> Ints:
        """Row of `pdfs` of each triphone; three integer arrays of one shape."""
        return self.cells[self.row[phone, left] + self.column[phone, right]]


def _distinct(tree: SenoneTree, left: Ints, phone: Ints, right: Ints) -> tuple[Ints, Ints]:
    """The different triples of pdf_ids of some triphones, and which of them each triphone has."""
    ids = [torch.from_numpy(column) for column in (left, phone, right)]
    pdf_ids = [tree.pdf_ids(ids[0], ids[1], ids[2], torch.full_like(ids[1], state)) for state in range(NUM_STATES)]
    pdfs, triple = np.unique(torch.stack(pdf_ids, dim=1).numpy(), axis=0, return_inverse=True)
    return pdfs, triple.ravel()


@dataclass(frozen=True)
class _Classes:
    """The neighbours on one side of each phone, by their answers to the questions asked about that side."""

    index: Ints
    """[P, P]: (phone, neighbour) -> class, counted from 0 for each phone in order of the classes' first members."""
    members: Ints
    """The first member of each class, phone after phone."""

    @cached_property
    def number(self) -> Ints:
        """[P]: how many classes a phone has."""
        return self.index.max(axis=1) + 1

    def first_member(self, phone: Ints | int, index: Ints) -> Ints:
        """The first neighbour in a class of a phone."""
        return self.members[(np.cumsum(self.number) - self.number)[phone] + index]

    @staticmethod
    def of(tree: SenoneTree, side: int) -> _Classes:
        """`side`: LEFT or RIGHT."""
        index, members = [], []
        for questions in _questions_by_phone(tree, side):
            # The first row has the same answer for all: np.unique needs a row where no question is asked.
            answers = np.vstack([np.zeros((1, len(tree.phones)), dtype=bool), tree.questions[questions]])
            _, first, same = np.unique(answers, axis=1, return_index=True, return_inverse=True)
            members.append(np.sort(first))
            index.append(np.searchsorted(members[-1], first[same.ravel()]))
        return _Classes(np.stack(index), np.concatenate(members))


def _questions_by_phone(tree: SenoneTree, side: int) -> list[Ints]:
    """The questions that the trees of each phone ask about the neighbour on one side."""
    phone = np.empty(len(tree.context), dtype=np.int64)
    nodes = np.arange(len(tree.phones) * NUM_STATES)
    phone[nodes] = nodes // NUM_STATES
    while nodes.size:
        parents = nodes[(tree.context[nodes] == LEFT) | (tree.context[nodes] == RIGHT)]
        nodes = np.concatenate([tree.yes[parents], tree.no[parents]])
        if (nodes <= np.tile(parents, 2)).any():
            raise ValueError("expected children behind their parents in a senone tree, found a cycle")
        phone[nodes] = np.tile(phone[parents], 2)
    asked = np.flatnonzero(tree.context == side)
    pairs = np.unique(np.stack([phone[asked], tree.question[asked]]), axis=1)
    bounds = np.searchsorted(pairs[0], np.arange(len(tree.phones) + 1))
    return [pairs[1, start:end] for start, end in itertools.pairwise(bounds)]
