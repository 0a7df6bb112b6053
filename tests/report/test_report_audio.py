"""Audio in the report: embedded once per utterance, recoded where browsers do not play it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from report_reader import Parsed
from sample_run import wav_bytes

from asrkd.errors import InputError
from asrkd.report.page import audio_uri

pytestmark = pytest.mark.needs("matplotlib", "jinja2", "soundfile")


class TestAudio:
    def test_is_embedded_once_an_utterance_and_keeps_its_samples(self, report: tuple[str, Parsed]) -> None:
        sources = [value for tag, value in report[1].resources if tag == "audio"]
        assert len(sources) == 2
        kind, payload = sources[0].split(",", 1)
        assert kind == "data:audio/flac;base64"
        samples, sampling_rate = soundfile.read(io.BytesIO(base64.b64decode(payload)), dtype="int16")
        expected, _ = soundfile.read(io.BytesIO(wav_bytes()), dtype="int16")
        assert sampling_rate == 8000
        np.testing.assert_array_equal(samples, expected)

    def test_may_be_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(wav_bytes())
        assert audio_uri(tmp_path / "a.wav", "a") == audio_uri(wav_bytes(), "a")

    def test_sphere_is_recoded(self) -> None:
        samples, sampling_rate = soundfile.read(io.BytesIO(wav_bytes()), dtype="int16")
        sphere = io.BytesIO()
        soundfile.write(sphere, samples, sampling_rate, format="NIST", subtype="PCM_16")
        assert sphere.getvalue().startswith(b"NIST_1A")
        assert audio_uri(sphere.getvalue(), "a") == audio_uri(wav_bytes(), "a")

    def test_floating_point_samples_are_heard(self) -> None:
        samples, sampling_rate = soundfile.read(io.BytesIO(wav_bytes()))
        whole = io.BytesIO()
        soundfile.write(whole, samples, sampling_rate, format="WAV", subtype="FLOAT")
        flac = base64.b64decode(audio_uri(whole.getvalue(), "a").partition(",")[2])
        assert np.abs(samples).max() > 0.01
        assert np.allclose(soundfile.read(io.BytesIO(flac))[0], samples, atol=1e-4)

    def test_floats_in_the_range_of_integers_are_not_clipped(self, tmp_path: Path) -> None:
        samples, sampling_rate = soundfile.read(io.BytesIO(wav_bytes()), dtype="int16")
        path = tmp_path / "a.wav"
        soundfile.write(path, samples.astype(np.float32), sampling_rate, subtype="FLOAT")
        assert audio_uri(path, "a") == audio_uri(wav_bytes(), "a")

    @pytest.mark.parametrize("content", [None, b"NIST_1A\n   1024\n", b"RIFF but cut", b""])
    def test_unusable_file_is_named_with_its_utterance(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "a.wav"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match="an9-fash-b"):
            audio_uri(path, "an9-fash-b")
