"""Search in an exported graph: words, their times and confidences, whole and in parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_model import LEXICON, NUM_PDFS, SEARCH, TREE, path_scores, write_toy_language

from asrkd.decode.kaldi_search import KaldiSearch
from asrkd.decode.options import DecodeOptions
from asrkd.errors import InputError
from asrkd.graph.build import build_hclg
from asrkd.hmm.topology import TransitionModel
from asrkd.lang.kneser_ney import estimate_kneser_ney
from asrkd.runtime.graph import WordGraph
from asrkd.runtime.search import Search
from asrkd.runtime.word_times import Span, phone_spans, word_spans

pytest.importorskip("kaldi_decoder")

SPOKEN = [("SIL", 6), ("A", 6), ("B", 9), ("SIL", 4), ("B", 6), ("A", 6), ("C", 8), ("SIL", 5)]
WORDS = [("AB", 6, 21), ("BA", 25, 37), ("C", 37, 45)]


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    folder = tmp_path_factory.mktemp("graph")
    write_toy_language(folder)
    return Search(WordGraph.load(folder, ("SIL",)), SEARCH)


def test_words_and_their_times(search: Search) -> None:
    found = search.decode(path_scores(SPOKEN).numpy())
    assert [(word.text, word.begin, word.end) for word in found.words] == WORDS
    assert found.reached_final and found.num_frames == 50
    assert all(word.confidence is not None and word.confidence > 0.999 for word in found.words)


@given(sizes=st.lists(st.integers(0, 25), max_size=6))
@settings(max_examples=30, deadline=None)
def test_parts_of_any_size_give_the_same_words(search: Search, sizes: list[int]) -> None:
    scores = path_scores(SPOKEN).numpy()
    stream = search.stream()
    begin = 0
    for size in [*sizes, len(scores)]:
        stream.advance(scores[begin : begin + size])
        begin += size
    assert stream.final() == search.decode(scores)


def test_partial_words_come_before_the_end(search: Search) -> None:
    scores = path_scores(SPOKEN).numpy()
    stream = search.stream(confidences=False)
    assert stream.partial() == ()
    stream.advance(scores[:25])
    assert [(word.text, word.begin, word.end) for word in stream.partial()] == WORDS[:1]
    stream.advance(scores[25:])
    assert [(word.text, word.begin, word.end) for word in stream.partial()] == WORDS


def test_nothing_to_search(search: Search) -> None:
    found = search.decode(np.zeros((0, NUM_PDFS), dtype=np.float32))
    assert found.words == () and not found.reached_final


def test_a_path_that_ends_early_has_the_begin_of_its_last_word(search: Search) -> None:
    narrow = Search(search.graph, replace(SEARCH, min_active=1, beam=5.0))
    found = narrow.decode(path_scores([("SIL", 6), ("C", 8), ("SIL", 3), ("A", 7)]).numpy())
    assert not found.reached_final
    assert [(word.text, word.begin, word.end) for word in found.words][:1] == [("C", 6, 14)]
    assert all(word.begin == 17 and word.end == 24 for word in found.words[1:])


def test_an_unclear_word_has_less_confidence_and_alternatives(search: Search) -> None:
    spoken = [("SIL", 6), ("A", 6), ("B", 9), ("C", 6), ("SIL", 6)]  # ABC, or AB and C
    found = search.decode(path_scores(spoken).numpy(), nbest=5)
    texts = [found.text, *found.alternatives]
    assert {"ABC", "AB C"} <= set(texts)
    assert len(texts) == len(set(texts)) <= 5
    assert sum(search_word.confidence for search_word in found.words) < len(found.words)  # type: ignore[misc]
    assert search.decode(path_scores(spoken).numpy(), nbest=5, confidences=False).words[0].confidence is None


def test_the_recipes_search_finds_the_same(search: Search) -> None:
    options = DecodeOptions(acoustic_scale=1.0)
    sentences = [["AB", "BA"], ["ABC", "C"], ["BA", "C", "AB"], ["C", "ABC"], ["AB", "AB"]]
    model = estimate_kneser_ney(sentences, 2, vocabulary=LEXICON.words)
    graph = build_hclg(LEXICON, model, TREE, TransitionModel.uniform(NUM_PDFS))
    of_recipe = KaldiSearch(graph, options).open()
    for seed in range(20):
        scores = torch.randn(60, NUM_PDFS, generator=torch.Generator().manual_seed(seed)) * 3
        lattice, partial = of_recipe(scores)
        found = search.decode(scores.numpy(), confidences=False)
        assert [word.text for word in found.words] == graph.text(lattice.words_on_arc)
        assert found.reached_final != partial
        times = [time for word in found.words for time in (word.begin, word.end)]
        assert times == sorted(times)


def test_phones_of_a_path() -> None:
    phone_of, state_of = ["SIL"] * 3 + ["A"] * 3, [0, 1, 2] * 2
    # the same phone twice in a row is two phones
    path = np.array([0, 1, 2, 3, 3, 4, 5, 3, 4, 5])
    assert phone_spans(path, phone_of, state_of) == [Span("SIL", 0, 3), Span("A", 3, 7), Span("A", 7, 10)]
    assert phone_spans(path[:0], phone_of, state_of) == []


def spans(names: str) -> list[Span]:
    return [Span(name, n, n + 1) for n, name in enumerate(names.split())]


PRONS = {"AB": [("A", "B")], "ABA": [("A", "B", "A")], "A": [("A",), ("A", "A")], "B": [("B",)]}


@pytest.mark.parametrize(
    ("words", "phones", "expected"),
    [
        ("A A", "A SIL A A", [(0, 1), (2, 4)]),
        ("A AB", "A A A B", [(0, 2), (2, 4)]),
        ("A AB", "A A B", [(0, 1), (1, 3)]),
        ("AB", "SIL A B SIL", [(1, 3)]),
        ("ABA", "SIL A B", [(1, 3)]),  # cut
        ("B AB", "B A", [(0, 1), (1, 2)]),
        ("B AB", "B SIL", [(0, 1), (2, 2)]),  # emitted before any of its phones
        ("", "SIL A", []),
    ],
)
def test_phones_are_divided_between_words(words: str, phones: str, expected: list[tuple[int, int]]) -> None:
    found = word_spans(words.split(), spans(phones), PRONS, {"SIL"})
    assert [(one.begin, one.end) for one in found] == expected


def test_a_lexicon_of_another_graph() -> None:
    with pytest.raises(InputError, match="lexicon: expected the pronunciation of AB that the decoding graph has"):
        word_spans(["AB"], spans("B A"), PRONS, {"SIL"})


def test_a_narrow_beam_is_taken(search: Search) -> None:
    narrow = Search(search.graph, replace(SEARCH, max_active=None))
    assert narrow.decode(path_scores(SPOKEN).numpy(), beam=4.0).text == "AB BA C"


def test_files_that_are_no_graph(tmp_path: Path) -> None:
    write_toy_language(tmp_path)
    (tmp_path / "HCLG.fst").write_bytes(b"text")
    with pytest.raises(InputError, match=r"HCLG\.fst: expected a graph of OpenFst's"):
        WordGraph.load(tmp_path, ("SIL",))
