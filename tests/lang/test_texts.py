"""Transcripts as people write them: tags, punctuation, digits, words that look alike, scripts without spaces."""

from __future__ import annotations

import pytest

from asrkd.errors import InputError
from asrkd.lang.lookalikes import look_alikes, mixed_letters
from asrkd.lang.options import LangOptions
from asrkd.lang.scripts import sentence_like, split_characters
from asrkd.lang.tags import TAG, is_tag, noise_phones, parse_tags
from asrkd.lang.text_checks import candidates, require_words, warnings_of
from asrkd.lang.text_rules import TextRules, strip_punctuation


def apply(text: str, *tags: str, strip: bool = False, split: bool = False) -> str:
    return TextRules.of(LangOptions(tags=tags, strip_punctuation=strip, split_characters=split)).apply(text)


TAGS = (
    *("[NOISE]", "<UNK>", "{BREATH}", "(LAUGHS)", "++COUGH++", "[[NOISE]]", "</S>", "<NOISE/>", "[]", "!SIL"),
    *("*NOISE*", "_NOISE_", "#NOISE#", "[BACKGROUND NOISE]", "(( YES ))", "【笑】", "（笑）", "[NOISE-2]"),
)
WORDS = ("GO", "DON'T", "RE-DO", "A.", "C++", "YES.", "%", "AT&T", "5", "--", "'EM", "你好", "NOISE", "-")


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_is_seen(tag: str) -> None:
    assert is_tag(tag)
    assert [match[0] for match in TAG.finditer(f"GO {tag} ON")] == [tag]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_no_tag(word: str) -> None:
    assert not is_tag(word) and not TAG.search(f"GO {word} ON")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[NOISE] GO <NOISE>", "[NOISE] GO [NOISE]"),
        ("GO[NOISE], ON", "GO [NOISE] ON"),
        ("<SIL> GO (LAUGHS LOUDLY) ON </S>", "GO ON"),
        ("++NOISE++ *NOISE* !NOISE", "[NOISE] [NOISE] [NOISE]"),
        ("NOISE [COUGH] GO", "NOISE [COUGH] GO"),
        ("GO [NOISE ON", "GO [NOISE] ON"),
        ("-- GO %HM", "GO [%HM]"),
        ("[BACKGROUND SPEECH] GO", "[BACKGROUND_SPEECH] GO"),
        ("TH[E] GO", "TH[E] GO"),
    ],
)
def test_tags_become_noises_pauses_or_nothing(text: str, expected: str) -> None:
    tags = ("noise=SPN,<SIL>=sil", "LAUGHS_LOUDLY=,</s>=", "--=", "%HM=NSN", "[background speech]=SPN")
    assert apply(text, *tags) == expected


def test_only_noises_are_words_with_a_phone() -> None:
    assert noise_phones(parse_tags(["NOISE=SPN,SIL=SIL", "S="])) == {"[NOISE]": "SPN"}


@pytest.mark.parametrize("tags", ["NOISE", "=SPN", "NOISE=#1", "NOISE=<eps>", "NOISE=2", "NOISE=A B", "A=SPN,A=NSN"])
def test_a_mapping_of_another_form_is_refused(tags: str) -> None:
    with pytest.raises(InputError, match=r"--lang\.tags: expected"):
        LangOptions(tags=(tags,))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("YES.", "YES"),
        ("\u201cYES!\u201d", "YES"),
        ("'YES'", "YES"),
        ("DON'T", "DON'T"),
        ("DON`T", "DON'T"),
        ("RE-DO", "RE-DO"),
        ("U.S.", "U S"),
        ("YES,NO", "YES NO"),
        ("WAIT\u2014NO", "WAIT NO"),
        ("WAIT--NO", "WAIT NO"),
        ("...", ""),
        ("今天，好。", "今天 好"),
        ("\u00bfQU\u00c9?", "QU\u00c9"),
        ("हिन्दी।", "हिन्दी"),
        ("COL·LEGI", "COL·LEGI"),
        ("3.5", "3.5"),
        ("&", "&"),
        ("AT&T", "AT&T"),
        ("100%", "100%"),
        ("[NOISE]", "[NOISE]"),
        ("W(ITH)", "W(ITH)"),
    ],
)
def test_punctuation_goes_and_what_is_spoken_stays(word: str, expected: str) -> None:
    assert " ".join(strip_punctuation(word).split()) == expected


def test_a_dash_between_spaces_goes_in_any_case() -> None:
    assert apply("GO - ON \u2013 \u2014") == "GO ON"
    assert apply("GO \u00ad- RE-DO --") == "GO RE-DO --"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("今天OK天", ["今", "天", "OK", "天"]),
        ("カタカナー", list("カタカナー")),
        ("\u0e04\u0e23\u0e31\u0e1a", ["\u0e04", "\u0e23\u0e31", "\u0e1a"]),  # the vowel stays on its consonant
        ("\u0e19\u0e49\u0e33", ["\u0e19\u0e49\u0e33"]),
        ("\u1781\u17d2\u1789\u17bb\u17c6", ["\u1781\u17d2\u1789\u17bb\u17c6"]),  # Khmer, one stack
        ("DON'T", ["DON'T"]),
        ("한국어", ["한국어"]),  # Korean has spaces
    ],
)
def test_characters_are_split_off_with_their_marks(word: str, expected: list[str]) -> None:
    assert split_characters(word) == expected


def test_tags_stay_whole_among_characters() -> None:
    assert apply("【笑】今天 [NOISE]OK", "笑=SPN", "NOISE=NSN", split=True) == "[笑] 今 天 [NOISE] OK"


def test_sentences_without_spaces_are_told_from_words() -> None:
    assert sentence_like(["今天天气很好", "你好世界"]) == ["今天天气很好", "你好世界"]
    assert sentence_like("今天 天气 很 好 人工智能".split()) == []
    assert sentence_like(["สวัสดีครับวันนี้อากาศดีมาก"])
    assert sentence_like("สวัสดี ครับ วันนี้ อากาศ ดี มาก".split()) == []
    assert sentence_like(["HELLO"] * 50 + ["今天天气很好"]) == []
    assert sentence_like([]) == []


def refusal(*texts: str, known: tuple[str, ...] = (), has_lexicon: bool = False) -> str:
    with pytest.raises(InputError) as error:
        require_words({f"u{n}": text for n, text in enumerate(texts)}, known, "--lang.", has_lexicon)
    return str(error.value)


def test_tags_are_refused_with_the_option_that_names_them() -> None:
    message = refusal("[NOISE] GO", "[NOISE] <SIL>", "GO ON", "TH[E] [BACKGROUND NOISE] GO")
    assert "found 4 tags or words without a letter in 3 of 4 utterances" in message
    assert "[NOISE] (2, first in u0)" in message and "[BACKGROUND NOISE] (1, first in u3)" in message
    assert "--lang.tags BACKGROUND_NOISE=SPN,E=SPN,NOISE=SPN,SIL=SIL " in message
    assert "\n" not in message


def test_what_the_refusal_proposes_is_accepted() -> None:
    texts = {f"u{n}": f"GO {tag} ON" for n, tag in enumerate([*TAGS, "[HALF", "HALF]"]) if tag[:2] != "(("}
    tags = refusal(*texts.values()).partition("--lang.tags ")[2].partition(" (NAME=SPN")[0].strip("'")
    rules = TextRules.of(LangOptions(tags=(tags,)))
    require_words({utt_id: rules.apply(text) for utt_id, text in texts.items()}, noise_phones(rules.tags), "--", False)


def test_numbers_and_symbols_are_refused_with_what_to_do() -> None:
    message = refusal("5 GO", "GO 100% --", "GO & \u0665 \u2467")
    for item in ("5 (1", "100% (1", "\u0665 (1", "\u2467 (1", "-- (1", "& (1"):
        assert item in message
    assert "write numbers as words" in message and "--lang.strip-punctuation" in message
    assert "add them to the lexicon" not in message and "add them to the lexicon" in refusal("5", has_lexicon=True)


def test_words_that_the_lexicon_has_are_no_matter() -> None:
    known = {"<UNK>", "5", "W(2)", "YES.", "4TH"}
    texts = {"u": "<UNK> 5 W(2) YES. 4TH"}
    require_words(texts, known, "--", True)
    assert warnings_of(texts, known, (), "--") == []
    assert candidates(["GO <UNK> É YES."]) == {"<UNK>", "É", "YES."}


def test_usual_words_are_no_matter() -> None:
    texts = {"u": "A. U.S. DON'T 'EM BOYS' RE-DO 二〇二四 ÉTÉ हिन्दी COL·LEGI"}
    require_words(texts, (), "--", False)
    assert warnings_of(texts, (), (), "--") == []


def test_one_warning_names_punctuation_and_digits() -> None:
    (warning,) = warnings_of({"u0": "YES. YES GO!", "u1": "YES. 4TH AT&T SIL"}, (), (), "--lang.")
    assert "2 words with punctuation (YES. (2, first in u0), GO! (1, first in u0))" in warning
    assert "(YES. and YES): --lang.strip-punctuation removes it" in warning
    assert "2 words with digits or symbols (4TH (1, first in u1), AT&T (1, first in u1))" in warning
    assert "names of noises (SIL (1, first in u1))" in warning


def test_words_that_look_alike_are_named_by_code_points() -> None:
    assert look_alikes(["C\u0410T", "CAT", "DOG"]) == [("C\u0410T", "CAT")]
    assert look_alikes(["C\u0410T"], ["CAT"]) == [("C\u0410T", "CAT")]
    assert look_alikes(["CAT"], ["C\u0410T"]) == [("CAT", "C\u0410T")]
    assert look_alikes(["\u0421\u041e\u0420", "НЕТ"]) == []  # Russian words alone
    assert look_alikes(["\uff27\uff2f", "GO"]) == [("\uff27\uff2f", "GO")]
    assert look_alikes(["\u015eI", "\u0218I"]) != [] and look_alikes(["DON\u00b4T", "DON'T"]) != []
    assert mixed_letters("C\u0410T") == ["\u0410"] and not mixed_letters("НЕТ") and not mixed_letters("ÉTÉ")
    (warning,) = warnings_of({"u": "C\u0410T CAT B\u0410D"}, (), (), "--")
    assert "C\u0410T (U+0410) and CAT (U+0041)" in warning and "B\u0410D (U+0410 in a word of other letters)" in warning


def test_sentences_are_named_at_once_with_the_option() -> None:
    texts = {"u0": "今天天气很好", "u1": "你好世界再见"}
    (warning,) = warnings_of(texts, (), (), "--lang.")
    assert warning.startswith("texts: sentences would become words: 2 of 2 words")
    assert "--lang.split-characters" in warning
    assert warnings_of({utt_id: apply(text, split=True) for utt_id, text in texts.items()}, (), (), "--") == []
    assert warnings_of(texts, set(texts.values()), (), "--") == []


@pytest.mark.parametrize("text", ["[" * 50_000, "<(" * 30_000, "+" * 50_000, "[a " * 20_000, "_a" * 30_000])
def test_a_line_of_brackets_takes_no_time(text: str) -> None:
    """Where each bracket is tried as a beginning, 50,000 of them take a minute."""
    assert TAG.sub("", text) == text


def test_words_in_brackets_are_not_proposed_as_noises() -> None:
    message = refusal("(( YES )) GO", "YES [LAUGHTER-YES] [LAUGHTER]", "LAUGHTER ((", "B <B_ASIDE>")
    assert "take the words that somebody says out of their brackets" in message
    assert "such as ((, (( YES )), [LAUGHTER-YES]; say what each tag is" in message
    assert "--lang.tags B_ASIDE=SPN,LAUGHTER=SPN (NAME" in message


def test_punctuation_is_advised_to_be_stripped_only_where_the_option_does() -> None:
    message = refusal("\u266a GO \u266a", "GO \U0001f600 \ufffd ~")
    assert "strip-punctuation" not in message
    assert "remove the others (~, \u266a, \ufffd, \U0001f600) from the texts" in message
    assert "remove punctuation by --lang.strip-punctuation" in refusal("GO ...", "\u266a")


def test_long_words_are_shortened() -> None:
    assert len(refusal("GO " + "[" * 100_000)) < 400
    assert len(refusal("GO " + "5" * 100_000)) < 400
