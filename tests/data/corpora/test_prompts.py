"""Prompts are split by name, left out by rule, and their text is what is spoken."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrkd.data.corpora.prompts import (
    normalise_text,
    prepare_prompts,
    read_transcripts,
    split_of,
    why_excluded,
)
from asrkd.data.splits import total_excluded
from asrkd.errors import InputError

PROMPTS = {
    "hello": "Hello.",
    "digits/1": "one",
    "vm-press": "Press 1, or *.",
    "beep": "[this is a simple beep tone]",
    "join": "<beep ascending>",
    "silence/1": "(1 second of silence)",
    "letters/at": "at [@]",
    "dial": "Dial 500 now.",
    "dots": "...",
}


def make_prompts(root: Path, prompts: dict[str, str] | None = None, zipped: bool = True) -> Path:
    prompts = PROMPTS if prompts is None else prompts
    voice = root / "usr/share/asterisk/sounds/en_US_f_Allison"
    for seed, name in enumerate(prompts):
        path = voice / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(seed).integers(-5000, 5000, 4000).astype(np.int16)
        soundfile.write(path, samples, 8000)
    text = "; a comment: not a prompt\n\n" + "".join(f"{name}: {said}\n" for name, said in prompts.items())
    folder = root / "usr/share/doc/asterisk-core-sounds-en"
    folder.mkdir(parents=True)
    if zipped:
        (folder / "core-sounds-en.txt.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (folder / "core-sounds-en.txt").write_text(text)
    return root


@pytest.mark.parametrize("zipped", [True, False])
def test_spoken_prompts_are_used_and_the_others_counted(tmp_path: Path, zipped: bool):
    splits = prepare_prompts(make_prompts(tmp_path, zipped=zipped))
    texts = {s.id: s.text for split in splits.values() for s in split.supervisions}
    assert texts == {"hello": "HELLO", "digits-1": "ONE", "vm-press": "PRESS ONE OR STAR", "letters-at": "AT"}
    assert total_excluded(splits) == {
        "bracketed text": 1,
        "empty transcript": 1,
        "number read in an unknown way": 1,
        "tone": 2,
    }
    assert {s.speaker for split in splits.values() for s in split.supervisions} == {"allison"}
    assert {r.sampling_rate for split in splits.values() for r in split.recordings} == {8000}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Please enter your agent number, followed by the #.",
            "PLEASE ENTER YOUR AGENT NUMBER FOLLOWED BY THE POUND",
        ),
        ("I'm sorry, that's not your party's extension!", "I'M SORRY THAT'S NOT YOUR PARTY'S EXTENSION"),
        ('a polite "don\'t call" menu', "A POLITE DON'T CALL MENU"),
        ("it is 'quoted'", "IT IS QUOTED"),
        ("o'clock", "O'CLOCK"),
        ("P.M.", "P M"),
        ("Asterisk PBX and IVR platform", "ASTERISK P B X AND I V R PLATFORM"),
        ("M I S D N", "M I S D N"),
        ("SIP", "SIP"),
        ("USB Radio", "U S B RADIO"),
        ("3D audio enabled", "THREE D AUDIO ENABLED"),
        ("visit www.asterisk.org.", "VISIT W W W DOT ASTERISK DOT ORG"),
        ("Re-enter it. De-activated. Call-Forward.", "REENTER IT DEACTIVATED CALL FORWARD"),
        ("first name ...", "FIRST NAME"),
        ('IAX (note: does not say "2")', "IAX"),
        ("exclaimation-point [!]", "EXCLAMATION POINT"),
        ("You are the only one", "YOU ARE THE ONLY ONE"),
        ("???", ""),
    ],
)
def test_text_becomes_the_words_spoken(text: str, words: str):
    assert normalise_text(text) == words


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Hello.", None),
        ("press 1 or 2", None),
        ("at [@]", None),
        ("[ascending tones]", "tone"),
        ("<beep ascending>", "tone"),
        ("[sound of monkeys screaming]", "bracketed text"),
        ("(10 seconds of silence)", "bracketed text"),
        ("", "empty transcript"),
        ("...", "empty transcript"),
        ("H.323", "number read in an unknown way"),
        ("a 28.8 kilobit modem", "number read in an unknown way"),
    ],
)
def test_rules(text: str, rule: str | None):
    assert why_excluded(text) == rule


def test_the_split_depends_on_the_name_only():
    names = [f"prompt-{n}" for n in range(5000)]
    parts = [split_of(name) for name in names]
    assert parts == [split_of(name) for name in names]
    assert parts.count("test") / 5000 == pytest.approx(0.2, abs=0.02)
    assert parts.count("dev") / 5000 == pytest.approx(0.1, abs=0.02)
    # a larger test set holds all of the smaller one
    assert {n for n in names if split_of(n, 0.2) == "test"} < {n for n in names if split_of(n, 0.3) == "test"}
    assert split_of("hello", 0.0, 0.0) == "train"


def test_fractions_that_leave_no_training_are_refused():
    with pytest.raises(InputError, match="below 1 together"):
        split_of("hello", 0.9, 0.1)


def test_audio_and_transcripts_without_each_other_are_not_lost(tmp_path: Path):
    root = make_prompts(tmp_path)
    voice = root / "usr/share/asterisk/sounds/en_US_f_Allison"
    (voice / "hello.wav").rename(voice / "unheard-of.wav")
    splits = prepare_prompts(root)
    faults = [str(fault) for split in splits.values() for fault in split.rejected]
    assert faults == ["hello: missing audio: it has a transcript only"]
    recordings = {r.id for split in splits.values() for r in split.recordings}
    supervised = {s.id for split in splits.values() for s in split.supervisions}
    assert recordings - supervised == {"unheard-of"}


def test_missing_parts_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="--corpus-dir"):
        prepare_prompts(None)
    with pytest.raises(InputError, match=r"nowhere: .* no such folder; unpack Debian's packages"):
        prepare_prompts(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"core-sounds-en.txt.gz or core-sounds-en.txt in it, found neither"):
        prepare_prompts(tmp_path)
    folder = tmp_path / "doc"
    folder.mkdir()
    (folder / "core-sounds-en.txt").write_text("hello: Hello.\n")
    with pytest.raises(InputError, match="expected a folder en_US_f_Allison"):
        prepare_prompts(tmp_path)
    (tmp_path / "sounds/en_US_f_Allison").mkdir(parents=True)
    with pytest.raises(InputError, match=r"expected \.wav files, found none"):
        prepare_prompts(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello: a\nno colon here\n", "txt:2: expected `name: text`"),
        (b"hello: a\nhello: b\n", "txt:2: expected one transcript of hello"),
        ("hello: é\n".encode("latin-1"), "expected UTF-8"),
    ],
)
def test_a_bad_transcript_file_is_named(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "core-sounds-en.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_transcripts(path)


def test_a_cut_off_transcript_file_is_named(tmp_path: Path):
    path = tmp_path / "core-sounds-en.txt.gz"
    path.write_bytes(gzip.compress(b"hello: Hello.\n" * 100)[:20])
    with pytest.raises(InputError, match="expected gzip, found a damaged one"):
        read_transcripts(path)


def test_the_real_prompts_have_their_known_counts(prompts_dir: Path):
    """Version 1.6.1: 568 recordings and 569 transcripts; 17 of them are no speech."""
    splits = prepare_prompts(prompts_dir)
    assert {name: len(split.supervisions) for name, split in splits.items()} == {
        "train": 388,
        "dev": 52,
        "test": 109,
    }
    assert total_excluded(splits) == {"bracketed text": 11, "number read in an unknown way": 2, "tone": 6}
    faults = [fault.utt_id for split in splits.values() for fault in split.rejected]
    assert faults == ["pls-try-call-later"]  # the same words as please-try-call-later, which has audio
    words = {word for split in splits.values() for text in split.texts() for word in text}
    assert all(word.replace("'", "").isalpha() and word == word.upper() for word in words)
