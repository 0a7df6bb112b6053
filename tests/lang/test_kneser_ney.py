"""Estimates in blocks: the same counts and the same model, whatever the size of a block; pruning of arrays."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkd.errors import InputError
from asrkd.lang import ngram_counts
from asrkd.lang.kneser_ney import estimate_arrays, estimate_kneser_ney
from asrkd.lang.ngram import BOS, EOS, UNK
from asrkd.lang.ngram_counts import Scratch, count_ngrams, number_words
from asrkd.lang.pruning import prune_arrays, prune_by_entropy

Sentences = list[list[str]]
texts = st.lists(st.lists(st.sampled_from("ABCDE"), max_size=7), min_size=1, max_size=20)


def expected_counts(text: Sentences, n: int) -> Counter[tuple[str, ...]]:
    padded = [(BOS, *sentence, EOS) for sentence in text]
    return Counter(one[i - n : i] for one in padded for i in range(n, len(one) + 1))


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(1, 5), st.integers(1, 40))
def test_counts_in_blocks_are_those_of_a_dictionary(text: Sentences, order: int, block: int) -> None:
    with TemporaryDirectory() as folder:
        scratch = Scratch(Path(folder), block)
        numbered = number_words(text, None, scratch)
        tables = count_ngrams(numbered, order, scratch)
        size, names = len(numbered.words), [(word,) for word in numbered.words]
        for n, rows in enumerate(tables, start=1):
            if n > 1:
                names = [(*names[key // size], numbered.words[key % size]) for key in rows["key"].tolist()]
                assert np.all(np.diff(rows["key"]) > 0)
            counted = {name: number for name, number in zip(names, rows["count"].tolist(), strict=True) if number}
            assert counted == expected_counts(text, n)


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(1, 4), st.integers(1, 40), st.none() | st.sets(st.sampled_from("ABCX")))
def test_model_does_not_depend_on_the_block(
    text: Sentences, order: int, block: int, vocabulary: set[str] | None
) -> None:
    expected = estimate_kneser_ney(text, order, vocabulary)
    with TemporaryDirectory() as folder:
        model = estimate_arrays(text, order, vocabulary, Path(folder), block).model()
    assert [list(table.items()) for table in model.tables] == [list(table.items()) for table in expected.tables]


def zipf_text(seed: int, num_words: int, vocabulary: int) -> Sentences:
    rng = random.Random(seed)
    words = [f"W{int(vocabulary ** rng.random())}" for _ in range(num_words)]
    return [words[i : i + 10] for i in range(0, num_words, 10)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 1e-3])
def test_pruned_arrays_are_the_pruned_model(tmp_path: Path, order: int, threshold: float) -> None:
    text = zipf_text(0, 3000, 60)
    expected = estimate_kneser_ney(text, order)
    if threshold:
        expected = prune_by_entropy(expected, threshold)
    pruned = prune_arrays(estimate_arrays(text, order, None, tmp_path, block=500), threshold, block=100)
    assert [set(table) for table in pruned.tables] == [set(table) for table in expected.tables]
    for mine, theirs in zip(pruned.tables, expected.tables, strict=True):
        for key, entry in mine.items():
            assert entry == pytest.approx(theirs[key], abs=1e-9)


def test_no_more_than_a_block_is_sorted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of the counts, as sizes of what is sorted: it does not grow with the text, and all sorts are linear."""
    sizes: list[int] = []
    distinct = ngram_counts._distinct

    def recorded(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return distinct(rows)

    monkeypatch.setattr(ngram_counts, "_distinct", recorded)
    sorted_rows = []
    for number, num_words in enumerate((2000, 8000)):
        sizes.clear()
        folder = tmp_path / str(number)
        folder.mkdir()
        scratch = Scratch(folder, block=500)
        count_ngrams(number_words(zipf_text(1, num_words, 300), None, scratch), 3, scratch)
        assert max(sizes) <= 500 + 12  # the last sentence of a block is whole
        sorted_rows.append(sum(sizes))
    assert sorted_rows[1] <= 4.1 * sorted_rows[0]


def test_small_texts_write_no_files(tmp_path: Path) -> None:
    estimate_arrays([["A", "B"]], 3, None, tmp_path)
    assert not list(tmp_path.iterdir())
    estimate_arrays([["A", "B"]] * 5, 3, None, tmp_path, block=4)
    assert list(tmp_path.iterdir())


def test_texts_beyond_32_bits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram_counts, "MOST_WORDS", 3)
    with pytest.raises(InputError, match="at most 3 words, found 4"):
        estimate_arrays([["A", "B"]], 2, None, tmp_path)


def test_words_outside_the_vocabulary_are_unknown(tmp_path: Path) -> None:
    text = number_words([["A", "Z"], ["Y", "A"]], frozenset("AB"), Scratch(tmp_path))
    assert text.words == [EOS, BOS, UNK, "A", "B"]
    assert [text.words[number] for number in text.block(0, 8)] == [BOS, "A", UNK, EOS, BOS, UNK, "A", EOS]
