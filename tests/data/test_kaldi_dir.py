"""Kaldi data directories: channels, tables of copies, and lines that are not what Kaldi writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrkd.data.kaldi_dir import read_kaldi_dir, read_originals
from asrkd.data.segments import Segment
from asrkd.errors import InputError

RATE = 16000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two utterances of one speaker."""
    write(tmp_path, **{"wav.scp": "a-1 a-1.wav\na-2 a-2.wav\n", "text": "a-1 go\na-2 stop\n"})
    write(tmp_path, utt2spk="a-1 a\na-2 a\n")
    return tmp_path


def write(folder: Path, **tables: str) -> None:
    for name, text in tables.items():
        (folder / name).write_bytes(text.encode())


def read(folder: Path) -> list[Segment]:
    return read_kaldi_dir(folder, lambda path: folder / path)


def test_tabs_quotes_and_windows_lines_are_read(folder: Path) -> None:
    plain = read(folder)
    write(folder, **{"wav.scp": "\ufeffa-1 \t a-1.wav\r\na-2   'a-2.wav'\r\n", "utt2spk": "a-1\ta \r\na-2  a\r\n"})
    assert read(folder) == plain
    write(folder, **{"wav.scp": 'a-1 "my files/a 1.wav"\na-2 my files/a 2.wav\n'})
    assert [one.path for one in read(folder)] == [folder / "my files/a 1.wav", folder / "my files/a 2.wav"]
    write(folder, spk2utt="a a-1\na a-2\n")
    assert read(folder)[0].speaker == "a"
    (folder / "utt2spk").rename(folder / "gone")
    write(folder, spk2utt="a a-1 a-2\n")
    assert [one.speaker for one in read(folder)] == ["a", "a"]


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("utt2spk", "a-1 a b\na-2 a\n", r"utt2spk:1: expected an utterance and its speaker, found 'a-1 a b'"),
        ("utt2spk", "a-1 a\n\na-2 a\n", r"utt2spk:2: expected an utterance and its speaker"),
        ("utt2spk", "a-1 a\na-1 a\n", r"utt2spk:2: expected one line of a-1, found two"),
        (
            "wav.scp",
            "a-1 file:///x/1.wav\na-2 2.wav\n",
            r"wav.scp: a-1: expected a file, found the URL 'file:///x/1.wav'",
        ),
        ("wav.scp", "a-1 sox s3://x/1.wav |\na-2 2.wav\n", r"wav.scp: a-1: expected a file, found the command"),
        ("wav.scp", "a-1 flac -cd s3://x/1.wav |\na-2 2.wav\n", r"wav.scp: a-1: expected a file, found the "),
        ("spk2utt", "a a-1\nb a-2\n", r"spk2utt: a-2: expected its speaker a, as in utt2spk, found b: make it from"),
        ("spk2utt", "a a-1\n", r"spk2utt: expected the utterances of utt2spk, found none of 1: a-2: make it from"),
        ("spk2utt", "a a-1 a-2 a-3\n", r"spk2utt: expected utterances of utt2spk only, found 1: a-3: make it from"),
        ("spk2utt", "a a-1\nb a-1\n", r"spk2utt:2: expected a-1 on one line, found it on that of a"),
        ("text", "a-1 go\0\n", r"text:1: expected an utterance and its words, without control characters"),
        ("wav.scp", "a-1 a-1.wav\ra-2 a-2.wav\n", r"wav.scp:1: .*without control characters"),
        ("wav.scp", "a-1 touch ran |\na-2 a-2.wav\n", r"wav.scp: a-1: .*the command 'touch ran \|', which is not run"),
        ("wav.scp", "a-1 cat a-1.wav; touch ran |\na-2 a-2.wav\n", r"wav.scp: a-1: .*which is not run"),
        ("wav.scp", "a-1 cat $(touch ran) |\na-2 a-2.wav\n", r"wav.scp: a-1: .*which is not run"),
        ("wav.scp", "a-1 | touch ran\na-2 a-2.wav\n", r"wav.scp: a-1: .*which is not run"),
        ("wav.scp", "a-1 -\na-2 a-2.wav\n", r"wav.scp: a-1: expected a file, found the command '-'"),
        ("wav.scp", "a-1 |\na-2 a-2.wav\n", r"wav.scp: a-1: .*which is not run"),
        ("wav.scp", "a-1 cat 'a-1.wav |\na-2 a-2.wav\n", r"wav.scp: a-1: .*which is not run"),
        ("wav.scp", "a-1 /x/raw.1.ark:123\na-2 a-2.wav\n", r"wav.scp: a-1: expected a file, found a part of an arch"),
        ("wav.scp", "", r"wav.scp: expected lines of a recording and its file, found none"),
        ("segments", "a-1 a-1 zero 1\na-2 a-2 0 1\n", r"segments: a-1: expected a recording, start and end"),
        ("segments", "a-1 a-1 0 1_0\na-2 a-2 0 1\n", r"segments: a-1: expected a recording, start and end"),
        ("segments", "a-1 a-1 0\na-2 a-2 0 1\n", r"segments: a-1: expected a recording, start and end"),
        ("segments", "a-1 a-1 0 1 0 x\na-2 a-2 0 1\n", r"segments: a-1: expected a recording, start and end"),
        ("segments", "a-1 a-1 0 1 -1\na-2 a-2 0 1\n", r"segments: a-1: expected a channel \(A, B or a number from 0"),
        ("segments", "a-1 b 0 1\na-2 a-2 0 1\n", r"wav.scp: expected a recording b of a-1, found none"),
        ("utt2uniq", "a-1 a-1 b\n", r"utt2uniq:1: expected an utterance and its original, found 'a-1 a-1 b'"),
        ("uniq2utt", "a-1\n", r"uniq2utt:1: expected copies of a-1, found none"),
    ],
)
def test_a_bad_line_is_named(
    folder: Path, table: str, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write(folder, **{table: text})
    with pytest.raises(InputError, match=message):
        (read_originals if "uniq" in table else read)(folder)
    assert not Path("ran").exists()


def stereo(folder: Path) -> None:
    soundfile.write(folder / "call.wav", np.zeros((RATE, 2), np.int16), RATE)
    soundfile.write(folder / "mono.wav", np.zeros(RATE, np.int16), RATE)


def channels(folder: Path) -> list[int | None]:
    return [one.channel for one in read(folder)]


@pytest.mark.parametrize(("a", "b"), [("0", "1"), ("A", "B")])
def test_the_channel_of_a_segment(folder: Path, a: str, b: str) -> None:
    stereo(folder)
    write(folder, **{"wav.scp": "call call.wav\n", "segments": f"a-1 call 0 0.5 {a}\na-2 call 0 0.5 {b}\n"})
    assert channels(folder) == [0, 1]
    write(folder, reco2file_and_channel="call call B\n", segments="a-1 call 0 0.5 0\na-2 call 0 0.5\n")
    assert channels(folder) == [0, 1]


@pytest.mark.parametrize("names", [("A", "B"), ("1", "2"), ("0", "1")])
def test_reco2file_and_channel_counts_where_a_file_has_several_channels(folder: Path, names: tuple[str, str]) -> None:
    """The table is for scoring: it names channels of mono files too."""
    stereo(folder)
    write(folder, **{"wav.scp": "a-1 call.wav\na-2 call.wav\n"})
    write(folder, reco2file_and_channel=f"a-1 call {names[0]}\na-2 call {names[1]}\nother call B\n")
    assert channels(folder) == [0, 1]
    write(folder, **{"wav.scp": "a-1 call.wav\na-2 mono.wav\n"})
    assert channels(folder) == [0, None]
    write(folder, reco2file_and_channel="a-1 call C\n")
    with pytest.raises(InputError, match=r"reco2file_and_channel: a-1: expected one of 2 channels, found C"):
        read(folder)
    for line in ("a-1 A", "a-1 call left", "a-1 call A B"):
        write(folder, reco2file_and_channel=f"{line}\n")
        with pytest.raises(InputError, match=r"reco2file_and_channel: a-1: expected a file and its channel"):
            read(folder)


def test_the_channel_that_sph2pipe_selects(folder: Path) -> None:
    write(folder, **{"wav.scp": "a-1 sph2pipe -f wav -p -c 1 x.sph |\na-2 /opt/sph2pipe -f wav -c 2 -p x.sph|\n"})
    assert [(one.path, one.channel) for one in read(folder)] == [(folder / "x.sph", 0), (folder / "x.sph", 1)]
    write(folder, **{"wav.scp": "a-1 sph2pipe -f wav -c 3 x.sph |\na-2 a-2.wav\n"})
    with pytest.raises(InputError, match="which is not run"):
        read(folder)


def test_tables_of_copies(folder: Path) -> None:
    assert read_originals(folder) == {}
    write(folder, uniq2utt="a-1 a-1 sp0.9-a-1\n")
    assert read_originals(folder) == {"a-1": "a-1", "sp0.9-a-1": "a-1"}
    write(folder, utt2uniq="rev1_a-1 a-1\n")
    assert read_originals(folder) == {"rev1_a-1": "a-1"}
