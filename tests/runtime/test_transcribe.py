"""Recordings to transcripts: short ones as a whole, long ones by segments, with bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_model import RATE, Acoustic, FakeModel, speech, tone_scores

from asrkd.errors import InputError
from asrkd.runtime.inputs import AudioInput
from asrkd.runtime.segmentation import CutRules
from asrkd.runtime.transcribe import TranscribeOptions, transcribe_blocks, transcribe_input, transcribe_samples

SHORT_CUTS = TranscribeOptions(cuts=CutRules(min_sec=1.0, max_sec=4.0, long_pause_sec=0.5, padding_sec=0.2))
SENTENCE = ((0, 0.4), 0.1, (1, 0.4), 0.1, (2, 0.4))


def wav(path: Path, *channels: np.ndarray, rate: int = RATE) -> AudioInput:
    soundfile.write(path, np.stack(channels, axis=1), rate)
    return AudioInput(path.stem, path)


def test_a_short_recording_is_one_segment() -> None:
    transcript = transcribe_samples(FakeModel(), speech(0.5, *SENTENCE, 0.5), RATE, name="short")
    assert transcript.text == "w0 w1 w2"
    (segment,) = transcript.segments
    assert (segment.start, segment.end) == (0.0, transcript.duration)
    times = [time for word in segment.words for time in (word.start, word.end)]
    assert times == pytest.approx([0.5, 0.9, 1.0, 1.4, 1.5, 1.9], abs=0.03)
    assert segment.words[0].confidence == 0.5


@pytest.mark.parametrize("kind", ["utterance", "online"])
def test_a_long_recording_is_cut_at_pauses(kind: str) -> None:
    samples = speech(0.3, *SENTENCE, 0.8, *SENTENCE, 3.0, *SENTENCE)
    whole = transcribe_samples(FakeModel(kind), samples, RATE)
    parts = transcribe_samples(FakeModel(kind), samples, RATE, SHORT_CUTS)
    assert len(whole.segments) == 1 and len(parts.segments) == 3
    assert parts.text == whole.text
    assert [word.start for word in parts.words] == pytest.approx([word.start for word in whole.words], abs=1e-6)
    assert all(segment.end - segment.start < 2.3 for segment in parts.segments), "silence is left out"


def test_words_do_not_depend_on_the_blocks() -> None:
    samples = speech(0.3, *SENTENCE, 0.8, *SENTENCE, 3.0, *SENTENCE)
    expected = list(transcribe_blocks(FakeModel(), [samples], SHORT_CUTS))
    for size in (777, 8000):
        blocks = np.split(samples, range(size, len(samples), size))
        assert list(transcribe_blocks(FakeModel(), blocks, SHORT_CUTS)) == expected


def test_memory_is_that_of_a_segment() -> None:
    """Ten minutes of speech and ten of silence: segments come while samples are read."""
    sentence = speech(*SENTENCE, 0.6)
    blocks = [sentence] * 300 + [np.zeros(RATE, np.float32)] * 600
    num_read = 0

    def reading():  # type: ignore[no-untyped-def]
        nonlocal num_read
        for block in blocks:
            num_read += len(block)
            yield block

    for number, segment in enumerate(transcribe_blocks(FakeModel(), reading())):
        assert num_read / RATE - segment.end < 32.0, f"segment {number}"
    assert number >= 20


@pytest.mark.parametrize(("kind", "times"), [("speaker", 2), ("utterance", 2), ("online", 1)])
def test_how_often_frames_of_a_long_recording_are_scored(
    kind: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once by a network that learnt running statistics; otherwise each segment is scored by itself, too."""
    num_scored = 0

    def counted(self: object, feats: np.ndarray, statistics: object = None) -> np.ndarray:
        nonlocal num_scored
        num_scored += len(feats)
        return tone_scores(feats)

    monkeypatch.setattr(Acoustic, "scores", counted)
    samples = np.tile(speech(*SENTENCE, 0.6), 100)
    transcript = transcribe_samples(FakeModel(kind), samples, RATE)
    assert len(transcript.words) == 300 and len(transcript.segments) > 5
    num_frames = round(100 * transcript.duration)
    assert 0.95 * times * num_frames <= num_scored <= 1.02 * times * num_frames


def test_silence_and_the_shortest_recordings() -> None:
    for seconds in (0.0, 0.01, 0.5, 100.0):
        transcript = transcribe_samples(FakeModel(), np.zeros(round(seconds * RATE), np.float32), RATE)
        assert transcript.segments == () and transcript.duration == pytest.approx(seconds)


def test_channels(tmp_path: Path) -> None:
    left, right = speech(0.5, (0, 0.5), 1.0), speech(1.2, (1, 0.5), 0.3)
    source = wav(tmp_path / "call.wav", left, right)

    def texts(choice: str) -> list[tuple[int, str]]:
        transcript = transcribe_input(FakeModel(), source, TranscribeOptions(channel=choice))
        return [(segment.channel, segment.text) for segment in transcript.segments]

    assert texts("auto") == texts("mix") == [(0, "w0 w1")]
    assert texts("1") == [(1, "w1")]
    assert texts("split") == [(0, "w0"), (1, "w1")]
    with pytest.raises(InputError, match="expected a channel from 0 to 1"):
        texts("2")
    with pytest.raises(InputError, match=r"eight.wav: expected one or two channels, found 8"):
        transcribe_input(FakeModel(), wav(tmp_path / "eight.wav", *[left] * 8))


def test_parts_of_files_and_progress(tmp_path: Path) -> None:
    source = wav(tmp_path / "a.wav", speech(1.0, (0, 0.5), 1.0, (3, 0.5), 1.0))
    read: list[float] = []
    part = transcribe_input(FakeModel(), AudioInput("cut", source.path, 2.0, 3.5), progress=read.append)
    assert part.text == "w3" and part.duration == 1.5
    assert part.words[0].start == pytest.approx(0.5, abs=0.03), "times count from the part's begin"
    assert sum(read) == pytest.approx(1.5)


def test_beam_and_hypotheses_reach_the_search() -> None:
    model = FakeModel()
    transcript = transcribe_samples(model, speech(0.5, (0, 0.5)), RATE, TranscribeOptions(beam=7.0, nbest=3))
    assert model.search.beams == [7.0]
    assert transcript.segments[0].alternatives == ("other 1", "other 2")


def test_low_rates_and_bad_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a sampling rate of 4000 Hz or more .* found 2000 Hz"):
        transcribe_input(FakeModel(), wav(tmp_path / "low.wav", np.zeros(4000), rate=2000))
    for options, message in (({"nbest": 0}, "--nbest"), ({"beam": -1.0}, "--beam"), ({"channel": "left"}, "--channel")):
        with pytest.raises(InputError, match=message):
            TranscribeOptions(**options)  # type: ignore[arg-type]
