"""Speech that seems to be in train too: what is warned of, and what corpora of read speech have by nature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from real_speech import Utterance

from asrkd.data.copies import warn_of_copies
from asrkd.data.hold_out import held_out_speakers
from asrkd.data.segments import Segment

SPEAKERS = ("ann", "bob", "cyd", "dan", "eve", "fay")
LONG = "the {} of the house was seen by {} at the river in the evening"


def segment(utt_id: str, speaker: str, text: str | None, path: str = "", channel: int | None = None) -> Segment:
    return Segment(utt_id, Path(path or f"/nowhere/{utt_id}.wav"), 0.0, None, speaker, text, channel)


def spoken(speakers: Sequence[str], text: str = "{number} of {speaker}", name: str = "{}") -> list[Segment]:
    """Four utterances a speaker; `name` renames utterances and speakers."""
    return [
        segment(name.format(f"{one}-{number}"), name.format(one), text.format(number, one, number=number, speaker=one))
        for one in speakers
        for number in range(4)
    ]


def warnings(train: list[Segment], test: list[Segment], caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    warn_of_copies({"train": train, "dev": [], "test": test})
    return caplog.messages


@pytest.mark.parametrize(
    "name", ["sp0.9-{}", "{}_sp1.1", "rev1_{}", "rvb1-{}", "{}-noise", "{}-music", "{}-babble2", "tel-{}", "{}_mic2"]
)
def test_a_speaker_with_an_affix_is_named(name: str, caplog: pytest.LogCaptureFixture) -> None:
    copies = spoken(SPEAKERS, name=name)
    (line,) = warnings(spoken(SPEAKERS[1:]) + copies, spoken(SPEAKERS[:1]), caplog)
    assert f"1 speakers of test seem to be in train under another name: ann ({name.format('ann')}): " in line
    (line,) = warnings(spoken(SPEAKERS), copies[:4], caplog)
    assert f"{name.format('ann')} (ann)" in line


def test_a_speaker_in_another_case_is_named(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = warnings(spoken(SPEAKERS), [replace(one, speaker="ANN") for one in spoken(("zoe",))], caplog)
    assert "1 speakers of test seem to be in train under another name: ANN (ann): " in line
    assert "ANN (sp0.9-ann)" in warnings(spoken(SPEAKERS, name="sp0.9-{}"), spoken(("ANN",)), caplog)[0]


def test_copies_of_ids_in_upper_case_are_named_within_test(caplog: pytest.LogCaptureFixture) -> None:
    copies = spoken(("ANN",)) + [replace(one, utt_id=f"sp0.9-{one.utt_id}") for one in spoken(("ANN",))]
    assert "4 utterances of test seem to be copies of others of test" in warnings([], copies, caplog)[0]


@pytest.mark.parametrize(("text", "is_sign"), [("yes", False), (LONG.format("cat", "ann"), True)])
def test_short_words_are_no_sign_where_each_utterance_has_its_speaker(
    text: str, is_sign: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Speakers are as the utt_ids, of which many share components."""
    others = [segment(f"u-{number}", f"u-{number}", f"other words {number}") for number in range(8)]
    train, test = [segment("fash-an251", "fash-an251", text), *others], [segment("fash-an253", "fash-an253", text)]
    assert any("under another name" in line for line in warnings(train, test, caplog)) == is_sign


def test_copies_without_their_original_are_named(caplog: pytest.LogCaptureFixture) -> None:
    test, train = spoken(SPEAKERS[:1], name="mic1-{}"), spoken(SPEAKERS, name="mic2-{}")
    assert "mic1-ann (mic2-ann)" in warnings(train, test, caplog)[0]
    test, train = spoken(SPEAKERS[:1], name="sp0.9-{}"), spoken(SPEAKERS, "other words {}", "sp1.1-{}")
    assert "sp0.9-ann (sp1.1-ann)" in warnings(train, test, caplog)[0]


def test_copies_of_utterances_of_other_speakers_are_named(caplog: pytest.LogCaptureFixture) -> None:
    copies = [segment(f"far_{one.utt_id}", "nobody", one.text) for one in spoken(("ann",))]
    (line,) = warnings(spoken(SPEAKERS[1:]) + copies, spoken(("ann",)), caplog)
    assert "4 utterances of test seem to have copies in train, by id and words: ann-0 (far_ann-0), ann-1" in line


def test_copies_under_the_name_of_their_speaker_are_named(caplog: pytest.LogCaptureFixture) -> None:
    test = spoken(("ann",)) + [segment(f"sp1.1-{one.utt_id}", "ann", one.text) for one in spoken(("ann",))]
    (line,) = warnings(spoken(SPEAKERS[1:]), test, caplog)
    assert "4 utterances of test seem to be copies of others of test: sp1.1-ann-0 (ann-0), " in line


@pytest.mark.parametrize(("ours", "theirs"), [("12", "12-3"), ("12", "123"), ("3", "12-3"), ("ann", "anna")])
def test_numbers_and_parts_of_components_are_no_sign(ours: str, theirs: str, caplog: pytest.LogCaptureFixture) -> None:
    """LibriSpeech's `12-3` is a prefix of `12-34`, and a component of `12-3-0001`."""
    train = [segment(f"{theirs}-{n}", theirs, f"{n} other words") for n in range(4)]
    test = [segment(f"{ours}-{n}", ours, f"{n} words") for n in range(4)]
    assert not warnings(train, test, caplog)
    train = [segment(f"{theirs}-{n}", theirs, "yes") for n in range(4)]
    assert not warnings(train, [segment(ours, ours, "yes")], caplog)


def test_the_same_audio_is_named_by_contents_and_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, data in (("a.wav", b"one" * 50), ("b.wav", b"two" * 50), ("copy.wav", b"one" * 50)):
        (tmp_path / name).write_bytes(data)
    a, b, copy = (str(tmp_path / name) for name in ("a.wav", "b.wav", "copy.wav"))
    train = [segment("x", "bob", "go", copy), segment("y", "cyd", "stop", b)]
    (line,) = warnings(train, [segment("u", "ann", "go", a)], caplog)
    assert "1 utterances of test have the same audio as others in train: u (x)" in line
    assert not warnings(train[1:], [segment("u", "ann", "go", a)], caplog)
    left, right = segment("l", "ann", "go", a, channel=0), segment("r", "bob", "go", a, channel=1)
    assert not warnings([right], [left], caplog)
    first, next_ = (Segment(n, Path(a), t, t + 2.0, n, "go") for n, t in (("u", 0.0), ("v", 1.5)))
    assert not warnings([next_], [first], caplog)
    again = Segment("w", Path(a), 0.2, 2.0, "w", "go")
    assert "u (w)" in warnings([next_, again], [first], caplog)[0]


def test_rare_long_sentences_in_both_are_named(caplog: pytest.LogCaptureFixture) -> None:
    train = spoken(SPEAKERS, LONG)
    test = [segment(f"z{n}", "zoe", one.text) for n, one in enumerate(spoken(("ann",), LONG))]
    (line,) = warnings(train, test, caplog)
    assert "4 long sentences of test are in train too, where few speakers say them: z0 (ann-0)" in line
    assert not warnings(train, spoken(("zoe",), LONG) + test[:2], caplog)
    prompts = [LONG.format(n, "everyone") for n in range(4)]
    train = [segment(f"{name}-{n}", name, text) for name in SPEAKERS for n, text in enumerate(prompts)]
    assert not warnings(train, [segment(f"z{n}", "zoe", text) for n, text in enumerate(prompts)], caplog)


def test_sentences_of_timit_are_no_sign(caplog: pytest.LogCaptureFixture) -> None:
    """Two sentences that all speakers read, five that seven speakers read, three of each one's own."""
    people = [f"{'fm'[n % 2]}{chr(97 + n)}{chr(98 + n)}0" for n in range(21)]
    said = {
        name: [LONG.format("sa", n) for n in range(2)]
        + [LONG.format(f"sx{position % 3}", n) for n in range(5)]
        + [LONG.format(name, n) for n in range(3)]
        for position, name in enumerate(people)
    }
    rows = [segment(f"{name}-{n}", name, text) for name, texts in said.items() for n, text in enumerate(texts)]
    test = held_out_speakers(people, 2)
    parts = [[one for one in rows if (one.speaker in test) is held] for held in (False, True)]
    assert not warnings(*parts, caplog)


def test_real_speech_has_no_sign(utterances: list[Utterance], caplog: pytest.LogCaptureFixture) -> None:
    rows = [segment(one.utt_id, one.speaker, " ".join(one.words), str(one.path)) for one in utterances]
    people = sorted({one.speaker for one in rows})
    if len(people) < 3:  # prompts of one voice
        people = [f"{n:02}" for n in range(20)]
        rows = [segment(f"{n % 20:02}-{n}", people[n % 20], one.text, str(one.path)) for n, one in enumerate(rows)]
    test = held_out_speakers(people, len(people) // 10)
    parts = [[one for one in rows if (one.speaker in test) is held] for held in (False, True)]
    assert not warnings(*parts, caplog)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_audio_with_two_transcripts_is_named_within_a_split(split: str, caplog: pytest.LogCaptureFixture) -> None:
    """Two supervisions of a recording over the same time, as of a translation; times may differ a little."""
    segments = [
        replace(segment("a", "ann", "yes", "call.wav"), end_sec=1.0),
        replace(segment("a-en", "ann", "hello world", "call.wav"), end_sec=0.9),
        replace(segment("b", "ann", "no", "call.wav"), start_sec=1.0, end_sec=2.0),
        replace(segment("c", "ann", "YES", "call.wav"), end_sec=1.0),  # the same words
    ]
    warn_of_copies({"train": [], "dev": [], "test": []} | {split: segments})
    (line,) = [message for message in caplog.messages if "other words" in message]
    assert line.startswith(
        f"1 utterances of {split} have the same audio as others of {split}, and other words: a-en (a): "
    )


def test_equal_files_with_two_transcripts_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    contents = {"a": b"x" * 1000, "b": b"x" * 1000, "c": b"y" * 1000}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    segments = [segment(name, name, f"words {name}", str(tmp_path / name)) for name in contents]
    assert (
        "1 utterances of test have the same audio as others of test, and other words: b (a): "
        in (warnings([], segments, caplog)[0])
    )


@pytest.mark.parametrize(
    "other",
    [
        {"channel": 1},
        {"start_sec": 1.0, "end_sec": 2.0},
        {"start_sec": 0.5, "end_sec": 1.0},  # of another speaker who talks at the same time
        {"text": "Yes"},
        {"text": None},
        {"text": ""},
    ],
    ids=str,
)
def test_other_parts_channels_and_equal_words_are_no_second_transcript(
    other: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    one = replace(segment("a", "ann", "yes", "call.wav", channel=0), end_sec=1.0)
    assert warnings([], [one, replace(one, utt_id="b", **({"text": "no"} | other))], caplog) == []


def test_many_utterances_of_one_part_take_linear_time(caplog: pytest.LogCaptureFixture) -> None:
    same = [segment(str(number), "ann", "yes", "call.wav") for number in range(20_000)]
    assert warnings([], same, caplog) == []
