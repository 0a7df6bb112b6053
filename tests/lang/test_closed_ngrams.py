"""Models as arrays: the probabilities of the model of dictionaries, whatever n-grams it lacks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pruning import TEXT, histories, model, total_prob

from asrkd.lang.closed_ngrams import ClosedModel, ClosedNgrams
from asrkd.lang.interpolation import interpolate
from asrkd.lang.kneser_ney import estimate_kneser_ney
from asrkd.lang.ngram import BOS, UNK, NgramModel
from asrkd.lang.pruning import prune_by_entropy


def with_gaps(whole: NgramModel, chosen: list[bool]) -> NgramModel:
    """The model without some n-grams, histories and suffixes of others among them. It need not sum to one."""
    is_kept = itertools.cycle(chosen)
    tables = ({key: entry for key, entry in table.items() if next(is_kept)} for table in whole.tables[1:])
    return NgramModel((whole.tables[0], *tables))


@given(st.lists(st.booleans(), min_size=5, max_size=17))
@settings(max_examples=50, deadline=None)
def test_no_probability_changes_where_parts_are_added(chosen: list[bool]) -> None:
    gapped = with_gaps(model(3), chosen)
    closed = ClosedModel.of(gapped).arrays().model()
    for longer, shorter in zip(closed.tables[2:], closed.tables[1:], strict=False):
        parts = {part for key in longer for part in (key.rpartition(" ")[0], key.partition(" ")[2])}
        assert parts <= shorter.keys()
    for history in histories(2):
        for word in gapped.vocabulary:
            assert closed.log10_prob(history, word) == pytest.approx(gapped.log10_prob(history, word), abs=1e-9)


@given(st.lists(st.booleans(), min_size=5, max_size=17))
@settings(max_examples=30, deadline=None)
def test_what_was_added_is_pruned_again(chosen: list[bool]) -> None:
    gapped = with_gaps(model(3), chosen)
    pruned = prune_by_entropy(gapped, 1e-9)
    for n, (table, given_table) in enumerate(zip(pruned.tables, gapped.tables, strict=True)):
        needed = {key.rpartition(" ")[0] for key in pruned.tables[n + 1]} if n + 1 < pruned.order else set()
        assert table.keys() <= given_table.keys() | needed


def test_words_that_one_model_lacks_count_as_unknown_in_its_histories() -> None:
    """`<unk>` has a back-off weight in the first model, which a history with a word of the second one alone gets."""
    first = estimate_kneser_ney([line.split() for line in TEXT], 2, vocabulary=["A", "B"])
    second = estimate_kneser_ney([["D", "A"], ["D", "B", "A"]], 2)
    assert first.tables[0][UNK].log10_backoff < 0.0
    both = interpolate(first, second, 0.5).model()
    for word in ("A", "B"):
        expected = 0.5 * 10 ** first.log10_prob(["D"], word) + 0.5 * 10 ** second.log10_prob(["D"], word)
        assert 10 ** both.log10_prob(["D"], word) == pytest.approx(expected)
    assert total_prob(both, ("D",)) == pytest.approx(1.0, abs=1e-6)
    assert both.log10_prob([BOS], "D") == pytest.approx(np.log10(0.5) + second.log10_prob([BOS], "D"))


def test_rows_by_hand() -> None:
    ngrams = ClosedNgrams.of([np.arange(3)[:, None], np.array([[2, 0]]), np.array([[1, 2, 1], [1, 2, 1]])], 3)
    assert ngrams.tables[1].tolist() == [[1, 2], [2, 0], [2, 1]] and ngrams.tables[2].tolist() == [[1, 2, 1]]
    assert ngrams.histories[2].tolist() == [0] and ngrams.suffixes[2].tolist() == [2]
    wanted = np.array([[2, 1], [0, 0], [-1, 2], [2, -1], [1, 2]])
    assert ngrams.rows(wanted).tolist() == [2, -1, -1, -1, 0]
    assert (
        ClosedNgrams.of([np.arange(3)[:, None], np.empty((0, 2), dtype=np.int64)], 3).rows(wanted).tolist() == [-1] * 5
    )
