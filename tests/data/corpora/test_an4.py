"""AN4's layouts become manifests; the test speakers stay apart; dev is the same everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asrkd.data.audio import read_samples
from asrkd.data.corpora.an4 import dev_speakers, prepare_an4
from asrkd.errors import InputError

TRAIN_SPEAKERS = ["fash", "fbbh", "mblb", "mblw", "mcel", "mdmc"]


def write_audio(path: Path, seed: int, num_samples: int = 8000) -> np.ndarray:
    samples = np.random.default_rng(seed).integers(-5000, 5000, num_samples).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".sph": "NIST", ".wav": "WAV", ".flac": "FLAC"}[path.suffix]
    soundfile.write(path, samples, 16000, format=kind, subtype="PCM_16")
    return samples


def make_an4(root: Path, suffix: str = ".wav") -> Path:
    """Two utterances of each of six training speakers, two of one test speaker."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for seed, (part, folder, speaker) in enumerate(
        [*(("train", "an4_clstk", s) for s in TRAIN_SPEAKERS), ("test", "an4test_clstk", "fcaw")]
    ):
        for number in (251, 253):
            utt_id = f"an{number}-{speaker}-b"
            write_audio(root / "wav" / folder / speaker / f"{utt_id}{suffix}", seed * 1000 + number)
            marks = ("<s> ", " </s>") if part == "train" else ("", "")
            lines[part].append(f"{marks[0]}GO {speaker[0]} {number % 10}TH{marks[1]} ({utt_id})")
    (root / "etc").mkdir(parents=True)
    for part, transcripts in lines.items():
        (root / "etc" / f"an4_{part}.transcription").write_text("\n".join(transcripts) + "\n")
    return root


@pytest.mark.parametrize("suffix", [".flac", ".wav", ".sph"])
def test_each_format_gives_the_same_manifests_and_samples(tmp_path: Path, suffix: str):
    splits = prepare_an4(make_an4(tmp_path / "an4", suffix), num_dev_speakers=2)
    assert list(splits) == ["train", "dev", "test"]
    test = splits["test"]
    assert [s.id for s in test.supervisions] == ["an251-fcaw-b", "an253-fcaw-b"]
    assert test.texts() == [["GO", "F", "1TH"], ["GO", "F", "3TH"]]
    assert {s.speaker for s in test.supervisions} == {"fcaw"}
    recording = test.recordings["an251-fcaw-b"]
    assert (recording.sampling_rate, recording.num_samples, recording.duration) == (16000, 8000, 0.5)
    expected = np.random.default_rng(6251).integers(-5000, 5000, 8000).astype(np.int16)
    assert np.array_equal(read_samples(recording)[0], expected.astype(np.float32) / 32768)


def test_big_endian_sphere_is_read(tmp_path: Path):
    root = make_an4(tmp_path / "an4", ".sph")
    path = root / "wav/an4test_clstk/fcaw/an251-fcaw-b.sph"
    samples = np.array([1, 256, -2, 12345] * 2000, dtype=np.int16)
    soundfile.write(path, samples, 16000, format="NIST", subtype="PCM_16", endian="BIG")
    assert b"sample_byte_format -s2 10" in path.read_bytes()
    recording = prepare_an4(root, 1)["test"].recordings["an251-fcaw-b"]
    assert np.array_equal(read_samples(recording)[0] * 32768, samples)


def test_a_folder_that_holds_an4_will_do(tmp_path: Path):
    make_an4(tmp_path / "an4")
    assert len(prepare_an4(tmp_path, 2)["test"].recordings) == 2


def test_dev_speakers_are_only_in_dev(tmp_path: Path):
    splits = prepare_an4(make_an4(tmp_path / "an4"), num_dev_speakers=3)
    speakers = {name: {s.speaker for s in split.supervisions} for name, split in splits.items()}
    assert speakers["dev"] == dev_speakers(TRAIN_SPEAKERS, 3)
    assert speakers["train"] == set(TRAIN_SPEAKERS) - speakers["dev"]
    assert {name[0] for name in speakers["dev"]} == {"f", "m"}
    assert [len(split.recordings) for split in splits.values()] == [6, 6, 2]


@given(st.sets(st.from_regex(r"[fm][a-z]{3}", fullmatch=True), min_size=2, max_size=40), st.data())
def test_dev_speakers_are_as_many_as_asked_and_balanced(speakers, data):
    wanted = data.draw(st.integers(0, len(speakers) - 1))
    chosen = dev_speakers(speakers, wanted)
    assert chosen <= speakers
    assert len(chosen) == wanted
    women = sum(name.startswith("f") for name in speakers)
    assert abs(sum(name.startswith("f") for name in chosen) - wanted * women / len(speakers)) <= 0.5
    assert dev_speakers(sorted(speakers, reverse=True), wanted) == chosen


def test_holding_out_every_speaker_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="expected fewer than the 6 there are, found 6"):
        prepare_an4(make_an4(tmp_path / "an4"), num_dev_speakers=6)


def test_faults_are_reported_with_their_utterance(tmp_path: Path):
    root = make_an4(tmp_path / "an4")
    folder = root / "wav/an4test_clstk/fcaw"
    (folder / "an251-fcaw-b.wav").unlink()
    (folder / "an253-fcaw-b.wav").write_bytes(b"not audio at all")
    write_audio(folder / "an999-fcaw-b.wav", 7)
    test = prepare_an4(root, 2)["test"]
    reasons = {fault.utt_id: fault.reason for fault in test.rejected}
    assert reasons["an251-fcaw-b"].startswith("missing audio")
    assert reasons["an253-fcaw-b"].startswith("unreadable audio")
    assert list(test.recordings.ids) == ["an999-fcaw-b"]
    assert len(test.supervisions) == 0
    assert test.num_utterances == 3


def test_without_a_folder_the_message_names_a_source(tmp_path: Path):
    for corpus_dir in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"github\.com/cmusphinx/an4"):
            prepare_an4(corpus_dir)


def test_raw_audio_is_refused_by_name(tmp_path: Path):
    root = make_an4(tmp_path / "an4")
    for path in root.glob("wav/an4_clstk/*/*.wav"):
        path.rename(path.with_suffix(".raw"))
    with pytest.raises(InputError, match=r"an4_clstk: expected audio \(\.flac, \.wav, \.sph\), found none"):
        prepare_an4(root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("<s> NO ID HERE </s>", r"transcription:3: expected words and \(utt_id\)"),
        ("<s> AGAIN </s> (an251-fcaw-b)", "transcription:3: expected one transcript of an251-fcaw-b"),
    ],
)
def test_a_bad_line_of_a_transcript_is_named(tmp_path: Path, line: str, message: str):
    root = make_an4(tmp_path / "an4")
    path = root / "etc/an4_test.transcription"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=message):
        prepare_an4(root)


def test_transcripts_in_another_encoding_are_refused(tmp_path: Path):
    root = make_an4(tmp_path / "an4")
    (root / "etc/an4_test.transcription").write_bytes("CAFÉ (an251-fcaw-b)\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"transcription:1: expected UTF-8"):
        prepare_an4(root)


def test_a_test_speaker_among_the_training_speakers_is_refused(tmp_path: Path):
    root = make_an4(tmp_path / "an4")
    write_audio(root / "wav/an4_clstk/fcaw/an777-fcaw-b.wav", 3)
    with pytest.raises(InputError, match="test speakers only in test, found fcaw in both"):
        prepare_an4(root)


def test_the_real_corpus_has_its_known_sizes(an4_dir: Path):
    splits = prepare_an4(an4_dir)
    assert {name: len(split.supervisions) for name, split in splits.items()} == {
        "train": 859,
        "dev": 89,
        "test": 130,
    }
    speakers = {name: {s.speaker for s in split.supervisions} for name, split in splits.items()}
    assert {name: len(names) for name, names in speakers.items()} == {"train": 67, "dev": 7, "test": 10}
    assert speakers["dev"] == {"fbbh", "fjam", "mcel", "mgah", "mmaf", "mnjl", "mtje"}
    assert not speakers["test"] & (speakers["train"] | speakers["dev"])
    assert sum(len(words) for words in splits["test"].texts()) == 773
    assert all(not split.rejected and not split.excluded for split in splits.values())
