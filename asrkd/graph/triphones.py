"""The senones of all triphones at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asrkd.hmm.topology import NUM_STATES
from asrkd.hmm.tree import SenoneTree

Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class TriphoneTable:
    """pdf triples of every triphone, and which left neighbours the tree does not tell apart."""

    num_phones: int
    left_class: Ints
    """[phones, phones]: (phone, left) -> the first left neighbour that gives the same pdfs with every right one."""
    triple: Ints
    """[phones, phones, phones]: (left, phone, right) -> row of `pdfs`."""
    pdfs: Ints
    """[triples, states], in lexicographic order."""

    @staticmethod
    def of(tree: SenoneTree) -> TriphoneTable:
        number = len(tree.phones)
        axes = torch.meshgrid(*(torch.arange(size) for size in (number, number, number, NUM_STATES)), indexing="ij")
        pdf_ids = tree.pdf_ids(*axes).numpy()
        pdfs, triple = np.unique(pdf_ids.reshape(-1, NUM_STATES), axis=0, return_inverse=True)
        triple = triple.reshape(number, number, number)
        left_class = np.zeros((number, number), dtype=np.int64)
        for phone in range(number):
            _, first, same = np.unique(triple[:, phone], axis=0, return_index=True, return_inverse=True)
            left_class[phone] = first[same.ravel()]
        return TriphoneTable(number, left_class, triple, pdfs)
