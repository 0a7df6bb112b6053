"""Interpolated n-gram models: the n-grams of both, and probabilities that sum to one."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_pruning import histories, model, total_prob

from asrkd.lang.interpolation import interpolate
from asrkd.lang.ngram import read_arpa

OTHER = ["C C A", "D A", "A D D B", "D"]


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_ngrams_of_both_are_interpolated_and_every_history_sums_to_one(weight: float) -> None:
    first, second = model(3), model(2, OTHER)
    both = interpolate(first, second, weight).model()
    assert both.order == 3 and both.vocabulary == {"A", "B", "C", "D"}
    for table in both.tables[1:]:
        for key in table:
            *history, word = key.split()
            probs = [10 ** one.log10_prob(history, word) if word in one.tables[0] else 0.0 for one in (first, second)]
            expected = (1 - weight) * probs[0] + weight * probs[1]
            assert 10 ** both.log10_prob(history, word) == pytest.approx(expected)
    for history in histories(2):
        assert total_prob(both, history) == pytest.approx(1.0, abs=1e-6)


def test_an_arpa_without_a_history_is_interpolated(tmp_path: Path) -> None:
    """It has the trigram `A B A` and no bigram `A B`, as the format allows: `A B` gets its backed-off probability."""
    bigrams = "-0.4 <s> A -0.2\n-0.5 B A\n"
    unigrams = "-99 <s> -0.3\n-0.6020600 </s>\n-0.4559320 A -0.3\n-0.3979400 B -0.3\n"  # 0.25, 0.35, 0.4
    (tmp_path / "gap.arpa").write_text(
        "\\data\\\nngram 1=4\nngram 2=2\nngram 3=1\n\n"
        f"\\1-grams:\n{unigrams}\n\\2-grams:\n{bigrams}\n\\3-grams:\n-0.2 A B A\n\n\\end\\\n"
    )
    first, second = read_arpa(tmp_path / "gap.arpa"), model(2, OTHER)
    both = interpolate(first, second, 0.3).model()
    for history, word in (["A", "B"], "A"), (["A"], "B"):
        expected = 0.7 * 10 ** first.log10_prob(history, word) + 0.3 * 10 ** second.log10_prob(history, word)
        assert 10 ** both.log10_prob(history, word) == pytest.approx(expected)
    for history in histories(2):
        assert total_prob(both, history) == pytest.approx(1.0, abs=1e-6)


def test_a_model_interpolated_with_itself_is_itself() -> None:
    whole = model(3)
    both = interpolate(whole, whole, 0.3).model()
    for history in histories(2):
        for word in whole.vocabulary:
            assert both.log10_prob(history, word) == pytest.approx(whole.log10_prob(history, word), abs=1e-6)


def test_text_of_both_kinds_is_predicted_better_than_by_either_model() -> None:
    first, second = model(3), model(3, OTHER)
    text = [line.split() for line in ("A B C", "D A", "A D D")]
    assert interpolate(first, second, 0.5).model().perplexity(text, include_oov=True) < min(
        one.perplexity(text, include_oov=True) for one in (first, second)
    )
