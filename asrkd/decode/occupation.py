"""Occupations: how probable it is that a path through a lattice is in a senone at a frame.

The forward-backward algorithm gives each arc the share of the paths' probability that passes through it. Lattices here
are k2's, frame by frame: an arc is one frame in one senone, its label is pdf_id + 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    import k2


class Occupations(NamedTuple):
    """The senones that an utterance's paths are in, frame by frame: n entries, by frame and then by pdf_id."""

    frame: Tensor
    """[n] int64."""
    pdf_id: Tensor
    """[n] int64; distinct within a frame."""
    prob: Tensor
    """[n] float64; those of a frame sum to one."""

    @staticmethod
    def of(lattice: k2.Fsa, num_pdfs: int) -> Occupations:
        """From one utterance's lattice of k2, with at least one path, by the scores of its arcs as they are scaled.

        A path's probability is exp(score) over the sum of all paths' (Povey, 2005, section 4.1.4: with scaled acoustic
        scores). The arcs have the attribute `frame`, as `frame_lattice` makes it.
        """
        label = lattice.arcs.values()[:, 2].long()
        emitting = label > 0
        cell = lattice.frame[emitting].long() * num_pdfs + label[emitting] - 1
        log_probs = lattice.get_arc_post(use_double_scores=True, log_semiring=True)[emitting]
        cells, index = cell.unique(return_inverse=True)
        prob = torch.zeros(len(cells), dtype=torch.float64).index_add_(0, index, log_probs.double().exp())
        return Occupations(cells.div(num_pdfs, rounding_mode="floor"), cells % num_pdfs, prob)

    def dense(self, begin: int, end: int, num_pdfs: int) -> Tensor:
        """Probabilities [end - begin, S] float32 of the frames begin … end-1."""
        first, after = torch.searchsorted(self.frame, torch.tensor([begin, end])).tolist()
        probs = torch.zeros(end - begin, num_pdfs)
        probs[self.frame[first:after] - begin, self.pdf_id[first:after]] = self.prob[first:after].float()
        return probs
