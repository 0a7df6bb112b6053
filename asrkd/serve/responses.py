"""Transcripts as OpenAI's API answers with them (POST /v1/audio/transcriptions)."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection
from typing import Any

from asrkd.runtime.transcript import Segment, Transcript
from asrkd.runtime.writers import as_object, srt_of, vtt_of

MEDIA_TYPES = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "text/plain; charset=utf-8",
    "verbose_json": "application/json",
    "vtt": "text/vtt; charset=utf-8",
}
STREAMED_FORMATS = ("json", "text")
EVENT_STREAM = "text/event-stream; charset=utf-8"
GRANULARITIES = ("word", "segment")
LANGUAGE = "unknown"
"""A model does not say which one it has learnt."""
LEAST_PROBABILITY = 1e-4


def body(transcript: Transcript, response_format: str, granularities: Collection[str] = ("segment",)) -> str:
    """The whole body of a response in one of MEDIA_TYPES. `granularities`: of verbose_json, word and segment."""
    if response_format == "text":
        return f"{transcript.text}\n"
    if response_format == "srt":
        return srt_of(transcript)
    if response_format == "vtt":
        return vtt_of(transcript)
    values = verbose(transcript, granularities) if response_format == "verbose_json" else {"text": transcript.text}
    return json.dumps(values, ensure_ascii=False)


def event_stream(transcript: Transcript) -> str:
    """The events of a request with `stream`: the text of each segment, then the whole."""
    texts = [segment.text for segment in transcript.segments]
    deltas = [f" {text}" if number else text for number, text in enumerate(texts)]
    events = [{"type": "transcript.text.delta", "delta": delta} for delta in deltas]
    events.append({"type": "transcript.text.done", "text": transcript.text})
    return "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)


def verbose(transcript: Transcript, granularities: Collection[str]) -> dict[str, Any]:
    """verbose_json: the text with its words, its segments, or both. Words have our `probability` as an addition."""
    plain = as_object(transcript)
    values = {"task": "transcribe", "language": LANGUAGE, "duration": plain["duration"], "text": plain["text"]}
    if "word" in granularities:
        values["words"] = [word for segment in plain["segments"] for word in segment["words"]]
    if "segment" in granularities:
        pairs = zip(transcript.segments, plain["segments"], strict=True)
        values["segments"] = [_segment(segment, shown) for segment, shown in pairs]
    return values


def _segment(segment: Segment, shown: dict[str, Any]) -> dict[str, Any]:
    """A segment with every key that the clients' classes require; what has no meaning for a senone model is empty."""
    data = segment.text.encode()
    return {
        **{name: shown[name] for name in ("id", "start", "end", "text")},
        "seek": 0,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": _mean_log_probability(segment),
        "compression_ratio": round(len(data) / len(zlib.compress(data)), 3),
        "no_speech_prob": 0.0,
    }


def _mean_log_probability(segment: Segment) -> float | None:
    """Mean of the logarithms of the words' confidences; None without them."""
    known = [word.confidence for word in segment.words if word.confidence is not None]
    if not known:
        return None
    return round(sum(math.log(max(value, LEAST_PROBABILITY)) for value in known) / len(known), 4)
