"""What serving.py measures with: the server in processes of its own, what they use, and clients that talk to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from asrkd.errors import InputError

START_SEC, STOP_SEC = 120.0, 30.0
BLOCK_SEC = 0.1
"""A client sends this much audio at a time, when it has been spoken."""
BYTES_PER_SAMPLE = 2
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Usage:
    """What the server and its processes have used and hold."""

    cpu_sec: float
    rss_mb: float
    num_files: int
    """Open files and sockets."""
    by_process: tuple[float, ...]
    """Resident MB of the server's own process, then of each worker."""


class Server:
    """`asrkd serve` on a free port of loopback."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._started = threading.Event()
        self.port = 0
        self.log: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        if not self._started.wait(START_SEC) or not self.port:
            process.kill()
            raise InputError(f"asrkd serve: expected a server, found: {' '.join(self.log[-3:]) or 'nothing'}")

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line.rstrip())
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(found[1])
                self._started.set()
        self._started.set()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def pids(self) -> list[int]:
        """The server's own process, then its workers."""
        pid = self._process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split())]

    def usage(self) -> Usage:
        cpu_sec, rss_mb, num_files = zip(*(_usage_of(pid) for pid in self.pids), strict=True)
        return Usage(sum(cpu_sec), sum(rss_mb), sum(num_files), tuple(rss_mb))


def _usage_of(pid: int) -> tuple[float, float, int]:
    """Processor seconds, resident megabytes and open files of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    ticks = int(fields[11]) + int(fields[12])  # user and system
    megabytes = pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
    return ticks / os.sysconf("SC_CLK_TCK"), megabytes, len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def serving(model: Path, cores: set[int], arguments: Sequence[str] = ()) -> Iterator[Server]:
    """A server on these cores, which ends with the block."""
    command = [sys.executable, "-m", "asrkd.commands.main", "serve", str(model), "--port", "0", *arguments]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # children inherit it
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        os.sched_setaffinity(0, before)
    try:
        yield Server(process)
    finally:
        process.terminate()
        process.wait(STOP_SEC)


@dataclass(frozen=True)
class Talk:
    """What a client says."""

    utt_id: str
    pcm: bytes
    sampling_rate: int

    @property
    def duration_sec(self) -> float:
        return len(self.pcm) / (BYTES_PER_SAMPLE * self.sampling_rate)

    def blocks(self) -> list[bytes]:
        size = round(BLOCK_SEC * self.sampling_rate) * BYTES_PER_SAMPLE
        return [self.pcm[first : first + size] for first in range(0, len(self.pcm), size)]


@dataclass
class Heard:
    """What a client gets."""

    messages: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    """With the seconds from the talk's begin to their arrival."""
    refusal: str = ""
    """Why it is not whole."""
    try_later: bool = False
    """The server has no room, and says so."""

    @property
    def words(self) -> list[dict[str, Any]]:
        """The final ones."""
        return [word for _, message in self.messages if message["type"] == "final" for word in message["words"]]

    @property
    def text(self) -> str:
        return " ".join(word["word"] for word in self.words)

    def is_whole(self, talk: Talk) -> bool:
        """Whether the server took all of the talk and ended the stream."""
        if not self.messages or self.messages[-1][1]["type"] != "end":
            return False
        return abs(self.messages[-1][1]["audio"] - talk.duration_sec) < BLOCK_SEC / 2


def delays_ms(heard: Heard) -> list[float]:
    """From the end of each final word to the first message that has it: the same word at an overlapping time."""
    delays = []
    for word in heard.words:
        first = next(at for at, message in heard.messages if any(_same(word, one) for one in message.get("words", ())))
        delays.append(1000.0 * (first - word["end"]))
    return delays


def _same(word: dict[str, Any], other: dict[str, Any]) -> bool:
    is_overlapping = word["start"] < other["end"] and other["start"] < word["end"]
    return bool(word["word"] == other["word"] and (is_overlapping or word["start"] == other["start"]))


async def converse(port: int, talk: Talk) -> Heard:
    """Say it in real time, and listen."""
    heard = Heard()
    try:
        async with connect(f"ws://127.0.0.1:{port}/v1/stream", compression=None, open_timeout=30) as socket:
            await socket.send(json.dumps({"type": "start", "sampling_rate": talk.sampling_rate}))
            first = json.loads(await socket.recv())
            begin = asyncio.get_running_loop().time()
            if first["type"] == "ready":
                speaking = asyncio.create_task(_speak(socket, talk, begin))
                try:
                    async for text in socket:
                        heard.messages.append((asyncio.get_running_loop().time() - begin, json.loads(text)))
                finally:
                    speaking.cancel()
                    await asyncio.gather(speaking, return_exceptions=True)
            last = heard.messages[-1][1] if heard.messages else first
            if last["type"] == "error":
                heard.refusal, heard.try_later = last["message"], last["code"] == "too_many_streams"
    except ConnectionClosed as error:
        heard.refusal = str(error)
        heard.try_later = error.rcvd is not None and error.rcvd.code == 1013
    except InvalidHandshake as error:
        heard.refusal, heard.try_later = str(error), "503" in str(error)
    except (OSError, asyncio.TimeoutError) as error:
        heard.refusal = f"{type(error).__name__} {error}"
    return heard


async def _speak(socket: Any, talk: Talk, begin: float) -> None:
    for number, block in enumerate(talk.blocks(), start=1):
        await asyncio.sleep(begin + number * BLOCK_SEC - asyncio.get_running_loop().time())
        await socket.send(block)
    await socket.send('{"type": "end"}')
