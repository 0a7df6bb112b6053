"""Lattices rescored: unchanged by the model they were made with, and by another as if decoded with that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import decoding_peer as peer
import numpy as np
import pytest
from decoding_peer import LEXICON, TEXT
from test_decode import OPTIONS, TWO_JOBS, Task, best_total, decoded

from asrkd.decode import DecodeOptions, Hypotheses, Scales
from asrkd.decode.rescore import Grammars, Rescorer, rescore
from asrkd.errors import InputError
from asrkd.graph import on_demand
from asrkd.graph.build import build_hclg
from asrkd.graph.grammar import grammar_fst
from asrkd.graph.on_demand import GrammarWalk
from asrkd.graph.pronunciations import backoff_label, word_labels
from asrkd.lang.kneser_ney import estimate_kneser_ney
from asrkd.lang.ngram import NgramModel

WIDE = DecodeOptions(beam=1e4, lattice_beam=1e3, max_active=None, acoustic_scale=0.4, whole_lattices=True)
LABELS = word_labels(LEXICON)


def walk_of(model: NgramModel) -> GrammarWalk:
    return GrammarWalk(grammar_fst(model, LABELS, backoff_label(LEXICON)).fst)


def rescored(
    first: Hypotheses, old: GrammarWalk, new: GrammarWalk, scales: Scales, beam: float | None = None, **how: Any
) -> Hypotheses:
    """Hypotheses rescored with grammars in memory."""
    grammars = Grammars(old, new)
    task = Rescorer(grammars, first.lattices.word_sequences, scales, beam)
    return rescore(first, task, grammars.digests, scales, **how)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task()


@pytest.fixture(scope="module")
def bigram() -> NgramModel:
    """Another model: shorter histories, other sentences."""
    text = ["TWO A", "ME AM", "ME ME", "A TWO TWO", "AM TO A", "TO AM"]
    return estimate_kneser_ney([line.split() for line in text], 2, vocabulary=LEXICON.words)


def cost_of(walk: GrammarWalk, labels: list[int]) -> float:
    """The cost of a sentence of words by their labels."""
    total, subset = walk.start()
    for label in labels:
        cost, subset = walk.step(subset, label)
        total += cost
    return total + walk.end(subset)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_walk_costs_what_the_best_way_through_the_model_does(order: int) -> None:
    model = estimate_kneser_ney([line.split() for line in TEXT], order, vocabulary=LEXICON.words)
    walk = walk_of(model)
    for words in peer.sentences(LEXICON.words, 3):
        expected = -peer.best_backoff(model, words)
        assert cost_of(walk, [LABELS[word] for word in words]) == pytest.approx(expected, abs=1e-4)


def test_a_saved_walk_costs_the_same_and_a_strange_word_is_impossible(bigram: NgramModel, tmp_path: Path) -> None:
    walk = walk_of(bigram)
    walk.save(tmp_path / "g.safetensors")
    loaded = GrammarWalk.load(tmp_path / "g.safetensors")
    assert cost_of(loaded, [1, 2, 1]) == cost_of(walk, [1, 2, 1])
    assert walk.step(walk.start()[1], 99) == (np.inf, ())
    with pytest.raises(InputError, match="no such file"):
        GrammarWalk.load(tmp_path / "h.safetensors")


def test_a_walk_that_forgets_steps_costs_the_same(bigram: NgramModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = [[LABELS[word] for word in words] for words in peer.sentences(LEXICON.words, 3)]
    walk = walk_of(bigram)
    expected = [cost_of(walk, labels) for labels in sentences]
    monkeypatch.setattr(on_demand, "MOST_STEPS", 3)
    forgetful = walk_of(bigram)
    assert [cost_of(forgetful, labels) for labels in sentences] == expected
    assert len(forgetful._steps) <= 3 < len(walk._steps)


@pytest.mark.needs("k2")
@pytest.mark.parametrize("whole", [True, False])
def test_the_same_model_changes_neither_words_nor_scores(task: Task, whole: bool) -> None:
    scores, _ = task.utterances(spread=4.0)
    options = replace(WIDE, lattice_beam=8.0, whole_lattices=whole)
    first = decoded(task.graph, scores, options)
    walk = walk_of(task.model)
    again = rescored(first, walk, walk, options.scales, None if whole else 8.0, executor=TWO_JOBS)
    assert again.words == first.words
    assert again.rtf > first.rtf
    for utt_id in scores:
        expected = best_total(first.lattices, utt_id, options.scales)
        assert best_total(again.lattices, utt_id, options.scales) == pytest.approx(expected, abs=1e-3)
    for scales in (Scales(0.2, 1.0, 0.0), Scales(0.6, 0.5, -2.0)):
        if not whole:
            break  # of the paths that are not the best, other ones may be kept
        assert again.lattices.best_paths(scales) == first.lattices.best_paths(scales)


@pytest.mark.needs("k2")
def test_another_model_gives_what_its_own_graph_would(task: Task, bigram: NgramModel) -> None:
    other = build_hclg(LEXICON, bigram, task.tree, task.transitions, OPTIONS)
    scores = {f"noise{n}": task.noise(11) for n in range(12)}
    first, expected = decoded(task.graph, scores, WIDE), decoded(other, scores, WIDE)
    again = rescored(first, walk_of(task.model), walk_of(bigram), WIDE.scales)
    assert first.words != expected.words
    assert again.words == expected.words
    for utt_id in scores:
        total = best_total(expected.lattices, utt_id, WIDE.scales)
        assert best_total(again.lattices, utt_id, WIDE.scales) == pytest.approx(total, abs=2e-3)


@pytest.mark.needs("k2")
def test_an_utterance_cut_short_is_not_charged_for_its_end(task: Task, bigram: NgramModel) -> None:
    first = decoded(task.graph, {"short": task.noise(2), "long": task.noise(9)}, WIDE)
    assert first.partial == ("short",)
    walk = walk_of(task.model)
    again = rescored(first, walk, walk, WIDE.scales)
    assert best_total(again.lattices, "short", WIDE.scales) == pytest.approx(
        best_total(first.lattices, "short", WIDE.scales), abs=1e-3
    )
    rescored(first, walk, walk_of(bigram), WIDE.scales)  # nor does another model stumble over it


@pytest.mark.needs("k2")
def test_no_path_stays_none(task: Task, bigram: NgramModel) -> None:
    first = decoded(task.graph, {"short": task.noise(2)}, replace(WIDE, allow_partial=False))
    again = rescored(first, walk_of(task.model), walk_of(bigram), WIDE.scales)
    assert again.words == {"short": []} and again.failed == ("short",)


@pytest.mark.needs("k2")
def test_a_beam_keeps_lattices_small_and_their_arcs_on_paths(task: Task, bigram: NgramModel) -> None:
    scores, _ = task.utterances(spread=4.0)
    options = replace(WIDE, lattice_beam=8.0, whole_lattices=False)
    first = decoded(task.graph, scores, options)
    old, new = walk_of(task.model), walk_of(bigram)
    whole, pruned = (rescored(first, old, new, options.scales, beam) for beam in (None, 3.0))
    assert len(pruned.lattices.arcs) < len(whole.lattices.arcs)
    for utt_id in scores:
        expected = best_total(whole.lattices, utt_id, options.scales)
        assert best_total(pruned.lattices, utt_id, options.scales) == pytest.approx(expected, abs=1e-3)
        source, target, _ = pruned.lattices.utt(utt_id).arcs.T
        assert set(target.tolist()) - set(source.tolist()) == {target.max()}
        assert set(source.tolist()) - set(target.tolist()) == {0}
