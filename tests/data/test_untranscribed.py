"""Speech without transcripts: what is read of manifests and folders, how it is cut, and who counts as its speaker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, Recording, RecordingSet, SupervisionSegment

from asrkd.data import untranscribed
from asrkd.data.audio import read_samples
from asrkd.data.segments import Segment
from asrkd.data.untranscribed import PIECE_SEC, read_untranscribed, untranscribed_files, untranscribed_pieces
from asrkd.errors import InputError

RATE = 8000


def write_noise(path: Path, seconds: float, seed: int = 0, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-5000, 5000, (int(seconds * RATE), channels)).astype(np.int16)
    soundfile.write(path, samples, RATE)
    return path


def ids(segments: list[Segment]) -> list[str]:
    return [segment.utt_id for segment in segments]


def test_a_folder_of_audio_is_one_segment_a_file(tmp_path: Path) -> None:
    for seed, name in enumerate(("b.wav", "sub/a one.flac", "sub/deep/C.WAV", "b.flac", "._b.wav", "notes.txt")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_noise(tmp_path / "x" / "new.wav", 0.5, seed).rename(path)
    found = read_untranscribed(tmp_path, tmp_path)
    assert ids(found) == ["b", "b.wav", "sub-a_one", "sub-deep-C"]
    assert all(one.path.is_absolute() and one.text is None and not one.speaker for one in found)
    manifests, audio = untranscribed_files(tmp_path, tmp_path)
    assert manifests == [] and len(audio) == 4


@pytest.mark.parametrize(("name", "message"), [("nowhere", "no such file or folder"), (".", "found neither")])
def test_what_has_no_speech_is_refused_in_one_line(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_untranscribed(tmp_path / name, tmp_path)


def test_a_kaldi_directory_needs_neither_text_nor_speakers(tmp_path: Path) -> None:
    write_noise(tmp_path / "r1.wav", 3.0)
    (tmp_path / "wav.scp").write_text("r1 r1.wav\n")
    assert ids(read_untranscribed(tmp_path, tmp_path)) == ["r1"]
    (tmp_path / "segments").write_text("u1 r1 0.5 1.5\nu2 r1 1.5 -1\n")
    (tmp_path / "text").write_text("another words\n")  # it is not read
    found = read_untranscribed(tmp_path, tmp_path)
    assert [(one.utt_id, one.start_sec, one.end_sec, one.speaker, one.text) for one in found] == [
        ("u1", 0.5, 1.5, "", None),
        ("u2", 1.5, None, "", None),
    ]
    assert {
        one.speaker for one in untranscribed_pieces(found, "transfer", tmp_path / "segments_dir").split.supervisions
    } == {"recording:u1"}
    (tmp_path / "utt2spk").write_text("u1 ann\nu2 bob\n")
    assert [one.speaker for one in read_untranscribed(tmp_path, tmp_path)] == ["ann", "bob"]
    (tmp_path / "utt2spk").write_text("u1 ann\n")
    with pytest.raises(InputError, match="expected a speaker of u2, found none"):
        read_untranscribed(tmp_path, tmp_path)


def test_recordings_and_cuts_of_lhotse_are_told_apart(tmp_path: Path) -> None:
    mono = Recording.from_file(write_noise(tmp_path / "mono.wav", 2.0))
    stereo = Recording.from_file(write_noise(tmp_path / "stereo.wav", 1.0, channels=2))
    recordings = tmp_path / "recordings.jsonl.gz"
    RecordingSet.from_recordings([mono, stereo]).to_file(recordings)
    found = read_untranscribed(recordings, tmp_path)
    assert [(one.utt_id, one.channel) for one in found] == [("mono", None), ("stereo-0", 0), ("stereo-1", 1)]
    spoken = SupervisionSegment("said", "mono", 0.25, 0.5, text="NOT READ", speaker="ann")
    cuts = tmp_path / "cuts.jsonl.gz"
    CutSet.from_cuts(
        [MonoCut("c1", 0.5, 1.0, 0, [spoken], recording=mono), MonoCut("c2", 0.0, 0.5, 0, recording=mono)]
    ).to_file(cuts)
    found = read_untranscribed(cuts, tmp_path)
    assert [(one.utt_id, one.start_sec, one.end_sec) for one in found] == [("c2", 0.0, 0.5), ("said", 0.75, 1.25)]
    pieces = untranscribed_pieces(found, "transfer", tmp_path / "copies")
    assert {one.text for one in pieces.split.supervisions} == {""}
    assert {one.id: one.speaker for one in pieces.split.supervisions} == {"said": "ann", "c2": "recording:c2"}


def test_long_audio_is_cut_into_equal_pieces_that_add_up_to_it(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "audio" / "long.wav", 2.5 * PIECE_SEC)
    write_noise(tmp_path / "audio" / "short.wav", 1.0)
    (tmp_path / "audio" / "broken.wav").write_bytes(b"RIFF")
    segments = read_untranscribed(tmp_path / "audio", tmp_path)
    pieces = untranscribed_pieces(segments, "transfer", tmp_path / "copies")
    assert [one.utt_id for one in pieces.split.rejected] == ["broken"] and pieces.num_recordings == 3
    by_id = {one.id: one for one in pieces.split.recordings}
    assert sorted(by_id) == ["long-p1", "long-p2", "long-p3", "short"]
    assert pieces.cut == {"long-p1", "long-p2", "long-p3"}
    assert all(one.duration <= PIECE_SEC for one in by_id.values())
    joined = np.concatenate([read_samples(by_id[f"long-p{n}"])[0] for n in (1, 2, 3)])
    np.testing.assert_array_equal(joined, soundfile.read(path, dtype="float32")[0])
    copies = {file: file.stat().st_mtime_ns for file in (tmp_path / "copies").iterdir()}
    assert len(copies) == 3  # what is not cut is not copied
    untranscribed_pieces(segments, "transfer", tmp_path / "copies")
    assert copies == {file: file.stat().st_mtime_ns for file in (tmp_path / "copies").iterdir()}


def test_a_recording_is_a_speaker_and_a_long_one_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the frames that are normalised together, and are in memory at once, are bounded."""
    monkeypatch.setattr(untranscribed, "NORMALISED_SEC", 40.0)
    write_noise(tmp_path / "audio" / "a.wav", 100.0)
    write_noise(tmp_path / "audio" / "b.wav", 35.0)
    segments = read_untranscribed(tmp_path / "audio", tmp_path)
    pieces = untranscribed_pieces(segments, "transfer", tmp_path / "copies")
    speakers = {one.id: str(one.speaker) for one in pieces.split.supervisions}
    assert speakers["a-p1"] != speakers["a-p4"] and len({speakers[f"a-p{n}"] for n in (1, 2, 3, 4)}) == 3
    assert speakers["b-p1"] == speakers["b-p2"]
    lengths: dict[str, float] = {}
    for one in pieces.split.supervisions:
        lengths[str(one.speaker)] = lengths.get(str(one.speaker), 0.0) + one.duration
    assert max(lengths.values()) < 40.0 + PIECE_SEC


def test_times_that_no_audio_has_are_rejected_and_not_cut(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.wav", 2.0)
    segments = [
        Segment("far", path, 0.0, 1e12, "", None),
        Segment("nan", path, float("nan"), 2.0, "", None),
        Segment("inf", path, 0.0, float("inf"), "", None),
        Segment("good", path, 0.5, 1.5, "", None),
    ]
    pieces = untranscribed_pieces(segments, "transfer", tmp_path / "copies")
    assert {one.utt_id for one in pieces.split.rejected} == {"far", "nan", "inf"}
    assert [one.id for one in pieces.split.recordings] == ["good"]
