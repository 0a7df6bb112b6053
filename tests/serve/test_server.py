"""`asrkd serve` over real sockets: the words of the model, and a bad client takes nothing from the others."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from server_process import ServerProcess
from toy_model import write_toy_model
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import asrkd
from asrkd.runtime.model import Model
from asrkd.runtime.writers import as_object, srt_of, vtt_of

pytestmark = pytest.mark.needs("onnx", "starlette", "uvicorn", "python_multipart")

RATE = 8000
SMALL = ["--max-streams=2", "--max-files=1", "--max-upload-mb=0.1", "--max-seconds=5", "--idle-timeout=1.5"]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Samples [N] int16 of changing loudness, on which the random network finds words."""
    rng = np.random.default_rng(seed)
    loudness = np.repeat(10.0 ** rng.uniform(-3.0, -0.5, round(10 * seconds)), RATE // 10)
    return np.round(np.clip(loudness * rng.standard_normal(len(loudness)), -1.0, 1.0) * 32767).astype(np.int16)


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("models") / "toy", cmvn="online")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return asrkd.load(folder)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with ServerProcess(folder, folder, "--num-workers", "1") as process:
        yield process


@pytest.fixture(scope="module")
def small(folder: Path) -> Iterator[ServerProcess]:
    """One whose limits a test can reach."""
    with ServerProcess(folder, "--num-workers", "1", *SMALL, "--max-connections=8") as process:
        yield process


def open_stream(server: ServerProcess, **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/v1/stream", open_timeout=30, close_timeout=5, **options)


def start(**values: object) -> str:
    return json.dumps({"type": "start", **values})


def stream(server: ServerProcess, samples: np.ndarray, size: int = 800, **values: object) -> list[dict[str, Any]]:
    """All messages of a stream."""
    with open_stream(server) as client:
        client.send(start(**values))
        for part in np.split(samples, range(size, len(samples), size)):
            client.send(part.tobytes())
        client.send('{"type": "end"}')
        messages = [json.loads(message) for message in client]
        assert client.close_code == 1000
    return messages


def messages_of(client: ClientConnection) -> list[dict[str, Any]]:
    """All messages until the server closes, whatever its close code."""
    messages = []
    try:
        while True:
            messages.append(json.loads(client.recv(timeout=30)))
    except ConnectionClosed:
        return messages


def refusal(client: ClientConnection) -> tuple[str, str, int | None]:
    """Code and message of the error that ends a stream, and its close code."""
    error = messages_of(client)[-1]
    assert error["type"] == "error" and client.close_reason and error["message"].startswith(client.close_reason)
    return error["code"], error["message"], client.close_code


def expected_segments(model: Model, samples: np.ndarray) -> list[dict[str, Any]]:
    one = model.stream()
    one.accept(samples)
    segments = as_object(one.final())["segments"]
    return [{name: segment[name] for name in ("start", "end", "text", "words")} for segment in segments]


def segments_of(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    finals = [message for message in messages if message["type"] == "final"]
    return [{name: one[name] for name in ("start", "end", "text", "words")} for one in finals]


@pytest.mark.parametrize("size", [333, 9000])
def test_a_stream_has_the_words_of_the_model(server: ServerProcess, model: Model, size: int) -> None:
    samples = noise(5.0)
    messages = stream(server, samples, size, model="toy#2")
    assert messages[0] == {"type": "ready", "model": "toy#2", "sampling_rate": RATE}
    assert segments_of(messages) == expected_segments(model, samples) != []
    assert any(message["type"] == "partial" and message["words"] for message in messages)
    last = messages[-1]
    assert last["type"] == "end" and last["audio"] == 5.0 and last["busy"] > 0.0
    assert last["text"] == " ".join(segment["text"] for segment in segments_of(messages))


def test_streams_of_several_clients_do_not_mix(server: ServerProcess, model: Model) -> None:
    recordings = [noise(3.0, seed) for seed in range(6)]
    with ThreadPoolExecutor(len(recordings)) as threads:
        answers = list(threads.map(lambda samples: stream(server, samples), recordings))
    for samples, messages in zip(recordings, answers, strict=True):
        assert segments_of(messages) == expected_segments(model, samples)


def test_a_stream_without_a_start_message_and_without_audio(server: ServerProcess) -> None:
    with open_stream(server) as client:
        client.send('{"type": "end"}')
        messages = [json.loads(message) for message in client]
    assert [message["type"] for message in messages] == ["ready", "end"]
    assert messages[-1]["text"] == "" and messages[-1]["audio"] == 0.0


@pytest.mark.parametrize(
    ("first", "code", "message"),
    [
        ("words", "bad_message", 'expected bytes of 16-bit samples, {"type": "start", ...} or {"type": "end"}'),
        ("[" * 2000, "bad_message", "expected bytes"),
        (start(model="whisper-1"), "unknown_model", "expected a model of toy, toy#2, found 'whisper-1'"),
        (start(sampling_rate="many"), "bad_start", "expected sampling_rate as Hz, a whole number"),
        (start(sampling_rate=2000), "refused", "expected a sampling rate of 4000 Hz or more"),
        (start(beam=3), "bad_start", "expected sampling_rate, model and confidences, found 'beam'"),
    ],
)
def test_garbage_is_refused_in_a_message(server: ServerProcess, first: str, code: str, message: str) -> None:
    with open_stream(server) as client:
        client.send(first)
        client.send(b"\0\0")
        found = refusal(client)
    assert found[0] == code and message in found[1] and found[2] in (1003, 1008)


def test_faults_of_one_client_leave_the_others_alone(server: ServerProcess, model: Model) -> None:
    """Somebody talks while others send garbage, vanish in the middle, or stay half open."""
    samples = noise(4.0, 7)
    half_open = socket.create_connection(("127.0.0.1", server.port))
    half_open.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: a\r\n")
    raw = socket.create_connection(("127.0.0.1", server.port))
    raw.sendall(os.urandom(4000))
    with open_stream(server) as client, half_open, raw:
        client.send(start())
        for number, part in enumerate(np.split(samples, 8)):
            client.send(part.tobytes())
            with open_stream(server) as other:
                other.send(start() if number % 2 else "garbage")
                other.send(noise(0.3).tobytes())
                other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                other.socket.close()  # a reset in the middle
        client.send('{"type": "end"}')
        messages = [json.loads(message) for message in client]
    assert segments_of(messages) == expected_segments(model, samples)
    wait_until(lambda: server.get("/healthz")[1]["streams"] == 0)
    assert not [line for line in server.log if "Traceback" in line]


def test_files_as_openai_clients_send_them(server: ServerProcess, model: Model) -> None:
    samples = noise(3.0, 2)
    transcript = model.transcribe(samples)
    upload = [("a b.wav", wav(samples))]
    assert transcript.words
    assert server.post(upload, model="toy") == (200, {"text": transcript.text})
    assert server.post(upload, response_format="text", language="en", temperature="0") == (200, f"{transcript.text}\n")
    assert server.post(upload, response_format="srt") == (200, srt_of(transcript))
    assert server.post(upload, response_format="vtt") == (200, vtt_of(transcript))
    words = {"timestamp_granularities[]": "word"}
    status, answer = server.post(upload, response_format="verbose_json", **words)
    plain = as_object(transcript)
    assert status == 200 and answer["words"] == [word for one in plain["segments"] for word in one["words"]]
    assert answer["text"] == transcript.text and answer["duration"] == 3.0 and "segments" not in answer
    _, answer = server.post(upload, response_format="verbose_json")
    assert [one["text"] for one in answer["segments"]] == [one.text for one in transcript.segments]
    assert answer["segments"][0]["avg_logprob"] <= 0.0 and "words" not in answer


@pytest.mark.parametrize(
    ("files", "fields", "status", "code", "message"),
    [
        ([], {}, 400, "invalid_value", "expected an audio file in the field `file`, found none"),
        ([("a.wav", b"text\n" * 99)], {}, 400, "invalid_audio", "unreadable audio in a.wav"),
        ([("../../x\n.wav", b"")], {}, 400, "invalid_audio", ""),
        (
            [("8.wav", wav(np.zeros((800, 8), np.int16)))],
            {},
            400,
            "invalid_audio",
            "8.wav: expected one or two channels",
        ),
        ([("low.wav", wav(noise(1.0), 2000))], {}, 400, "invalid_audio", "low.wav: expected a sampling rate"),
        ([("a.wav", wav(noise(0.5)))], {"model": "x"}, 404, "model_not_found", "expected one of toy, toy#2, found 'x'"),
        ([("a.wav", wav(noise(0.5)))], {"response_format": "doc"}, 400, "invalid_value", "found 'doc'"),
        ([("a.wav", b"")] * 2, {}, 400, "bad_request", "Too many files"),
    ],
)
def test_bad_requests(
    server: ServerProcess, files: Any, fields: dict[str, str], status: int, code: str, message: str
) -> None:
    found, answer = server.post(files, **fields)
    assert (found, answer["error"]["code"]) == (status, code)
    assert message in answer["error"]["message"] and "/tmp" not in answer["error"]["message"]
    assert "asrkd-upload" not in answer["error"]["message"]


def test_what_is_served(server: ServerProcess) -> None:
    status, answer = server.get("/v1/models")
    assert status == 200 and [one["id"] for one in answer["data"]] == ["toy", "toy#2"]
    assert server.get("/healthz")[1]["status"] == "ok"
    status, page = server.get("/")
    assert status == 200 and "getUserMedia" in page and "http://" not in page.replace("http://127.0.0.1", "")
    assert server.get("/v1/none")[1]["error"]["code"] == "not_found"
    assert server.get("/v1/audio/transcriptions")[0] == 405


def test_pages_of_other_sites_are_refused(server: ServerProcess) -> None:
    own = {"Origin": f"http://127.0.0.1:{server.port}"}
    assert server.get("/healthz", own)[0] == 200
    status, answer = server.get("/healthz", {"Origin": "https://example.org"})
    assert status == 403 and answer["error"]["code"] == "foreign_origin"
    with pytest.raises(Exception, match="403"):
        open_stream(server, origin="https://example.org")


def test_too_many_streams(small: ServerProcess) -> None:
    with open_stream(small) as first, open_stream(small) as second:
        for client in (first, second):
            client.send(start())
            assert json.loads(client.recv(timeout=30))["type"] == "ready"
        with open_stream(small) as third:
            assert refusal(third)[0::2] == ("too_many_streams", 1013)
    wait_until(lambda: small.get("/healthz")[1]["streams"] == 0)
    assert stream(small, noise(1.0))[-1]["type"] == "end"


def test_streams_that_are_too_long_or_idle(small: ServerProcess) -> None:
    with open_stream(small) as client:
        for _ in range(6):
            client.send(noise(1.0).tobytes())
        code, message, closed = refusal(client)
        assert (code, closed) == ("too_long", 1008) and "at most 5 s (--max-seconds)" in message
    with open_stream(small) as client:
        client.send(noise(1.0).tobytes())
        code, message, closed = refusal(client)
        assert (code, closed) == ("idle", 1008) and "within 1.5 s (--idle-timeout)" in message


def test_messages_that_are_too_large(small: ServerProcess) -> None:
    with open_stream(small) as client:
        client.send(bytes(3 << 20))
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=30)
        assert client.close_code == 1009


def test_uploads_that_are_too_large_or_too_long(small: ServerProcess) -> None:
    status, answer = small.post([("a.wav", wav(noise(8.0)))])
    assert status == 413 and "at most 0.1 MB (--max-upload-mb)" in answer["error"]["message"]
    long = io.BytesIO()
    soundfile.write(long, np.zeros(6 * RATE), RATE, format="FLAC")
    status, answer = small.post([("a.flac", long.getvalue())])
    assert status == 400 and "a.flac: expected at most 5 s of audio, found 6.0 s" in answer["error"]["message"]
    # Without a length at its begin: what comes is counted.
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as raw:
        raw.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(200_000)
        raw.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        assert b"413" in raw.recv(4000)


def test_connections_that_say_half_of_a_request_end(small: ServerProcess) -> None:
    begin = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", small.port), timeout=30) as silent,
        socket.create_connection(("127.0.0.1", small.port), timeout=30) as half,
        socket.create_connection(("127.0.0.1", small.port), timeout=30) as body,
    ):
        half.sendall(b"GET / HTTP/1.1\r\nHost:")
        body.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        )
        assert b"408" in body.recv(4000)
        answer = half.recv(4000)
        assert answer.startswith(b"HTTP/1.1 408") and b"within 1.5 s (--idle-timeout)" in answer
        for client in (silent, half):
            assert ended(client)
    assert time.monotonic() - begin < 20.0


def test_too_many_connections(small: ServerProcess) -> None:
    clients = [socket.create_connection(("127.0.0.1", small.port), timeout=30) for _ in range(12)]
    time.sleep(0.3)
    try:
        answers = [client.recv(4000) for client in clients[8:]]
        assert all(b"503" in answer and b"(--max-connections)" in answer for answer in answers)
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: small.get("/healthz")[0] == 200)


def test_a_client_that_reads_nothing_ends(small: ServerProcess, model: Model) -> None:
    """The server does not wait for it for ever, and serves others."""
    with open_stream(small) as client:
        client.send(start())
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.send(noise(2.0).tobytes())
        samples = noise(2.0, 3)
        assert segments_of(stream(small, samples)) == expected_segments(model, samples)
    wait_until(lambda: small.get("/healthz")[1]["streams"] == 0)


def test_a_worker_that_is_killed_is_replaced(folder: Path) -> None:
    with ServerProcess(folder, "--num-workers", "2") as server:
        workers = server.workers()
        assert len(workers) == 3
        with open_stream(server) as first, open_stream(server) as second:
            for client in (first, second):
                client.send(start())
                assert json.loads(client.recv(timeout=30))["type"] == "ready"
            os.kill(workers[0], signal.SIGKILL)
            time.sleep(0.5)
            outcomes = []
            for client in (first, second):
                client.send(noise(0.5).tobytes())
                client.send('{"type": "end"}')
                messages = messages_of(client)
                outcomes.append(messages[-1].get("code", messages[-1]["type"]))
                assert client.close_code == (1000 if outcomes[-1] == "end" else 1012)
            assert sorted(outcomes) == ["end", "restart"]
        wait_until(lambda: server.get("/healthz")[0] == 200)
        assert len(server.workers()) == 3
        assert stream(server, noise(1.0))[-1]["type"] == "end"


def test_ctrl_c_ends_the_server_and_its_workers(folder: Path) -> None:
    with ServerProcess(folder, "--num-workers", "1") as server, open_stream(server) as client:
        client.send(start())
        client.recv(timeout=30)
        workers = server.workers()
        assert server.stop(signal.SIGINT) == 0
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=10)
        assert client.close_code == 1012
        assert not [line for line in server.log if "Traceback" in line or "error" in line.lower()]


def wait_until(holds: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def ended(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True
