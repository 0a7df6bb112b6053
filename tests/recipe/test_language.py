"""Language models that decode and rescore: what they lack is named before anything trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from asrkd.errors import InputError
from asrkd.lang.kneser_ney import estimate_kneser_ney
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.options import LangOptions
from asrkd.lang.pruning import restrict
from asrkd.recipe.language import LexiconSource, decoding_language, require_rescorable, rescoring_model

TEXT = [["A", "B"], ["B"]]


def arpa(path: Path, probs: dict[str, str]) -> str:
    unigrams = "".join(f"{prob} {word}\n" for word, prob in {"<s>": "-99", "</s>": "-0.5", **probs}.items())
    path.write_text(f"\\data\\\nngram 1={len(probs) + 2}\n\n\\1-grams:\n{unigrams}\n\\end\\\n", encoding="utf-8")
    return str(path)


def lexicon(path: Path) -> Path:
    path.write_text("A 0.5 AH\nA 1 EY\nB 1 B IY\nC 0.25 S IY\nX 1 K S\n", encoding="utf-8")
    return path


def test_words_of_probability_zero_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lang = LangOptions(arpa=arpa(tmp_path / "lm", {"A": "-0.5", "B": "-inf", "C": "-0.5"}), max_unpronounced=0.5)
    source = LexiconSource(lexicon(tmp_path / "lexiconp.txt"), lang)
    training, _ = source.build({"A", "B"})
    assert training.probs == {"A": (1.0, 0.5)}
    decoded, ngram = decoding_language(TEXT, training, source)
    assert "1 words have probability 0 (-99 or less) and cannot be recognised: B" in caplog.text
    assert ngram.possible_words == {"A"}
    assert decoded == training, "C has a phone that was never trained"


def test_probabilities_of_words_of_the_language_model(tmp_path: Path) -> None:
    lang = LangOptions(arpa=arpa(tmp_path / "lm", {"A": "-0.5", "C": "-0.5"}))
    source = LexiconSource(lexicon(tmp_path / "lexiconp.txt"), lang)
    training = Lexicon({"A": (("EY",),), "SEE": (("S", "IY"),)}, {"SEE": (0.75,)})
    decoded, _ = decoding_language(TEXT, training, source)
    assert decoded.probs == {"C": (0.25,), "SEE": (0.75,)}, "of A those of the training lexicon, which are 1"


def test_sentences_must_end(tmp_path: Path) -> None:
    source = LexiconSource(lexicon(tmp_path / "lexiconp.txt"), LangOptions())
    training, _ = source.build({"A", "B"})
    good, bad = arpa(tmp_path / "good", {"A": "-0.5", "B": "-0.5"}), tmp_path / "bad"
    bad.write_text(Path(good).read_text(encoding="utf-8").replace("-0.5 </s>", "-inf </s>"))
    with pytest.raises(InputError, match="bad: expected a unigram </s> with a probability above 0"):
        decoding_language(TEXT, training, LexiconSource(source.file, LangOptions(arpa=str(bad))))
    lang = LangOptions(arpa=good, rescore_arpa=str(bad))
    _, ngram = decoding_language(TEXT, training, LexiconSource(source.file, lang))
    for check in (require_rescorable, rescoring_model):
        with pytest.raises(InputError, match="bad: expected a unigram </s>"):
            check(TEXT, lang, ngram)


def test_a_rescoring_model_needs_a_probability_of_each_word(tmp_path: Path) -> None:
    """Paths with the others would vanish from the lattices, in the worst case all paths."""
    lang = LangOptions(
        arpa=arpa(tmp_path / "small", {"A": "-0.5", "B": "-0.5", "C": "-inf"}),
        rescore_arpa=arpa(tmp_path / "large", {"A": "-0.5", "B": "-inf"}),
    )
    source = LexiconSource(lexicon(tmp_path / "lexiconp.txt"), lang)
    _, ngram = decoding_language(TEXT, source.build({"A", "B", "C"})[0], source)
    for check in (require_rescorable, rescoring_model):
        with pytest.raises(InputError, match=r"large: expected .* a probability above 0 of it, found 1 missing: B"):
            check(TEXT, lang, ngram)


def test_a_lexicon_of_other_words_is_refused_or_named(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("ONE: W AH N\nTWO: T UW\n", encoding="utf-8")
    text = [["ONE", "TWO"], ["TWO", "[NOISE]"]]
    with pytest.raises(InputError, match="expected words of the training text, such as TWO, ONE, found none of its 2"):
        LexiconSource(path, LangOptions()).coverage_notes(text)
    path.write_text("<SIL> SIL\nONE W AH N\n", encoding="utf-8")
    (note,) = LexiconSource(path, LangOptions()).coverage_notes(text)
    assert "1 of 2 words of the training text (2 of 3 running words) are not in the lexicon" in note
    assert note.endswith("TWO; the lexicon has words such as ONE")
    path.write_text("ONE W AH N\nTWO T UW\n", encoding="utf-8")
    assert LexiconSource(path, LangOptions()).coverage_notes(text) == []


def test_words_of_the_text_that_a_model_does_not_have_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lang = LangOptions(arpa=arpa(tmp_path / "lm", {"A": "-0.5", "b": "-0.5"}), max_unpronounced=0.5)
    source = LexiconSource(lexicon(tmp_path / "lexiconp.txt"), lang)
    decoding_language(TEXT, source.build({"A", "B"})[0], source)
    expected = "1 of 2 words of the training text are not in the model and cannot be recognised: B; 1 are there in"
    assert f"{expected} another case (b for B): words are upper case here" in caplog.text


def test_a_text_makes_the_decoding_model(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("a b a\nb c\na a b\n" * 3, encoding="utf-8")
    lang = LangOptions(text=str(path), order=2, max_unpronounced=0.5)
    source = LexiconSource(lexicon(tmp_path / "lexiconp.txt"), lang)
    training, _ = source.build({"A", "B"})
    decoded, ngram = decoding_language(TEXT, training, source, tmp_dir=tmp_path)
    assert decoded == training
    expected = estimate_kneser_ney([["A", "B", "A"], ["B", "C"], ["A", "A", "B"]] * 3, 2)
    assert ngram == restrict(expected, {"A", "B"})
    assert {one.name for one in tmp_path.iterdir()} == {"text", "lexiconp.txt"}


def test_a_text_of_too_many_ngrams_needs_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrkd.recipe.language.MOST_NGRAMS", 5)
    path = tmp_path / "text"
    path.write_text("a b a\nb a\n", encoding="utf-8")
    source = LexiconSource(lexicon(tmp_path / "lexiconp.txt"), LangOptions(text=str(path)))
    training, _ = source.build({"A", "B"})
    with pytest.raises(InputError, match=r"at most 5 n-grams, found 14: give --lang.prune"):
        decoding_language(TEXT, training, source)
    pruned = LexiconSource(source.file, LangOptions(text=str(path), prune=0.9))
    assert decoding_language(TEXT, training, pruned)[1].vocabulary == {"A", "B"}


def test_a_text_and_a_model_are_refused() -> None:
    with pytest.raises(InputError, match=r"--lang.text: expected it or --lang.arpa, found both"):
        LangOptions(text="text", arpa="lm.arpa")
