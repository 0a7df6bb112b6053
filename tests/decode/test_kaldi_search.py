"""Kaldi's search against k2's: words, times, scores, lattices, failures; which one is chosen."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from small_task import Task, best_total, decoded

from asrkd.decode import DecodeOptions, Hypotheses, Scales
from asrkd.decode.compact import UtteranceLattice, path_scores
from asrkd.decode.options import KALDI_MAX_ARCS, KALDI_MAX_BEAM
from asrkd.decode.search import Searcher
from asrkd.errors import InputError
from asrkd.recipe.evaluate import Acoustics, Run, open_graph, tuned
from asrkd.recipe.options import options_of_run
from asrkd.workflow.executor import SERIAL

pytestmark = pytest.mark.needs("k2", "kaldi_decoder")

# With more states to keep active, k2 widens its beam by steps, while Kaldi takes exactly as many.
BEAM_ALONE = DecodeOptions(beam=16.0, max_active=None, min_active=1, acoustic_scale=0.4)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task()


def both(task: Task, scores: dict[str, torch.Tensor], options: DecodeOptions, lattices: bool) -> list[Hypotheses]:
    """What k2 and Kaldi recognise."""
    return [
        decoded(task.graph, scores, replace(options, search=search), SERIAL, lattices) for search in ("k2", "kaldi")
    ]


def assert_same_paths(mine: Hypotheses, its: Hypotheses) -> None:
    """The same words at the same times with the same scores, within rounding."""
    assert mine.words == its.words
    assert (mine.partial, mine.failed) == (its.partial, its.failed)
    for utt_id in mine.words:
        one, other = mine.lattices.utt(utt_id), its.lattices.utt(utt_id)
        np.testing.assert_array_equal(one.arcs, other.arcs)
        np.testing.assert_array_equal(one.words_on_arc, other.words_on_arc)
        np.testing.assert_allclose(one.am_scores, other.am_scores, atol=1e-3)
        np.testing.assert_allclose(one.graph_scores, other.graph_scores, atol=1e-3)


@pytest.mark.parametrize("scales", [Scales(0.4), Scales(0.3, 1.3, -0.7), Scales(0.5, 0.6, 1.5)])
@pytest.mark.parametrize("spread", [2.0, 6.0])
def test_the_best_path_is_k2s(task: Task, scales: Scales, spread: float) -> None:
    scores, _ = task.utterances(spread=spread)
    options = replace(BEAM_ALONE, **vars(scales))
    mine, its = both(task, scores, options, lattices=False)
    assert_same_paths(mine, its)
    assert sum(map(len, mine.words.values())) > len(scores)
    # It is that of the lattices too.
    lattices = decoded(task.graph, scores, replace(options, search="k2"), SERIAL).lattices
    assert lattices.best_paths(scales) == its.words
    for utt_id in scores:
        assert total_of_path(its, utt_id, scales) == pytest.approx(total_of_best(lattices.utt(utt_id), task, scales))


def total_of_path(hypotheses: Hypotheses, utt_id: str, scales: Scales) -> float:
    path = hypotheses.lattices.utt(utt_id)
    am, graph = (float(sums.sum(dtype=np.float64)) for sums in (path.am_scores, path.graph_scores))
    words = len(hypotheses.words[utt_id])
    return scales.acoustic_scale * am + scales.lm_scale * graph + scales.insertion_score * words


def total_of_best(lattice: UtteranceLattice, task: Task, scales: Scales) -> float:
    forward, _ = path_scores(lattice, scaled(lattice, task, scales))
    return pytest.approx(forward[-1], abs=1e-3)


def scaled(lattice: UtteranceLattice, task: Task, scales: Scales) -> np.ndarray:
    num_words = task.graph.num_words.numpy()[lattice.words_on_arc].astype(np.float64)
    return (
        scales.acoustic_scale * lattice.am_scores
        + scales.lm_scale * lattice.graph_scores
        + scales.insertion_score * num_words
    )


def test_lattices_have_the_arcs_of_k2s_within_the_beam(task: Task) -> None:
    scores, _ = task.utterances(spread=4.0)
    mine, its = both(task, scores, replace(BEAM_ALONE, whole_lattices=True), lattices=True)
    assert mine.words == its.words
    for utt_id in scores:
        counted = []
        for lattice in (mine.lattices.utt(utt_id), its.lattices.utt(utt_id)):
            total = scaled(lattice, task, BEAM_ALONE.scales)
            forward, backward = path_scores(lattice, total)
            through = forward[lattice.arcs[:, 0]] + total + backward[lattice.arcs[:, 1]]
            within = through > forward[-1] - BEAM_ALONE.lattice_beam + 1e-3
            columns = lattice.arcs[:, 2], lattice.words_on_arc, lattice.am_scores, lattice.graph_scores
            counted.append(Counter(zip(*(column[within].tolist() for column in columns), strict=True)))
        assert counted[0] == counted[1]
        assert within.mean() > 0.99  # of Kaldi's lattice; k2's has more paths than were asked for


def test_small_lattices_have_the_best_path_and_other_words(task: Task) -> None:
    scores, _ = task.utterances(spread=6.0)
    options = replace(BEAM_ALONE, lattice_beam=12.0)
    mine, its = both(task, scores, options, lattices=True)
    assert mine.words == its.words
    for utt_id in scores:
        best = best_total(mine.lattices, utt_id, options.scales)
        assert best_total(its.lattices, utt_id, options.scales) == pytest.approx(best, abs=1e-3)
    counts = [
        sum(map(len, its.lattices.best_paths(Scales(0.4, 1.0, insertion)).values())) for insertion in (-6.0, 0.0, 6.0)
    ]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("lattices", [False, True])
@pytest.mark.parametrize("allow_partial", [False, True])
def test_an_utterance_that_cannot_end(task: Task, lattices: bool, allow_partial: bool) -> None:
    # Two frames: no phone of three states fits, so no path can end.
    scores = {"short": task.noise(2), "long": task.noise(12)}
    options = replace(BEAM_ALONE, allow_partial=allow_partial)
    mine, its = both(task, scores, options, lattices)
    assert its.partial == (("short",) if allow_partial else ())
    assert its.failed == (() if allow_partial else ("short",))
    assert (its.words, its.partial, its.failed) == (mine.words, mine.partial, mine.failed)
    if not lattices:
        assert_same_paths(mine, its)


@pytest.mark.parametrize("lattices", [False, True])
def test_bad_scores_are_named(task: Task, lattices: bool) -> None:
    options = replace(BEAM_ALONE, search="kaldi")
    holed = task.noise(9)
    holed[3, 1] = float("nan")
    for scores, message in (
        (holed, "bad: expected finite acoustic scores"),
        (task.noise(9)[:, :-1], rf"bad: expected acoustic scores \[frames, {task.tree.num_pdfs}\]"),
        (task.noise(0), "bad: expected acoustic scores of at least one frame"),
    ):
        with pytest.raises(InputError, match=message):
            decoded(task.graph, {"bad": scores}, options, SERIAL, lattices)


def test_few_active_states_lose_the_best_path(task: Task) -> None:
    scores, _ = task.utterances(spread=6.0)
    wide, narrow = (
        decoded(task.graph, scores, replace(BEAM_ALONE, search="kaldi", max_active=most), SERIAL, False)
        for most in (None, 2)
    )
    lost = [
        total_of_path(wide, utt_id, BEAM_ALONE.scales) - total_of_path(narrow, utt_id, BEAM_ALONE.scales)
        for utt_id in scores
        if utt_id not in narrow.partial
    ]
    assert min(lost, default=0.0) > -1e-3
    assert narrow.partial or max(lost) > 1.0


def test_jobs_do_not_change_the_answer(task: Task) -> None:
    scores, _ = task.utterances()
    options = replace(BEAM_ALONE, search="kaldi")
    one, two = (decoded(task.graph, scores, options, lattices=False, **how) for how in ({"executor": SERIAL}, {}))
    assert_same_paths(one, two)


def test_which_search_is_chosen(task: Task) -> None:
    auto = DecodeOptions(beam=KALDI_MAX_BEAM)
    assert auto.choose_search(KALDI_MAX_ARCS, lattices=False) == "kaldi"
    assert auto.choose_search(KALDI_MAX_ARCS, lattices=True) == "k2"
    assert auto.choose_search(KALDI_MAX_ARCS + 1, lattices=False) == "k2"
    assert DecodeOptions().choose_search(1000, lattices=False) == "k2"
    for search in ("k2", "kaldi"):
        assert replace(auto, search=search).choose_search(1000, lattices=True) == search
        assert Searcher(task.graph, {}, replace(auto, search=search)).uses_k2 == (search == "k2")


def test_without_kaldi_decoder_it_is_named(task: Task) -> None:
    with mock.patch.dict(sys.modules, {"kaldi_decoder": None}), pytest.raises(InputError, match="kaldi-decoder is not"):
        decoded(task.graph, {"utt": task.noise(9)}, DecodeOptions(search="kaldi"), SERIAL, False)


AFTER_K2S_THREADS = """
import sys
sys.path[:0] = ["tests", "tests/decode"]
from dataclasses import replace
from small_task import Task, decoded
from test_kaldi_search import BEAM_ALONE
from asrkd.workflow.executor import SERIAL
from asrkd.workflow.local_pool import search_one_frame

task = Task()
scores, _ = task.utterances()
before = decoded(task.graph, scores, replace(BEAM_ALONE, search="kaldi"), lattices=False).words
assert not {name for name in sys.modules if name == "kaldi_hmm_gmm"}
search_one_frame()
assert decoded(task.graph, scores, replace(BEAM_ALONE, search="k2"), SERIAL).words == before
assert decoded(task.graph, scores, replace(BEAM_ALONE, search="kaldi"), lattices=False).words == before
"""


@pytest.mark.slow
def test_forks_and_k2s_threads_go_together(task: Task) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AFTER_K2S_THREADS],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_words_of_real_speech_are_k2s(finished: Path) -> None:
    options = options_of_run(finished)
    run, search = Run("distilled", 0, ("students/distilled",)), tuned(finished / "decode" / "tuning", options)
    wide = replace(search, beam=16.0, max_active=None, min_active=1)
    acoustic, graph = Acoustics(run, "test", options), open_graph(finished)
    mine, its = (decoded(graph, acoustic, replace(wide, search=name), lattices=False) for name in ("k2", "kaldi"))
    # Homophones of one probability have two best paths: either may come out, at the same times with the same score.
    scales = search.scales
    for utt_id in mine.words:
        assert total_of_path(mine, utt_id, scales) == pytest.approx(total_of_path(its, utt_id, scales), abs=2e-3)
    different = [utt_id for utt_id, words in mine.words.items() if words != its.words[utt_id]]
    assert len(different) <= len(mine.words) // 50
    assert any(mine.words.values())
    # The run has a narrow beam: it chose Kaldi's search, and wrote no lattices.
    assert search.choose_search(graph.num_arcs, lattices=False) == "kaldi"
    written = Hypotheses.load(finished / "decode" / "distilled")
    assert written.words == decoded(graph, acoustic, search, lattices=False).words
    assert all(len(written.lattices.utt(utt_id).arcs) <= len(words) + 1 for utt_id, words in written.words.items())
