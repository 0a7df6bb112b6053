"""Features agree with torchaudio's, are normalised per speaker, and are the same each time."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import RecordingSet, SupervisionSet
from lhotse.augmentation import Speed
from real_speech import Utterance

from asrkd.data.audio import make_supervision, probe, read_samples
from asrkd.data.resample import resample
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError
from asrkd.features import fbank as features
from asrkd.features.cmvn import normalise
from asrkd.features.fbank import FeatureOptions, compute_features, make_fbank, measure_prior
from asrkd.nnet.devices import cpu_threads
from asrkd.workflow.executor import Executor

RAW = FeatureOptions(cmvn="none")


def speechlike(num_samples: int, seed: int) -> np.ndarray:
    """Noise whose level and colour change, in ±1."""
    generator = np.random.default_rng(seed)
    samples = np.cumsum(generator.normal(size=num_samples)) * 0.01 + generator.normal(size=num_samples) * 0.1
    samples *= np.abs(np.sin(np.arange(num_samples) / 3000))
    return samples / np.abs(samples).max() * 0.5


def make_split(folder: Path, speakers: dict[str, str], rate: int = 16000) -> CorpusSplit:
    """utt_id -> speaker; lengths differ."""
    recordings = []
    for number, utt_id in enumerate(speakers):
        path = folder / f"{utt_id}.wav"
        soundfile.write(path, speechlike(rate // 2 + 501 * number, number), rate)
        recordings.append(probe(path, utt_id))
    return CorpusSplit(
        RecordingSet.from_recordings(recordings),
        SupervisionSet.from_segments(make_supervision(r, speakers[r.id], f"TEXT OF {r.id}") for r in recordings),
    )


@pytest.mark.needs("torchaudio")
@pytest.mark.parametrize(("rate", "low", "high"), [(16000, 20.0, -400.0), (8000, 100.0, 3800.0)])
def test_torchaudio_agrees(rate: int, low: float, high: float):
    """Kaldi's filter bank as torchaudio has it: within 1e-3 in natural log energy (0.0043 dB)."""
    import torchaudio.compliance.kaldi as kaldi

    options = FeatureOptions(sampling_rate=rate, low_freq_hz=low, high_freq_hz=high)
    samples = speechlike(2 * rate + 77, 0).astype(np.float32)
    ours = make_fbank(options).extract(samples, rate)
    theirs = kaldi.fbank(
        torch.from_numpy(samples)[None],
        num_mel_bins=40,
        sample_frequency=rate,
        low_freq=low,
        high_freq=high,
        dither=0.0,
        snip_edges=False,
    )
    assert ours.shape == tuple(theirs.shape)
    assert np.abs(ours - theirs.numpy()).max() < 1e-3


@pytest.mark.needs("torchaudio")
def test_torchaudio_agrees_on_real_speech(utterances: list[Utterance]):
    import torchaudio.compliance.kaldi as kaldi

    samples, rate = soundfile.read(next(one.path for one in utterances if one.split == "test"), dtype="float32")
    ours = make_fbank(replace(RAW, sampling_rate=rate)).extract(samples, rate)
    theirs = kaldi.fbank(
        torch.from_numpy(samples)[None],
        num_mel_bins=40,
        sample_frequency=rate,
        high_freq=-400.0,
        dither=0.0,
        snip_edges=False,
    )
    assert np.abs(ours - theirs.numpy()).max() < 1e-3


@pytest.mark.parametrize("num_samples", [1600, 1679, 1680, 16000, 16079, 16081])
def test_frames_cover_the_utterance(num_samples: int):
    samples = speechlike(num_samples, 0).astype(np.float32)
    assert make_fbank(RAW).extract(samples, 16000).shape == (int(num_samples / 160 + 0.5), 40)


def test_a_click_lies_in_the_frame_of_its_time():
    samples = np.random.default_rng(0).normal(size=16000).astype(np.float32) * 1e-4
    samples[6480] = 0.5  # 405 ms: the middle of frame 40
    energy = make_fbank(RAW).extract(samples, 16000).mean(1)
    assert energy[39:42].argmax() == 1


def test_the_store_holds_the_split(tmp_path: Path):
    split = make_split(tmp_path, {"u1": "bob", "u2": "ann", "u3": "bob"})
    store = compute_features(split, RAW, tmp_path / "store")
    assert store.utt_ids == ("u2", "u1", "u3")
    assert store.speakers == ("ann", "bob", "bob")
    assert store.texts == ("TEXT OF u2", "TEXT OF u1", "TEXT OF u3")
    assert store.frame_shift_ms == 10.0
    samples = read_samples(split.recordings["u3"])
    assert np.array_equal(store.utt("u3").numpy(), make_fbank(RAW).extract(samples, 16000))


def test_each_speaker_has_mean_0_and_variance_1(tmp_path: Path):
    split = make_split(tmp_path, {"u1": "bob", "u2": "ann", "u3": "bob"})
    store = compute_features(split, FeatureOptions(), tmp_path / "store")
    raw = compute_features(split, RAW, tmp_path / "raw")
    for utt_ids in (["u2"], ["u1", "u3"]):
        frames = torch.cat([store.utt(utt_id) for utt_id in utt_ids]).double()
        assert torch.allclose(frames.mean(0), torch.zeros(40, dtype=torch.double), atol=1e-5)
        assert torch.allclose(frames.var(0, unbiased=False), torch.ones(40, dtype=torch.double), atol=1e-4)
        before = torch.cat([raw.utt(utt_id) for utt_id in utt_ids]).double()
        expected = (before - before.mean(0)) / before.std(0, unbiased=False)
        assert torch.allclose(frames, expected, atol=1e-5)


def test_speed_perturbed_copies_are_speakers_of_their_own(tmp_path: Path):
    split = make_split(tmp_path, {"u1": "bob", "u2": "ann"})
    options = FeatureOptions(cmvn="none", speed_factors=(0.9, 1.0, 1.1))
    store = compute_features(split, options, tmp_path / "store")
    assert store.utt_ids == ("sp0.9-u2", "sp0.9-u1", "u2", "u1", "sp1.1-u2", "sp1.1-u1")
    assert store.speakers == ("sp0.9-ann", "sp0.9-bob", "ann", "bob", "sp1.1-ann", "sp1.1-bob")
    assert store.texts[0] == "TEXT OF u2"
    num_frames = {utt_id: len(store.utt(utt_id)) for utt_id in store.utt_ids}
    assert num_frames["sp0.9-u1"] == pytest.approx(num_frames["u1"] / 0.9, abs=1)
    assert num_frames["sp1.1-u1"] == pytest.approx(num_frames["u1"] / 1.1, abs=1)
    with cpu_threads(1):  # as compute_features: two threads round otherwise, in the resampling too
        faster = Speed(1.1)(read_samples(split.recordings["u1"]), 16000)
        expected = make_fbank(options).extract(faster, 16000)
    assert np.array_equal(store.utt("sp1.1-u1").numpy(), expected)
    plain = compute_features(split, RAW, tmp_path / "plain")
    assert torch.equal(plain.utt("u1"), store.utt("u1"))


def test_faster_speech_has_higher_pitch():
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)[None]
    faster = Speed(1.1)(tone, 16000)[0]
    spectrum = np.abs(np.fft.rfft(faster * np.hanning(len(faster))))
    assert np.argmax(spectrum) * 16000 / len(faster) == pytest.approx(1100, abs=2)


def test_the_same_bytes_each_time_and_from_any_number_of_processes(tmp_path: Path):
    split = make_split(tmp_path, {f"u{n:02}": f"spk{n % 3}" for n in range(40)})
    options = FeatureOptions(speed_factors=(1.0, 1.1))
    for name, num_jobs in (("a", 1), ("b", 2), ("c", 2)):
        compute_features(split, options, tmp_path / name, Executor(num_jobs))
    for file in ("feats.safetensors", "frames.json"):
        first = (tmp_path / "a" / file).read_bytes()
        assert first == (tmp_path / "b" / file).read_bytes() == (tmp_path / "c" / file).read_bytes()


MORTAL_EXTRACTION = """
import os, signal, sys
from lhotse import RecordingSet, SupervisionSet
from asrkd.workflow import append_store
from asrkd.data.resample import resample
from asrkd.data.splits import CorpusSplit
from asrkd.features.fbank import FeatureOptions, compute_features
from asrkd.workflow.executor import Executor

recordings, supervisions, out_dir, last = sys.argv[1:]
append = append_store.AppendStore.append

def append_or_die(self, columns, label):
    if len(self.entries) == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, columns, label)

append_store.AppendStore.append = append_or_die
append_store.COMMIT_BYTES = 1
split = CorpusSplit(RecordingSet.from_file(recordings), SupervisionSet.from_file(supervisions))
compute_features(split, FeatureOptions(), out_dir, Executor(2))
"""


def test_a_killed_extraction_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Killed in the middle of a speaker, whose mean and variance are of all that is said: the same bytes."""
    split = make_split(tmp_path, {f"u{n:02}": f"spk{n % 3}" for n in range(21)})
    compute_features(split, FeatureOptions(), tmp_path / "whole")
    manifests = [tmp_path / "recordings.jsonl", tmp_path / "supervisions.jsonl"]
    split.recordings.to_file(manifests[0])
    split.supervisions.to_file(manifests[1])
    command = [sys.executable, "-c", MORTAL_EXTRACTION, *manifests, tmp_path / "killed", "10"]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    done = []
    extract = features.log_mel
    monkeypatch.setattr(features, "log_mel", lambda one, fbank: done.append(one.utt_id) or extract(one, fbank))
    compute_features(split, FeatureOptions(), tmp_path / "killed")
    # the second speaker anew, of whom three were written, and the third
    assert done == [f"u{n:02}" for speaker in (1, 2) for n in range(speaker, 21, 3)]
    for file in ("feats.safetensors", "frames.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_other_options_or_texts_give_another_fingerprint(tmp_path: Path):
    split = make_split(tmp_path, {"u1": "bob"})
    first = compute_features(split, RAW, tmp_path / "a")
    other_options = compute_features(split, FeatureOptions(), tmp_path / "b")
    renamed = CorpusSplit(
        split.recordings, SupervisionSet.from_segments(make_supervision(r, "bob", "NEW") for r in split.recordings)
    )
    other_text = compute_features(renamed, RAW, tmp_path / "c")
    assert len({first.fingerprint, other_options.fingerprint, other_text.fingerprint}) == 3
    assert compute_features(split, RAW, tmp_path / "d").fingerprint == first.fingerprint


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_a_fault_names_the_utterance_and_leaves_nothing(tmp_path: Path, num_jobs: int):
    split = make_split(tmp_path, {"u1": "bob", "u2": "bob", "u3": "ann"})
    samples = speechlike(8000 + 501, 1)
    samples[100] = np.nan
    soundfile.write(tmp_path / "u2.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(InputError, match="u2: expected finite features"):
        compute_features(split, RAW, tmp_path / "store", Executor(num_jobs))
    (tmp_path / "u2.wav").unlink()
    with pytest.raises(InputError, match="u2: missing audio"):
        compute_features(split, RAW, tmp_path / "store", Executor(num_jobs))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_another_sampling_rate_is_resampled_and_does_not_drift(tmp_path: Path, rate: int):
    """A click a second: in the frame of its time, to the last of 20 seconds."""
    samples = np.random.default_rng(0).normal(size=20 * rate) * 1e-4
    samples[rate // 2 :: rate] = 0.5
    soundfile.write(tmp_path / "u1.wav", samples, rate)
    recording = probe(tmp_path / "u1.wav", "u1")
    split = CorpusSplit(
        RecordingSet.from_recordings([recording]),
        SupervisionSet.from_segments([make_supervision(recording, "bob", "GO")]),
    )
    feats = compute_features(split, RAW, tmp_path / "store").utt("u1").numpy()
    assert len(feats) == 2000
    energy = feats[:, :20].mean(1)  # below the half of 8 kHz
    for second in range(20):
        frame = 100 * second + 50  # the click is where this frame begins
        assert energy[frame - 5 : frame + 5].argmax() in (4, 5)


def test_resampled_speech_has_the_features_of_speech_at_that_rate(tmp_path: Path):
    wide = speechlike(44100, 3).astype(np.float32)[None]
    low = resample(wide, 44100, 16000)
    for name, samples, rate in (("wide", wide, 44100), ("low", low, 16000)):
        soundfile.write(tmp_path / f"{name}.wav", samples[0], rate, subtype="FLOAT")
    recordings = [probe(tmp_path / f"{name}.wav", name) for name in ("low", "wide")]
    split = CorpusSplit(
        RecordingSet.from_recordings(recordings),
        SupervisionSet.from_segments(make_supervision(r, "bob", "GO") for r in recordings),
    )
    store = compute_features(split, RAW, tmp_path / "store", Executor(1))
    assert torch.equal(store.utt("low"), store.utt("wide"))
    faster = compute_features(split, replace(RAW, speed_factors=(1.1,)), tmp_path / "faster")
    assert torch.equal(faster.utt("sp1.1-low"), faster.utt("sp1.1-wide"))


def test_a_rate_that_cannot_be_resampled_names_the_utterance(tmp_path: Path):
    split = make_split(tmp_path, {"u1": "bob"}, rate=8009)
    with pytest.raises(InputError, match="u1: expected a sampling rate that can be resampled to 16000 Hz, found 8009"):
        compute_features(split, RAW, tmp_path / "store")


@pytest.mark.parametrize(("rate", "shift_ms"), [(22050, 10.0), (11025, 10.0), (16000, 10.03), (16000, 0.01)])
def test_a_frame_shift_of_no_whole_number_of_samples_is_refused(rate: int, shift_ms: float):
    with pytest.raises(
        InputError, match=r"features.sampling_rate: expected a whole number of samples in a frame shift"
    ):
        FeatureOptions(sampling_rate=rate, frame_shift_ms=shift_ms)
    FeatureOptions(sampling_rate=22050, frame_shift_ms=20.0)


def test_bad_options_are_refused():
    with pytest.raises(InputError, match="speed_factors"):
        FeatureOptions(speed_factors=(0.0,))
    with pytest.raises(InputError, match="cmvn: expected speaker, utterance, online or none, found corpus"):
        FeatureOptions(cmvn="corpus")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"speed_factors": (1.0, float("nan"))},
        {"speed_factors": (1.0, 1e-4)},
        {"speed_factors": (1.0, 1.0)},
        {"num_mel_bins": 100_000},
        {"frame_length_ms": float("nan")},
        {"sampling_rate": 200},
        {"high_freq_hz": 9000.0},
        {"low_freq_hz": 8000.0},
    ],
)
def test_options_that_make_no_features_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="features"):
        FeatureOptions(**options)


def test_online_normalisation_of_a_store_begins_with_the_prior(tmp_path: Path):
    split = make_split(tmp_path, {"u1": "bob", "u2": "ann", "u3": "bob"})
    raw = compute_features(split, RAW, tmp_path / "raw")
    prior = measure_prior(split, RAW)
    every = torch.cat([raw.utt(utt_id) for utt_id in raw.utt_ids]).double()
    np.testing.assert_allclose(prior.mean, every.mean(0), rtol=1e-6)
    np.testing.assert_allclose(prior.mean_square, every.square().mean(0), rtol=1e-6)
    store = compute_features(split, replace(RAW, cmvn="online"), tmp_path / "online", prior=prior)
    for utt_id in ("u1", "u2", "u3"):
        assert torch.equal(store.utt(utt_id), normalise([raw.utt(utt_id)], "online", prior)[0])
    other = replace(prior, mean=(0.0, *prior.mean[1:]))
    again = compute_features(split, replace(RAW, cmvn="online"), tmp_path / "online", prior=other)
    assert again.fingerprint != store.fingerprint
