"""Subword units: pieces stay in their words, names never collide, draws repeat, bad sizes are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_speech import Utterance

from asrkd.errors import InputError
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.phones import SILENCE, is_reserved
from asrkd.lang.subword import INSIDE_WORD, WORD_START, subword_lexicon, train_nearest_pieces, train_pieces

pytestmark = pytest.mark.needs("sentencepiece")

TEXT = [
    "THE BASIL IS IN THE BASKET",
    "THE SILVER BASIN IS BASIC AND THE BASIL IS IN IT",
    "SIL #1 IS NOT #2 NOR #11 NOR SIL",
    "SILENCE IN THE BASILICA IS SILVER AND SPEECH IS GOLDEN IN THE HALL",
    "THE SILENT BASKETS HOLD NOTHING BUT BASIL AND SILVERED NOTHINGS",
    "NOBODY SAID ANYTHING AND ANYBODY SAYING ANYTHING WAS SILENCED",
] * 4
VOCAB_SIZE = 50
WORDS = sorted({word for line in TEXT for word in line.split()})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_pieces(TEXT, VOCAB_SIZE, tmp_path_factory.mktemp("pieces") / "units")


def spelled(pron: tuple[str, ...]) -> str:
    return "".join(pron).replace(WORD_START, "").replace(INSIDE_WORD, "")


def test_pronunciations_spell_their_words(model: Path) -> None:
    lexicon = subword_lexicon(WORDS, model, num_samples=4)
    assert lexicon.words == tuple(WORDS)
    for word, prons in lexicon.prons.items():
        assert len(set(prons)) == len(prons) <= 4
        for first, *others in prons:
            assert spelled((first, *others)) == word
            assert first.startswith(WORD_START)
            assert len(first) > 1
            assert all(piece.startswith(INSIDE_WORD) for piece in others)


def test_no_unit_has_a_reserved_name(model: Path, tmp_path: Path) -> None:
    lexicon = subword_lexicon(WORDS, model, num_samples=64)
    assert lexicon.phones[0] == SILENCE
    assert not any(is_reserved(unit) for unit in lexicon.phones[1:])
    # The text has SIL and #1 as words and SIL within one: these pieces exist, under other names.
    assert lexicon.prons["SIL"][0] != (SILENCE,)
    lexicon.save(tmp_path / "lexicon.txt")
    assert Lexicon.load(tmp_path / "lexicon.txt").prons == lexicon.prons


def test_the_most_probable_segmentation_comes_first(model: Path) -> None:
    one = subword_lexicon(WORDS, model)
    several = subword_lexicon(WORDS, model, num_samples=5, seed=3)
    assert all(len(prons) == 1 for prons in one.prons.values())
    assert all(several.prons[word][0] == one.prons[word][0] for word in WORDS)
    assert one.prons["ANYTHING"] == ((f"{WORD_START}ANY", f"{INSIDE_WORD}THING"),)


def test_draws_depend_on_seed_and_word_only(model: Path) -> None:
    lexicon = subword_lexicon(WORDS, model, num_samples=3, seed=7)
    assert subword_lexicon(WORDS, model, num_samples=3, seed=7).fingerprint == lexicon.fingerprint
    assert subword_lexicon(WORDS[::-2], model, num_samples=3, seed=7).prons == lexicon.restrict(WORDS[::-2]).prons
    others = [subword_lexicon(WORDS, model, num_samples=3, seed=seed).fingerprint for seed in range(4)]
    assert len(set(others)) > 2


def test_likelier_segmentations_are_drawn_more_often(model: Path) -> None:
    ranked = subword_lexicon(["BASILICA"], model, num_samples=64).prons["BASILICA"]
    # 64 draws without replacement are all of them, in drawn order; over seeds, early places go to the likely.
    draws = [subword_lexicon(["BASILICA"], model, num_samples=2, seed=s).prons["BASILICA"][1] for s in range(200)]
    counts = sorted((draws.count(pron) for pron in ranked[1:]), reverse=True)
    assert sum(counts) == 200
    assert counts[0] > 3 * 200 / len(counts)


def test_the_same_text_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    assert train_pieces(TEXT, VOCAB_SIZE, tmp_path / "again").read_bytes() == model.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.model"]


def test_impossible_sizes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--lang.vocab-size is 5, expected at least (\d+)"):
        train_pieces(TEXT, 5, tmp_path / "units")
    with pytest.raises(InputError, match=r"--lang.vocab-size is 5000, this text allows at most \d+") as caught:
        train_pieces(TEXT, 5000, tmp_path / "units")
    largest = int(str(caught.value).rsplit(" ", 1)[1])
    with pytest.raises(InputError, match=f"at most {largest}"):
        train_pieces(TEXT, largest + 1, tmp_path / "units")
    assert list(tmp_path.iterdir()) == []
    train_pieces(TEXT, largest, tmp_path / "largest")
    characters = len(set("".join(WORDS)))
    lexicon = subword_lexicon(WORDS, train_pieces(TEXT, characters + 2, tmp_path / "least"))
    assert all(len(prons[0]) == len(word) for word, prons in lexicon.prons.items())


def test_bad_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        train_pieces(["", " "], 40, tmp_path / "units")
    with pytest.raises(InputError, match="U\\+2581"):
        train_pieces(["A \u2581B"], 40, tmp_path / "units")


def test_unseen_characters_are_an_error_or_excluded(model: Path) -> None:
    with pytest.raises(InputError, match=r"units.model .*no pronunciation for 1 of the words: ÉTÉ"):
        subword_lexicon(["THE", "ÉTÉ"], model)
    assert subword_lexicon(["THE", "ÉTÉ"], model, on_unknown="exclude").words == ("THE",)
    # Unseen words of seen characters are segmented.
    assert spelled(subword_lexicon(["NOTBASIC"], model).prons["NOTBASIC"][0]) == "NOTBASIC"


def test_damaged_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        subword_lexicon(["A"], tmp_path / "absent.model")
    for content in (b"", b"not a model"):
        (tmp_path / "bad.model").write_bytes(content)
        with pytest.raises(InputError, match=r"bad.model: expected a unigram model of SentencePiece"):
            subword_lexicon(["A"], tmp_path / "bad.model")


def test_a_model_of_another_type_is_refused(tmp_path: Path) -> None:
    import sentencepiece

    with (tmp_path / "bpe.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["GO ON", "NO GO"]), model_writer=file, model_type="bpe", vocab_size=8, minloglevel=2
        )
    with pytest.raises(InputError, match=r"bpe.model: expected a unigram model of SentencePiece.*not available"):
        subword_lexicon(["GO"], tmp_path / "bpe.model")


def test_the_default_options_fit_real_text(
    speech_corpus: str, utterances: list[Utterance], lexicon: Lexicon, tmp_path: Path
) -> None:
    from asrkd.lang.options import LangOptions

    options = LangOptions(units="subword")
    texts = [" ".join(one.words) for one in utterances if one.split == "train"]
    model = train_pieces(texts, options.vocab_size, tmp_path / "pieces")
    spelt = subword_lexicon(lexicon.words, model, options.samples, options.seed, on_unknown="exclude")
    if speech_corpus == "an4":  # digits and spelled letters are frequent
        assert set(spelt.words) == set(lexicon.words)
        # A digit is a unit, and so is a spelled letter, apart from the letter within words.
        assert spelt.prons["SEVEN"] == ((f"{WORD_START}SEVEN",),)
        assert spelt.prons["B"] == ((f"{WORD_START}B",),)
    assert 60 < len(spelt.phones) < 110
    assert all(spelled(pron) == word for word, prons in spelt.prons.items() for pron in prons)


@pytest.mark.parametrize("split", [False, True])
def test_a_script_of_many_characters_gets_the_nearest_size(tmp_path: Path, split: bool) -> None:
    """Chinese: more characters than pieces were asked for, or so few words that there are fewer pieces."""
    many = "".join(chr(0x4E00 + number) for number in range(300))
    for text, asked, expected in ((many, 80, 302), ("你好今天天气", 80, None)):
        sentences = [text[start : start + 6] for start in range(0, len(text), 3)]
        lines = [" ".join(one) if split else one for one in sentences]
        size = train_nearest_pieces(lines, asked, tmp_path / "pieces")
        assert size == expected or (expected is None and size < asked)
        assert train_nearest_pieces(lines, size, tmp_path / "again") == size
        assert (tmp_path / "again.model").read_bytes() == (tmp_path / "pieces.model").read_bytes()
        words = sorted({word for line in lines for word in line.split()})
        lexicon = subword_lexicon(words, tmp_path / "pieces.model")
        assert lexicon.words == tuple(words), "every word has a pronunciation"
        if split:
            assert lexicon.prons == {word: ((WORD_START + word,),) for word in words}, "units are the characters"
