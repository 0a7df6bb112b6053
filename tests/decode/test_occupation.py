"""Occupations of senones in a lattice: against enumeration, and against the frame posterior."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import decoding_peer as peer
import numpy as np
import pytest
import torch
from decoding_peer import LEXICON
from small_task import Task
from torch import Tensor

from asrkd.align.graphs import TrainingGraphs
from asrkd.decode import DecodeOptions
from asrkd.decode.k2_search import K2Search, frame_lattice
from asrkd.decode.occupation import Occupations
from asrkd.workflow.k2_library import import_k2

pytestmark = pytest.mark.needs("k2")

# Nothing is pruned.
WIDE = DecodeOptions(
    beam=1e4, lattice_beam=1e3, max_active=None, acoustic_scale=0.4, lm_scale=1.3, insertion_score=-0.7
)
Arc = tuple[int, int, int, float]
"""Source, target, label, score."""


@pytest.fixture(scope="module")
def task() -> Task:
    return Task()


def k2_arcs(graph: object) -> list[Arc]:
    """Arcs of one graph of k2 with their scores."""
    ends = graph.arcs.values()[:, :3].tolist()  # type: ignore[attr-defined]
    return [(*arc, score) for arc, score in zip(ends, graph.scores.tolist(), strict=True)]  # type: ignore[attr-defined]


def all_paths(arcs: Sequence[Arc], scores: np.ndarray) -> Iterator[tuple[list[int], float]]:
    """pdf_ids [T] and score of every path of T frames, final arc included."""
    by_source: dict[int, list[Arc]] = {}
    for arc in arcs:
        by_source.setdefault(arc[0], []).append(arc)

    def extend(state: int, pdf_ids: list[int], score: float) -> Iterator[tuple[list[int], float]]:
        frame = len(pdf_ids)
        for _, target, label, weight in by_source.get(state, []):
            if label == -1:
                if frame == len(scores):
                    yield pdf_ids, score + weight
            elif frame < len(scores):
                pdf_id = label - 1
                yield from extend(target, [*pdf_ids, pdf_id], score + weight + scores[frame, pdf_id])

    yield from extend(0, [], 0.0)


def enumerated(arcs: Sequence[Arc], scores: Tensor) -> Tensor:
    """Occupations [T, S] by the definition: the share of the paths' probability that is in a senone at a frame."""
    expected = torch.zeros(scores.shape, dtype=torch.float64)
    paths = list(all_paths(arcs, scores.double().numpy()))
    assert len(paths) > 10
    best = max(score for _, score in paths)
    for pdf_ids, score in paths:
        expected[torch.arange(len(pdf_ids)), torch.tensor(pdf_ids)] += math.exp(score - best)
    return expected / sum(math.exp(score - best) for _, score in paths)


@pytest.mark.parametrize("seed", range(3))
def test_occupations_of_words_equal_enumeration(seed: int) -> None:
    task = Task(seed)
    scores = task.noise(7)
    search = K2Search(task.graph, WIDE)
    found = Occupations.of(search.intersect(search.k2_graph, scores), task.graph.num_pdfs)
    expected = enumerated(k2_arcs(search.k2_graph), WIDE.acoustic_scale * scores)
    torch.testing.assert_close(found.dense(0, 7, task.graph.num_pdfs).double(), expected, atol=2e-5, rtol=1e-4)


def test_occupations_of_a_transcript_equal_enumeration(task: Task) -> None:
    graphs = TrainingGraphs.build(["A ME"], LEXICON, task.tree.phones)
    graph = graphs.compile(task.tree, task.transitions).fsa_vec(0, 1)
    graph.scores = 0.5 * graph.scores
    scores = task.noise(13)
    found = Occupations.of(frame_lattice(graph, scores, WIDE, WIDE.lattice_beam), task.tree.num_pdfs)
    expected = enumerated(k2_arcs(graph), WIDE.acoustic_scale * scores)
    torch.testing.assert_close(found.dense(0, 13, task.tree.num_pdfs).double(), expected, atol=2e-5, rtol=1e-4)
    allowed = {
        pdf
        for phones, _ in peer.pronunciations(["A", "ME"], LEXICON, 0.5)
        for pdf in peer.state_pdfs(phones, task.tree)
    }
    assert set(found.pdf_id.tolist()) <= allowed


@pytest.mark.parametrize("lattice_beam", [2.0, 8.0])
def test_occupations_sum_to_one_in_every_frame_of_a_pruned_lattice(task: Task, lattice_beam: float) -> None:
    options = DecodeOptions(acoustic_scale=0.2, lattice_beam=lattice_beam)
    search = K2Search(task.graph, options)
    scores = task.speech("TO ME TWO A ME TO AM ME TO".split())
    found = Occupations.of(search.intersect(search.k2_graph, scores), task.graph.num_pdfs)
    sums = torch.zeros(len(scores), dtype=torch.float64).index_add_(0, found.frame, found.prob)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-5, rtol=0.0)
    assert torch.equal(found.frame, found.frame.sort().values)
    cells = found.frame * task.graph.num_pdfs + found.pdf_id
    assert len(cells.unique()) == len(cells)
    parts = [found.dense(begin, min(begin + 5, len(scores)), task.graph.num_pdfs) for begin in range(0, len(scores), 5)]
    assert torch.equal(torch.cat(parts), found.dense(0, len(scores), task.graph.num_pdfs))


@pytest.mark.parametrize("acoustic_scale", [1.0, 0.3])
def test_a_graph_that_allows_everything_gives_the_frame_posterior_at_the_scale(acoustic_scale: float) -> None:
    num_pdfs, num_frames = 9, 20
    loops = [[0, 0, label, 0] for label in range(1, num_pdfs + 1)]
    graph = import_k2().Fsa(torch.tensor([*loops, [0, 1, -1, 0]], dtype=torch.int32))
    logits = torch.randn(num_frames, num_pdfs, generator=torch.Generator().manual_seed(0)) * 2
    options = DecodeOptions(beam=1e4, max_active=None, acoustic_scale=acoustic_scale)
    found = Occupations.of(frame_lattice(graph, logits.log_softmax(dim=1), options, 1e4), num_pdfs)
    expected = torch.softmax(acoustic_scale * logits, dim=1)
    torch.testing.assert_close(found.dense(0, num_frames, num_pdfs), expected, atol=1e-5, rtol=1e-4)
