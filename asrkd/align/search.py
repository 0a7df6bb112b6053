"""The best path through each training graph of a batch: k2's pruned search, proven.

A beam can lose the best path without a sign: the search still ends, on a worse path. So each score is compared with
the exact one (`asrkd.align.exact`), and an utterance whose score is lower is searched again with a wider beam. Graphs
too large for the exact score are searched with wider beams until the score stands still.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asrkd.align.exact import AcousticScores, best_scores
from asrkd.align.graphs import CompiledGraphs, Floats, Ints
from asrkd.hmm.topology import NUM_STATES
from asrkd.workflow.k2_library import import_k2

MIN_ACTIVE_STATES, UNLIMITED_STATES = 1, 2**30
IMPOSSIBLE = -1e30  # score of a label that no arc may take
WIDER = 5.0  # times the beam, for what is searched again
WIDEST_BEAM = 1e7  # nats; an hour of speech has a score of one million below that of its best states
# States of a graph up to which the exact score takes about as long as the search: some two minutes of speech.
EXACT_STATES = 8000
# A path's score is a sum of float32 numbers. The largest difference to the exact one was 1e-8 of it.
RELATIVE_ROUNDING, ROUNDING = 1e-6, 1e-3
CHUNK_FRAMES = 4096


@dataclass(frozen=True)
class Beams:
    """Widths of k2's search, nats."""

    search: float
    """Of the first search."""
    output: float
    """Around the best path."""


class BestPath(NamedTuple):
    """The best path of one utterance."""

    hmm_state: Ints
    """[T] state of each frame, counted within the utterance."""
    log_like: float
    wider_beam: bool
    """Whether the first search lost it."""


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """Acoustic scores of N utterances, longest first, for the labels 1 … L of compact graphs.

    rows: [R, L + 2] float32 as `k2.DenseFsaVec` has them: a column for the final label, one for label 0, one for each
    other label; a row for each frame and one for the end of each utterance. row_splits: [N + 1] int32.
    constant: [N] sum of the best scores of the frames, which are taken out of `rows`.
    """

    rows: Tensor
    row_splits: Tensor
    constant: Floats

    @staticmethod
    def of(
        scores: Iterable[Iterable[Tensor]], num_frames: Sequence[int], pdf_ids: Ints, acoustic_scale: float
    ) -> ScoredBatch:
        """From each utterance's scores in chunks of frames, one in memory at a time; pdf_ids: [L] columns to take."""
        row_splits = np.append(0, np.cumsum(np.asarray(num_frames) + 1))
        rows = torch.empty(int(row_splits[-1]), len(pdf_ids) + 2)
        rows[:, 0], rows[:, 1] = -torch.inf, IMPOSSIBLE
        columns = torch.from_numpy(pdf_ids)
        constant = []
        for first, chunks in zip(row_splits.tolist(), scores, strict=False):
            # A frame's best score is taken out and added back in double, or rounding would hide differences.
            best = []
            row = first
            for part in (part for chunk in chunks for part in chunk.split(CHUNK_FRAMES)):
                scaled = part if acoustic_scale == 1.0 else acoustic_scale * part
                best.append(scaled.max(1, keepdim=True).values)
                torch.sub(scaled.index_select(1, columns), best[-1], out=rows[row : row + len(part), 2:])
                row += len(part)
            constant.append(torch.cat(best).double().sum().item())
        ends = torch.from_numpy(row_splits[1:] - 1)
        rows[ends] = -torch.inf
        rows[ends, 0] = 0.0
        return ScoredBatch(rows, torch.from_numpy(row_splits.astype(np.int32)), np.asarray(constant))

    def exact(self, graphs: CompiledGraphs) -> Floats:
        """[N] exact score of the best path through each compact graph, without the constant."""
        splits = self.row_splits.numpy().astype(np.int64)
        acoustic = AcousticScores(self.rows.numpy(), splits[:-1], np.diff(splits) - 1)
        return best_scores(graphs, graphs.arcs[:, 2] + 1, acoustic)


def best_paths(
    graphs: CompiledGraphs,
    scores: Iterable[Iterable[Tensor]],
    num_frames: Sequence[int],
    acoustic_scale: float,
    beams: Beams,
) -> list[BestPath | None]:
    """The best path of each utterance, longest first; None where the graph has no path of so many frames.

    scores: of each utterance, chunks of frames [t, S], of which one is in memory at a time.
    """
    compact, pdf_ids = graphs.compact()
    batch = ScoredBatch.of(scores, num_frames, pdf_ids, acoustic_scale)
    num_states = NUM_STATES * np.diff(graphs.graphs.instance_offsets)
    exact = batch.exact(compact) if num_states.max() <= EXACT_STATES else np.full(len(num_frames), np.nan)
    found = _search(compact, batch, range(len(num_frames)), beams.search, beams.output)
    paths = [_proven(compact, batch, utt, path, exact[utt], beams) for utt, path in enumerate(found)]
    return [path and path._replace(log_like=path.log_like + batch.constant[utt]) for utt, path in enumerate(paths)]


def _proven(
    graphs: CompiledGraphs, batch: ScoredBatch, utt: int, path: BestPath | None, exact: float, beams: Beams
) -> BestPath | None:
    """The best path of an utterance: that of the first search, or of wider ones. exact: its score; NaN: not known."""
    beam = beams.search
    while exact != -np.inf and beam < WIDEST_BEAM:
        # No score is above 0, so a state of the best path is never further below the frame's best state than the
        # path's own score: with such a beam nothing is lost.
        if path is not None and (_reaches(path.log_like, exact) or beam >= -path.log_like):
            break
        beam *= WIDER
        (wider,) = _search(graphs, batch, range(utt, utt + 1), beam, beams.output)
        if wider is None:
            continue
        if path is not None and np.isnan(exact) and _reaches(path.log_like, wider.log_like):
            break  # the score stands still
        path = wider._replace(wider_beam=True)
    return path


def _reaches(log_like: float, expected: float) -> bool:
    """Whether a score is the expected one but for rounding; never where it is not known (NaN)."""
    return log_like >= expected - ROUNDING - RELATIVE_ROUNDING * abs(expected)


def _search(
    graphs: CompiledGraphs, batch: ScoredBatch, utterances: range, beam: float, output_beam: float
) -> list[BestPath | None]:
    """k2's best path within the beam for each of these utterances, without the constant; None where there is none.

    Without a beam k2 has every state at every frame. With one it takes a third of the time (LOG.md).
    """
    k2 = import_k2()
    import _k2  # here, for training's environment has none

    splits = batch.row_splits[utterances.start : utterances.stop + 1]
    rows = batch.rows[splits[0] : splits[-1]]
    # As `k2.DenseFsaVec` makes it of padded scores, but without its three copies of them.
    frames = k2.DenseFsaVec._from_dense_fsa_vec(_k2.DenseFsaVec(rows, splits - splits[0]), rows)
    lattice = k2.intersect_dense_pruned(
        graphs.fsa_vec(utterances.start, utterances.stop),
        frames,
        search_beam=beam,
        output_beam=output_beam,
        min_active_states=MIN_ACTIVE_STATES,
        max_active_states=UNLIMITED_STATES,
    )
    path = k2.shortest_path(lattice, use_double_scores=True)
    hmm_state = path.hmm_state.numpy().astype(np.int64)
    scores = path.scores.double().numpy()
    return [
        # the last arc is the final one
        None if begin == end else BestPath(hmm_state[begin : end - 1], float(scores[begin:end].sum()), False)
        for begin, end in itertools.pairwise(_arc_splits(path))
    ]


def _arc_splits(fsa_vec: object) -> Ints:
    """Where each FSA's arcs begin and end among all arcs."""
    shape = fsa_vec.arcs.shape()  # type: ignore[attr-defined]
    splits: Ints = shape.row_splits(2)[shape.row_splits(1).long()].numpy()
    return splits
