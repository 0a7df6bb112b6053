"""One spelling of what is read: texts, dictionaries, language models, ids and names of files."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrkd.data.transcripts import read_table
from asrkd.distil.posterior_files import open_posteriors
from asrkd.files import find_file, read_lines
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.ngram import read_arpa
from asrkd.unicode import clean, code_points, dotted_note, upper_case


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("YE\u0301S", "YÉS"),
        ("\u1112\u1161\u11ab", "한"),  # Korean, letter by letter
        ("\ufeffGO \u200bON\u200b", "GO ON"),
        ("CO\u00adOP", "COOP"),
        ("\u202aGO\u202c \u200eON\u2060", "GO ON"),
        ("DON\u2019T \u2018EM OKI\u02bc", "DON'T 'EM OKI'"),
        ("RE\u2011DO RE\u2010DO", "RE-DO RE-DO"),
        ("A\u200dB", "AB"),
        (
            "\u0645\u06cc\u200c\u0634\u0648\u062f",
            "\u0645\u06cc\u200c\u0634\u0648\u062f",
        ),  # Persian: the joiner is spelling
        ("GO\tON", "GO\tON"),
    ],
)
def test_what_looks_the_same_is_the_same(written: str, expected: str) -> None:
    assert clean(written) == expected


@given(st.text())
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(st.text())
def test_capitals_have_one_form(text: str) -> None:
    assert upper_case(text) == unicodedata.normalize("NFC", text.upper())


def test_characters_are_named_by_number() -> None:
    assert code_points("А\u200bА") == "U+0410, U+200B"


def test_tables_dictionaries_and_language_models_are_read_in_one_spelling(tmp_path: Path) -> None:
    decomposed = "YE\u0301S\u200b"
    (tmp_path / "text").write_text(f"u\u0301 {decomposed}\n", encoding="utf-8")
    assert read_table(tmp_path / "text", lambda line: tuple(line.split())) == {"ú": "YÉS"}  # type: ignore[arg-type]
    (tmp_path / "lexicon.txt").write_text(f"\ufeff{decomposed.lower()} Y E S\n", encoding="utf-8")
    assert Lexicon.load(tmp_path / "lexicon.txt").words == ("YÉS",)
    arpa = f"\\data\\\nngram 1=3\n\n\\1-grams:\n-99 <s>\n-1 </s>\n-1 {decomposed}\n\n\\end\\\n"
    (tmp_path / "lm.arpa").write_text(arpa, encoding="utf-8")
    assert read_arpa(tmp_path / "lm.arpa").vocabulary == {"YÉS"}


def test_a_mark_at_the_start_of_a_line_stays_there(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("E\n\u0301S\n", encoding="utf-8")
    assert read_lines(tmp_path / "text") == ["E", "\u0301S"]


@pytest.mark.parametrize("on_disk", ["e\u0301te\u0301/don\u2019t.wav", "été/don\u2019t.wav", "été/don't.wav"])
def test_a_file_is_found_whatever_spelling_the_disk_has(tmp_path: Path, on_disk: str) -> None:
    path = tmp_path / on_disk
    path.parent.mkdir()
    path.touch()
    assert find_file(tmp_path / clean(on_disk)) == path
    assert find_file(tmp_path / "e\u0301te\u0301" / "don't.wav") == path
    assert find_file(tmp_path / "été" / "dont.wav") is None


def test_posteriors_of_another_system_have_the_ids_of_the_corpus(tmp_path: Path) -> None:
    np.save(tmp_path / "zoe\u0301-1.npy", np.zeros((2, 3)))
    assert list(open_posteriors(tmp_path)) == ["zoé-1"] and open_posteriors(tmp_path)["zoé-1"].shape == (2, 3)


def test_turkish_letters_are_explained() -> None:
    assert dotted_note(["isi", "été"]) == ""
    note = dotted_note(["ısı isi", "İyi ısı"])
    assert note.startswith(
        "1 words have ı (ısı), which becomes I as i does, so words that differ in it become one (ISI)"
    )
    assert "; 1 words have İ (İyi), which stays another letter than I, made of i: give texts" in note
