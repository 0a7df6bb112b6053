"""A server of the toy model in a process of its own, on a free port of loopback."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_SEC, STOP_SEC = 120.0, 30.0
BOUNDARY = "a7c1f0"


class ServerProcess:
    """`asrkd serve` with its log. Use it as a context."""

    def __init__(self, *arguments: str | Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "asrkd.commands.main", "serve", *map(str, arguments), "--port", "0"],
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.log: list[str] = []
        self._started = threading.Event()
        self.port = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._started.wait(START_SEC) or not self.port:
            self.stop(signal.SIGKILL)
            raise AssertionError(f"the server did not start: {self.log}")

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self, number: int = signal.SIGINT) -> int:
        """End it; its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        code = self._process.wait(STOP_SEC)
        self._reader.join(STOP_SEC)
        return code

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, text=True, check=False
        )
        return [int(line) for line in listed.stdout.split()]

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of a request."""
        return self._request("GET", path, None, headers or {})

    def post(
        self, files: Sequence[tuple[str, bytes]] = (), headers: dict[str, str] | None = None, **fields: str
    ) -> tuple[int, Any]:
        """Status and answer of POST /v1/audio/transcriptions. `files`: (name, bytes)."""
        body = multipart(files, fields)
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        return self._request("POST", "/v1/audio/transcriptions", body, {**kind, **(headers or {})})

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(text) if is_json else text
        finally:
            connection.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line.rstrip())
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(found[1])
                self._started.set()
        self._started.set()


def multipart(files: Sequence[tuple[str, bytes]], fields: dict[str, str]) -> bytes:
    """A form as browsers and clients send it."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, content in files:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        parts += [head.encode(), content, b"\r\n"]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
