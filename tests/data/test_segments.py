"""Whole files and segments of them have the same samples, whatever the format; channels are copied one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asrkd.data.audio import probe, read_samples
from asrkd.data.segments import Length, Segment, split_from_segments
from asrkd.data.validate import validate
from asrkd.features.fbank import FeatureOptions, compute_features

RATE = 16000


def noise(num_samples: int = 4 * RATE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=num_samples) * 0.1


def segment(path: Path, start: float = 0.0, end: float | None = None, **others) -> Segment:
    return replace(Segment("u", path, start, end, "spk", "go"), **others)


def samples_of(segments_dir: Path, *segments: Segment) -> list[np.ndarray]:
    split = split_from_segments(segments, segments_dir)
    assert split.rejected == ()
    return [read_samples(recording) for recording in split.recordings]


FORMATS = [
    *[("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "GSM610")],
    *[("FLAC", "PCM_24"), ("NIST", "PCM_16"), ("AIFF", "FLOAT"), ("OGG", "VORBIS"), ("OGG", "OPUS")],
]


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_a_segment_has_the_samples_of_the_whole_file(tmp_path: Path, kind: str, subtype: str):
    path = tmp_path / "long.audio"
    soundfile.write(path, noise(), RATE, format=kind, subtype=subtype)
    whole = read_samples(probe(path, "u"))
    part = samples_of(tmp_path / "segments", segment(path, 1.25, 2.5))[0]
    assert np.array_equal(part, whole[:, 20000:40000])


@pytest.mark.parametrize("scale", [1.0, 10.0, 2.0**15, 2.0**31])
def test_floats_beyond_full_scale_have_the_same_features_whole_and_in_segments(
    tmp_path: Path, scale: float, caplog: pytest.LogCaptureFixture
):
    """The quiet segment does not show that its recording is in the range of 16-bit integers."""
    samples = noise()
    samples[RATE : 2 * RATE] *= 3e-3
    paths = {"long": (samples, scale), "loud": (samples[2 * RATE :], scale), "quiet": (samples[RATE : 2 * RATE], 1.0)}
    for name, (part, factor) in paths.items():
        soundfile.write(tmp_path / f"{name}.wav", part * factor, RATE, subtype="FLOAT")
    long = tmp_path / "long.wav"
    cut = [
        segment(long, 2.0, 4.0, utt_id="loud"),
        segment(long, 1.0, 2.0, utt_id="quiet"),
    ]
    whole = [segment(tmp_path / f"{name}.wav", utt_id=name) for name in ("loud", "quiet")]
    splits = [split_from_segments(segments, tmp_path / "segments") for segments in (cut, whole)]
    reported = [message for message in caplog.messages if "integer's range" in message]
    assert len(reported) == (scale > 100)
    assert all(message.startswith("1 recordings have floating-point samples") for message in reported)
    stores = [
        compute_features(validate(split, RATE)[0], FeatureOptions(cmvn="none"), tmp_path / f"store{number}")
        for number, split in enumerate(splits)
    ]
    assert torch.equal(stores[0].utt("loud"), stores[1].utt("loud"))
    if scale != 10.0:  # whose long recording is in ±1, but too loud
        assert torch.equal(stores[0].utt("quiet"), stores[1].utt("quiet"))


@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("NIST", "PCM_16")]
)
@pytest.mark.parametrize("end", [None, 2.0])
def test_each_utterance_has_its_own_channel(tmp_path: Path, kind: str, subtype: str, end: float | None):
    path = tmp_path / "two.audio"
    channels = [noise(seed=seed) for seed in (0, 1)]
    soundfile.write(path, np.stack(channels, axis=1), RATE, format=kind, subtype=subtype)
    expected = read_samples(probe(path, "u"))
    segments = [segment(path, end=end, channel=channel, utt_id=f"u{channel}") for channel in (0, 1)]
    probed = split_from_segments(segments, None)
    split = split_from_segments(segments, tmp_path / "segments")
    assert [(one.num_channels, one.num_samples, one.duration) for one in probed.recordings] == [
        (one.num_channels, one.num_samples, one.duration) for one in split.recordings
    ]
    assert validate(split, RATE)[1] == []
    for channel, recording in enumerate(split.recordings):
        assert np.array_equal(read_samples(recording)[0], expected[channel, : round((end or 4.0) * RATE)])


def test_a_channel_that_is_missing_or_not_named(tmp_path: Path):
    mono, stereo = tmp_path / "mono.wav", tmp_path / "stereo.wav"
    soundfile.write(mono, noise(), RATE)
    soundfile.write(stereo, np.stack([noise(), noise()], axis=1), RATE)
    segments = [
        segment(mono, channel=0, utt_id="fine"),
        segment(mono, channel=1, utt_id="second of one"),
        segment(stereo, channel=2, utt_id="third of two"),
        segment(stereo, channel=-1, utt_id="negative"),
        segment(stereo, 1.0, 2.0, utt_id="unnamed"),
    ]
    split = split_from_segments(segments, tmp_path / "segments")
    assert list(split.recordings.ids) == ["fine"]
    assert split.recordings["fine"].sources[0].source == str(mono)
    assert [fault.reason for fault in split.rejected] == [
        f"expected channel 1 (the first is 0) in {mono}, found 1 channels",
        f"expected channel 2 (the first is 0) in {stereo}, found 2 channels",
        f"expected channel -1 (the first is 0) in {stereo}, found 2 channels",
        "expected one channel, or an utterance that names its channel, found 2",
    ]
    assert not (tmp_path / "segments").exists()


def test_a_segment_of_damaged_audio_is_rejected_and_leaves_no_copy(tmp_path: Path):
    cut, nan = tmp_path / "cut.flac", tmp_path / "nan.wav"
    soundfile.write(cut, noise(), RATE)
    cut.write_bytes(cut.read_bytes()[:60000])
    samples = noise()
    samples[20000] = np.nan
    soundfile.write(nan, samples, RATE, subtype="FLOAT")
    segments = [segment(cut, 3.0, 3.5, utt_id="cut"), segment(nan, 1.0, 2.0, utt_id="nan")]
    split = split_from_segments(segments, tmp_path / "segments")
    assert [fault.utt_id for fault in split.rejected] == ["cut", "nan"]
    assert split.rejected[0].reason.startswith("unreadable audio")
    assert split.rejected[1].reason.startswith("expected finite samples")
    assert not list(tmp_path.glob("segments/*"))


def test_copies_are_used_again_unless_the_file_or_the_cut_changes(tmp_path: Path):
    path, folder = tmp_path / "long.wav", tmp_path / "segments"
    soundfile.write(path, noise(), RATE, subtype="FLOAT")
    samples_of(folder, segment(path, 1.0, 2.0))
    (copy,) = folder.iterdir()
    before = copy.stat().st_mtime_ns
    samples_of(folder, segment(path, 1.0, 2.0))
    assert [one.stat().st_mtime_ns for one in folder.iterdir()] == [before]
    samples_of(folder, segment(path, 1.0, 2.1))
    soundfile.write(path, noise(seed=5, num_samples=5 * RATE), RATE, subtype="FLOAT")
    samples_of(folder, segment(path, 1.0, 2.0))
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize(
    ("kind", "subtype", "expected", "is_good"),
    [
        ("WAV", "PCM_16", Length(RATE, 4 * RATE, 4.0), True),
        ("WAV", "PCM_16", Length(RATE, 4 * RATE - 160, 3.99), True),  # rounded to 10 ms, as Kaldi's reco2dur is
        ("WAV", "PCM_16", Length(8000, 4 * RATE, 8.0), False),
        ("WAV", "PCM_16", Length(8000, 4 * 8000, 4.0), False),
        ("WAV", "PCM_16", Length(RATE, 2 * RATE, 2.0), False),
        ("WAV", "PCM_16", Length(RATE, 4 * RATE, 2.0), False),
        ("WAV", "PCM_16", Length(RATE, 2 * RATE, 4.0), False),
        ("WAV", "PCM_16", Length(0, 0, 4.0), False),
        ("MP3", "MPEG_LAYER_III", Length(RATE, 4 * RATE + 1105, 4.069), True),
        ("MP3", "MPEG_LAYER_III", Length(RATE, 2 * RATE, 2.0), False),
        ("OGG", "OPUS", Length(48000, 4 * 48000, 4.0), True),  # Lhotse's rate; the file may have another
        ("OGG", "OPUS", Length(RATE, 8 * RATE, 8.0), False),
    ],
)
def test_a_manifest_that_contradicts_its_file_rejects_the_utterance(
    tmp_path: Path, kind: str, subtype: str, expected: Length, is_good: bool
):
    path = tmp_path / "long.audio"
    soundfile.write(path, noise(), RATE, format=kind, subtype=subtype)
    split = split_from_segments([segment(path, 0.0, 1.0, expected=expected)], None)
    reasons = [one.reason for one in split.rejected]
    assert (reasons == []) == is_good
    assert all(f"its manifest says {expected}, {path} has " in reason for reason in reasons)
