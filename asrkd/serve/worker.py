"""A process that computes for the server: `python -m asrkd.serve.worker MODEL...`, with messages on its pipes.

The search holds Python's lock while it computes, so it would stop the server's event loop. One process computes for
several streams in turn, or for one file at a time. It ends when its standard input does.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from asrkd.errors import InputError
from asrkd.runtime.model import Model, load
from asrkd.runtime.stream import Stream
from asrkd.runtime.transcript import Transcript
from asrkd.runtime.writers import TIME_DIGITS, as_object
from asrkd.serve.messages import Message, encode, read

FAULT = "the server failed at this audio; its log says how"


class Work:
    """What a worker does: streams that are open, and files."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = models
        self._streams: dict[int, Stream] = {}
        self._partials: dict[int, str] = {}

    def answer(self, message: Message) -> dict[str, Any]:
        """The answer to one message. A fault of one stream ends this stream alone."""
        values, begin = message.values, time.perf_counter()
        try:
            operation = {
                "open": self._open,
                "accept": self._accept,
                "final": self._final,
                "drop": self._drop,
                "transcribe": self._transcribe,
            }[values["do"]]
            answer = operation(values, message.payload)
        except InputError as error:
            self._drop(values, b"")
            answer = {"refused": str(error)}
        except Exception:  # noqa: BLE001 - whatever it is, it must not end the streams of others
            traceback.print_exc()
            self._drop(values, b"")
            answer = {"fault": FAULT}
        return {**answer, "busy": time.perf_counter() - begin}

    def _open(self, values: dict[str, Any], _: bytes) -> dict[str, Any]:
        model = self._models[values["model"]]
        rate, confidences = values["sampling_rate"] or model.sampling_rate, values["confidences"]
        self._streams[values["stream"]] = model.stream(sampling_rate=rate, confidences=confidences)
        return {"sampling_rate": rate}

    def _accept(self, values: dict[str, Any], payload: bytes) -> dict[str, Any]:
        number = values["stream"]
        stream = self._streams[number]
        segments = stream.accept(payload)
        answer: dict[str, Any] = {"audio": stream.duration, "segments": _objects(segments)}
        text = stream.partial
        if text != self._partials.get(number, "") or segments:
            self._partials[number] = text
            answer["partial"] = {
                "text": text,
                "words": [
                    {"word": word.text, "start": round(word.start, TIME_DIGITS), "end": round(word.end, TIME_DIGITS)}
                    for word in stream.partial_words
                ],
            }
        return answer

    def _final(self, values: dict[str, Any], _: bytes) -> dict[str, Any]:
        stream = self._streams[values["stream"]]
        before = len(stream.segments)
        transcript = stream.final()
        self._drop(values, b"")
        segments = _objects(transcript.segments[before:])
        return {"audio": transcript.duration, "segments": segments, "text": transcript.text}

    def _drop(self, values: dict[str, Any], _: bytes) -> dict[str, Any]:
        self._streams.pop(values.get("stream", -1), None)
        self._partials.pop(values.get("stream", -1), None)
        return {}

    def _transcribe(self, values: dict[str, Any], _: bytes) -> dict[str, Any]:
        from asrkd.serve.files import transcribe_upload

        return transcribe_upload(self._models[values["model"]], values)


def _objects(segments: Sequence[Any]) -> list[dict[str, Any]]:
    shown = as_object(Transcript("stream", 0.0, tuple(segments)))["segments"]
    return [{name: one[name] for name in ("start", "end", "text", "words")} for one in shown]


def describe(model: Model, path: Path) -> dict[str, Any]:
    """What the server says of a model."""
    return {"name": model.name, "file": path.name, "sampling_rate": model.sampling_rate}


def serve_pipes(models: Sequence[Model], inputs: BinaryIO, outputs: BinaryIO) -> None:
    """Answer the messages of a pipe until it ends."""
    work = Work(models)
    while (message := read(inputs)) is not None:
        outputs.write(encode(Message({"id": message.values["id"], **work.answer(message)})))
        outputs.flush()


def main(arguments: Sequence[str]) -> int:
    """PRECISION MODEL...: load the models, and answer messages on standard input."""
    # What a library prints must not come between the messages.
    outputs = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    precision, *paths = arguments
    try:
        models = [load(path, precision=precision) for path in paths]  # type: ignore[arg-type]  # of the command line
        described = [describe(model, Path(path)) for model, path in zip(models, paths, strict=True)]
        first: dict[str, Any] = {"models": described}
    except (InputError, OSError) as error:
        models, first = [], {"refused": str(error)}
    outputs.write(encode(Message(first)))
    outputs.flush()
    if models:
        serve_pipes(models, sys.stdin.buffer, outputs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
