"""Audio is read to its end, whatever its header says; a file that is cut, joined or damaged is refused by name."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrkd.data.audio import AudioError, file_scale, probe, read_part, read_samples, read_scaled

RATE = 16000
PLACE_HOLDERS = [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 2_000_000_000, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF - 44]


def noise(num_samples: int = 8000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-5000, 5000, num_samples).astype(np.int16)


def speechlike(num_samples: int = 5 * RATE) -> np.ndarray:
    """Noise whose level changes, in ±1, with silence at the end: a codec's bit rate changes with it."""
    samples = np.random.default_rng(0).normal(size=num_samples) * 0.1
    samples *= np.abs(np.sin(np.arange(num_samples) / 3000))
    samples[3 * num_samples // 4 :] = 0
    return samples


def wav(data: bytes, size: int, riff_size: int = 0, chunks: bytes = b"", bits: int = 16, channels: int = 1) -> bytes:
    block = channels * bits // 8
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, RATE, RATE * block, block, bits)
    return struct.pack("<4sI4s", b"RIFF", riff_size, b"WAVE") + fmt + chunks + struct.pack("<4sI", b"data", size) + data


def samples_of(path: Path) -> np.ndarray:
    recording = probe(path, "u")
    samples = read_samples(recording)
    assert samples.shape[1] == recording.num_samples
    assert recording.duration == recording.num_samples / recording.sampling_rate
    return samples


@pytest.mark.parametrize("size", PLACE_HOLDERS)
@pytest.mark.parametrize("chunks", [b"", struct.pack("<4sI6s", b"LIST", 5, b"INFOx")], ids=["plain", "list"])
def test_wav_of_a_stream_is_read_to_its_end(tmp_path: Path, size: int, chunks: bytes):
    path = tmp_path / "streamed.wav"
    for riff_size in (0, (size + 36) & 0xFFFFFFFF, 0xFFFFFFFF):
        path.write_bytes(wav(noise().tobytes(), size, riff_size, chunks))
        assert np.array_equal(samples_of(path)[0], noise().astype(np.float32) / 32768)
        assert np.array_equal(read_part(path, 100, 900, "int16")[:, 0], noise()[100:900])


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "GSM610", "MS_ADPCM", "IMA_ADPCM"])
@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_wav_of_a_stream_in_other_codings(tmp_path: Path, subtype: str, size: int):
    """The size is rounded down to blocks of samples, as sox does it."""
    whole, path = tmp_path / "whole.wav", tmp_path / "streamed.wav"
    soundfile.write(whole, speechlike(), RATE, subtype=subtype)
    content = bytearray(whole.read_bytes())
    at = content.find(b"data") + 4
    block = struct.unpack("<H", content[32:34])[0]
    content[at : at + 4] = struct.pack("<I", size // block * block)
    path.write_bytes(content)
    assert np.array_equal(samples_of(path), samples_of(whole))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1])
def test_rf64_of_a_stream_is_read_to_its_end(tmp_path: Path, size: int):
    path = tmp_path / "streamed.rf64"
    soundfile.write(path, noise(), RATE, format="RF64", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    at = content.find(b"ds64") + 16
    content[at : at + 8] = struct.pack("<Q", size)
    path.write_bytes(content)
    assert np.array_equal(samples_of(path)[0], noise().astype(np.float32) / 32768)


def test_a_size_that_is_no_place_holder_means_truncation(tmp_path: Path):
    path = tmp_path / "cut.wav"
    for size in (16001, 1_999_000_000, 0x7FFFE000, 0xFFFF0000):
        path.write_bytes(wav(noise().tobytes()[:-2], size, size + 36))
        with pytest.raises(AudioError, match=f"truncated audio: expected {size + 44} bytes in .*cut.wav, found 16042"):
            probe(path, "u")


def test_samples_behind_the_size_of_the_header_are_not_lost(tmp_path: Path):
    path = tmp_path / "small.wav"
    path.write_bytes(wav(noise().tobytes(), 4000))
    with pytest.raises(AudioError, match=r"expected the last sample at byte 4044 by the header, found 16044 bytes"):
        probe(path, "u")
    for rest in (struct.pack("<4sI100s", b"LIST", 100, b"INFO"), b"\0" + b"LIST" + bytes(200), bytes(512), b"TAG" * 40):
        path.write_bytes(wav(noise(2000).tobytes() + rest, 4000))
        assert samples_of(path).shape == (1, 2000)


def test_big_endian_wav(tmp_path: Path):
    path = tmp_path / "big.wav"
    soundfile.write(path, noise(), RATE, subtype="PCM_16", endian="BIG")
    assert path.read_bytes()[:4] == b"RIFX"
    assert samples_of(path).shape == (1, 8000)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(AudioError, match="truncated audio"):
        probe(path, "u")


def test_wav_without_samples_is_empty(tmp_path: Path):
    path = tmp_path / "empty.wav"
    for content in (wav(b"", 0), wav(b"", 0xFFFFFFFF), wav(struct.pack("<4sI4s", b"LIST", 4, b"INFO"), 0)):
        path.write_bytes(content)
        with pytest.raises(AudioError, match=r"empty audio: expected samples in .*empty.wav, found none"):
            probe(path, "u")


@pytest.mark.parametrize("kind", ["RF64", "W64", "AIFF", "AU", "WAVEX", "NIST", "FLAC", "OGG", "MP3", "CAF"])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, kind: str):
    path = tmp_path / "cut.audio"
    soundfile.write(path, speechlike(), RATE, format=kind)
    assert samples_of(path).shape == (1, 5 * RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(AudioError, match=r"truncated audio|unreadable audio"):
        samples_of(path)


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_joined_files_are_refused(tmp_path: Path, kind: str, subtype: str):
    """libsndfile reads the first of them alone."""
    path = tmp_path / "joined.audio"
    soundfile.write(path, speechlike(), RATE, format=kind, subtype=subtype)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(AudioError, match="found another one at byte"):
        probe(path, "u")


@pytest.mark.parametrize("tail", [b"", b"TAG" + bytes(125), bytes(1000), b"cut"], ids=["none", "id3", "zeros", "cut"])
def test_mp3_without_a_length_is_whole(tmp_path: Path, tail: bytes):
    """libsndfile estimates its length, too short here by far, and reads no further."""
    path = tmp_path / "stated.mp3"
    soundfile.write(path, speechlike(), RATE, format="MP3")
    content = path.read_bytes()
    assert b"Xing" in content[:64] or b"Info" in content[:64]
    second_frame = content.find(content[:2], 4)
    bare = tmp_path / "bare.mp3"
    bare.write_bytes(content[second_frame:-10] if tail == b"cut" else content[second_frame:] + tail)
    samples = samples_of(bare)
    assert 5 * RATE - 1152 <= samples.shape[1] <= 5 * RATE + 2 * 1152
    assert np.abs(read_part(bare, 20000, 30000, "float32").T - samples[:, 20000:30000]).max() < 1e-6


def test_mp3_that_is_damaged_is_refused(tmp_path: Path):
    path = tmp_path / "damaged.mp3"
    soundfile.write(path, speechlike(), RATE, format="MP3")
    content = path.read_bytes()[288:]
    path.write_bytes(content[:8000] + bytes(6000) + content[14000:])
    with pytest.raises(AudioError, match="unreadable audio"):
        probe(path, "u")


def flac(path: Path, total_samples: int) -> Path:
    """A FLAC file of 8,000 samples that states another number."""
    soundfile.write(path, noise(), RATE, format="FLAC")
    content = bytearray(path.read_bytes())
    content[21] = content[21] & 0xF0 | total_samples >> 32
    content[22:26] = struct.pack(">I", total_samples & 0xFFFFFFFF)
    path.write_bytes(content)
    return path


def test_flac_of_a_stream_is_whole(tmp_path: Path):
    path = flac(tmp_path / "streamed.flac", 0)
    assert np.array_equal(samples_of(path)[0], noise().astype(np.float32) / 32768)
    assert np.array_equal(read_part(path, 5000, 8000, "int16")[:, 0], noise()[5000:])
    with pytest.raises(AudioError, match="truncated audio: expected 8001 samples"):
        read_part(path, 5000, 8001, "int16")


@pytest.mark.parametrize("total_samples", [8001, 1 << 20, (1 << 36) - 1])
def test_no_header_decides_how_much_memory_is_taken(tmp_path: Path, total_samples: int):
    """2^36 samples would take 256 GiB."""
    with pytest.raises(AudioError, match=r"truncated audio|unreadable audio"):
        samples_of(flac(tmp_path / "large.flac", total_samples))


def test_shortened_sphere_is_refused_with_the_way_out(tmp_path: Path):
    path = tmp_path / "short.sph"
    soundfile.write(path, noise(), RATE, format="NIST")
    fields = path.read_bytes().replace(b"sample_coding -s3 pcm", b"sample_coding -s26 pcm,embedded-shorten-v2.00")
    path.write_bytes(fields[:1024] + fields[-16000:])
    with pytest.raises(AudioError, match=r"expected uncompressed SPHERE, found pcm,embedded-shorten.*sph2pipe -f wav"):
        probe(path, "u")


def test_what_is_no_file_is_missing(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to(tmp_path / "nothing")
    for name in ("fifo", "folder", "link"):
        with pytest.raises(AudioError, match=f"missing audio: expected .*{name}.wav"):
            probe(tmp_path / f"{name}.wav", "u")
    (tmp_path / "text.raw").write_text("no audio")
    with pytest.raises(AudioError, match="unreadable audio"):
        probe(tmp_path / "text.raw", "u")


def test_a_name_in_another_encoding_is_read(tmp_path: Path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    soundfile.write(name, noise(), RATE)
    assert samples_of(Path(os.fsdecode(name))).shape == (1, 8000)


@pytest.mark.parametrize(
    ("scale", "subtype"), [(1.0, "FLOAT"), (2.0**15, "FLOAT"), (2.0**23, "DOUBLE"), (2.0**31, "FLOAT")]
)
def test_floats_in_an_integers_range_are_scaled_exactly(tmp_path: Path, scale: float, subtype: str):
    path = tmp_path / "float.wav"
    soundfile.write(path, noise() / 32768 * scale, RATE, subtype=subtype)
    samples, found = read_scaled(probe(path, "u"))
    assert found == scale == file_scale(path)
    assert np.array_equal(samples[0], noise().astype(np.float32) / 32768)


def test_floats_a_little_beyond_full_scale_stay_as_they_are(tmp_path: Path):
    path = tmp_path / "hot.wav"
    hot = (noise() / 32768 * 20).astype(np.float32)
    soundfile.write(path, hot, RATE, subtype="FLOAT")
    assert np.abs(hot).max() > 3
    assert np.array_equal(samples_of(path)[0], hot)


def test_floats_beyond_every_range_are_refused(tmp_path: Path):
    path = tmp_path / "huge.wav"
    soundfile.write(path, noise() * 1e20, RATE, subtype="DOUBLE")
    with pytest.raises(AudioError, match=r"expected samples in ±1 or in the range of integers, found 5e\+23"):
        samples_of(path)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "NIST", "OGG", "MP3", "AIFF", "RF64", "W64", "AU", "CAF"])
def test_damaged_headers_give_one_line(tmp_path: Path, kind: str):
    """Bytes of the first 200 changed at random: the file is read, or it is refused as audio."""
    path = tmp_path / "fuzzed.audio"
    soundfile.write(path, speechlike(RATE), RATE, format=kind)
    content, generator = path.read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(60):
        damaged = bytearray(content)
        for at in generator.integers(0, 200, generator.integers(1, 6)):
            damaged[at] = generator.choice([0, 1, 0x7F, 0x80, 0xFF, generator.integers(256)])
        path.write_bytes(damaged)
        try:
            assert samples_of(path).shape[1] > 0
        except AudioError as error:
            messages.append(str(error))
    assert messages and not any("\n" in message for message in messages)


@pytest.mark.parametrize(("suffix", "kind"), [("flac", "FLAC"), ("au", "AU"), ("sph", "NIST"), ("w64", "W64")])
def test_a_second_file_behind_the_first_is_refused(tmp_path: Path, suffix: str, kind: str) -> None:
    """libsndfile passes over the second one, or reads its header as speech."""
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.random.default_rng(0).integers(-9000, 9000, 8000).astype(np.int16), 16000, format=kind)
    assert read_samples(probe(path, "a")).shape == (1, 8000)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(AudioError, match=f"expected one {kind} file, found another one at byte"):
        read_samples(probe(path, "a"))
