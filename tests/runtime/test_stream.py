"""Streams: the same words whatever the sizes of the messages, those of the file, and final words for ever."""

from __future__ import annotations

import numpy as np
import pytest
from fake_model import RATE, FakeModel, speech
from hypothesis import given, settings
from hypothesis import strategies as st
from optional_packages import skip_without

from asrkd.errors import InputError
from asrkd.runtime.segmentation import EndpointRules
from asrkd.runtime.stream import Stream
from asrkd.runtime.transcribe import transcribe_samples

SENTENCE = ((0, 0.4), 0.1, (1, 0.4), 0.1, (2, 0.4))
RULES = EndpointRules(silence_without_words_sec=1.0, silence_after_words_sec=0.5, max_sec=3.0)


def pcm(samples: np.ndarray) -> bytes:
    return np.round(samples * 32767).astype("<i2").tobytes()


def stream_of(samples: np.ndarray, size: int = 800, **options: object) -> Stream:
    stream = Stream(FakeModel(), **options)  # type: ignore[arg-type]
    for part in np.split(samples, range(size, len(samples), size)):
        stream.accept(part)
    return stream


def test_partial_words_come_before_final_ones() -> None:
    stream = Stream(FakeModel())
    samples = speech(0.5, *SENTENCE, 1.5, (3, 0.5))
    seen: list[str] = []
    finals: list[str] = []
    for part in np.split(samples, range(400, len(samples), 400)):
        finals += [segment.text for segment in stream.accept(part)]
        if not seen or stream.partial != seen[-1]:
            seen.append(stream.partial)
    assert seen == ["", "w0", "w0 w1", "w0 w1 w2", "", "w3"]
    assert finals == ["w0 w1 w2"]
    transcript = stream.final()
    assert transcript.text == "w0 w1 w2 w3" and transcript.duration == pytest.approx(len(samples) / RATE)
    assert stream.partial == "" and stream.final() == transcript


def test_partial_words_come_soon() -> None:
    """A word is there 0.3 s after its begin: a chunk, the right context and the window."""
    stream = Stream(FakeModel())
    stream.accept(speech(1.0, (2, 0.31)))
    (word,) = stream.partial_words
    assert word.text == "w2" and word.start == pytest.approx(1.0, abs=0.03)


def test_segments_end_after_pauses() -> None:
    samples = speech(0.2, *SENTENCE, 2.0, *SENTENCE, 0.2)
    segments = stream_of(samples, rules=RULES).final().segments
    assert [segment.text for segment in segments] == ["w0 w1 w2", "w0 w1 w2"]
    assert segments[0].end == pytest.approx(0.2 + 1.4 + 0.5, abs=0.05)
    assert segments[1].words[0].start == pytest.approx(3.6, abs=0.05)


def test_silence_is_dropped() -> None:
    stream = stream_of(np.zeros(60 * RATE, np.float32))
    assert stream.final().segments == ()


def test_a_segment_that_is_too_long_ends_between_words() -> None:
    """Words of 0.4 s without pauses that end segments: no word is cut, lost or there twice."""
    samples = speech(*(turn for number in range(30) for turn in ((number % 4, 0.4), 0.05)))
    segments = stream_of(samples, rules=RULES).final().segments
    assert [word.text for one in segments for word in one.words] == [f"w{number % 4}" for number in range(30)]
    assert len(segments) >= 4 and all(segment.end - segment.start <= 3.0 for segment in segments)
    one_word = stream_of(speech((0, 7.0)), rules=RULES).final().segments
    assert [time for one in one_word for time in (one.start, one.end)] == pytest.approx([0, 3, 3, 6, 6, 7], abs=0.02)


turns = st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 1.0), st.floats(0.05, 1.5)), min_size=1, max_size=8)
sizes = st.lists(st.integers(0, 9000), min_size=1, max_size=12)


def samples_of(spoken: list[tuple[int, float, float]]) -> np.ndarray:
    return speech(0.2, *(turn for tone, seconds, pause in spoken for turn in ((tone, seconds), pause)))


@given(turns, sizes)
@settings(max_examples=40, deadline=None)
def test_results_do_not_depend_on_the_sizes_of_messages(
    spoken: list[tuple[int, float, float]], lengths: list[int]
) -> None:
    data = pcm(samples_of(spoken))
    whole, parts = (Stream(FakeModel(), rules=RULES) for _ in range(2))
    whole.accept(data)
    at, finals = 0, []
    for length in lengths:
        finals += parts.accept(data[at : at + length])  # half a sample too
        at += length
        assert tuple(finals) == parts.segments, "final segments stay as they are"
    finals += parts.accept(data[at:])
    assert parts.final() == whole.final()
    assert parts.segments[: len(finals)] == tuple(finals)


@given(turns)
@settings(max_examples=30, deadline=None)
def test_results_are_those_of_the_file(spoken: list[tuple[int, float, float]]) -> None:
    samples = samples_of([(tone, seconds, min(pause, 1.0)) for tone, seconds, pause in spoken])
    of_file = transcribe_samples(FakeModel("online"), samples, RATE)
    of_stream = stream_of(samples, 1000).final()
    assert of_stream.segments == of_file.segments


def test_other_sampling_rates() -> None:
    skip_without("soxr")
    stream = stream_of(speech(0.5, *SENTENCE, 0.5, rate=48000), sampling_rate=48000)
    transcript = stream.final()
    assert transcript.text == "w0 w1 w2" and transcript.duration == pytest.approx(2.4, abs=0.001)


def test_samples_that_are_refused() -> None:
    stream = Stream(FakeModel())
    with pytest.raises(InputError, match=r"stream: expected finite samples, found NaN or infinity after 0.00 s"):
        stream.accept(np.array([0.0, np.inf]))
    with pytest.raises(InputError, match="one channel"):
        stream.accept(np.zeros((2, 80)))
    with pytest.raises(InputError, match="found int64"):
        stream.accept(np.zeros(80, np.int64))
    with pytest.raises(InputError, match="stream: expected a sampling rate of 4000 Hz or more"):
        Stream(FakeModel(), sampling_rate=3000)  # type: ignore[arg-type]
    stream.accept(b"\0")
    stream.final()
    with pytest.raises(InputError, match="after its end"):
        stream.accept(b"\0\0")
