"""Smaller models: which words and n-grams stay, and that probabilities still add up."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkd.lang.kneser_ney import estimate_kneser_ney
from asrkd.lang.ngram import BOS, EOS, Entry, NgramModel
from asrkd.lang.pruning import prune_by_entropy, restrict, top_words

TEXT = ["A B C", "A B", "B C A", "C", "A B C C", "B A", "A C B", "C B A B", "A B C A", "B B C"]
WORDS = ("A", "B", "C")


def model(order: int = 3, text: list[str] = TEXT) -> NgramModel:
    return estimate_kneser_ney([line.split() for line in text], order)


def total_prob(one: NgramModel, history: tuple[str, ...]) -> float:
    return sum(10.0 ** one.log10_prob(history, word) for word in one.tables[0] if word != BOS)


def histories(longest: int) -> list[tuple[str, ...]]:
    inner = [words for n in range(longest + 1) for words in itertools.product(WORDS, repeat=n)]
    return inner + [(BOS, *words) for words in inner if len(words) < longest]


@pytest.mark.parametrize("threshold", [1e-9, 1e-3, 1e-2, 0.1, 0.99])
def test_a_pruned_model_gives_every_history_a_probability_of_one(threshold: float) -> None:
    pruned = prune_by_entropy(model(), threshold)
    for history in histories(2):
        assert total_prob(pruned, history) == pytest.approx(1.0, abs=1e-6)


def test_more_is_pruned_the_higher_the_threshold_and_unigrams_never() -> None:
    whole = model()
    sizes = [[len(table) for table in prune_by_entropy(whole, t).tables] for t in (0.0, 1e-3, 1e-2, 0.99)]
    assert sizes[0] == [len(table) for table in whole.tables]
    assert sizes == sorted(sizes, reverse=True) and sizes[1] != sizes[2]
    assert sizes[-1] == [len(whole.tables[0]), 0, 0]


def test_nothing_to_prune_changes_nothing() -> None:
    whole = model()
    same = prune_by_entropy(whole, 0.0)
    for table, other in zip(whole.tables, same.tables, strict=True):
        assert table.keys() == other.keys()
        for key, entry in table.items():
            assert other[key] == pytest.approx(entry, abs=1e-9)


def test_the_threshold_is_the_loss_in_perplexity_by_hand() -> None:
    """One bigram A B and unigrams: its removal costs p(A) times the divergence of p(. | A) from the new p(. | A)."""
    unigrams = {"A": 0.4, "B": 0.3, EOS: 0.3}
    explicit, share = 0.6, 0.4 / 0.7  # p(B | A), and the back-off weight that leaves 0.4 to A and </s>
    tables: tuple[dict[str, Entry], ...] = (
        {word: Entry(math.log10(p), 0.0) for word, p in unigrams.items()},
        {"A B": Entry(math.log10(explicit), 0.0)},
    )
    tables[0]["A"] = Entry(math.log10(0.4), math.log10(share))
    tables[0][BOS] = Entry(-99.0, 0.0)
    before = {"A": 0.4 * share, "B": explicit, EOS: 0.3 * share}
    divergence = 0.4 * sum(p * math.log(p / unigrams[word]) for word, p in before.items())
    loss = math.exp(divergence) - 1
    assert len(prune_by_entropy(NgramModel(tables), loss * 0.99).tables[1]) == 1
    assert len(prune_by_entropy(NgramModel(tables), loss * 1.01).tables[1]) == 0


def test_a_history_that_a_longer_ngram_needs_stays() -> None:
    pruned = prune_by_entropy(model(4), 3e-3)
    for longer, shorter in zip(pruned.tables[1:], pruned.tables, strict=False):
        assert {key.rpartition(" ")[0] for key in longer} <= shorter.keys()


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5), min_size=3, max_size=30), st.floats(0, 0.2))
@settings(max_examples=40, deadline=None)
def test_any_model_stays_a_distribution(sentences: list[list[str]], threshold: float) -> None:
    pruned = prune_by_entropy(estimate_kneser_ney(sentences, 3, vocabulary=WORDS), threshold)
    for history in histories(2):
        assert total_prob(pruned, history) == pytest.approx(1.0, abs=1e-5)


def test_restricting_keeps_probabilities_of_the_words_that_stay() -> None:
    whole = model()
    restricted = restrict(whole, ["A", "C"])
    assert restricted.vocabulary == {"A", "C"}
    assert restricted.log10_prob((BOS, "A"), "C") == whole.log10_prob((BOS, "A"), "C")
    assert not [key for table in restricted.tables for key in table if "B" in key.split()]


def test_top_words() -> None:
    whole = model(1, ["A A A A B B C"])
    assert top_words(whole, 2) == {"A", "B"}
    assert top_words(whole, None) == {"A", "B", "C"}
