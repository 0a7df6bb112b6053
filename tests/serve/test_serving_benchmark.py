"""local/bench/serving.py: how it counts delays and reads answers, and its bad clients against a server."""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_process import ServerProcess
from test_server import RATE, noise
from toy_model import write_toy_model

import asrkd

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "local" / "bench"))
from serving_bad_clients import BadClients, frame, summary
from serving_clients import Heard, Talk, converse, delays_ms

pytestmark = pytest.mark.needs("onnx", "starlette", "uvicorn", "python_multipart")


def word(text: str, start: float, end: float) -> dict[str, Any]:
    return {"word": text, "start": start, "end": end}


def test_a_delay_is_from_the_end_of_a_word_to_its_first_message() -> None:
    heard = Heard(
        [
            (0.8, {"type": "partial", "words": [word("THE", 0.1, 0.4)]}),  # another word, at the time of TO
            (0.9, {"type": "partial", "words": [word("TO", 0.2, 0.5)]}),
            (1.0, {"type": "partial", "words": [word("TO", 0.2, 0.6), word("BE", 0.6, 1.1)]}),
            (2.5, {"type": "final", "words": [word("TO", 0.2, 0.5), word("BE", 0.6, 1.2), word("TO", 1.6, 2.0)]}),
            (2.6, {"type": "end", "audio": 2.4, "text": "TO BE TO"}),
        ]
    )
    # 0.9 - 0.5; BE comes before it ends, 1.0 - 1.2; the second TO is in no partial: 2.5 - 2.0.
    assert delays_ms(heard) == pytest.approx([400.0, -200.0, 500.0])
    assert heard.text == "TO BE TO"
    assert heard.is_whole(Talk("a", bytes(round(2.4 * 2 * RATE)), RATE))
    assert not heard.is_whole(Talk("a", bytes(round(2.6 * 2 * RATE)), RATE))


def test_answers_in_a_few_words() -> None:
    refusal = b'HTTP/1.1 413 Content Too Large\r\n\r\n{"error": {"message": "x", "code": "too_large"}}'
    assert summary(refusal) == "413 too_large"
    switched = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    error = b'\x81\x26{"type": "error", "code": "idle"}' + b"\x88\x06" + struct.pack(">H", 1008) + b"idle"
    assert summary(switched + error) == "1008 idle"
    assert summary(b"") == summary(switched) == ""


def test_a_frame_is_masked_and_says_its_length() -> None:
    assert frame(1, b"ab") == b"\x81\xff" + (2).to_bytes(8, "big") + b"\0\0\0\0ab"
    assert frame(2, b"", 1 << 30)[2:10] == (1 << 30).to_bytes(8, "big")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("models") / "toy", cmvn="online")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    limits = ["--idle-timeout=1.5", "--max-upload-mb=1", "--max-streams=2"]
    with ServerProcess(folder, "--num-workers", "1", *limits) as process:
        yield process


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("silent", "closed"),
        ("half_a_head", "408 idle"),
        ("half_an_upload", "408 idle"),
        ("half_a_body_for_nobody", "404 not_found"),
        ("bad_files", "400 invalid_audio"),
        ("garbage_in_a_stream", "1008 bad_message"),
        ("a_half_open_stream", "1008 idle"),
        ("a_message_of_1_gb", "1009"),
        ("an_upload_of_1_gb", "413 too_large"),
        ("an_upload_of_1_gb_in_chunks", "413 too_large"),
    ],
)
def test_every_bad_client_gets_an_answer(server: ServerProcess, kind: str, answer: str) -> None:
    talk = Talk("noise", noise(1.0).tobytes(), RATE)
    assert asyncio.run(getattr(BadClients(server.port, [talk]), kind)()) == answer


def test_a_talk_in_real_time_has_the_words_of_the_library(server: ServerProcess, folder: Path) -> None:
    samples = noise(2.0, 4)
    stream = asrkd.load(folder).stream()
    stream.accept(samples)
    talk = Talk("noise", np.asarray(samples, dtype="<i2").tobytes(), RATE)
    heard = asyncio.run(converse(server.port, talk))
    assert heard.is_whole(talk) and not heard.refusal and not heard.try_later
    assert heard.text == stream.final().text != ""
    assert heard.messages[-1][0] >= 2.0


def test_a_talk_that_finds_no_room_is_asked_to_try_later(server: ServerProcess) -> None:
    async def three() -> list[Heard]:
        talk = Talk("noise", noise(1.5).tobytes(), RATE)
        return await asyncio.gather(*(converse(server.port, talk) for _ in range(3)))

    outcomes = sorted((one.try_later, one.is_whole(Talk("noise", bytes(24000), RATE))) for one in asyncio.run(three()))
    assert outcomes == [(False, True), (False, True), (True, False)]
