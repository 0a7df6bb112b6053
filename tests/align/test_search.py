"""The best path is proven: exact scores, beams that lose it, batches by frames, and the end of memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from asrkd.align import search
from asrkd.align.exact import AcousticScores, best_scores
from asrkd.align.graphs import CompiledGraphs, TrainingGraphs
from asrkd.align.viterbi import Aligner, TrainingCorpus, ViterbiOptions, viterbi
from asrkd.errors import InputError
from asrkd.features.store import FrameStore
from asrkd.hmm.alignment import Alignment
from asrkd.hmm.statistics import accumulate_frames
from asrkd.hmm.topology import NUM_STATES, TransitionModel
from asrkd.hmm.tree import SenoneTree, TreeOptions, build_tree
from asrkd.lang.lexicon import Lexicon

LEXICON = Lexicon({"AB": (("A", "B"), ("B",), ("B", "A")), "C": (("C",),), "CAB": (("C", "A", "B"),)})
PHONES = LEXICON.phones
MONOPHONES = SenoneTree.monophone(PHONES)


def contextual_tree(generator: torch.Generator) -> SenoneTree:
    """A tree that asks about both neighbours, grown on noise."""
    columns = [torch.randint(len(PHONES), (4000,), generator=generator) for _ in range(3)]
    state = torch.randint(NUM_STATES, (4000,), generator=generator)
    feats = torch.randn(4000, 3, generator=generator) + columns[0][:, None] - 2.0 * columns[2][:, None]
    return build_tree(accumulate_frames(*columns, state, feats), PHONES, TreeOptions(40, 10))


def best_score(graphs: CompiledGraphs, utt: int, scores: np.ndarray) -> float:
    """Dynamic programming over the arcs of one graph as k2 gets them, in double."""
    arcs = graphs.arcs[slice(*graphs.graphs.arc_offsets[utt : utt + 2])]
    weight = arcs[:, 3].copy().view(np.float32).astype(float)
    best = {0: 0.0}
    for frame in scores:
        following: dict[int, float] = {}
        for (source, target, label, _), arc_weight in zip(arcs.tolist(), weight, strict=True):
            if label != -1 and source in best:
                value = best[source] + arc_weight + frame[label - 1]
                following[target] = max(value, following.get(target, -np.inf))
        best = following
    ends = [
        best[source] + arc_weight
        for (source, _, label, _), arc_weight in zip(arcs.tolist(), weight, strict=True)
        if label == -1 and source in best
    ]
    return max(ends, default=-np.inf)


class TestExactScore:
    @pytest.mark.parametrize("seed", range(12))
    def test_equals_dynamic_programming_over_the_arcs(self, seed: int) -> None:
        """Of random words, trees, transitions and lengths, some too short for any path."""
        generator = torch.Generator().manual_seed(seed)
        rng = np.random.default_rng(seed)
        tree = contextual_tree(generator) if seed % 3 else MONOPHONES
        texts = [" ".join(rng.choice(["AB", "C", "CAB"], rng.integers(1, 5))) for _ in range(rng.integers(1, 6))]
        num_frames = np.sort(rng.integers(1, 60, len(texts)))[::-1]
        stay = 0.1 + 0.8 * torch.rand(tree.num_pdfs, generator=generator)
        transitions = TransitionModel(stay.log(), (1 - stay).log())
        graphs = TrainingGraphs.build(texts, LEXICON, PHONES, 0.3, with_context=not tree.is_monophone)
        compiled = graphs.compile(tree, transitions)
        rows = rng.normal(0.0, 5.0, (num_frames.sum(), tree.num_pdfs)).astype(np.float32)
        first = np.cumsum(num_frames) - num_frames
        found = best_scores(compiled, compiled.arcs[:, 2] - 1, AcousticScores(rows, first, num_frames))
        expected = [best_score(compiled, utt, rows[first[utt] :][:n]) for utt, n in enumerate(num_frames)]
        assert found == pytest.approx(expected, rel=1e-12)

    def test_compact_graphs_have_the_senones_of_the_words(self) -> None:
        graphs = TrainingGraphs.build(["C"], LEXICON, PHONES).compile(MONOPHONES, TransitionModel.uniform(12))
        compact, pdf_ids = graphs.compact()
        silence_and_c = [0, 1, 2, 9, 10, 11]
        assert pdf_ids.tolist() == silence_and_c
        emitting = graphs.arcs[:, 2] != -1
        assert (pdf_ids[compact.arcs[emitting, 2] - 1] == graphs.arcs[emitting, 2] - 1).all()
        assert (compact.arcs[~emitting, 2] == -1).all()


def align(utterances: dict[str, tuple[str, Tensor]], folder: Path, options: ViterbiOptions) -> Alignment:
    """Align words to monophones' scores [T, S]."""
    rows = [(utt_id, "speaker", text, torch.zeros(len(scores), 1)) for utt_id, (text, scores) in utterances.items()]
    store = FrameStore.write(folder, rows, {"frame_shift_ms": 10.0}, "store")
    corpus = TrainingCorpus.build(store, LEXICON, PHONES)
    aligner = Aligner(
        LEXICON, MONOPHONES, TransitionModel.uniform(12), lambda utt_id: utterances[utt_id][1].clone(), options
    )
    return viterbi(corpus, aligner, 12, options, desc="round")


def misleading(deficit: float) -> Tensor:
    """Scores [600, S] of C AB, where C is spoken in the first three frames and silence scores better by `deficit`.

    A search whose beam is narrower than the deficit loses that path, and says C where it is next to impossible.
    """
    scores = torch.full((600, 12), -50.0)
    scores[:300, :3] = 0.0
    scores[:3, 9:] = -deficit / 3
    scores[3:, 9:] = -5000.0
    scores[300:, 3:9] = 0.0
    return scores


@pytest.mark.needs("k2")
class TestBeams:
    @pytest.mark.parametrize("deficit", [450.0, 4000.0])
    def test_what_the_beam_loses_is_searched_again(
        self, deficit: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Also where a search with five times the beam stands still on the same wrong path."""
        utterances = {"lost": ("C AB", misleading(deficit)), "other": ("C AB", misleading(50.0)[:400])}
        proven = align(utterances, tmp_path / "proven", ViterbiOptions())
        printed = capfd.readouterr().out
        wide = align(utterances, tmp_path / "wide", ViterbiOptions(search_beam=1e5))
        assert proven.fingerprint == wide.fingerprint
        assert torch.equal(proven.log_like, wide.log_like)
        assert (proven.wider_beam_rounds, wide.wider_beam_rounds) == ((1,), (0,))
        assert printed == "   round: 1 of 2 utterances needed a beam wider than 200: lost\n"
        assert capfd.readouterr().out == ""
        assert (proven.phone_id[proven.span("lost")][:3] == PHONES.index("C")).all()

    def test_a_graph_too_large_for_the_exact_score_is_searched_until_the_score_stands_still(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(search, "EXACT_STATES", 0)
        utterances = {"lost": ("C AB", misleading(450.0)), "other": ("C AB", misleading(50.0)[:400])}
        proven = align(utterances, tmp_path / "proven", ViterbiOptions())
        wide = align(utterances, tmp_path / "wide", ViterbiOptions(search_beam=1e5))
        assert proven.fingerprint == wide.fingerprint
        assert proven.wider_beam_rounds == (1,)

    @pytest.mark.parametrize("beam", [0.1, 3.0, 30.0, 1000.0])
    def test_the_first_beam_decides_no_result(self, beam: float, tmp_path: Path) -> None:
        generator = torch.Generator().manual_seed(1)
        utterances = {f"u{n}": ("AB CAB C", 20 * torch.randn(30 + 5 * n, 12, generator=generator)) for n in range(6)}
        narrow = align(utterances, tmp_path / "narrow", ViterbiOptions(search_beam=beam))
        wide = align(utterances, tmp_path / "wide", ViterbiOptions(search_beam=1e5))
        assert narrow.fingerprint == wide.fingerprint
        assert torch.equal(narrow.log_like, wide.log_like)

    def test_batches_and_their_budget_change_nothing(self, tmp_path: Path) -> None:
        generator = torch.Generator().manual_seed(2)
        utterances = {f"u{n}": ("AB C", torch.randn(20 + 7 * n, 12, generator=generator)) for n in range(9)}
        whole = align(utterances, tmp_path / "whole", ViterbiOptions())
        alone = align(utterances, tmp_path / "alone", ViterbiOptions(batch_gb=1e-9))
        assert whole.fingerprint == alone.fingerprint
        assert torch.equal(whole.log_like, alone.log_like)

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory: you tried"),
            RuntimeError("std::bad_alloc"),
        ],
    )
    def test_the_end_of_memory_names_the_utterance(self, error: Exception, tmp_path: Path) -> None:
        store = FrameStore.write(
            tmp_path / "store", [("long", "speaker", "C", torch.zeros(90, 1))], {"frame_shift_ms": 10.0}, "store"
        )

        def score(utt_id: str) -> Tensor:
            raise error

        aligner = Aligner(LEXICON, MONOPHONES, TransitionModel.uniform(12), score)
        with pytest.raises(InputError, match=r"long: 90 frames need more memory.*--nj.*--max-duration") as raised:
            viterbi(TrainingCorpus.build(store, LEXICON, PHONES), aligner, 12)
        assert "beam" not in str(raised.value)

    def test_other_errors_keep_their_traceback(self, tmp_path: Path) -> None:
        store = FrameStore.write(
            tmp_path / "store", [("u", "speaker", "C", torch.zeros(90, 1))], {"frame_shift_ms": 10.0}, "store"
        )
        aligner = Aligner(LEXICON, MONOPHONES, TransitionModel.uniform(12), lambda utt_id: torch.zeros(3, 12))
        with pytest.raises((ValueError, RuntimeError), match="expected scores"):
            viterbi(TrainingCorpus.build(store, LEXICON, PHONES), aligner, 12)


def test_batches_have_so_many_frames(tmp_path: Path) -> None:
    """As many utterances as usual, fewer where they are long, and one alone that is longer than a batch."""
    lengths = [1000, 400, 300, 200, 90, 80, 70, 60]
    rows = [(f"u{n}", "speaker", "C", torch.zeros(length, 1)) for n, length in enumerate(lengths)]
    store = FrameStore.write(tmp_path / "store", rows, {"frame_shift_ms": 10.0}, "store")
    corpus = TrainingCorpus.build(store, LEXICON, PHONES)

    def sizes(options: ViterbiOptions) -> list[list[int]]:
        return [[one.num_frames for one in batch] for batch in corpus.batches(options, num_pdfs=500)]

    assert sizes(ViterbiOptions(batch_utterances=3)) == [lengths[:3], lengths[3:6], lengths[6:]]
    gigabytes = 800 * 500 * 4 / 1e9
    assert sizes(ViterbiOptions(batch_utterances=3, batch_gb=gigabytes)) == [
        [1000],
        [400, 300],
        [200, 90, 80],
        [70, 60],
    ]
    assert sizes(ViterbiOptions(batch_gb=1e-9)) == [[length] for length in lengths]


@pytest.mark.parametrize("name", ["batch_gb", "search_beam", "output_beam"])
def test_options_that_allow_no_search_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} above 0, found 0"):
        ViterbiOptions(**{name: 0.0})
