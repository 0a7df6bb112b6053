"""Faults of the machine under `asrkd serve`: a full disk, and work whose client has gone."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import is_running
from server_process import BOUNDARY, ServerProcess, multipart
from test_server import noise, wait_until, wav
from toy_model import write_toy_model

pytestmark = pytest.mark.needs("onnx", "starlette", "uvicorn", "python_multipart")

ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(1000)  # a file that only ffmpeg reads
HANGING_PROBE = """#!/bin/sh
echo $$ >{pid_file}.partial && mv {pid_file}.partial {pid_file}
exec sleep 300
"""


@pytest.fixture(scope="module")
def pid_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe") / "pid"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pid_file: Path) -> Iterator[ServerProcess]:
    """One whose ffprobe hangs."""
    folder = write_toy_model(tmp_path_factory.mktemp("models") / "toy", cmvn="online")
    for name in ("ffprobe", "ffmpeg"):
        program = pid_file.with_name(name)
        program.write_text(HANGING_PROBE.format(pid_file=pid_file))
        program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{pid_file.parent}{os.pathsep}{os.environ['PATH']}")
        with ServerProcess(folder, "--num-workers", "1") as process:
            yield process


def test_a_file_whose_client_goes_leaves_no_process(server: ServerProcess, pid_file: Path) -> None:
    body = multipart([("a.wma", ASF)], {})
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall((head + kind).encode() + body)
        wait_until(pid_file.is_file)
    pid = int(pid_file.read_text(encoding="utf-8"))
    try:
        wait_until(lambda: not is_running(pid))
    finally:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.get("/healthz")[0] == 200)
    assert server.post([("a.wav", wav(noise(1.0)))])[0] == 200


def test_a_disk_without_room_refuses_the_file_in_one_line(server: ServerProcess) -> None:
    small = wav(noise(1.0))
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1 << 19, before[1]))
    try:
        status, answer = server.post([("a.wav", wav(noise(120.0)))])
        assert (status, answer["error"]["code"]) == (503, "storage")
        assert answer["error"]["message"] == "the server has no room for this file; try again later"
        assert server.post([("a.wav", small)])[0] == 200
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)
    assert not [line for line in server.log if "Traceback" in line]
    assert any("an upload could not be stored" in line for line in server.log)
