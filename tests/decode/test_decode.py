"""k2's search against enumeration and against Kaldi's decoder; lattices, scales, failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import decoding_peer as peer
import numpy as np
import pytest
import torch
from decoding_peer import LEXICON
from hypothesis import given, settings
from hypothesis import strategies as st
from optional_packages import skip_without
from small_task import OPTIONS, TWO_JOBS, Task, best_total, decoded
from torch import Tensor

from asrkd.decode import DecodeOptions, Hypotheses, Scales, tune
from asrkd.decode.compact import UtteranceLattice, compact
from asrkd.decode.search import SEARCH_RESULTS
from asrkd.errors import InputError
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.hmm.topology import NUM_STATES
from asrkd.scoring.words import wer
from asrkd.workflow.cache import ResultCache
from asrkd.workflow.executor import SERIAL

pytestmark = pytest.mark.needs("k2")

EXHAUSTIVE = DecodeOptions(beam=1e4, lattice_beam=20.0, max_active=None, acoustic_scale=1.0)


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
    hypotheses = decoded(task.graph, scores, EXHAUSTIVE)
    lattices = hypotheses.lattices
    for utt_id, utt_scores in scores.items():
        # The shortest word is one phone of three states.
        expected, words = best_by_enumeration(task, utt_scores, num_frames // 3)
        assert hypotheses.words[utt_id] == list(words)
        assert best_total(lattices, utt_id, EXHAUSTIVE.scales) == pytest.approx(expected, abs=0.03)


def kaldi_best(graph: DecodingGraph, scores: Tensor, options: DecodeOptions) -> tuple[list[str], float]:
    """Words and score of Kaldi's FasterDecoder on the same graph and scores."""
    skip_without("kaldi_decoder")
    import kaldi_decoder
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
    hypotheses = decoded(task.graph, scores, options)
    for utt_id, utt_scores in scores.items():
        words, total = kaldi_best(task.graph, utt_scores, options)
        assert hypotheses.words[utt_id] == words
        assert best_total(hypotheses.lattices, utt_id, options.scales) == pytest.approx(total, abs=1e-3)
    if spread == 2.0:
        assert sum(hypotheses.words[utt_id] == refs[utt_id] for utt_id in refs) >= len(refs) - 2


def test_lattice_keeps_acoustic_and_graph_scores_apart(task: Task) -> None:
    scores, _ = task.utterances()
    options = DecodeOptions(acoustic_scale=0.4, lm_scale=1.3, insertion_score=-0.7, whole_lattices=True)
    lattice = decoded(task.graph, scores, options).lattices.utt("utt5")
    in_graph = {
        (words, round(score, 4))
        for words, score in zip(task.graph.words_on_arc.tolist(), task.graph.scores.tolist(), strict=True)
    }
    for (_, _, frame), words, am, lm in zip(
        lattice.arcs.tolist(),
        lattice.words_on_arc.tolist(),
        lattice.am_scores.tolist(),
        lattice.graph_scores.tolist(),
        strict=True,
    ):
        assert (words, round(lm, 4)) in in_graph
        assert am == 0.0 if frame == len(scores["utt5"]) else am in scores["utt5"][frame].tolist()


def decoded_with(task: Task, scores: dict[str, Tensor], scales: Scales) -> dict[str, list[str]]:
    options = DecodeOptions(
        beam=200.0,
        max_active=None,
        acoustic_scale=scales.acoustic_scale,
        lm_scale=scales.lm_scale,
        insertion_score=scales.insertion_score,
    )
    return decoded(task.graph, scores, options).words


OTHER_SCALES = (Scales(0.2, 1.0, 0.0), Scales(0.3, 0.5, -2.0), Scales(0.5, 1.0, 1.5))


@pytest.mark.parametrize("scales", OTHER_SCALES)
def test_rescoring_is_decoding_with_other_scales(task: Task, scales: Scales) -> None:
    scores, _ = task.utterances(spread=4.0)
    wide = DecodeOptions(beam=200.0, lattice_beam=60.0, max_active=None, acoustic_scale=0.3, whole_lattices=True)
    expected = decoded_with(task, scores, scales)
    assert decoded(task.graph, scores, wide).lattices.best_paths(scales) == expected
    # The lattices that are kept hold other words only near the best path's: close, and not always the same.
    kept = replace(wide, lattice_beam=12.0, whole_lattices=False)
    assert wer(expected, decoded(task.graph, scores, kept).lattices.best_paths(scales)).percent < 15


def test_a_small_lattice_is_small_and_has_the_best_path_and_only_true_ones(task: Task) -> None:
    scores, _ = task.utterances(spread=4.0)
    options = DecodeOptions(acoustic_scale=0.3)
    small = decoded(task.graph, scores, options)
    whole = decoded(task.graph, scores, replace(options, whole_lattices=True))
    assert small.words == whole.words
    assert 4 * len(small.lattices.arcs) < len(whole.lattices.arcs)  # of real speech, some hundred times
    for utt_id in scores:
        best = best_total(whole.lattices, utt_id, options.scales)
        assert best_total(small.lattices, utt_id, options.scales) == pytest.approx(best, abs=1e-3)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_every_path_of_a_small_lattice_is_one_of_the_whole(seed: int) -> None:
    whole, graph_arc = random_lattice(np.random.default_rng(seed))
    total = (0.3 * whole.am_scores + whole.graph_scores).astype(np.float64)
    source, target, _ = whole.arcs.T
    forward, backward = np.full((2, int(target.max()) + 1), -np.inf)
    forward[0] = backward[-1] = 0.0
    for arc in range(len(source)):
        forward[target[arc]] = max(forward[target[arc]], forward[source[arc]] + total[arc])
    for arc in reversed(range(len(source))):
        backward[source[arc]] = max(backward[source[arc]], backward[target[arc]] + total[arc])
    small = compact(whole, graph_arc, total, forward, backward)
    all_paths, found = paths(whole), paths(small)
    assert found <= all_paths
    assert max(0.3 * am + lm for _, am, lm in found) == pytest.approx(max(0.3 * am + lm for _, am, lm in all_paths))
    # Whatever word any path has is still in some path.
    assert {word for words, *_ in found for word in words} == {word for words, *_ in all_paths for word in words}


def random_lattice(generator: np.random.Generator) -> tuple[UtteranceLattice, np.ndarray]:
    """Up to three states a frame, each joined to some of the next frame; scores are whole numbers, sums
    exact."""
    widths = [1, *generator.integers(1, 4, generator.integers(2, 6)), 1]
    first = np.concatenate([[0], np.cumsum(widths)])
    arcs = set()
    for frame in range(len(widths) - 1):
        here, there = (range(first[frame + step], first[frame + step + 1]) for step in (0, 1))
        arcs |= {(state, int(generator.choice(there)), frame) for state in here}
        arcs |= {(int(generator.choice(here)), state, frame) for state in there}
    table = np.array(sorted(arcs), dtype=np.int32)
    words = generator.integers(0, 3, len(table)) * (generator.random(len(table)) < 0.4)
    # The same arc of the graph means the same words.
    graph_arc = words * 10 + generator.integers(0, 3, len(table))
    am, lm = generator.integers(-9, 9, (2, len(table)))
    lattice = UtteranceLattice(table, words.astype(np.int32), am.astype(np.float32), lm.astype(np.float32))
    return lattice, graph_arc.astype(np.int32)


def paths(lattice: UtteranceLattice) -> set[tuple[tuple[int, ...], float, float]]:
    """(words, am, graph) of every path."""
    at = [set() for _ in range(int(lattice.arcs[:, 1].max()) + 1)]
    at[0].add(((), 0.0, 0.0))
    for (source, target, _), word, am, lm in zip(
        lattice.arcs.tolist(),
        lattice.words_on_arc.tolist(),
        lattice.am_scores.tolist(),
        lattice.graph_scores.tolist(),
        strict=True,
    ):
        at[target] |= {(words + ((word,) if word else ()), a + am, b + lm) for words, a, b in at[source]}
    return at[-1]


def test_insertion_score_moves_the_number_of_words(task: Task) -> None:
    scores, _ = task.utterances(spread=6.0)
    lattices = decoded(task.graph, scores, DecodeOptions(lattice_beam=12.0, acoustic_scale=0.3)).lattices
    counts = [
        sum(len(words) for words in lattices.best_paths(Scales(0.3, 1.0, insertion)).values())
        for insertion in (-6.0, 0.0, 6.0)
    ]
    assert counts[0] < counts[1] < counts[2]


def test_jobs_do_not_change_the_answer(task: Task) -> None:
    scores, _ = task.utterances()
    one, two = (decoded(task.graph, scores, executor=executor) for executor in (SERIAL, TWO_JOBS))
    assert one.words == two.words
    assert one.lattices.utt_ids == tuple(scores)
    for name in ("offsets", "arcs", "words_on_arc", "am_scores", "graph_scores"):
        assert torch.equal(getattr(one.lattices, name), getattr(two.lattices, name))


def test_a_search_that_is_cut_short_goes_on(task: Task, tmp_path: Path) -> None:
    scores, _ = task.utterances()
    scores["none"] = task.noise(2)  # too short for any path
    utt_ids = list(scores)
    whole = decoded(task.graph, scores, executor=SERIAL)
    cache = ResultCache(tmp_path / "searched.sqlite", "search", SEARCH_RESULTS)
    first = {utt_id: scores[utt_id] for utt_id in utt_ids[:3]}
    with pytest.raises(RuntimeError, match="KeyError"):
        decoded(task.graph, Gone(utt_ids, first), executor=SERIAL, cache=cache)
    rest = {utt_id: scores[utt_id] for utt_id in utt_ids[3:]}  # the others' scores are no longer there
    resumed = decoded(task.graph, Gone(utt_ids, rest), executor=SERIAL, cache=cache)
    assert (resumed.words, resumed.failed, resumed.partial) == (whole.words, whole.failed, whole.partial)
    assert resumed.audio_sec == whole.audio_sec
    assert resumed.lattices.best_paths(Scales(0.2, 0.7, -1.0)) == whole.lattices.best_paths(Scales(0.2, 0.7, -1.0))


class Gone(Mapping[str, Tensor]):
    """Scores of these utterances, some of which cannot be had."""

    def __init__(self, utt_ids: list[str], scores: dict[str, Tensor]) -> None:
        self.utt_ids, self.scores = utt_ids, scores

    def __getitem__(self, utt_id: str) -> Tensor:
        return self.scores[utt_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.utt_ids)

    def __len__(self) -> int:
        return len(self.utt_ids)


class ComputedOnAccess(Mapping[str, Tensor]):
    """Scores made in the worker that wants them."""

    def __init__(self, scores: dict[str, Tensor]) -> None:
        self.scores = scores

    def __getitem__(self, utt_id: str) -> Tensor:
        begun = time.process_time()
        while time.process_time() < begun + 0.01:
            pass
        return self.scores[utt_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


def test_scores_computed_on_access_count_into_the_real_time_factor(task: Task) -> None:
    scores, _ = task.utterances()
    hypotheses = decoded(task.graph, ComputedOnAccess(scores), frame_shift_ms=20.0)
    assert hypotheses.words == decoded(task.graph, scores).words
    assert hypotheses.audio_sec == pytest.approx(sum(map(len, scores.values())) * 0.02)
    assert hypotheses.score_sec >= 0.01 * len(scores)
    assert hypotheses.rtf == pytest.approx((hypotheses.score_sec + hypotheses.search_sec) / hypotheses.audio_sec)


def test_saved_and_loaded(task: Task, tmp_path: Path) -> None:
    scores, _ = task.utterances()
    hypotheses = decoded(task.graph, scores)
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
    kept = decoded(task.graph, scores)
    assert (kept.partial, kept.failed) == (("short",), ())
    rejected = decoded(task.graph, scores, DecodeOptions(allow_partial=False))
    assert (rejected.partial, rejected.failed) == ((), ("short",))
    assert rejected.words["short"] == []
    assert rejected.words["long"] == kept.words["long"]
    assert rejected.lattices.best_paths(Scales(0.2))["short"] == []
    only = decoded(task.graph, {"short": scores["short"]}, DecodeOptions(allow_partial=False))
    assert only.words == {"short": []}


def test_a_graph_with_other_ends_is_made_once_for_all_processes(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, to_k2 = tmp_path / "made", DecodingGraph.to_k2
    made.touch()

    def noted(graph: DecodingGraph, every_state_final: bool = False) -> Any:
        with made.open("a") as file:
            file.write(f"{os.getpid()} {every_state_final}\n")
        return to_k2(graph, every_state_final)

    monkeypatch.setattr(DecodingGraph, "to_k2", noted)
    scores = {f"short{n}": task.noise(2) for n in range(6)} | {"long": task.noise(12)}
    hypotheses = decoded(task.graph, scores, executor=TWO_JOBS)
    assert hypotheses.partial == tuple(list(scores)[:6])
    assert made.read_text().splitlines() == [f"{os.getpid()} {ends}" for ends in (False, True)]


def test_lattices_without_some_utterances(task: Task) -> None:
    lattices = decoded(task.graph, {name: task.noise(12) for name in "abc"}).lattices
    rest = lattices.without({"b", "unknown"})
    assert rest.utt_ids == ("a", "c")
    assert lattices.without({"unknown"}) is lattices
    for name in rest.utt_ids:
        for mine, other in zip(vars(rest.utt(name)).values(), vars(lattices.utt(name)).values(), strict=True):
            np.testing.assert_array_equal(mine, other)


def test_bad_scores_are_named(task: Task) -> None:
    good = task.noise(9)
    holed = good.clone()
    holed[3, 1] = float("nan")
    with pytest.raises(InputError, match="bad: expected finite acoustic scores"):
        decoded(task.graph, {"good": good, "bad": holed})
    with pytest.raises(InputError, match=rf"wide: expected acoustic scores \[frames, {task.tree.num_pdfs}\]"):
        decoded(task.graph, {"wide": task.noise(9)[:, :-1]})
    with pytest.raises(InputError, match="found none"):
        decoded(task.graph, {})
    with pytest.raises(InputError, match="acoustic_scale"):
        DecodeOptions(acoustic_scale=0.0)


AFTER_K2S_THREADS = """
import logging, sys
sys.path[:0] = ["tests", "tests/decode"]
from test_decode import Task, decoded
from asrkd.workflow.local_pool import search_one_frame

logging.basicConfig(level=logging.WARNING)
task = Task()
scores, _ = task.utterances()
first = {"utt0": scores["utt0"]}
before = decoded(task.graph, first).words
search_one_frame()
assert decoded(task.graph, first).words == before
"""


@pytest.mark.slow
def test_decoding_after_k2s_threads_have_started_does_not_hang() -> None:
    script = ["-c", AFTER_K2S_THREADS]
    done = subprocess.run(
        [sys.executable, *script],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rules out forking" in done.stderr


def test_tuning_takes_the_fewest_errors_of_all_systems(task: Task) -> None:
    scores, refs = task.utterances(spread=6.0)
    options = DecodeOptions(lattice_beam=12.0, acoustic_scale=0.3)
    lattices = {"one": decoded(task.graph, scores, options).lattices}
    scores, _ = task.utterances(spread=7.0)
    lattices["two"] = decoded(task.graph, scores, options).lattices
    grid = {"acoustic_scales": (0.1, 0.3, 0.5), "insertion_scores": (-3.0, 0.0, 3.0)}
    tuning = tune(lattices, refs, **grid, max_added=0)
    assert len(tuning.rows) == 9
    assert min(row["errors"] for row in tuning.rows) == next(row["errors"] for row in tuning.rows if row["chosen"])
    chosen = next(row for row in tuning.rows if row["chosen"])
    assert ("acoustic_scale" in tuning.at_edge) == (chosen["acoustic_scale"] != 0.3)
    assert chosen["acoustic_scale"] == tuning.scales.acoustic_scale
    assert chosen["wer"] == pytest.approx(np.mean(list(chosen["by_system"].values())))
    for name, one in lattices.items():
        assert wer(refs, one.best_paths(tuning.scales)).percent == pytest.approx(chosen["by_system"][name])
    with pytest.raises(InputError, match="expected a hypothesis"):
        tune(lattices, {**refs, "unheard": ["A"]})
