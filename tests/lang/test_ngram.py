"""N-gram models: hand-worked Kneser-Ney, probabilities sum to one, KenLM agrees, ARPA files good and bad."""

from __future__ import annotations

import contextlib
import gzip
import logging
import math
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_speech import Utterance

from asrkd.errors import InputError
from asrkd.lang.interpolation import interpolate
from asrkd.lang.kneser_ney import FALLBACK_DISCOUNTS, estimate_kneser_ney
from asrkd.lang.ngram import (
    BOS,
    EOS,
    UNK,
    Entry,
    NgramModel,
    read_arpa,
)
from asrkd.lang.pruning import prune_by_entropy
from asrkd.lang.unigrams import require_unigram_probabilities

Sentences = list[list[str]]


def prob(model: NgramModel, history: Sequence[str], word: str) -> float:
    return 10.0 ** model.log10_prob(history, word)


def total(model: NgramModel, history: Sequence[str]) -> float:
    return sum(prob(model, history, word) for word in (*model.vocabulary, EOS, UNK))


def score(model: NgramModel, sentence: Sequence[str]) -> float:
    """log10 probability of a sentence from `<s>` to `</s>`."""
    padded = [BOS, *sentence, EOS]
    return sum(model.log10_prob(padded[:i], padded[i]) for i in range(1, len(padded)))


def histories(model: NgramModel) -> list[tuple[str, ...]]:
    """Every history that the model stores, and some that it has never seen or that leave its vocabulary."""
    stored = [
        ngram
        for n in range(1, model.order)
        for ngram in sorted(tuple(key.split()) for key in model.tables[n - 1])
        if EOS not in ngram
    ]
    some = sorted(model.vocabulary)[:3]
    return [(), *stored, ("?",), *((*h, "?") for h in stored[:5]), *(("?", w, v) for w in some for v in some)]


def markov_text(seed: int, num_sentences: int, words: Sequence[str]) -> Sentences:
    """Sentences in which a word leans on the one before, so that counts of every size occur."""
    rng = random.Random(seed)
    text: Sentences = []
    for _ in range(num_sentences):
        sentence: list[str] = []
        while len(sentence) < 12 and rng.random() > 0.12:
            at = words.index(sentence[-1]) if sentence else 0
            sentence.append(words[(at + int(rng.expovariate(0.35))) % len(words)])
        text.append(sentence)
    return text


WORDS = [f"W{i}" for i in range(40)]


def test_hand_worked_bigrams_with_the_fall_back() -> None:
    # Raw bigrams: <s>A 3, AB 2, AC 1, B</s> 2, C</s> 1. Too few for equation 26: the
    # discounts are 0.5, 1, 1.5. Left neighbours: A 1 (<s>), B 1, C 1, </s> 2 (B, C); 5 in all.
    # Unigrams set aside 0.5 + 0.5 + 0.5 + 1 = 2.5 of 5, shared by A, B, C, </s>, <unk>: 0.1 each.
    model = estimate_kneser_ney([["A", "B"], ["A", "B"], ["A", "C"]], order=2)
    unigram = {"A": 0.5 / 5 + 0.1, "B": 0.5 / 5 + 0.1, "C": 0.5 / 5 + 0.1, EOS: 1 / 5 + 0.1, UNK: 0.1}
    assert {w: prob(model, [], w) for w in unigram} == pytest.approx(unigram, rel=1e-12)
    # After A, seen 3 times: set aside (1 + 0.5) / 3.
    assert prob(model, ["A"], "B") == pytest.approx((2 - 1) / 3 + 0.5 * 0.2, rel=1e-12)
    assert prob(model, ["A"], "C") == pytest.approx((1 - 0.5) / 3 + 0.5 * 0.2, rel=1e-12)
    assert prob(model, ["A"], EOS) == pytest.approx(0.5 * 0.3, rel=1e-12)
    # After <s>, seen 3 times, always A: set aside 1.5 / 3.
    assert prob(model, [BOS], "A") == pytest.approx(1.5 / 3 + 0.5 * 0.2, rel=1e-12)
    assert model.tables[0][BOS] == (-99.0, pytest.approx(math.log10(0.5)))
    # The sentence A C.
    expected = (1.5 / 3 + 0.5 * 0.2) * ((1 - 0.5) / 3 + 0.5 * 0.2) * ((1 - 0.5) / 1 + 0.5 * 0.3)
    assert 10 ** score(model, ["A", "C"]) == pytest.approx(expected, rel=1e-12)


def test_hand_worked_discounts() -> None:
    # Unigram text: one word a sentence, order 1. Counts: A..D 1 (4 of them), E F 2, G 3, H 4, </s> 15.
    # t = (4, 2, 1, 1), so Y = 4 / (4 + 4) = 1/2, D = (1 - 2 Y 2/4, 2 - 3 Y 1/2, 3 - 4 Y) = (0.5, 1.25, 1).
    text = [[w] for w in "ABCDEEFFGGGHHHH"]
    model = estimate_kneser_ney(text, order=1)
    aside = (4 * 0.5 + 2 * 1.25 + 1 + 1 + 1) / 30
    share = aside / 10  # A to H, </s>, <unk>
    for word, count, discount in (
        ("A", 1, 0.5),
        ("E", 2, 1.25),
        ("G", 3, 1.0),
        ("H", 4, 1.0),
        (EOS, 15, 1.0),
    ):
        assert prob(model, [], word) == pytest.approx((count - discount) / 30 + share, rel=1e-12)
    assert prob(model, [], "?") == pytest.approx(share, rel=1e-12)


def brute_force(text: Sentences, order: int, history: tuple[str, ...], word: str) -> float:
    """The recursion of Chen and Goodman (1999), straight from the text, with the fallback discounts."""
    padded = [(BOS, *sentence, EOS) for sentence in text]

    def occurrences(n: int) -> list[tuple[str, ...]]:
        return [s[i - n : i] for s in padded for i in range(n, len(s) + 1)]

    def count(ngram: tuple[str, ...]) -> int:
        if len(ngram) == order or ngram[0] == BOS:
            return occurrences(len(ngram)).count(ngram)
        return len({longer[0] for longer in occurrences(len(ngram) + 1) if longer[1:] == ngram})

    vocabulary = sorted({word for s in padded for word in s[1:]})
    counts = {v: count((*history, v)) for v in vocabulary}
    whole = sum(counts.values())
    discount = {v: 0 if c == 0 else FALLBACK_DISCOUNTS[min(c, 3) - 1] for v, c in counts.items()}
    lower = 1 / (len(vocabulary) + 1) if not history else brute_force(text, order, history[1:], word)
    if whole == 0:
        return lower
    return (counts.get(word, 0) - discount.get(word, 0)) / whole + sum(discount.values()) / whole * lower


tiny_texts = st.lists(st.lists(st.sampled_from("ABC"), max_size=4), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(tiny_texts, st.integers(1, 4), st.data())
def test_back_off_gives_the_interpolated_probability(text: Sentences, order: int, data: st.DataObject) -> None:
    def fall_back(counts: object, order: int) -> tuple[float, float, float]:
        return FALLBACK_DISCOUNTS

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asrkd.lang.kneser_ney._discounts", fall_back)
        model = estimate_kneser_ney(text, order)
    start = data.draw(st.sampled_from([(), (BOS,)]))
    history = (*start, *data.draw(st.lists(st.sampled_from("ABC"), max_size=order)))[-(order - 1) or 99 :]
    for word in (*sorted(model.vocabulary), EOS):
        expected = brute_force(text, order, tuple(history) if order > 1 else (), word)
        assert prob(model, history, word) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.sampled_from("ABCDEF"), max_size=6), min_size=1, max_size=30),
    st.integers(1, 4),
    st.none() | st.sets(st.sampled_from("ABCDEFGH")),
)
def test_probabilities_sum_to_one(text: Sentences, order: int, vocabulary: set[str] | None) -> None:
    model = estimate_kneser_ney(text, order, vocabulary)
    assert all(total(model, history) == pytest.approx(1.0, abs=1e-9) for history in histories(model))


def test_probabilities_sum_to_one_with_estimated_discounts(caplog: pytest.LogCaptureFixture) -> None:
    text = markov_text(0, 3000, WORDS)
    with caplog.at_level("INFO", logger="asrkd.lang.kneser_ney"):
        model = estimate_kneser_ney(text, order=3)
    # Only the 40 unigrams are too few; bigrams and trigrams have discounts of their own.
    assert [record.getMessage()[:8] for record in caplog.records] == ["1-grams:"]
    for history in histories(model):
        assert total(model, history) == pytest.approx(1.0, abs=1e-9)


# What KenLM's lmplz (0.3.0, -o 3 --discount_fallback) made of markov_text(0, 3000, WORDS): fallback discounts
# for unigrams, 0.423611, 1.11195, 1.45163 for bigrams and 0.581572, 0.984892, 1.52991 for trigrams.
LMPLZ_MARKOV = {
    "W3": (-1.6872808, -0.557769),
    "<unk>": (-2.6344035, 0.0),
    "<s> W1": (-0.74305063, -1.3618255),
    "W5 W7": (-1.1823686, -0.83272785),
    "W2 W3 W5": (-0.9023318, 0.0),
    "<s> W4 </s>": (-0.9548111, 0.0),
    "W39 W0 W1": (-0.6490765, 0.0),
}
# And of AN4's 948 training transcripts, where every order has discounts of its own.
LMPLZ_AN4 = {
    "FIVE": (-1.6041212, -0.59114754),
    "<unk>": (-2.8586085, 0.0),
    "</s>": (-1.3892846, 0.0),
    "<s> RUBOUT": (-1.2167696, -0.3070408),
    "A B": (-1.9052057, -0.13373034),
    "<s> ENTER SIX": (-1.054592, 0.0),
}


def entries(model: NgramModel, keys: Iterable[str]) -> dict[str, tuple[float, ...]]:
    return {key: pytest.approx(tuple(model.tables[len(key.split()) - 1][key]), abs=1e-6) for key in keys}


def test_lmplz_estimates_the_same() -> None:
    model = estimate_kneser_ney(markov_text(0, 3000, WORDS), 3)
    assert entries(model, LMPLZ_MARKOV) == LMPLZ_MARKOV


def test_lmplz_estimates_the_same_on_an4(an4_dir: Path) -> None:
    lines = (an4_dir / "etc/an4_train.transcription").read_text().splitlines()
    model = estimate_kneser_ney([line.split()[1:-2] for line in lines], 3)
    assert entries(model, LMPLZ_AN4) == LMPLZ_AN4
    assert [len(table) for table in model.tables] == [102, 1256, 3121]


def test_longer_histories_help_and_beat_nothing_known() -> None:
    text, held_out = markov_text(0, 3000, WORDS), markov_text(1, 300, WORDS)
    one, two, three = (estimate_kneser_ney(text, order).perplexity(held_out) for order in (1, 2, 3))
    assert two < 0.7 * one < 0.7 * (len(WORDS) + 1)
    # The text is first order: a trigram has nothing more to learn, and smoothing keeps it from losing much.
    assert three == pytest.approx(two, rel=0.05)


def test_vocabulary_wider_and_narrower_than_the_text() -> None:
    text = [["A", "B"], ["A", "C"], ["B", "C"]]
    wide = estimate_kneser_ney(text, 2, vocabulary=["A", "B", "C", "D", "E"])
    assert wide.vocabulary == {"A", "B", "C", "D", "E"}
    assert prob(wide, [], "D") == prob(wide, [], UNK) > 0
    assert prob(wide, ["A"], "D") == prob(wide, ["A"], "E") < prob(wide, ["A"], "B")
    narrow = estimate_kneser_ney(text, 2, vocabulary=["A", "B"])
    assert narrow.vocabulary == {"A", "B"}
    assert prob(narrow, ["A"], "C") == prob(narrow, ["A"], UNK) > prob(narrow, ["A"], EOS)
    assert narrow.oov_rate(text) == pytest.approx(2 / 6)


def test_words_of_a_set_are_in_one_order() -> None:
    """A process orders a set of strings in its own way; what is hashed of a model must not depend on that."""
    model = estimate_kneser_ney([["B", "A"]], 2, vocabulary=frozenset("ZYXWVUTSRQPONMLKJIHGFEDCBA"))
    assert list(model.tables[0]) == [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", EOS, UNK, BOS]


def test_words_outside_are_counted_apart() -> None:
    model = estimate_kneser_ney([["A", "B"], ["B"]], 2)
    assert model.oov_rate([["A", "X"], ["B", "Y"]]) == 0.5
    assert model.oov_rate([]) == 0.0
    inside = model.log10_prob([BOS], "A") + model.log10_prob([BOS, "A", "X"], EOS)
    assert model.perplexity([["A", "X"]]) == pytest.approx(10 ** (-inside / 2))
    everything = score(model, ["A", "X"])
    assert model.perplexity([["A", "X"]], include_oov=True) == pytest.approx(10 ** (-everything / 3))
    closed = NgramModel(tuple({k: v for k, v in t.items() if k != UNK} for t in model.tables))
    assert closed.log10_prob([], "X") == -math.inf


def test_refuses_text_without_sentences_or_with_reserved_words() -> None:
    with pytest.raises(InputError, match="found none"):
        estimate_kneser_ney([], 3)
    with pytest.raises(InputError, match="order of 1 or more, found 0"):
        estimate_kneser_ney([["A"]], 0)
    for word in (BOS, EOS, UNK, "", "A B"):
        with pytest.raises(InputError, match="sentence 2"):
            estimate_kneser_ney([["A"], ["B", word]], 2)


def test_only_empty_sentences() -> None:
    model = estimate_kneser_ney([[], []], 3, vocabulary=["A"])
    assert prob(model, [BOS], EOS) > prob(model, [BOS], "A") > 0
    assert total(model, [BOS]) == pytest.approx(1.0)


# ------------------------------------------------------------------------------ ARPA files and KenLM


@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz"])
def test_writing_and_reading_agree(tmp_path: Path, name: str) -> None:
    model = estimate_kneser_ney(markov_text(2, 200, WORDS), 3)
    model.write_arpa(tmp_path / name)
    again = read_arpa(tmp_path / name)
    assert [set(table) for table in again.tables] == [set(table) for table in model.tables]
    for mine, read in zip(model.tables, again.tables, strict=True):
        for key, entry in mine.items():
            assert read[key] == pytest.approx(entry, abs=1e-8)
    again.write_arpa(tmp_path / f"again-{name}")
    assert (tmp_path / f"again-{name}").read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.needs("kenlm")
@pytest.mark.parametrize("order", [2, 3, 4])
def test_kenlm_agrees(tmp_path: Path, order: int) -> None:
    import kenlm

    model = estimate_kneser_ney(markov_text(3, 500, WORDS), order)
    path = tmp_path / "model.arpa"
    model.write_arpa(path)
    peer = kenlm.Model(str(path))
    held_out = [*markov_text(4, 100, WORDS), ["W1", "?", "W2"], []]
    for sentence in held_out:
        text = " ".join(sentence)
        assert score(model, sentence) == pytest.approx(peer.score(text), rel=1e-5)
        assert model.perplexity([sentence], include_oov=True) == pytest.approx(peer.perplexity(text), rel=1e-4)
        scores = [score for score, _, _ in peer.full_scores(text)]
        padded = [BOS, *sentence, EOS]
        mine = [model.log10_prob(padded[:i], padded[i]) for i in range(1, len(padded))]
        assert mine == pytest.approx(scores, abs=1e-5)


@pytest.mark.needs("kenlm")
def test_perplexity_of_real_text_agrees_with_kenlm(
    speech_corpus: str, utterances: list[Utterance], tmp_path: Path
) -> None:
    import kenlm

    train, test = ([one.words for one in utterances if one.split == split] for split in ("train", "test"))
    model = estimate_kneser_ney(train, 3)
    model.write_arpa(tmp_path / "lm.arpa")
    peer = kenlm.Model(str(tmp_path / "lm.arpa"))
    predictions = sum(len(sentence) + 1 for sentence in test)
    theirs = 10 ** (-sum(peer.score(" ".join(sentence)) for sentence in test) / predictions)
    mine = model.perplexity(test, include_oov=True)
    assert mine == pytest.approx(theirs, rel=1e-5)
    # Measured 16.8 on AN4, where spelled letters and digits are next to random (a unigram has 40.6), and 29.3 on the
    # prompts (a unigram has 159.6).
    assert mine < {"an4": 17.5, "prompts": 30.5}[speech_corpus]


GOOD = """some text
\\data\\
ngram 1=4
ngram  2 = 2

\\1-grams:
-1.0 A\t-0.25
-0.7\t</s>
-99\t<s>\t-0.5
-0.8\tB

\\2-grams:
-0.2\t<s> A
-0.3 A   B

\\end\\
"""


def test_reads_what_other_tools_write(tmp_path: Path) -> None:
    path = tmp_path / "lm"
    path.write_text(GOOD)
    model = read_arpa(path)
    assert model.tables[0]["A"] == Entry(-1.0, -0.25)
    assert model.log10_prob(["A"], "B") == -0.3
    assert model.log10_prob([BOS], "B") == -0.5 - 0.8
    assert model.log10_prob(["?", "A"], EOS) == pytest.approx(-0.25 - 0.7)
    assert model.vocabulary == {"A", "B"}
    assert total(model, []) != 1.0  # invented numbers, and no <unk>
    path.write_bytes(gzip.compress(GOOD.replace("\n", "\r\n").encode()))
    assert read_arpa(path) == model


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ngram 1=4", "ngram 1=5", r"lm:12: expected 5 1-grams, as .data. says, found 4"),
        ("ngram  2 = 2", "ngram  2 = 3", r"lm:16: expected 3 2-grams, as .data. says, found 2"),
        ("ngram  2 = 2", "ngram 3=2", r"lm:4: expected ngram 2=COUNT"),
        ("ngram  2 = 2", "ngram 2=two", r"lm:4: expected ngram 2=COUNT"),
        ("ngram 1=4\nngram  2 = 2\n", "", r"lm:\d: expected ngram 1=COUNT"),
        ("\\data\\", "data", r"lm: expected an ARPA language model"),
        ("-0.8\tB", "-0.8", r"lm:10: expected log10 probability, 1 words"),
        ("-0.8\tB", "x\tB", r"lm:10: .* found 'x' for the probability"),
        ("-0.8\tB", "0.8\tB", r"lm:10: expected a log10 probability of at most 0, found 0.8"),
        ("-0.8\tB", "nan\tB", r"lm:10: expected a log10 probability of at most 0, found nan"),
        ("-0.8\tB", "-0.8\tB\tC", r"lm:10: .* found 'C' for the back-off"),
        ("-0.8\tB", "-0.8\tB\tnan", r"lm:10: expected a log10 back-off weight of at most 99, found nan"),
        ("-0.8\tB", "-0.8\tB\tinf", r"lm:10: expected a log10 back-off weight of at most 99, found inf"),
        ("-0.8\tB", "-0.8\tB\tInfinity", r"lm:10: expected a log10 back-off weight of at most 99, found Infinity"),
        ("-0.8\tB", "-0.8\tB\t1e400", r"lm:10: expected a log10 back-off weight of at most 99, found 1e400"),
        ("-0.8\tB", "-0.8\tB\t99.5", r"lm:10: expected a log10 back-off weight of at most 99, found 99.5"),
        ("-0.8\tB", "inf\tB", r"lm:10: expected a log10 probability of at most 0, found inf"),
        ("-0.8\tB", "1e400\tB", r"lm:10: expected a log10 probability of at most 0, found 1e400"),
        ("-0.8\tB", "-0.8\tAREA 51", r"lm:10: expected 1 words between tabs, found 'AREA 51'"),
        ("-0.8\tB", "-0.8\tNEW YORK", r"lm:10: .* found 'YORK' for the back-off"),
        ("ngram 1=4", "ngram 1=" + "9" * 5000, r"lm:3: expected ngram 1=COUNT"),
        ("-0.8\tB", "-0.8\tA", r"lm:10: 1-gram 'A' is there twice"),
        ("<s> A", "<s> C", r"lm:13: word C is no unigram"),
        ("<s> A", "<s> A B", r"lm:13: .*found 'B' for the back-off"),
        ("<s> A", "<s> A\t-1 -1", r"lm:13: expected log10 probability, 2 words"),
        ("\\2-grams:", "\\3-grams:", r"lm:12: expected .2-grams:, found .*3-grams"),
        ("\\end\\\n", "", r"lm: expected .end., found the end of the file"),
        ("-0.7\t</s>", "-0.7\tC", r"lm: expected a unigram </s>, found none"),
        ("\\data\\", "iARPA\n\\data\\", r"lm:2: expected an ARPA language model, found 'iARPA'"),
        ("\\data\\", "qARPA 3 256\n\\data\\", r"lm:2: expected an ARPA language model, found 'qARPA 3 256'"),
    ],
)
def test_bad_arpa_is_named_by_file_and_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = tmp_path / "lm"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_arpa(path)


def test_the_unknown_word_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "lm"
    path.write_text(GOOD.replace("B", "<UNK>"))
    model = read_arpa(path)
    assert model.vocabulary == {"A"}
    assert model.log10_prob(["A"], "B") == model.log10_prob(["A"], UNK) == -0.3


def test_unigrams_must_be_probabilities_of_base_ten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = estimate_kneser_ney([["A", "B"], ["B", "C", "A"], ["D"]], 2)
    require_unigram_probabilities("lm", model)

    def scaled(factor: float) -> NgramModel:
        return NgramModel(({word: Entry(one.log10_prob * factor, 0.0) for word, one in model.tables[0].items()},))

    with pytest.raises(InputError, match=r"sum to 1 .*<s> does not count.*, found a sum of 6"):
        require_unigram_probabilities("lm", scaled(0.0))
    with pytest.raises(InputError, match=r"lm: .* of 1 with base e: these look like natural logarithms"):
        require_unigram_probabilities("lm", scaled(math.log(10)))
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
    require_unigram_probabilities("lm", scaled(4.0))
    assert "the probabilities of the 6 unigrams sum to 0.0" in caplog.text


@pytest.mark.parametrize("never", ["-inf", "-Inf", "-infinity", "-1e400", "-99", "-123.4"])
def test_minus_infinity_is_read_as_minus_99(tmp_path: Path, never: str) -> None:
    path = tmp_path / "lm"
    path.write_text(GOOD.replace("-0.8\tB", f"{never}\tB\t{never}"))
    model = read_arpa(path)
    assert model.tables[0]["B"] == Entry(-99.0, -99.0)
    assert model.vocabulary == {"A", "B"} and model.possible_words == {"A"}
    model.write_arpa(path)
    assert "-99\tB\t-99\n" in path.read_text()
    assert read_arpa(path) == model


def test_a_probability_above_one_by_rounding_is_written_as_one(tmp_path: Path) -> None:
    table = {"A": Entry(1e-12, 0.0), BOS: Entry(-99.0, 0.0), EOS: Entry(-1.0, 0.0)}
    NgramModel((table,)).write_arpa(tmp_path / "lm")
    assert read_arpa(tmp_path / "lm").tables[0]["A"] == Entry(0.0, 0.0)


numbers = st.sampled_from(["-inf", "-99", "-1e400", "-400", "-30", "-0.5", "-1e-9", "0"])


@given(
    probs=st.lists(numbers, min_size=7, max_size=7), backoffs=st.lists(numbers | st.just("99"), min_size=5, max_size=5)
)
@settings(max_examples=40, deadline=None)
def test_extreme_numbers_are_pruned_interpolated_and_written(
    tmp_path_factory: pytest.TempPathFactory, probs: list[str], backoffs: list[str]
) -> None:
    """Models that do not sum to one, with -inf and large weights: every result is a model that can be read again."""
    path = tmp_path_factory.mktemp("lm") / "lm"
    unigrams = zip(probs, (BOS, EOS, "A", "B"), (backoffs[0], "0", *backoffs[1:]), strict=False)
    bigrams = zip(probs[4:], ("<s> A", "A B"), backoffs[3:], strict=False)
    lines = [[" ".join(row) for row in rows] for rows in (unigrams, bigrams)]
    header = ["\\data\\", "ngram 1=4", "ngram 2=2", "ngram 3=1"]
    trigrams = ["\\3-grams:", f"{probs[6]} <s> A B", "\\end\\", ""]
    path.write_text("\n".join([*header, "\\1-grams:", *lines[0], "\\2-grams:", *lines[1], *trigrams]))
    model = read_arpa(path)
    other = estimate_kneser_ney([["A", "B"], ["B", "C"]], 3)
    for made in (
        prune_by_entropy(model, 1e-7),
        interpolate(model, other, 0.5).model(),
        interpolate(other, model, 1e-9).model(),
    ):
        made.write_arpa(path)
        again = read_arpa(path)
        assert again.perplexity([["A", "B", "A"]]) > 0
        assert all(
            entry.log10_prob <= 0 and abs(entry.log10_backoff) <= 99 for t in again.tables for entry in t.values()
        )


def test_bad_encoding_and_truncation_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lm"
    path.write_bytes(GOOD.encode().replace(b"B\n", b"\xff\n", 1))
    with pytest.raises(InputError, match=r"lm:10: expected UTF-8"):
        read_arpa(path)
    path.write_bytes(gzip.compress(GOOD.encode())[:-9])
    with pytest.raises(InputError, match="damaged"):
        read_arpa(path)
    with pytest.raises(InputError, match="no such file"):
        read_arpa(tmp_path / "absent")
    path.write_bytes(b"")
    with pytest.raises(InputError, match="expected an ARPA"):
        read_arpa(path)


@given(st.text(st.sampled_from("\\datngrm-s:12= .<>/\n\tAB"), max_size=200))
def test_garbage_never_escapes_as_another_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("arpa") / "lm"
    path.write_text(text)
    with pytest.raises(InputError, match="lm"):
        read_arpa(path)


@settings(deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.sampled_from(["", "x", "\t", "\n", "\\", "-", "9"]))
def test_one_damaged_character_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, replacement: str
) -> None:
    path = tmp_path_factory.mktemp("arpa") / "lm"
    path.write_text(GOOD[:at] + replacement + GOOD[at + 1 :])
    with contextlib.suppress(InputError):
        assert read_arpa(path).order == 2


def test_reading_takes_microseconds_a_line(tmp_path: Path) -> None:
    words = [f"WORD{i}" for i in range(20_000)]
    bigrams = [(words[i % 1000], words[(i * 7919) % len(words)]) for i in range(100_000)]
    path = tmp_path / "large.arpa"
    with path.open("w") as file:
        file.write(f"\\data\\\nngram 1={len(words) + 2}\nngram 2={len(set(bigrams))}\n\n\\1-grams:\n")
        file.write("-99\t<s>\t-0.3\n-2.5\t</s>\n")
        file.writelines(f"-5.1234\t{word}\t-0.4321\n" for word in words)
        file.write("\n\\2-grams:\n")
        file.writelines(f"-1.2345\t{old} {new}\n" for old, new in set(bigrams))
        file.write("\n\\end\\\n")
    start = time.process_time()
    model = read_arpa(path)
    seconds = time.process_time() - start
    # Measured 6 microseconds a line: a million n-grams take seconds.
    assert seconds / sum(map(len, model.tables)) < 40e-6
