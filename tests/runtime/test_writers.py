"""Formats of transcripts, by hand, by properties of their times, and by sclite where it is installed."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkd.errors import InputError
from asrkd.runtime.transcript import Segment, Transcript, Word
from asrkd.runtime.writers import (
    CUE_LINES,
    CUE_SEC,
    FORMATS,
    LINE_CHARACTERS,
    as_object,
    ctm_of,
    cues,
    json_of,
    nist_name,
    parse_formats,
    srt_of,
    stm_of,
    text_of,
    trn_of,
    vtt_of,
)

HAMLET = Transcript(
    "hamlet/act 3",
    36000.5,
    (
        Segment(0.0, 1.5, (Word("to", 0.1, 0.25, 0.9), Word("be", 0.25, 0.4004, 0.87654321)), ("two be",)),
        Segment(1.5, 35990.0),
        Segment(35990.0, 36000.5, (Word("or<not>&", 35999.9996, 36000.25, 1.0),), speaker="the prince"),
    ),
)
TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[.,](\d{3}) --> (\d+):(\d\d):(\d\d)[.,](\d{3})")

word_texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=60)
word_texts |= st.sampled_from(["-->", "--->", "&", "<i>", "&amp;", "1", "{b}", ";;", "WEBVTT", "NOTE", "-"])
word_texts = word_texts.filter(lambda text: text.split() == [text])


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Words at any times up to a hundred hours, some of them without length, in segments of which some are empty."""
    counts = draw(st.lists(st.integers(0, 12), max_size=4))
    gaps = st.floats(0.0, 2.0) | st.sampled_from([0.0, 0.0004, 0.0005, 3599.9999, 90000.0])
    at, segments = draw(gaps), []
    for count in counts:
        start, words = at, []
        for _ in range(count):
            begin = at + draw(gaps)
            at = begin + draw(gaps)
            words.append(Word(draw(word_texts), begin, at, draw(st.none() | st.floats(0.0, 1.0))))
        at += draw(gaps)
        segments.append(Segment(start, at, tuple(words), channel=draw(st.integers(0, 1))))
    return Transcript(draw(st.text(max_size=8)), at, tuple(segments))


def milliseconds(match: re.Match[str]) -> tuple[int, int]:
    numbers = [int(group) for group in match.groups()]
    return tuple(((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (numbers[:4], numbers[4:]))  # type: ignore[return-value]


def test_text_has_a_line_for_each_segment_with_words() -> None:
    assert text_of(HAMLET) == "to be\nor<not>&\n"
    assert text_of(Transcript("empty", 1.0)) == ""


def test_json_has_the_keys_of_whisper() -> None:
    content = json.loads(json_of(HAMLET))
    assert content["text"] == "to be or<not>&"
    assert content["duration"] == 36000.5
    first = content["segments"][0]
    assert (first["id"], first["start"], first["end"], first["text"]) == (0, 0.0, 1.5, "to be")
    assert first["words"][1] == {"word": "be", "start": 0.25, "end": 0.4, "probability": 0.8765}
    assert first["alternatives"] == ["two be"]
    assert content["segments"][2]["speaker"] == "the prince"
    assert as_object(HAMLET)["segments"][1]["words"] == []


def test_srt() -> None:
    assert srt_of(HAMLET) == (
        "1\n00:00:00,100 --> 00:00:00,400\nto be\n\n2\n10:00:00,000 --> 10:00:00,250\nthe prince: or<not>&\n"
    )


def test_vtt() -> None:
    assert vtt_of(HAMLET) == (
        "WEBVTT\n\n00:00:00.100 --> 00:00:00.400\nto be\n\n"
        "10:00:00.000 --> 10:00:00.250\nthe prince: or&lt;not&gt;&amp;\n"
    )
    assert vtt_of(Transcript("empty", 1.0)) == "WEBVTT\n"


def test_files_for_sclite() -> None:
    assert ctm_of(HAMLET) == (
        "hamlet/act_3 1 0.100 0.150 to 0.9000\n"
        "hamlet/act_3 1 0.250 0.150 be 0.8765\n"
        "hamlet/act_3 1 36000.000 0.250 or<not>& 1.0000\n"
    )
    assert trn_of(HAMLET) == "to be or<not>& (hamlet/act_3)\n"
    assert stm_of(HAMLET) == (
        "hamlet/act_3 1 unknown 0.000 1.500 to be\nhamlet/act_3 1 the_prince 35990.000 36000.500 or<not>&\n"
    )
    assert trn_of(Transcript("empty", 1.0)) == "(empty)\n"


def test_channels_are_told_apart() -> None:
    left, right = Segment(0.0, 2.0, (Word("hello", 0.5, 1.0),)), Segment(0.0, 2.0, (Word("hi", 0.2, 1.0),), channel=1)
    transcript = Transcript("call", 2.0, (left, right))
    assert trn_of(transcript) == "hello (call-1)\nhi (call-2)\n"
    assert ctm_of(transcript) == "call 1 0.500 0.500 hello\ncall 2 0.200 0.800 hi\n"
    assert srt_of(transcript).splitlines()[2::4] == ["channel 1: hi", "channel 0: hello"]


def test_confidences_are_in_all_lines_of_a_ctm_or_in_none() -> None:
    words = (Word("a", 0.0, 1.0, 0.5), Word("b", 1.0, 2.0))
    assert ctm_of(Transcript("x", 2.0, (Segment(0.0, 2.0, words),))) == "x 1 0.000 1.000 a\nx 1 1.000 1.000 b\n"


def test_long_segments_become_several_subtitles() -> None:
    words = tuple(Word("seven", 0.5 * number, 0.5 * number + 0.4) for number in range(60))
    after_a_pause = Word("end", 40.0, 40.5)
    found = cues(Transcript("long", 41.0, (Segment(0.0, 41.0, (*words, after_a_pause)),)))
    assert " ".join(cue.text for cue in found) == "seven " * 60 + "end"
    assert found[-1].text == "end"
    assert max(cue.end_ms - cue.start_ms for cue in found) <= CUE_SEC * 1000


@given(transcripts())
@settings(max_examples=60, deadline=None)
def test_subtitles_are_in_order_and_have_every_word(transcript: Transcript) -> None:
    for text in (srt_of(transcript), vtt_of(transcript)):
        times = [milliseconds(match) for match in TIMES.finditer(text)]
        assert len(times) == text.count("-->"), "no arrow but in lines of times"
        assert times == sorted(times)
        assert all(start < end for start, end in times)
    found = cues(transcript)
    assert sorted(" ".join(cue.text for cue in found).split()) == sorted(word.text for word in transcript.words)
    for block in srt_of(transcript).rstrip("\n").split("\n\n") if found else []:
        lines = block.split("\n")
        assert lines[0].isdigit() and TIMES.fullmatch(lines[1]) and all(lines[2:])
        assert len(lines) - 2 <= CUE_LINES + 1 or max(map(len, lines)) > LINE_CHARACTERS
    body = html.unescape(TIMES.sub("", vtt_of(transcript)))
    assert all(word.text in body for word in transcript.words if len(word.text) <= LINE_CHARACTERS)


@given(transcripts())
@settings(max_examples=60, deadline=None)
def test_lines_for_sclite_have_their_fields(transcript: Transcript) -> None:
    name = nist_name(transcript.name)
    rows = [line.split() for line in ctm_of(transcript).splitlines()]
    assert all(row[0] == name and float(row[3]) >= 0.0 for row in rows)
    assert sorted(row[4] for row in rows) == sorted(word.text for word in transcript.words)
    for channel in "12":
        starts = [float(row[2]) for row in rows if row[1] == channel]
        assert starts == sorted(starts)
    assert all(len(line.split()) >= 6 for line in stm_of(transcript).splitlines())
    assert all(re.search(r"\([^()\s]+\)$", line) for line in trn_of(transcript).splitlines())
    assert json.loads(json_of(transcript))["text"] == transcript.text


@pytest.mark.parametrize(("names", "expected"), [("txt", ("txt",)), (" SRT,txt,srt ", ("srt", "txt"))])
def test_names_of_formats(names: str, expected: tuple[str, ...]) -> None:
    assert parse_formats(names) == expected
    assert set(FORMATS) == {"txt", "json", "srt", "vtt", "ctm", "trn", "stm"}


@pytest.mark.parametrize("names", ["", ",", "doc", "txt,doc"])
def test_unknown_formats(names: str) -> None:
    with pytest.raises(InputError, match="--format: expected one or more of txt,json,srt"):
        parse_formats(names)


@pytest.mark.needs("pysubs2")
@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_another_program_reads_the_subtitles(form: str) -> None:
    import pysubs2

    words = tuple(Word(f"w{n}", 3599.0 + n / 4, 3599.2 + n / 4) for n in range(60))  # some before, some after an hour
    transcript = Transcript("talk", 3620.0, (Segment(3599.0, 3614.2, words),))
    found = pysubs2.SSAFile.from_string(FORMATS[form](transcript), format_=form)
    expected = [(cue.start_ms, cue.end_ms) for cue in cues(transcript)]
    assert [(event.start, event.end) for event in found] == expected and len(expected) > 1
    assert " ".join(event.plaintext for event in found).split() == [word.text for word in words]


@pytest.mark.skipif(shutil.which("sctk") is None, reason="needs sctk: not installed")
@pytest.mark.parametrize("form", ["ctm", "trn"])
def test_sclite_counts_the_errors(form: str, tmp_path: Path) -> None:
    """Two recordings, one in a folder with a blank in its name; one of nine words is replaced and one is missing."""
    spoken = {"hamlet/act 3": "to be or not to", "plain": "that is the question"}
    heard = {"hamlet/act 3": "to be or now to", "plain": "that is question"}
    refs = [transcript_of(name, text) for name, text in spoken.items()]
    hyps = [transcript_of(name, text) for name, text in heard.items()]
    ref_form = "stm" if form == "ctm" else "trn"
    (tmp_path / "ref").write_text("".join(map(FORMATS[ref_form], refs)))
    (tmp_path / "hyp").write_text("".join(map(FORMATS[form], hyps)))
    kinds = ["-r", "ref", ref_form, "-h", "hyp", form] if form == "ctm" else ["-i", "rm", "-r", "ref", "-h", "hyp"]
    done = subprocess.run(
        ["sctk", "sclite", *kinds, "-o", "rsum", "stdout"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (total,) = [line for line in done.stdout.splitlines() if "Sum" in line]
    numbers = [int(number) for number in re.findall(r"\d+", total)]
    assert numbers[1:6] == [9, 7, 1, 1, 0], done.stdout  # words, right, replaced, missing, inserted


def transcript_of(name: str, text: str) -> Transcript:
    words = tuple(Word(word, 0.5 * at, 0.5 * at + 0.4, 0.75) for at, word in enumerate(text.split()))
    return Transcript(name, 10.0, (Segment(0.0, 10.0, words),))
