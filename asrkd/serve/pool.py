"""The worker processes, as the server's event loop sees them: it asks and awaits the answer.

A worker that ends (a crash of the search, too little memory) takes the streams with it that it computed for, and no
others. Another one takes its place.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asrkd.errors import InputError
from asrkd.serve.limits import MEGABYTE
from asrkd.serve.messages import Message, encode, receive

LOGGER = logging.getLogger("asrkd.serve")
RESTART_SEC = 1.0
"""Before an ended worker's successor begins: models that end every worker must not take all the time."""
STOP_SEC = 5.0
ANSWER_SEC = 60.0
"""In which a stream's worker answers. One that computes longer hangs, and is ended."""
PIPE_BYTES = 1 << 22


class WorkerEndedError(Exception):
    """The process that computed has ended. Whoever asked may ask again."""


class RefusedError(Exception):
    """What the client sent cannot be used; the message says why."""


class FaultError(Exception):
    """A bug of the server, in its log."""


@dataclass
class Worker:
    """One process. `models` and `precision` are those of the command line."""

    models: Sequence[Path]
    precision: str
    described: list[dict[str, Any]] = field(default_factory=list)
    generation: int = 0
    """Counts the processes: a stream of an earlier one is lost."""
    num_streams: int = 0

    def __post_init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count()
        self._ready = asyncio.Event()
        self._is_stopping = False

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self) -> None:
        """Start the process, and replace it whenever it ends. InputError for a model that it cannot load."""
        await self._spawn()
        self._task = asyncio.create_task(self._serve())

    async def _spawn(self) -> None:
        """Start a process and await its models. InputError for a model that it cannot load."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "asrkd.serve.worker", self.precision, *map(str, self.models)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=PIPE_BYTES,
            start_new_session=True,  # Ctrl-C goes to the server alone, which ends its workers
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        first = await receive(self._process.stdout)
        if first is None or "refused" in first.values:
            await self._process.wait()
            raise InputError(first.values["refused"] if first else "a worker of the server ended at its start")
        self.described = first.values["models"]
        self.generation += 1
        self._ready.set()

    async def stop(self) -> None:
        """End the process: at the end of its input, or else at once."""
        self._is_stopping = True
        if self._process is not None and self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_SEC)
            except asyncio.TimeoutError:
                self.kill()
                await self._process.wait()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def kill(self) -> None:
        """End the process at once, and what it has started (ffmpeg). Another one follows."""
        self._ready.clear()  # nothing is asked of it any more
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # it leads a group, as it has a session of its own

    async def ask(self, values: Mapping[str, Any], payload: bytes = b"", timeout: float = ANSWER_SEC) -> dict[str, Any]:
        """The answer to a message. RefusedError, FaultError; WorkerEndedError also after `timeout` seconds."""
        if not self.is_ready or self._process is None:
            raise WorkerEndedError
        number = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(encode(Message({"id": number, **values}, payload)))
            await self._process.stdin.drain()
            answer: dict[str, Any] = await asyncio.wait_for(future, timeout)
        except ConnectionError:
            raise WorkerEndedError from None
        except asyncio.TimeoutError:
            LOGGER.error("a worker did not answer within %.0f s: it is ended", timeout)
            self.kill()
            raise WorkerEndedError from None
        finally:
            self._answers.pop(number, None)
        if "refused" in answer:
            raise RefusedError(answer["refused"])
        if "fault" in answer:
            raise FaultError(answer["fault"])
        return answer

    async def wait_until_ready(self) -> None:
        """Await a process with its models. WorkerEndedError if none is there in time."""
        try:
            await asyncio.wait_for(self._ready.wait(), ANSWER_SEC)
        except asyncio.TimeoutError:
            raise WorkerEndedError from None

    async def _serve(self) -> None:
        """Give answers to those who wait for them, and replace the process when it ends."""
        while True:
            await self._give_answers()
            if self._is_stopping:
                return
            LOGGER.error("a worker of the server ended; another one begins")
            await asyncio.sleep(RESTART_SEC)
            try:
                await self._spawn()
            except (InputError, OSError) as error:
                LOGGER.error("%s", error)

    async def _give_answers(self) -> None:
        if self._process is None or self._process.stdout is None:
            return
        while (message := await receive(self._process.stdout)) is not None:
            future = self._answers.get(message.values["id"])
            if future is not None and not future.done():
                future.set_result(message.values)
        self._ready.clear()
        await self._process.wait()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(WorkerEndedError())


class Pool:
    """Processes for streams, and others for files: a long file delays no stream."""

    def __init__(self, models: Sequence[Path], precision: str, num_workers: int, num_jobs: int) -> None:
        self.streams = [Worker(models, precision) for _ in range(num_workers)]
        self.files = [Worker(models, precision) for _ in range(num_jobs)]
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self.described: list[dict[str, Any]] = []

    async def start(self) -> None:
        """Start the processes. InputError for a model that cannot be loaded."""
        first, *others = (*self.streams, *self.files)
        try:
            await first.start()  # alone: a bad model is one message
            await asyncio.gather(*(worker.start() for worker in others))
        except BaseException:
            await self.stop()
            raise
        self.described = _with_ids(first.described)
        for worker in self.files:
            self._idle.put_nowait(worker)

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in (*self.streams, *self.files)))

    def model_index(self, name: str | None) -> int | None:
        """Which model an id names, the first without one; None for an unknown id."""
        if not name:
            return 0
        ids = [one["id"] for one in self.described]
        return ids.index(name) if name in ids else None

    @property
    def is_ready(self) -> bool:
        return all(worker.is_ready for worker in (*self.streams, *self.files))

    def memory_mb(self) -> float:
        """Resident memory of the server and its workers; 0 where the system does not say it."""
        return sum(_resident_mb(pid) for pid in (os.getpid(), *self._pids()))

    def _pids(self) -> list[int]:
        return [worker.pid for worker in (*self.streams, *self.files) if worker.pid is not None]

    @asynccontextmanager
    async def stream_worker(self) -> AsyncIterator[Worker]:
        """The worker with the fewest streams. WorkerEndedError if all are being replaced."""
        ready = [worker for worker in self.streams if worker.is_ready]
        if not ready:
            raise WorkerEndedError
        worker = min(ready, key=lambda one: one.num_streams)
        worker.num_streams += 1
        try:
            yield worker
        finally:
            worker.num_streams -= 1

    @asynccontextmanager
    async def file_worker(self) -> AsyncIterator[Worker]:
        """A worker that has no file. It is killed, and replaced, where the block ends before its answer."""
        worker = await self._idle.get()
        try:
            await worker.wait_until_ready()
            yield worker
        except asyncio.CancelledError:
            worker.kill()
            raise
        finally:
            self._idle.put_nowait(worker)


def _with_ids(described: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Models with ids: the names of their folders, with a number where two are equal."""
    ids: list[str] = []
    for one in described:
        same = sum(other.split("#")[0] == one["file"] for other in ids)
        ids.append(f"{one['file']}#{same + 1}" if same else one["file"])
    return [{"id": name, **one} for name, one in zip(ids, described, strict=True)]


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
