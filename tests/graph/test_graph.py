"""Decoding graphs against lexicon, language model and transition scores enumerated by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import decoding_peer as peer
import numpy as np
import pytest
import torch
from decoding_peer import LEXICON, TEXT
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkd.errors import InputError
from asrkd.graph.arrays import from_kaldifst, from_rows, sorted_by_source, to_const_kaldifst, to_kaldifst
from asrkd.graph.build import GraphOptions, build_hclg, lexicon_and_grammar, pdf_costs
from asrkd.graph.decoding_graph import FINAL_LABEL, DecodingGraph
from asrkd.graph.grammar import grammar_fst
from asrkd.graph.hmm_states import expand
from asrkd.graph.on_demand import GrammarWalk
from asrkd.graph.pronunciations import backoff_label, disambiguated, pronunciation_fst, word_labels
from asrkd.hmm.topology import NUM_STATES, TransitionModel
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.kneser_ney import estimate_kneser_ney
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.ngram import BOS, EOS, Entry, NgramModel

# minimize_encoded rounds the cost of each arc to multiples of 1/1024.
ROUNDING = 2 * 2.0**-10


def language_model(order: int = 3) -> NgramModel:
    return estimate_kneser_ney([line.split() for line in TEXT], order, vocabulary=LEXICON.words)


def graph_and_parts(
    seed: int, options: GraphOptions, order: int = 3, lexicon: Lexicon = LEXICON
) -> tuple[DecodingGraph, SenoneTree, TransitionModel, NgramModel]:
    tree = peer.random_tree(lexicon.phones, seed)
    transitions = peer.random_transitions(tree.num_pdfs, seed)
    model = language_model(order)
    return build_hclg(lexicon, model, tree, transitions, options), tree, transitions, model


def best_score_in_graph(graph: DecodingGraph, words: tuple[str, ...]) -> float:
    """Best score of any path that emits exactly these words, -inf if there is none (Bellman and Ford)."""
    wanted = [graph.words.index(word) for word in words]
    rows = {sequence: row for row, sequence in enumerate(graph.word_sequences)}
    arcs = np.column_stack([graph.arcs.numpy(), graph.words_on_arc.numpy()])
    steps = []
    for start, end in itertools.combinations_with_replacement(range(len(words) + 1), 2):
        chosen = np.flatnonzero(arcs[:, 3] == rows.get(tuple(wanted[start:end]), -1))
        if len(chosen):
            chosen = chosen[np.argsort(arcs[chosen, 1], kind="stable")]
            targets, first = np.unique(arcs[chosen, 1], return_index=True)
            steps.append((start, end, arcs[chosen, 0], targets, first, graph.scores.double().numpy()[chosen]))
    best = np.full((len(words) + 1, graph.num_states), -np.inf)
    best[0, 0] = 0.0
    while True:
        before = best.copy()
        for start, end, sources, targets, first, scores in steps:
            found = np.maximum.reduceat(best[start, sources] + scores, first)
            best[end, targets] = np.maximum(best[end, targets], found)
        if np.array_equal(before, best):
            return float(best[-1, -1])


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_arrays_survive_the_way_through_openfst(data: st.DataObject) -> None:
    num_states = data.draw(st.integers(1, 6))
    states = st.integers(0, num_states - 1)
    labels = st.integers(0, 9)
    costs = st.floats(-10, 10, width=32)
    rows = data.draw(st.lists(st.tuples(states, states, labels, labels, costs), max_size=20))
    final = data.draw(st.lists(st.sampled_from([0.0, 1.5, math.inf]), min_size=num_states, max_size=num_states))
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * 5
    fst = sorted_by_source(columns, final, start=data.draw(states))
    for convert in (to_kaldifst, to_const_kaldifst):
        back = from_kaldifst(convert(fst))
        assert back.start == fst.start
        for name in ("src", "dst", "ilabel", "olabel", "cost", "final"):
            np.testing.assert_array_equal(getattr(back, name), getattr(fst, name))


def test_probabilities_of_one_leave_l_as_it_is() -> None:
    ones = Lexicon.of({word: dict.fromkeys(prons, 1.0) for word, prons in LEXICON.prons.items()})
    assert pronunciation_fst(ones, 0.5).digest() == pronunciation_fst(LEXICON, 0.5).digest()
    assert not np.signbit(pronunciation_fst(LEXICON, 0.0).cost).any(), "-0.0 would be another graph to the bit"
    assert pronunciation_fst(PROBABLE, 0.5).digest() != pronunciation_fst(LEXICON, 0.5).digest()


def test_disambiguation_marks_homophones_and_prefixes() -> None:
    assert disambiguated(LEXICON) == [
        ("A", ("AH",), 1),
        ("A", ("EY",), 0),
        ("AM", ("AH", "M"), 0),
        ("ME", ("M", "IY"), 0),
        ("TO", ("T", "UW"), 1),
        ("TWO", ("T", "UW"), 2),
    ]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_grammar_gives_the_language_models_probability(order: int) -> None:
    model = language_model(order)
    labels = word_labels(LEXICON)
    fst = grammar_fst(model, labels, backoff_label(LEXICON)).fst
    arcs = {(s, i): (d, c) for s, d, i, c in zip(fst.src, fst.dst, fst.ilabel, fst.cost, strict=True)}
    for words in peer.sentences(LEXICON.words, 3):
        state, cost = fst.start, 0.0
        for label in [labels[word] for word in words] + [None]:
            # Back off only where there is no other way: what an ARPA file means.
            while (state, label) not in arcs if label else not math.isfinite(fst.final[state]):
                state, step = arcs[state, backoff_label(LEXICON)]
                cost += step
            if label:
                state, step = arcs[state, label]
                cost += step
        cost += fst.final[state]
        padded = [BOS, *words, EOS]
        expected = sum(model.log10_prob(padded[:i], padded[i]) for i in range(1, len(padded)))
        assert -cost == pytest.approx(expected * math.log(10), abs=1e-4)


def test_back_off_weight_of_an_unextended_history_counts() -> None:
    model = NgramModel(
        (
            {"<s>": Entry(-99.0, -0.5), "A": Entry(-0.3, -0.25), "</s>": Entry(-0.4, 0.0)},
            {"A A": Entry(-0.1, 0.0)},
        )
    )
    fst = grammar_fst(model, {"A": 1}, 2).fst
    # <s> is followed by nothing: its weight is paid before "A", and that of "A" before the end.
    labelled = sorted(zip(fst.ilabel.tolist(), fst.cost.tolist(), strict=True))
    expected = [(1, 0.1), (1, 0.3), (2, 0.25), (2, 0.5)]
    assert labelled == [(label, pytest.approx(cost * math.log(10))) for label, cost in expected]
    assert not math.isfinite(fst.final[fst.start])


PROBABLE = Lexicon(LEXICON.prons, {"A": (0.9, 1e-05), "TWO": (0.3,), "ME": (0.5,)})


@pytest.mark.parametrize(
    ("seed", "order", "options", "lexicon"),
    [
        (0, 3, GraphOptions(), LEXICON),
        (1, 2, GraphOptions(self_loop_scale=1.0), LEXICON),
        (2, 1, GraphOptions(silence_prob=0.0), LEXICON),
        (3, 3, GraphOptions(silence_prob=0.2, self_loop_scale=0.0), LEXICON),
        (4, 3, GraphOptions(silence_prob=0.2), PROBABLE),
        (5, 2, GraphOptions(silence_prob=0.0), PROBABLE),
    ],
)
def test_every_sentence_has_the_score_of_its_parts(
    seed: int, order: int, options: GraphOptions, lexicon: Lexicon
) -> None:
    graph, tree, transitions, model = graph_and_parts(seed, options, order, lexicon)
    leave, _ = peer.leave_and_stay(transitions, options)
    for words in peer.sentences(LEXICON.words, 2):
        if not words:
            continue  # the graph has a path of no frame for it, which no utterance takes
        in_parts = max(
            log_prob + leave[peer.state_pdfs(phones, tree)].sum()
            for phones, log_prob in peer.pronunciations(words, lexicon, options.silence_prob)
        )
        expected = in_parts + peer.best_backoff(model, words)
        num_arcs = NUM_STATES * 8
        assert best_score_in_graph(graph, words) == pytest.approx(expected, abs=ROUNDING * num_arcs / 2)


def test_arcs_are_sorted_and_free_of_epsilons() -> None:
    graph, tree, *_ = graph_and_parts(0, GraphOptions())
    source, target, label = graph.arcs.long().T
    assert torch.equal(torch.argsort(source * 10_000 + label + 1, stable=True), torch.arange(graph.num_arcs))
    assert ((label == FINAL_LABEL) == (target == graph.num_states - 1)).all()
    assert set(label.tolist()) <= {FINAL_LABEL, *range(1, tree.num_pdfs + 1)}
    assert graph.num_pdfs == tree.num_pdfs


def test_words_without_pronunciation_are_excluded_and_named() -> None:
    lexicon = LEXICON.restrict(["A", "AM", "ME", "TO"])
    model = language_model()
    tree = SenoneTree.monophone(lexicon.phones)
    graph = build_hclg(lexicon, model, tree, TransitionModel.uniform(tree.num_pdfs))
    assert graph.excluded == ("TWO",)
    assert graph.words == ("A", "AM", "ME", "TO")


def test_an_arpa_file_and_its_model_make_the_same_graph(tmp_path: Path) -> None:
    graph, tree, transitions, model = graph_and_parts(0, GraphOptions())
    model.write_arpa(tmp_path / "lm.arpa")
    other = build_hclg(LEXICON, tmp_path / "lm.arpa", tree, transitions)
    assert torch.equal(graph.arcs, other.arcs)
    torch.testing.assert_close(graph.scores, other.scores)


def test_saved_and_loaded(tmp_path: Path) -> None:
    graph, *_ = graph_and_parts(0, GraphOptions())
    graph.save(tmp_path / "graph.safetensors")
    loaded = DecodingGraph.load(tmp_path / "graph.safetensors")
    for name in ("arcs", "scores", "words_on_arc"):
        assert torch.equal(getattr(graph, name), getattr(loaded, name))
    assert loaded.fingerprint == graph.fingerprint
    assert loaded.word_sequences == graph.word_sequences
    assert (loaded.words, loaded.num_pdfs, loaded.excluded) == (graph.words, graph.num_pdfs, graph.excluded)


def test_fingerprint_changes_with_the_parts_of_the_graph() -> None:
    fingerprints = {
        graph_and_parts(0, options)[0].fingerprint for options in (GraphOptions(), GraphOptions(silence_prob=0.4))
    }
    fingerprints |= {graph_and_parts(seed, GraphOptions())[0].fingerprint for seed in (0, 1)}
    assert len(fingerprints) == 3


@pytest.mark.parametrize("prob", ["-inf", "-Infinity", "-1e400", "-99", "-150"])
@pytest.mark.parametrize("backoff", ["-0.3", "-inf", "-1e400", "-99", "99"])
def test_graphs_of_infinite_weights_end(tmp_path: Path, prob: str, backoff: str) -> None:
    """A word of probability 0 is no path of the graph; a back-off weight of 0 is a very large cost, never infinity."""
    (tmp_path / "lm.arpa").write_text(
        "\\data\\\nngram 1=5\nngram 2=4\n\\1-grams:\n"
        f"-99 <s> {backoff}\n-1 </s>\n-0.5 A {backoff}\n-0.5 ME {backoff}\n{prob} TO {backoff}\n"
        f"\\2-grams:\n-0.5 <s> A\n{prob} A ME\n-0.1 ME A\n-0.1 ME TO\n\\end\\\n"
    )
    tree = SenoneTree.monophone(LEXICON.phones)
    graph = build_hclg(LEXICON, tmp_path / "lm.arpa", tree, TransitionModel.uniform(tree.num_pdfs))
    assert torch.isfinite(graph.scores).all()
    assert math.isfinite(best_score_in_graph(graph, ("A", "ME", "A")))
    assert best_score_in_graph(graph, ("TO",)) == -math.inf


@pytest.mark.parametrize(("prob", "backoff"), [(-0.3, math.inf), (-0.3, -math.inf), (-0.3, math.nan), (math.nan, -0.3)])
def test_weights_that_are_not_finite_are_refused_in_memory(prob: float, backoff: float) -> None:
    """They make determinisation spin for ever."""
    table = {"<s>": Entry(-99.0, -0.5), "A": Entry(-0.3, backoff), "</s>": Entry(-0.4, 0.0)}
    model = NgramModel((table, {"A A": Entry(prob, 0.0), "<s> A": Entry(-0.1, 0.0)}))
    with pytest.raises(InputError, match="expected finite probabilities and back-off weights"):
        grammar_fst(model, {"A": 1}, 2)


def test_determinisation_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two loops of one phone and different costs: the difference of their costs grows with every turn."""
    rows = [(0, 1, 1, 1, 0.0), (0, 2, 1, 2, 0.0), (1, 1, 1, 0, 1.0), (2, 2, 1, 0, 2.0)]
    twins = from_rows([*rows, (1, 3, 2, 0, 0.0), (2, 3, 3, 0, 0.0)], [math.inf] * 3 + [0.0])
    words = from_rows([(0, 0, 1, 1, 0.0), (0, 0, 2, 2, 0.0)], [0.0])
    monkeypatch.setattr("asrkd.graph.build.MIN_STATES", 500)
    with pytest.raises(InputError, match=r"deterministic within 540 states, found more \(.*passed 540 states"):
        lexicon_and_grammar(twins, words)


def test_cycles_of_epsilons_are_refused() -> None:
    tree = SenoneTree.monophone(LEXICON.phones)
    lg = from_rows([(0, 1, 2, 1, 0.0), (1, 2, 99, 0, 0.5), (2, 1, 99, 0, 0.5)], [math.inf, 0.0, math.inf])
    costs = pdf_costs(TransitionModel.uniform(tree.num_pdfs), GraphOptions())
    with pytest.raises(ValueError, match="expected no cycle of epsilons"):
        expand(lg, tree, costs, 1)
    with pytest.raises(ValueError, match="expected back-off arcs to earlier states"):
        GrammarWalk(from_rows([(0, 1, 3, 0, 0.0), (1, 0, 3, 0, 0.0), (0, 0, 1, 1, 0.5)], [0.0, 0.0]))


def test_parts_that_do_not_belong_together_are_refused() -> None:
    tree = SenoneTree.monophone(("SIL", "AH"))
    with pytest.raises(InputError, match="phones of the tree"):
        build_hclg(LEXICON, language_model(), tree, TransitionModel.uniform(6))
    tree = SenoneTree.monophone(LEXICON.phones)
    with pytest.raises(InputError, match="transitions of"):
        build_hclg(LEXICON, language_model(), tree, TransitionModel.uniform(5))
    with pytest.raises(InputError, match="none of them"):
        grammar_fst(language_model(), {"ELSE": 1}, 2)
    with pytest.raises(InputError, match="silence_prob"):
        GraphOptions(silence_prob=1.0)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    from asrkd.files import save_tensors

    save_tensors(tmp_path / "other.safetensors", {"arcs": torch.zeros(1, 3)}, {"kind": "lattices"})
    with pytest.raises(InputError, match="expected a decoding graph, found lattices"):
        DecodingGraph.load(tmp_path / "other.safetensors")
