"""OpenAI's own client against `asrkd serve`: what it sends is understood, and what it gets is what it expects."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from server_process import ServerProcess
from test_server import noise, wav
from toy_model import write_toy_model

import asrkd
from asrkd.runtime.transcript import Transcript
from asrkd.runtime.writers import as_object, srt_of, vtt_of

pytestmark = pytest.mark.needs("onnx", "starlette", "uvicorn", "python_multipart")

SAMPLES = noise(3.0, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("models") / "toy", cmvn="online")


@pytest.fixture(scope="module")
def expected(folder: Path) -> Transcript:
    return asrkd.load(folder).transcribe(SAMPLES)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with ServerProcess(folder, folder, "--num-workers", "1", "--max-upload-mb", "1") as process:
        yield process


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Any]:
    with openai.OpenAI(**address(server)) as client:
        yield client


def address(server: ServerProcess) -> dict[str, Any]:
    return {"base_url": f"http://127.0.0.1:{server.port}/v1", "api_key": "none", "max_retries": 0, "timeout": 60.0}


def transcribe(client: Any, **options: Any) -> Any:
    return client.audio.transcriptions.create(**{"file": ("a.wav", wav(SAMPLES)), "model": "toy", **options})


def test_every_format(client: Any, expected: Transcript, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(SAMPLES))
    with path.open("rb") as file:
        assert transcribe(client, file=file).text == expected.text != ""
    assert transcribe(client, file=path, response_format="text", language="en") == f"{expected.text}\n"
    assert transcribe(client, response_format="srt", temperature=0.0, prompt="words") == srt_of(expected)
    assert transcribe(client, response_format="vtt") == vtt_of(expected)


@pytest.mark.parametrize("chosen", [["word"], ["segment"], ["word", "segment"], None])
def test_words_and_segments_of_verbose_json(client: Any, expected: Transcript, chosen: list[str] | None) -> None:
    granularities = {"timestamp_granularities": chosen} if chosen else {}
    answer = transcribe(client, response_format="verbose_json", **granularities)
    plain = as_object(expected)
    assert (answer.text, answer.duration) == (expected.text, 3.0)
    words = [(word["word"], word["start"], word["end"]) for one in plain["segments"] for word in one["words"]]
    segments = [(one["id"], one["start"], one["end"], one["text"]) for one in plain["segments"]]
    kinds = chosen or ["segment"]
    assert (answer.words is not None, answer.segments is not None) == ("word" in kinds, "segment" in kinds)
    if "word" in kinds:
        assert [(one.word, one.start, one.end) for one in answer.words] == words
    if "segment" in kinds:
        assert [(one.id, one.start, one.end, one.text) for one in answer.segments] == segments


def test_events(client: Any, expected: Transcript) -> None:
    events = list(transcribe(client, stream=True))
    assert [one.type for one in events] == ["transcript.text.delta"] * len(expected.segments) + ["transcript.text.done"]
    assert "".join(one.delta for one in events[:-1]) == events[-1].text == expected.text != ""


def test_several_at_a_time(server: ServerProcess, expected: Transcript) -> None:
    async def all_of_them() -> list[Any]:
        async with openai.AsyncOpenAI(**address(server)) as client:
            return await asyncio.gather(*(transcribe(client) for _ in range(4)))

    assert [one.text for one in asyncio.run(all_of_them())] == [expected.text] * 4


def test_models(client: Any) -> None:
    assert [one.id for one in client.models.list()] == ["toy", "toy#2"]
    assert client.models.retrieve("toy#2").id == "toy#2"
    with pytest.raises(openai.NotFoundError, match="expected one of toy, toy#2, found 'whisper-1'"):
        client.models.retrieve("whisper-1")


@pytest.mark.parametrize(
    ("options", "error", "code", "message"),
    [
        ({"model": "whisper-1"}, openai.NotFoundError, "model_not_found", "found 'whisper-1'"),
        ({"file": ("a.wav", b"text")}, openai.BadRequestError, "invalid_audio", "unreadable audio in a.wav"),
        ({"response_format": "diarized_json"}, openai.BadRequestError, "invalid_value", "found 'diarized_json'"),
        ({"stream": True, "response_format": "srt"}, openai.BadRequestError, "invalid_value", "json or text"),
        ({"file": ("a.wav", bytes(9 << 20))}, openai.APIStatusError, "too_large", "(--max-upload-mb)"),
    ],
)
def test_refusals(client: Any, options: dict[str, Any], error: type[Exception], code: str, message: str) -> None:
    with pytest.raises(error) as found:
        transcribe(client, **options)
    assert found.value.code == code and message in str(found.value)
