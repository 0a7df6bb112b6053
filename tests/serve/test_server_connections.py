"""Connections of `asrkd serve` that would stay for ever, or end before the client has read why."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from server_process import ServerProcess
from test_server import ended, noise, open_stream, wait_until
from toy_model import write_toy_model
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.needs("onnx", "starlette", "uvicorn", "python_multipart")

IDLE_SEC = 1.5
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
POST = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = write_toy_model(tmp_path_factory.mktemp("models") / "toy", cmvn="online")
    limits = [f"--idle-timeout={IDLE_SEC}", "--max-upload-mb=0.1", "--max-connections=4"]
    with ServerProcess(folder, "--num-workers", "1", *limits) as process:
        yield process


def connected(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def closes_soon(client: socket.socket) -> bool:
    """Whether the server ends the connection within a few times its limit, however much it sends before."""
    end = time.monotonic() + 6 * IDLE_SEC
    client.settimeout(6 * IDLE_SEC)
    while time.monotonic() < end:
        if ended(client):
            return True
    return False


def is_disconnected(client: socket.socket, data: bytes, pause_sec: float = 0.0, seconds: float = 6 * IDLE_SEC) -> bool:
    """Whether the server ends the connection of a client that sends the same again and again."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            client.sendall(data)
            time.sleep(pause_sec)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_the_rest_of_a_body_that_was_answered_holds_no_connection(server: ServerProcess) -> None:
    with connected(server) as client:
        client.sendall(b"POST /v1/none HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")
        assert b"404" in client.recv(4000)
        client.sendall(b"y")
        assert closes_soon(client)


def test_a_body_that_trickles_after_its_answer_ends(server: ServerProcess) -> None:
    with connected(server) as client:
        client.sendall(b"GET /v1/none HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")
        assert is_disconnected(client, b"y", pause_sec=0.2)


def test_a_client_that_reads_no_answer_is_disconnected(server: ServerProcess) -> None:
    """It asks for the page until the server's buffers are full."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", server.port))
        client.settimeout(6 * IDLE_SEC)
        assert is_disconnected(client, 1000 * GET)
    wait_until(lambda: server.get("/healthz")[0] == 200)


def test_a_stream_that_reads_no_words_is_disconnected(server: ServerProcess) -> None:
    """It talks on, and the words fill what the system keeps for it."""
    pcm = noise(20.0).tobytes()
    message = b"\x82\xff" + len(pcm).to_bytes(8, "big") + bytes(4) + pcm
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", server.port))
        client.settimeout(60.0)
        client.sendall(UPGRADE)
        assert client.recv(12) == b"HTTP/1.1 101"
        assert is_disconnected(client, message, seconds=120.0)
    wait_until(lambda: server.get("/healthz")[1]["streams"] == 0)
    assert not [line for line in server.log if "Traceback" in line]


@pytest.mark.parametrize(
    ("head", "status", "message"),
    [
        (POST + b"Content-Length: 6000000\r\n\r\n", b"413", b"(--max-upload-mb)"),
        (b"POST /v1/none HTTP/1.1\r\nHost: a\r\nContent-Length: 6000000\r\n\r\n", b"404", b"/v1/none"),
        (b"garbage\r\n\r\n", b"400", b"Invalid HTTP request"),
    ],
)
def test_a_client_that_sends_all_before_it_reads_gets_the_refusal(
    server: ServerProcess, head: bytes, status: bytes, message: bytes
) -> None:
    with connected(server) as client:
        client.sendall(head)
        for _ in range(60):
            client.sendall(bytes(100_000))
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(4000), b""))
    assert answer.startswith(b"HTTP/1.1 " + status) and message in answer


def test_a_refused_connection_that_sends_a_request_gets_the_refusal(server: ServerProcess) -> None:
    silent = [connected(server) for _ in range(4)]
    try:
        with connected(server) as client:
            for _ in range(20):
                client.sendall(GET)
                time.sleep(0.02)
            answer = b"".join(iter(lambda: client.recv(4000), b""))
        assert answer.startswith(b"HTTP/1.1 503") and b"(--max-connections)" in answer
    finally:
        for one in silent:
            one.close()
    wait_until(lambda: server.get("/healthz")[0] == 200)


def test_a_stream_that_comes_faster_than_it_is_computed_is_not_taken_for_dead(server: ServerProcess) -> None:
    """While a process computes, the client's answers to pings stay behind its audio, unread."""
    pcm = noise(10.0).tobytes()
    workers = server.workers()
    with open_stream(server, ping_interval=None) as client:
        client.send(pcm)
        assert json.loads(client.recv(timeout=30))["type"] == "ready"
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            client.send(pcm)
            client.send(pcm)
            time.sleep(4 * IDLE_SEC)
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        client.send('{"type": "end"}')
        last = [json.loads(message) for message in client][-1]
    assert (last["type"], last["audio"], client.close_code) == ("end", 30.0, 1000)


def test_text_that_is_no_utf8_closes_the_stream_and_leaves_no_traceback(server: ServerProcess) -> None:
    with open_stream(server) as client:
        client.socket.sendall(b"\x81\x82\0\0\0\0\xff\xfe")  # a masked frame of text
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=30)
        assert (client.close_code, client.close_reason) == (1007, "expected text in UTF-8")
    assert not [line for line in server.log if "Traceback" in line]
