"""k2's search against enumeration and against Kaldi's decoder; lattices, scales, failures."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import decoding_peer as peer
import numpy as np
import pytest
import torch
from torch import Tensor

k2 = pytest.importorskip("k2")
pytest.importorskip("kaldifst")

from asrkd.decode import DecodeOptions, Hypotheses, Lattices, Scales, decode, tune  # noqa: E402 - after k2's check
from asrkd.decode.workers import fork_map  # noqa: E402
from asrkd.errors import InputError  # noqa: E402
from asrkd.graph import DecodingGraph, GraphOptions, build_hclg  # noqa: E402
from asrkd.hmm.topology import NUM_STATES, TransitionModel  # noqa: E402
from asrkd.hmm.tree import SenoneTree  # noqa: E402
from asrkd.lang.lexicon import Lexicon  # noqa: E402
from asrkd.lang.ngram import NgramModel, estimate_kneser_ney  # noqa: E402

pytestmark = pytest.mark.k2

LEXICON = Lexicon(
    {
        "A": (("AH",), ("EY",)),
        "AM": (("AH", "M"),),
        "TO": (("T", "UW"),),
        "TWO": (("T", "UW"),),
        "ME": (("M", "IY"),),
    }
)
TEXT = [
    "A ME",
    "AM A",
    "TO ME",
    "TWO",
    "TWO TO TWO",
    "AM ME TO",
    "A A",
    "ME TO A",
    "TO A ME",
    "TO ME TWO",
    "A ME TO",
]
OPTIONS = GraphOptions(self_loop_scale=0.5)
EXHAUSTIVE = DecodeOptions(beam=1e4, lattice_beam=20.0, max_active=None, acoustic_scale=1.0, num_jobs=2)


class Task:
    """A small recogniser and utterances made up for it."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.tree: SenoneTree = peer.random_tree(LEXICON.phones, seed)
        self.transitions: TransitionModel = peer.random_transitions(self.tree.num_pdfs, seed)
        self.model: NgramModel = estimate_kneser_ney(
            [line.split() for line in TEXT], 3, vocabulary=LEXICON.words
        )
        self.graph: DecodingGraph = build_hclg(LEXICON, self.model, self.tree, self.transitions, OPTIONS)

    def noise(self, num_frames: int, spread: float = 2.0) -> Tensor:
        return torch.from_numpy(self.generator.normal(0, spread, (num_frames, self.tree.num_pdfs))).float()

    def speech(self, words: list[str], spread: float = 2.0, gain: float = 6.0) -> Tensor:
        """Scores that favour the states of some pronunciation of the words, one to four frames each."""
        ways = [phones for phones, _ in peer.pronunciations(words, LEXICON, 0.5)]
        pdfs = peer.state_pdfs(ways[self.generator.integers(len(ways))], self.tree)
        pdfs = np.repeat(pdfs, self.generator.integers(1, 5, len(pdfs)))
        scores = self.noise(len(pdfs), spread)
        scores[torch.arange(len(pdfs)), torch.from_numpy(pdfs)] += gain
        return scores

    def utterances(self, **kwargs: float) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
        refs = {f"utt{n}": line.split() for n, line in enumerate(TEXT)}
        return {utt_id: self.speech(words, **kwargs) for utt_id, words in refs.items()}, refs


@pytest.fixture(scope="module")
def task() -> Task:
    return Task()


def best_by_enumeration(task: Task, scores: Tensor, longest: int) -> tuple[float, tuple[str, ...]]:
    leave, stay = peer.leave_and_stay(task.transitions, OPTIONS)
    best = (-np.inf, ())
    for words in peer.sentences(LEXICON.words, longest):
        grammar = peer.best_backoff(task.model, words)
        for phones, log_prob in peer.pronunciations(words, LEXICON, OPTIONS.silence_prob):
            if 0 < len(phones) * NUM_STATES <= len(scores):
                pdfs = np.array(peer.state_pdfs(phones, task.tree))
                total = grammar + log_prob + peer.viterbi(pdfs, scores.double().numpy(), leave, stay)
                best = max(best, (total, words))
    return best


@pytest.mark.parametrize("num_frames", [3, 6, 10])
def test_best_path_is_the_best_of_all_sentences(task: Task, num_frames: int) -> None:
    scores = {f"utt{n}": task.noise(num_frames) for n in range(4)}
    hypotheses = decode(task.graph, scores, EXHAUSTIVE)
    lattices = hypotheses.lattices
    for utt_id, utt_scores in scores.items():
        # The shortest word is one phone of three states.
        expected, words = best_by_enumeration(task, utt_scores, num_frames // 3)
        assert hypotheses.words[utt_id] == list(words)
        assert best_total(lattices, utt_id, EXHAUSTIVE.scales) == pytest.approx(expected, abs=0.03)


def best_total(lattices: Lattices, utt_id: str, scales: Scales) -> float:
    """Score of the best path, by a pass over the arcs: they come in the order of their sources."""
    lattice = lattices.utt(utt_id)
    total = (
        scales.acoustic_scale * lattice.am_scores.astype(np.float64) + scales.lm_scale * lattice.graph_scores
    )
    best = np.full(int(lattice.arcs[:, 1].max()) + 1, -np.inf)
    best[0] = 0.0
    for (source, target, *_), score in zip(lattice.arcs.tolist(), total.tolist(), strict=True):
        best[target] = max(best[target], best[source] + score)
    return float(best[-1])


def kaldi_best(graph: DecodingGraph, scores: Tensor, options: DecodeOptions) -> tuple[list[str], float]:
    """Words and score of Kaldi's FasterDecoder on the same graph and scores."""
    kaldi_decoder = pytest.importorskip("kaldi_decoder")
    import kaldifst

    fst = graph.to_kaldifst()  # the decoder does not keep it alive
    decoder = kaldi_decoder.FasterDecoder(fst, kaldi_decoder.FasterDecoderOptions(beam=options.beam))
    decoder.decode(kaldi_decoder.DecodableCtc((options.acoustic_scale * scores).numpy(), offset=0))
    assert decoder.reached_final()
    _, path = decoder.get_best_path()
    _, _, rows, weight = kaldifst.get_linear_symbol_sequence(path)
    return graph.text(torch.tensor(rows)), -(weight.value1 + weight.value2)


@pytest.mark.parametrize("spread", [2.0, 6.0])
def test_same_best_path_as_kaldis_decoder(task: Task, spread: float) -> None:
    scores, refs = task.utterances(spread=spread)
    options = DecodeOptions(beam=16.0, max_active=None, acoustic_scale=0.4)
    hypotheses = decode(task.graph, scores, options)
    for utt_id, utt_scores in scores.items():
        words, total = kaldi_best(task.graph, utt_scores, options)
        assert hypotheses.words[utt_id] == words
        assert best_total(hypotheses.lattices, utt_id, options.scales) == pytest.approx(total, abs=1e-3)
    if spread == 2.0:
        assert sum(hypotheses.words[utt_id] == refs[utt_id] for utt_id in refs) >= len(refs) - 2


def test_lattice_keeps_acoustic_and_graph_scores_apart(task: Task) -> None:
    scores, _ = task.utterances()
    options = DecodeOptions(acoustic_scale=0.4, lm_scale=1.3, insertion_score=-0.7)
    hypotheses = decode(task.graph, scores, options)
    lattice = hypotheses.lattices.utt("utt5")
    # Any path: the arcs of the best one under other scales must be made of scores and graph as given.
    graph_arcs = {
        (label, words, round(score, 4))
        for (_, _, label), words, score in zip(
            task.graph.arcs.tolist(),
            task.graph.words_on_arc.tolist(),
            task.graph.scores.tolist(),
            strict=True,
        )
    }
    values = {round(float(value), 4) for value in scores["utt5"].flatten()} | {0.0}
    for (_, _, label), words, am, lm in zip(
        lattice.arcs.tolist(),
        lattice.words_on_arc.tolist(),
        lattice.am_scores.tolist(),
        lattice.graph_scores.tolist(),
        strict=True,
    ):
        assert (label, words, round(lm, 4)) in graph_arcs
        assert round(am, 4) in values


def test_rescoring_a_wide_lattice_is_decoding_with_other_scales(task: Task) -> None:
    scores, _ = task.utterances(spread=4.0)
    wide = DecodeOptions(beam=200.0, lattice_beam=60.0, max_active=None, acoustic_scale=0.3)
    lattices = decode(task.graph, scores, wide).lattices
    for scales in (Scales(0.2, 1.0, 0.0), Scales(0.3, 0.5, -2.0), Scales(0.5, 1.0, 1.5)):
        options = DecodeOptions(
            beam=200.0,
            max_active=None,
            acoustic_scale=scales.acoustic_scale,
            lm_scale=scales.lm_scale,
            insertion_score=scales.insertion_score,
        )
        assert lattices.best_paths(scales) == decode(task.graph, scores, options).words


def test_insertion_score_moves_the_number_of_words(task: Task) -> None:
    scores, _ = task.utterances(spread=6.0)
    lattices = decode(task.graph, scores, DecodeOptions(lattice_beam=12.0, acoustic_scale=0.3)).lattices
    counts = [
        sum(len(words) for words in lattices.best_paths(Scales(0.3, 1.0, insertion)).values())
        for insertion in (-6.0, 0.0, 6.0)
    ]
    assert counts[0] < counts[1] < counts[2]


def test_jobs_do_not_change_the_answer(task: Task) -> None:
    scores, _ = task.utterances()
    one, two = (decode(task.graph, scores, DecodeOptions(num_jobs=jobs)) for jobs in (1, 2))
    assert one.words == two.words
    assert one.lattices.utt_ids == tuple(scores)
    for name in ("offsets", "arcs", "words_on_arc", "am_scores", "graph_scores"):
        assert torch.equal(getattr(one.lattices, name), getattr(two.lattices, name))


class ComputedOnAccess(Mapping[str, Tensor]):
    """Scores made in the worker that wants them."""

    def __init__(self, scores: dict[str, Tensor]) -> None:
        self.scores = scores

    def __getitem__(self, utt_id: str) -> Tensor:
        time.sleep(0.01)
        return self.scores[utt_id] + float(os.getpid() == 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


def test_scores_computed_on_access_count_into_the_real_time_factor(task: Task) -> None:
    scores, _ = task.utterances()
    hypotheses = decode(task.graph, ComputedOnAccess(scores), frame_shift_ms=20.0)
    assert hypotheses.words == decode(task.graph, scores).words
    assert hypotheses.audio_sec == pytest.approx(sum(map(len, scores.values())) * 0.02)
    assert hypotheses.score_sec >= 0.01 * len(scores)
    assert hypotheses.rtf == pytest.approx(
        (hypotheses.score_sec + hypotheses.search_sec) / hypotheses.audio_sec
    )


def test_saved_and_loaded(task: Task, tmp_path: Path) -> None:
    scores, _ = task.utterances()
    hypotheses = decode(task.graph, scores)
    hypotheses.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hypotheses.json", "lattices.safetensors"]
    loaded = Hypotheses.load(tmp_path, task.graph.fingerprint)
    assert (loaded.words, loaded.failed, loaded.rtf) == (hypotheses.words, hypotheses.failed, hypotheses.rtf)
    other = Scales(0.2, 0.7, -1.0)
    assert loaded.lattices.best_paths(other) == hypotheses.lattices.best_paths(other)
    with pytest.raises(InputError, match="expected lattices of graph feed, found graph"):
        Hypotheses.load(tmp_path, "feed")
    json.loads((tmp_path / "hypotheses.json").read_text())


def test_an_utterance_that_cannot_end_is_partial_or_failed(task: Task) -> None:
    # Two frames: no phone of three states fits, so no path can end.
    scores = {"short": task.noise(2), "long": task.noise(12)}
    kept = decode(task.graph, scores)
    assert (kept.partial, kept.failed) == (("short",), ())
    dropped = decode(task.graph, scores, DecodeOptions(allow_partial=False))
    assert (dropped.partial, dropped.failed) == ((), ("short",))
    assert dropped.words["short"] == []
    assert dropped.words["long"] == kept.words["long"]
    assert dropped.lattices.best_paths(Scales(0.2))["short"] == []
    only = decode(task.graph, {"short": scores["short"]}, DecodeOptions(allow_partial=False))
    assert only.words == {"short": []}


def test_bad_scores_are_named(task: Task) -> None:
    good = task.noise(9)
    holed = good.clone()
    holed[3, 1] = float("nan")
    with pytest.raises(InputError, match="bad: expected finite acoustic scores"):
        decode(task.graph, {"good": good, "bad": holed})
    with pytest.raises(InputError, match=rf"wide: expected acoustic scores \[frames, {task.tree.num_pdfs}\]"):
        decode(task.graph, {"wide": task.noise(9)[:, :-1]})
    with pytest.raises(InputError, match="found none"):
        decode(task.graph, {})
    with pytest.raises(InputError, match="acoustic_scale"):
        DecodeOptions(acoustic_scale=0.0)


def test_a_worker_that_dies_is_an_error_not_a_wait() -> None:
    def work(item: int) -> int:
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pytest.raises(InputError, match="ended with status -9"):
        list(fork_map(work, [1, 2, 3], 2))


def test_a_workers_defect_keeps_its_traceback() -> None:
    def work(item: int) -> float:
        return 1 / item

    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(fork_map(work, [1, 0], 1))
    assert sorted(fork_map(work, [1, 2, 4], 2)) == [(1, 1.0), (2, 0.5), (4, 0.25)]


def test_tuning_takes_the_fewest_errors_of_all_systems(task: Task) -> None:
    scores, refs = task.utterances(spread=6.0)
    options = DecodeOptions(lattice_beam=12.0, acoustic_scale=0.3)
    lattices = {"one": decode(task.graph, scores, options).lattices}
    scores, _ = task.utterances(spread=7.0)
    lattices["two"] = decode(task.graph, scores, options).lattices
    grid = {"acoustic_scales": (0.1, 0.3, 0.5), "insertion_scores": (-3.0, 0.0, 3.0)}
    tuning = tune(lattices, refs, **grid)
    assert len(tuning.rows) == 9
    assert min(row["errors"] for row in tuning.rows) == next(
        row["errors"] for row in tuning.rows if row["chosen"]
    )
    chosen = next(row for row in tuning.rows if row["chosen"])
    assert chosen["acoustic_scale"] == tuning.scales.acoustic_scale
    assert chosen["wer"] == pytest.approx(np.mean(list(chosen["by_system"].values())))
    from asrkd.score import wer

    for name, one in lattices.items():
        assert wer(refs, one.best_paths(tuning.scales)).percent == pytest.approx(chosen["by_system"][name])
    with pytest.raises(InputError, match="expected a hypothesis"):
        tune(lattices, {**refs, "unheard": ["A"]})
