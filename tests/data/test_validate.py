"""Every fault is found, named and rejected; too many stop the work. What a changed file changes."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asrkd.data.audio import AudioError, make_supervision, probe, read_scaled
from asrkd.data.manifests import audio_files, content_fingerprint
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.data.validate import validate
from asrkd.errors import InputError

RATE = 16000


def noise(num_samples: int = 8000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-5000, 5000, num_samples).astype(np.int16)


def utterance(
    folder: Path, utt_id: str, samples: np.ndarray | None = None, text: str = "GO", rate: int = RATE, **how
) -> tuple[Recording, SupervisionSegment]:
    path = folder / f"{utt_id}.wav"
    soundfile.write(path, noise() if samples is None else samples, rate, **how)
    recording = probe(path, utt_id)
    return recording, make_supervision(recording, "spk", text)


def split_of(pairs: list[tuple[Recording, SupervisionSegment]], rejected: tuple[Rejected, ...] = ()) -> CorpusSplit:
    return CorpusSplit(
        RecordingSet.from_recordings(recording for recording, _ in pairs),
        SupervisionSet.from_segments(supervision for _, supervision in pairs),
        rejected=rejected,
    )


def reason_for(folder: Path, pair: tuple[Recording, SupervisionSegment]) -> str:
    """Why one utterance among two is dropped."""
    good, rejected = validate(split_of([utterance(folder, "fine"), pair]), RATE, max_bad=0.5)
    assert [s.id for s in good.supervisions] == ["fine"]
    assert list(good.recordings.ids) == ["fine"]
    assert [fault.utt_id for fault in rejected] == [pair[0].id]
    return rejected[0].reason


def test_good_utterances_pass(tmp_path: Path):
    split = split_of([utterance(tmp_path, "a"), utterance(tmp_path, "b")])
    good, rejected = validate(split, RATE)
    assert rejected == []
    assert list(good.recordings.ids) == ["a", "b"]
    assert good.texts() == [["GO"], ["GO"]]


def test_missing_audio(tmp_path: Path):
    pair = utterance(tmp_path, "bad")
    (tmp_path / "bad.wav").unlink()
    assert reason_for(tmp_path, pair) == f"missing audio: expected {tmp_path}/bad.wav"


def test_audio_that_is_none(tmp_path: Path):
    pair = utterance(tmp_path, "bad")
    (tmp_path / "bad.wav").write_bytes(b"RIFF, or so it says")
    assert reason_for(tmp_path, pair).startswith("unreadable audio")


@pytest.mark.parametrize("kind", ["WAV", "NIST", "FLAC"])
def test_truncated_audio_is_not_read_as_far_as_it_goes(tmp_path: Path, kind: str):
    path = tmp_path / "bad.audio"
    soundfile.write(path, noise(), RATE, format=kind, subtype="PCM_16")
    recording = probe(path, "bad")
    path.write_bytes(path.read_bytes()[:-6000])
    reason = reason_for(tmp_path, (recording, make_supervision(recording, "spk", "GO")))
    assert reason.startswith(("truncated audio", "unreadable audio"))
    if kind != "FLAC":  # whose length is known only by reading it
        with pytest.raises(AudioError, match=r"truncated audio: expected 1[67]... bytes"):
            probe(path, "bad")


def test_an_empty_audio_file_is_refused(tmp_path: Path):
    (tmp_path / "bad.wav").write_bytes(b"")
    with pytest.raises(AudioError, match="unreadable audio"):
        probe(tmp_path / "bad.wav", "bad")


def test_wav_with_other_chunks_is_whole(tmp_path: Path):
    path = tmp_path / "tagged.wav"
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        file.title = "odd"
        file.write(noise(801))
    assert probe(path, "tagged").num_samples == 801


def test_other_sampling_rates_are_counted_and_resampled(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rates = {"a": RATE, "b": 22050, "c": 22050, "d": 44100, "e": 8000}
    split = split_of([utterance(tmp_path, name, noise(rate), rate=rate) for name, rate in rates.items()])
    good, rejected = validate(split, RATE, "train")
    assert rejected == [] and list(good.recordings.ids) == list(rates)
    assert caplog.messages == [
        "train: 4 of 5 utterances are resampled to 16000 Hz (--features.sampling-rate): "
        "1 from 8000 Hz, 2 from 22050 Hz, 1 from 44100 Hz",
        "train: 1 utterances have a lower sampling rate than 16000 Hz: their mel bands above 4000 Hz are empty. "
        "--features.sampling-rate 8000 computes no such bands",
    ]


def test_a_rate_that_cannot_be_resampled_is_refused(tmp_path: Path):
    reason = reason_for(tmp_path, utterance(tmp_path, "bad", rate=22049))
    assert reason.startswith("expected a sampling rate that can be resampled to 16000 Hz, found 22049 Hz")


def test_stereo(tmp_path: Path):
    pair = utterance(tmp_path, "bad", np.stack([noise(), noise(seed=1)], axis=1))
    assert reason_for(tmp_path, pair) == "expected one channel, or an utterance that names its channel, found 2"


def test_floats_in_an_integers_range_are_reported_and_scaled(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    dither = np.random.default_rng(0).integers(-2, 3, 8000)
    dither[17] = 18
    pairs = [
        utterance(tmp_path, "int16"),
        utterance(tmp_path, "float", noise() / 32768, subtype="FLOAT"),
        utterance(tmp_path, "scaled", noise().astype(np.float32), subtype="FLOAT"),
        utterance(tmp_path, "silent", dither.astype(np.float32), subtype="FLOAT"),
    ]
    _, rejected = validate(split_of(pairs), RATE, "train", max_bad=0.5)
    assert [fault.utt_id for fault in rejected] == ["silent"]
    assert rejected[0].reason.startswith("silence only: expected above -75 dB of full scale")
    assert caplog.messages == [
        "train: 2 of 4 utterances have floating-point samples in an integer's range; they are scaled to ±1 "
        "(2 by 32768): scaled, silent"
    ]
    caplog.clear()
    pairs.append(utterance(tmp_path, "24 bits", 256 * noise().astype(np.float32), subtype="FLOAT"))
    validate(split_of(pairs), RATE, "train", max_bad=0.5)
    assert "(2 by 32768, 1 by 8388608; if all are of one kind, some are wrong" in caplog.messages[0]


def test_empty_transcript(tmp_path: Path):
    assert reason_for(tmp_path, utterance(tmp_path, "bad", text="  ")) == "empty transcript"


def test_too_short(tmp_path: Path):
    pair = utterance(tmp_path, "bad", noise(800))
    assert reason_for(tmp_path, pair) == "too short: expected at least 0.1 s, found 0.050 s"


def test_too_long(tmp_path: Path):
    """The limit is inclusive, and the fault names the length, the limit and the option."""
    pairs = [utterance(tmp_path, "long", noise(24000)), utterance(tmp_path, "fine", noise(16000))]
    good, rejected = validate(split_of(pairs), RATE, max_bad=0.5, max_duration_sec=1.0)
    assert [s.id for s in good.supervisions] == ["fine"]
    assert rejected == [Rejected("long", "too long: expected at most 1 s (--max-duration), found 1.5 s")]
    with pytest.raises(InputError, match=r"--max-bad.*long: too long: expected at most 1 s"):
        validate(split_of(pairs), RATE, max_duration_sec=1.0)


def test_nan(tmp_path: Path):
    samples = noise() / 32768
    samples[17] = np.nan
    pair = utterance(tmp_path, "bad", samples, subtype="FLOAT")
    assert reason_for(tmp_path, pair) == "expected finite samples, found 1 NaN or infinite"


@pytest.mark.parametrize("offset", [0, 1000])
def test_silence_is_equal_samples(tmp_path: Path, offset: int):
    pair = utterance(tmp_path, "bad", np.full(8000, offset, dtype=np.int16))
    assert reason_for(tmp_path, pair) == "silence only: all samples are equal"


def test_dither_is_silence_and_a_whisper_is_not(tmp_path: Path):
    dither = np.random.default_rng(0).integers(-1, 2, 8000).astype(np.int16)
    assert reason_for(tmp_path, utterance(tmp_path, "bad", dither)).startswith("silence only: expected above")
    assert validate(split_of([utterance(tmp_path, "whisper", dither * 30)]), RATE)[1] == []


def test_audio_and_transcripts_without_each_other(tmp_path: Path):
    pairs = [utterance(tmp_path, name) for name in ("a", "b", "c")]
    split = CorpusSplit(
        RecordingSet.from_recordings([pairs[0][0], pairs[1][0]]),
        SupervisionSet.from_segments([pairs[1][1], pairs[2][1]]),
    )
    good, rejected = validate(split, RATE, max_bad=0.7)
    assert [str(fault) for fault in rejected] == [
        "a: missing transcript: it has audio only",
        "c: missing audio: it has a transcript only",
    ]
    assert list(good.recordings.ids) == [s.id for s in good.supervisions] == ["b"]


def test_what_was_dropped_before_counts(tmp_path: Path):
    pairs = [utterance(tmp_path, f"u{n}") for n in range(3)]
    split = split_of(pairs, rejected=(Rejected("gone", "missing audio"),))
    good, rejected = validate(split, RATE, max_bad=0.25)
    assert rejected == [Rejected("gone", "missing audio")]
    assert good.rejected == ()
    with pytest.raises(InputError, match="found 1 of 4: gone: missing audio"):
        validate(split, RATE, max_bad=0.2)


def test_too_many_bad_name_the_first_few(tmp_path: Path):
    pairs = [utterance(tmp_path, f"u{n}", text="" if n < 7 else "GO") for n in range(10)]
    with pytest.raises(InputError) as caught:
        validate(split_of(pairs), RATE)
    assert str(caught.value) == (
        "corpus: expected at most 1.0% bad utterances (--max-bad), found 7 of 10: u0: empty transcript; "
        "u1: empty transcript; u2: empty transcript; u3: empty transcript; u4: empty transcript; and 2 more"
    )


def test_the_limit_is_of_each_split(tmp_path: Path):
    """15 of 20 bad test utterances are too many, however many good ones there are to train on."""
    pairs = [utterance(tmp_path, f"u{n}", text="" if n < 15 else "GO") for n in range(20)]
    with pytest.raises(InputError, match=r"at most 1.0% bad utterances in test \(--max-bad\), found 15 of 20"):
        validate(split_of(pairs), RATE, "test")


def test_audio_that_is_known_and_unchanged_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    split = split_of([utterance(tmp_path, name) for name in ("a", "b")])
    known = audio_files(split.recordings, {})
    changed = Path(known["b"]["path"])
    os.utime(changed, ns=(0, known["b"]["mtime_ns"] + 1))
    read = []
    monkeypatch.setattr("asrkd.data.validate.read_scaled", lambda one: read.append(one.id) or read_scaled(one))
    validate(split, RATE, known=known)
    assert read == ["b"]


def test_content_is_audio_text_and_speaker_and_not_the_path(tmp_path: Path):
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir()
    split = split_of([utterance(first, "a")])
    before = content_fingerprint(split, audio_files(split.recordings, {}), [])
    shutil.copytree(first, second)
    moved = split_of([(replace_source(split.recordings["a"], second), split.supervisions["a"])])
    assert content_fingerprint(moved, audio_files(moved.recordings, {}), []) == before
    path = Path(moved.recordings["a"].sources[0].source)
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert path.stat().st_size == stat.st_size
    assert content_fingerprint(moved, audio_files(moved.recordings, {}), []) != before
    other = split_of([(split.recordings["a"], dataclasses.replace(split.supervisions["a"], text="STOP"))])
    assert content_fingerprint(other, audio_files(other.recordings, {}), []) != before


def replace_source(recording: Recording, folder: Path) -> Recording:
    (source,) = recording.sources
    return dataclasses.replace(
        recording, sources=[dataclasses.replace(source, source=str(folder / Path(source.source).name))]
    )


def test_an_empty_corpus_and_one_all_bad_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="expected at least one utterance"):
        validate(split_of([]), RATE)
    with pytest.raises(InputError, match="found 1 of 1"):
        validate(split_of([utterance(tmp_path, "bad", text="")]), RATE, max_bad=1.0)


def test_the_order_of_jobs_does_not_matter(tmp_path: Path):
    pairs = [utterance(tmp_path, f"u{n:02}", None if n % 3 else np.zeros(8000, np.int16)) for n in range(20)]
    found = [validate(split_of(pairs), RATE, max_bad=0.5, num_jobs=n)[1] for n in (1, 4)]
    assert found[0] == found[1]
    assert [fault.utt_id for fault in found[0]] == [f"u{n:02}" for n in range(0, 20, 3)]
