"""The lexicon reads Kaldi's and the CMU's format, refuses by file and line, lists its guesses."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkd.errors import InputError
from asrkd.lang.lexicon import Lexicon, build_lexicon, explain_missing, lexicon_notes
from asrkd.lang.lexicon_lines import is_number
from asrkd.lang.phones import ARPABET, SILENCE, is_reserved, remove_stress


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_kaldi_format(tmp_path: Path) -> None:
    lexicon = Lexicon.load(write(tmp_path / "lexicon.txt", "!SIL SIL\nA AH\nA EY\nB\tB IY\n\n"))
    assert lexicon.prons == {"A": (("AH",), ("EY",)), "B": (("B", "IY"),)}
    assert lexicon.phones == (SILENCE, "AH", "B", "EY", "IY")
    assert lexicon.words == ("A", "B")


def test_reads_cmu_format(tmp_path: Path) -> None:
    text = ";;; comment\nread  R EH1 D\nread(2)  R IY1 D # present tense\nread(3)  R IY1 D\n"
    lexicon = Lexicon.load(write(tmp_path / "cmu.dic", text))
    assert lexicon.prons == {"READ": (("R", "EH1", "D"), ("R", "IY1", "D"))}


def test_reads_gzip_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt.gz"
    path.write_bytes(gzip.compress("\ufeffÉTÉ e t e\r\n".encode()))
    assert Lexicon.load(path).prons == {"ÉTÉ": (("e", "t", "e"),)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A AH\nB\n", r"lex:2: word B has no pronunciation"),
        ("A AH\nB SIL B\n", r"lex:2: SIL is reserved"),
        ("A #1\n", r"lex:1: #1 is reserved"),
        ("A <eps>\n", r"lex:1: <eps> is reserved"),
        ("A 1.0\n", r"lex:1: word A has no pronunciation"),
        ("A AH 1\n", r"lex:1: expected phones of word A, found the number 1"),
        ("A 1 AH 2\n", r"lex:1: expected phones of word A, found the number 2"),
        ("A AH\nB 1\n", r"lex:2: expected phones of word B, found the number 1"),
        ("A AH\nB 0.5 B\n", r"lex:2: expected no numbers behind word B, as on line 1, found '0.5'"),
        ("A 1.0 AH\nB B\n", r"lex:2: expected 1 number behind word B, as on line 1, found 'B'"),
        ("A 1 AH\nB nan B\n", r"lex:2: expected 1 number behind word B, as on line 1, found 'nan'"),
        ("A 1 .1 1 1 AH\nB 1 B\n", r"lex:2: expected 4 numbers behind word B, as on line 1, found '1 B'"),
        ("A 0.5 0.5 AH\n", r"lex:1: expected .* one probability, or four numbers .* found 2 numbers"),
        ("A 1.5 AH\n", r"lex:1: expected a probability above 0 and of at most 1 for word A, found 1.5$"),
        ("A 0 AH\n", r"lex:1: expected a probability above 0"),
        ("A 1e-400 AH\n", r"lex:1: expected a probability above 0"),
        ("A -0.7 AH\n", r"lex:1: expected a probability above 0 .* found -0.7 \(a logarithm\?\)"),
        ("A 0,5 AH\n", r"lex:1: expected a number such as 0.5 behind word A, found 0,5"),
        ("A 50% AH\n", r"lex:1: expected a number such as 0.5"),
        ("A 1/2 AH\n", r"lex:1: expected a number such as 0.5"),
        ("A 1 -1 1 1 AH\n", r"lex:1: expected numbers of at least 0 behind word A"),
        ("\n;;; nothing\n", r"lex: expected lines"),
        ("A AH\nB QQ\n", r"lex:2: unknown phone QQ in word B"),
    ],
)
def test_refuses_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Lexicon.load(write(tmp_path / "lex", text), inventory=ARPABET)


@pytest.mark.parametrize("one", ["1", "1.0", "1.", "1e0", "1.0e+00"])
def test_probabilities_of_one_are_as_none(tmp_path: Path, one: str) -> None:
    plain = Lexicon.load(write(tmp_path / "lexicon.txt", "A AH\nA EY\n1 W AH N\n!SIL SIL\n"))
    text = f"A {one} AH\nA\t{one}\tEY\n1 {one} W AH N\n!SIL {one} SIL\n"
    stated = Lexicon.load(write(tmp_path / "lexiconp.txt", text), inventory=ARPABET)
    assert stated == plain and stated.fingerprint == plain.fingerprint
    stated.save(tmp_path / "saved.txt")
    assert (tmp_path / "saved.txt").read_text() == "1 W AH N\nA AH\nA EY\n"


def test_reads_probabilities(tmp_path: Path) -> None:
    """The most probable pronunciation comes first: alignments begin with it."""
    text = "# by hand\n## by CMU\n;;; too\na 1e-05 AH # rare\na(2) 1 EY\nb\t.25\tB IY\n"
    lexicon = Lexicon.load(write(tmp_path / "lexiconp.txt", text))
    assert lexicon.prons == {"A": (("EY",), ("AH",)), "B": (("B", "IY"),)}
    assert lexicon.probs == {"A": (1.0, 1e-05), "B": (0.25,)}
    plain = Lexicon(lexicon.prons)
    assert plain.probs_of("A") == (1.0, 1.0)
    assert lexicon.fingerprint != plain.fingerprint
    assert lexicon.fingerprint != Lexicon(lexicon.prons, {"A": (1.0, 1e-04), "B": (0.25,)}).fingerprint
    lexicon.save(tmp_path / "saved.txt")
    assert Lexicon.load(tmp_path / "saved.txt") == lexicon
    assert lexicon.restrict(["B"]) == Lexicon({"B": (("B", "IY"),)}, {"B": (0.25,)})
    assert lexicon.restrict_phones(["AH", "EY"]).probs == {"A": (1.0, 1e-05)}
    assert lexicon.updated(Lexicon({"A": (("AH",),)})).probs == {"B": (0.25,)}


def test_probabilities_of_silence_are_read_and_not_used(tmp_path: Path) -> None:
    """The Montreal Forced Aligner's dictionaries and Kaldi's lexiconp_silprob.txt."""
    path = write(tmp_path / "mfa.dict", "a\t0.5\t0.2\t1.3\t0.9\tAH0\nb\t1\t0\t1\t1\tB IY1\n")
    lexicon = Lexicon.load(path)
    assert lexicon.prons == {"A": (("AH0",),), "B": (("B", "IY1"),)}
    assert lexicon.probs == {"A": (0.5,)}
    assert lexicon_notes(path) == [
        f"{path}: the probabilities of silence of 2 entries (a, b) are not used; silence is as probable behind every "
        "word (--graph.silence-prob)"
    ]
    assert not lexicon_notes(write(tmp_path / "lexicon.txt", "A AH\nA EY\nA AH\n"))
    assert not lexicon_notes("cmudict")


def test_of_two_probabilities_of_a_pronunciation_the_larger_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "lexiconp.txt", "may 0.5 M\nMay 0.25 M\nb 1 B\nb 1 B\n")
    assert Lexicon.load(path).probs == {"MAY": (0.5,)}
    (note,) = lexicon_notes(path)
    assert "1 words (MAY) have a pronunciation twice with different probabilities" in note


def test_words_without_a_probable_pronunciation_are_named(tmp_path: Path) -> None:
    source = write(tmp_path / "lexiconp.txt", "A 1e-05 AH\nA 1e-04 EY\nB 1e-05 B\nB 1 B IY\n")
    (note,) = lexicon_notes(source)
    assert "the best pronunciations of 1 words (A) have probabilities below 0.01" in note


def test_build_has_the_probabilities_of_the_dictionary(tmp_path: Path) -> None:
    """Of pronunciations that differ in stress alone the larger; of parts of a word with a hyphen the product."""
    source = write(tmp_path / "lexiconp.txt", "RE 0.5 R IY1\nRE 0.25 R IY0\nRE 1 R EY\nDO 0.5 D UW\n")
    lexicon, _ = build_lexicon(["RE", "RE-DO"], source)
    assert lexicon.prons["RE"] == (("R", "EY"), ("R", "IY"))
    assert lexicon.probs == {"RE": (1.0, 0.5), "RE-DO": (0.5, 0.25)}


def test_many_parts_of_a_word_take_no_time(tmp_path: Path) -> None:
    source = write(tmp_path / "lexicon.txt", "RE R IY\nRE R EY\n")
    lexicon, _ = build_lexicon(["-".join(["RE"] * 40)], source)
    assert [len(pron) for pron in lexicon.prons["-".join(["RE"] * 40)]] == [80] * 8


def test_refuses_probabilities_that_do_not_fit_in_memory() -> None:
    for probs in ({"A": (0.0,)}, {"A": (1.5,)}, {"A": (0.5, 0.5)}, {"B": (0.5,)}, {"A": (float("nan"),)}):
        with pytest.raises(InputError, match="probability"):
            Lexicon({"A": (("AH",),)}, probs)


def test_words_that_look_like_something_else_survive(tmp_path: Path) -> None:
    lexicon = Lexicon(dict.fromkeys(("#", "##", "#1", "A", "A(2)", "A(2)(3)", "1", "0.5", "NAN"), (("AH",), ("B",))))
    for one in (lexicon, Lexicon(lexicon.prons, {"A": (1.0, 0.5), "##": (0.25, 0.125)})):
        one.save(tmp_path / "lexicon.txt")
        assert Lexicon.load(tmp_path / "lexicon.txt") == one


FIELDS = ("A", "B(2)", "1", "0.5", "1e-05", "-1", "nan", "SIL", "#", "#1", "\t", "AH", "٣", "½", "1/2")


@given(st.lists(st.lists(st.sampled_from(FIELDS)), max_size=4))
@settings(max_examples=200, deadline=None)
def test_any_fields_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, fields: list[list[str]]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text("\n".join(map(" ".join, fields)), encoding="utf-8")
    with contextlib.suppress(InputError):
        lexicon = Lexicon.load(path)
        assert not any(phone[0].isdigit() and phone != "½" for phone in lexicon.phones)
        assert all(0 < prob <= 1 for word in lexicon.words for prob in lexicon.probs_of(word))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_refuses_another_encoding_by_line(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "lex"
    path.write_bytes(mark + b"A AH\nB B\nCAF\xc9 K AE F EY\nD D\n")
    with pytest.raises(InputError, match=r"lex:3: expected UTF-8, found byte 0xc9"):
        Lexicon.load(path)


def test_refuses_missing_file_and_damaged_gzip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Lexicon.load(tmp_path / "absent")
    path = tmp_path / "lex.gz"
    path.write_bytes(gzip.compress(b"A AH\n" * 1000)[:-12])
    with pytest.raises(InputError, match="damaged"):
        Lexicon.load(path)


# Invisible characters are no part of what is read: asrkd.unicode.
names = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x24F, blacklist_categories=("Zs", "Cc", "Cf")), min_size=1
)
words = st.text("ABCDEÉ'-", min_size=1, max_size=5)
phones = names.filter(lambda name: not is_reserved(name) and not name.startswith("#") and not is_number(name))
entries = st.dictionaries(
    words,
    st.lists(st.lists(phones, min_size=1, max_size=4).map(tuple), min_size=1, max_size=3, unique=True).map(tuple),
    min_size=1,
)


@settings(deadline=None, max_examples=50)
@given(entries)
def test_saving_and_loading_is_the_identity(tmp_path_factory: pytest.TempPathFactory, prons: dict) -> None:
    path = tmp_path_factory.mktemp("lexicon") / "lexicon.txt"
    lexicon = Lexicon(prons)
    lexicon.save(path)
    again = Lexicon.load(path)
    assert again.prons == lexicon.prons
    assert again.fingerprint == lexicon.fingerprint
    assert again.phones == lexicon.phones


def test_fingerprint_sees_content_not_order_of_words() -> None:
    a, b = (("AH",),), (("B",), ("D",))
    assert Lexicon({"A": a, "B": b}).fingerprint == Lexicon({"B": b, "A": a}).fingerprint
    assert Lexicon({"A": a, "B": b}).fingerprint != Lexicon({"A": a, "B": b[::-1]}).fingerprint


def test_refuses_empty_or_reserved_in_memory() -> None:
    for prons in (
        {"A": ()},
        {"A": ((),)},
        {"A B": (("AH",),)},
        {"A": (("SIL",),)},
        {"A": (("#3",),)},
        {"A": (("1",),)},
    ):
        with pytest.raises(InputError):
            Lexicon(prons)


def test_restrict_names_what_is_missing() -> None:
    lexicon = Lexicon({"A": (("AH",),), "B": (("B", "IY"),)})
    assert lexicon.restrict(["B"]).prons == {"B": (("B", "IY"),)}
    with pytest.raises(InputError, match="2 of the words: C, D"):
        lexicon.restrict(["A", "D", "C"])


def test_remove_stress_knows_only_arpabet() -> None:
    assert [remove_stress(p) for p in ("AH0", "ER1", "B", "2", "a2", "AH", "HH2")] == [
        "AH",
        "ER",
        "B",
        "2",
        "a2",
        "AH",
        "HH",
    ]


@pytest.mark.needs("cmudict")
def test_build_from_cmudict_removes_stress() -> None:
    lexicon, guessed = build_lexicon(["READ", "TOMATO"], "cmudict")
    assert lexicon.prons["READ"] == (("R", "EH", "D"), ("R", "IY", "D"))
    assert lexicon.prons["TOMATO"] == (("T", "AH", "M", "EY", "T", "OW"), ("T", "AH", "M", "AA", "T", "OW"))
    assert guessed == []


def test_stress_variants_become_one(tmp_path: Path) -> None:
    source = write(tmp_path / "d", "IMPORT IH0 M P AO1 R T\nIMPORT IH1 M P AO0 R T\n")
    assert build_lexicon(["IMPORT"], source)[0].prons == {"IMPORT": (("IH", "M", "P", "AO", "R", "T"),)}


def test_guesses_are_listed_and_marked_nowhere_else(tmp_path: Path) -> None:
    source = write(tmp_path / "d", "A AH\nB B IY\n")
    lexicon, guessed = build_lexicon(["ZED", "A", "YOT"], source, g2p=lambda word: ["Z", "EH", "D"])
    assert guessed == ["YOT", "ZED"]
    assert lexicon.words == ("A", "YOT", "ZED")
    assert lexicon.prons["ZED"] == (("Z", "EH", "D"),)


def test_words_with_hyphens_are_joined_from_what_the_dictionary_has(tmp_path: Path) -> None:
    source = write(tmp_path / "d", "RE R IY\nRE R EY\nCALL K AO L\n")
    lexicon, guessed = build_lexicon(["RE-CALL", "RE-ZED"], source, g2p=lambda word: ["Z", "EH", "D"])
    assert guessed == ["RE-CALL", "RE-ZED"]
    assert lexicon.prons["RE-CALL"] == (("R", "IY", "K", "AO", "L"), ("R", "EY", "K", "AO", "L"))
    assert lexicon.prons["RE-ZED"][0] == ("R", "IY", "Z", "EH", "D")
    # Without a guesser, whole parts are enough, and one missing part is not.
    assert build_lexicon(["RE-CALL"], source)[1] == ["RE-CALL"]
    with pytest.raises(InputError, match="1 of the words: RE-ZED"):
        build_lexicon(["RE-CALL", "RE-ZED"], source)
    many = build_lexicon(["RE-RE-RE-RE-RE"], source)[0].prons["RE-RE-RE-RE-RE"]
    assert len(many) == 8
    assert many[0] == ("R", "IY") * 5


def test_unknown_words_are_an_error_or_excluded(tmp_path: Path) -> None:
    source = write(tmp_path / "d", "A AH\n")
    with pytest.raises(InputError, match=r"d: no pronunciation for 1 of the words: ZED"):
        build_lexicon(["A", "ZED"], source)

    def no_guess(word: str) -> list[str]:
        raise InputError(f"{word}: no letters")

    with pytest.raises(InputError, match="ZED"):
        build_lexicon(["A", "ZED"], source, g2p=no_guess)
    lexicon, guessed = build_lexicon(["A", "ZED"], source, g2p=no_guess, on_unknown="exclude")
    assert (lexicon.words, guessed) == (("A",), [])


def test_guesses_do_not_mix_phone_sets(tmp_path: Path) -> None:
    source = write(tmp_path / "d", "CHAT ʃ a\n")
    with pytest.raises(InputError, match="cannot be guessed"):
        build_lexicon(["CHAT", "CHIEN"], source, g2p=lambda word: ["AH"])
    assert build_lexicon(["CHAT"], source, g2p=lambda word: ["AH"])[1] == []


def test_noises_of_a_kaldi_dictionary_do_not_rule_out_guesses(tmp_path: Path) -> None:
    source = write(tmp_path / "lexicon.txt", "!SIL SIL\n<SPOKEN_NOISE> SPN\n<UNK> SPN\n[noise] NSN\nGO G OW1\n")
    lexicon, guessed = build_lexicon(["GO", "GOAL"], source, g2p=lambda word: ["G", "OW", "L"])
    assert guessed == ["GOAL"] and "SPN" not in lexicon.phones
    assert "other phones" not in explain_missing(["GOAL"], source)
    assert build_lexicon(["[NOISE]"], source)[0].prons == {"[NOISE]": (("NSN",),)}, "a word of some transcripts"


def test_words_that_other_phones_cannot_guess_are_excluded_and_explained(tmp_path: Path) -> None:
    source = write(tmp_path / "other", "CHAT ʃ AA\n<UNK> SPN\n!sil sil\n")
    lexicon, guessed = build_lexicon(["CHAT", "GO"], source, g2p=lambda word: ["G"], on_unknown="exclude")
    assert (lexicon.words, guessed) == (("CHAT",), [])
    assert explain_missing(["GO"], source) == (
        f"{source}: 1 words are missing (GO) and cannot be guessed: guesses are in ARPAbet, this dictionary has other "
        "phones (ʃ). Add the words to it."
    )
    source = write(tmp_path / "arpabet", "GO G OW\n")
    assert "numbers as they are spoken" in explain_missing(["5"], source)


def test_an4_dictionary(an4_dir: Path) -> None:
    lexicon = Lexicon.load(an4_dir / "etc" / "an4.dic", inventory=ARPABET)
    inventory = (an4_dir / "etc" / "an4.phone").read_text().split()
    assert set(lexicon.phones) == set(inventory)
    assert lexicon.prons["EIGHTH"] == (("EY", "T", "TH"), ("EY", "TH"))
    transcripts = (an4_dir / "etc" / "an4_train.transcription").read_text().splitlines()
    spoken = {word for line in transcripts for word in line.split()[1:-2]}
    assert build_lexicon(spoken, an4_dir / "etc" / "an4.dic")[1] == []


# ------------------------------------------------------------------------------------------- other formats


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A AH\nB | B IY\n", "lexicon.txt:2: expected phones of word B and spaces between them, found '|'"),
        ("A = AH\n", "lexicon.txt:1: expected phones of word A and spaces between them, found '='"),
        ("A -> AH\n", "lexicon.txt:1: .*found '->'"),
        ("B\tB . IY\n", "lexicon.txt:1: .*found '.', which has no letter"),
        ('B\tB " IY\n', "lexicon.txt:1: .*found '\"', which has no letter"),
        ("B /B IY/\n", "lexicon.txt:1: .*found '/B'"),
        ("B B IY/\n", "lexicon.txt:1: .*found 'IY/'"),
        ("B [B IY]\n", "lexicon.txt:1: .*found '\\[B'"),
        ('B "B IY"\n', "lexicon.txt:1: .*found 'IY\"'"),
        ("A\tAH, EY\n", "lexicon.txt:1: .*found 'AH,'.*a line of its own"),
        ("A\t[B]\tAH\n", "lexicon.txt:1: expected phones of word A, found \\[B\\]: HTK's output symbol"),
        ("A A AH\nBEE BEE B IY\nsea SEA S IY\n", "lexicon.txt:2: .*the word again, on 2 of 2 lines of several phones"),
        ("A AH\nNEW YORK\tN UW\n", "lexicon.txt:2: expected one word before the tab, found 'NEW YORK'"),
        ("BYE BYE\tB AY\n", "lexicon.txt:1: expected one word before the tab, found 'BYE BYE'"),
    ],
)
def test_refuses_marks_and_columns_of_other_formats(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "lexicon.txt", text)
    for check in (lexicon_notes, lambda source: build_lexicon(["A"], source)):
        with pytest.raises(InputError, match=message):
            check(path)


def test_reads_phones_of_other_alphabets_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    prons = {
        "SAMPA": ("@", "{", "}", "?", '"a', "3:", "n=", "t`", "?\\", "a_~", 'e_"', "b_<", "&"),
        "TIMIT": ("h#", "ax-h", "pcl"),
        "PIECES": ("▁S", "+,", "+X", "+."),
        "WELL-KNOWN": ("W", "-", "K"),
        "DON'T": ("D", "'", "T"),
        "हिंदी": ("ह", "ि", "ं"),
        "<NOISE>": ("[NSN]",),
        "[BREATH]": ("[BREATH]",),
    }
    write(path, "".join(f"{word} {' '.join(pron)}\n" for word, pron in prons.items()))
    assert lexicon_notes(path) == []
    assert build_lexicon(prons, path)[0].prons == {word: (pron,) for word, pron in prons.items()}
    write(path, "A\t[A]\tAH\nB [B]\tB IY\n  C  [c] S IY\nD [] D IY\n")  # HTK
    assert build_lexicon("ABCD", path)[0].prons["C"] == (("S", "IY"),)
    write(path, "A 0.5\tAH\n B 1.0\tB IY\n")  # Kaldi's lexiconp.txt
    assert build_lexicon("AB", path)[0].prons == {"A": (("AH",),), "B": (("B", "IY"),)}


def test_pronunciations_without_spaces_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "lexicon.txt", "A AH\nHALL HHAHL\nBEE BIY\n")
    (note,) = lexicon_notes(path)
    assert "3 of 3 words have one phone that no other word has (A AH, HALL HHAHL, BEE BIY): if these" in note


def test_words_that_upper_case_makes_one_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("maße m a s e\nmasse m a s @\nThe t e\nthe t i\nthe t e\nsı s i\n", encoding="utf-8")
    (note,) = lexicon_notes(path)
    assert ": 1 groups of entries have no pronunciation in common" in note
    assert "(maße and masse are MASSE)" in note
    path.write_text("ısı y s\nisi i s\nS x y\ns w z\nıs a b\n", encoding="utf-8")
    (note,) = lexicon_notes(path)
    assert "2 groups" in note and "(ısı and isi are ISI, S and s are S)" in note
