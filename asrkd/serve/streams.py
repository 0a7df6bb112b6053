"""GET /v1/stream: a WebSocket that takes 16-bit PCM and answers with words as JSON."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from asrkd.runtime.writers import TIME_DIGITS
from asrkd.serve.limits import Limits
from asrkd.serve.pool import FaultError, Pool, RefusedError, Worker, WorkerEndedError

PIECE_SEC = 0.5
"""A worker takes this much audio of a stream at a time, so that one stream does not keep the others waiting."""
BYTES_PER_SAMPLE = 2
MOST_RATE = 384_000
"""Hz, of any sound card."""
# Close codes of RFC 6455, section 7.4.1, and of its registry.
UNSUPPORTED, POLICY, TOO_BIG, FAULT, RESTART, TRY_LATER = 1003, 1008, 1009, 1011, 1012, 1013
REASON_BYTES = 123
"""A close frame has 125 bytes, two of them the code."""


class ClosedError(Exception):
    """The stream ends with a message to the client."""

    def __init__(self, code: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.code, self.kind = code, kind


@dataclass(frozen=True)
class Start:
    """What a stream begins with."""

    sampling_rate: int | None = None
    """Hz; None: the model's."""
    model: str | None = None
    confidences: bool = True


class Streams:
    """All streams of a server."""

    def __init__(self, pool: Pool, limits: Limits) -> None:
        self._pool, self._limits = pool, limits
        self._numbers = itertools.count()
        self.num_open = 0

    async def serve(self, socket: WebSocket) -> None:
        """One client from its first message to its last."""
        await socket.accept()
        try:
            async with self._admitted():
                await self._serve(socket)
        except ClosedError as error:
            await self._close(socket, error)
        except RefusedError as error:
            await self._close(socket, ClosedError(UNSUPPORTED, "refused", str(error)))
        except FaultError as error:
            await self._close(socket, ClosedError(FAULT, "fault", str(error)))
        except WorkerEndedError:
            message = "the process of this stream ended; connect again"
            await self._close(socket, ClosedError(RESTART, "restart", message))
        except (WebSocketDisconnect, asyncio.TimeoutError):
            pass  # the client has gone, or takes no messages

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        """Count a stream. ClosedError where there are too many, or too little memory is left."""
        if self.num_open >= self._limits.max_streams:
            message = f"expected at most {self._limits.max_streams} streams at a time (--max-streams); try again later"
            raise ClosedError(TRY_LATER, "too_many_streams", message)
        used = self._pool.memory_mb()
        if used > self._limits.max_memory_mb:
            message = f"the server uses {used:.0f} MB (--max-memory-mb); try again later"
            raise ClosedError(TRY_LATER, "memory", message)
        self.num_open += 1
        try:
            yield
        finally:
            self.num_open -= 1

    async def _serve(self, socket: WebSocket) -> None:
        message = await self._receive(socket)
        if message is None:
            return
        start = _start(message["start"]) if "start" in message else Start()
        index = self._pool.model_index(start.model)
        if index is None:
            known = ", ".join(one["id"] for one in self._pool.described)
            raise ClosedError(POLICY, "unknown_model", f"expected a model of {known}, found {start.model!r:.60}")
        async with self._pool.stream_worker() as worker:
            stream = _Stream(worker, next(self._numbers), self._limits, socket)
            try:
                await stream.open(index, self._pool.described[index]["id"], start)
                if "start" in message:
                    message = await self._receive(socket)
                while message is not None and "end" not in message:
                    if "start" in message:
                        raise ClosedError(POLICY, "late_start", "expected the start message before all audio")
                    await stream.accept(message["pcm"])
                    message = await self._receive(socket)
                if message is not None:
                    await stream.final()
            finally:
                await stream.drop()
        if message is not None:
            await self._send_close(socket, 1000, "")

    async def _receive(self, socket: WebSocket) -> dict[str, Any] | None:
        """The client's next message: {"pcm": bytes}, {"start": object} or {"end": ...}; None if it has gone."""
        try:
            message = await asyncio.wait_for(socket.receive(), self._limits.idle_timeout)
        except asyncio.TimeoutError:
            found = f"expected a message within {self._limits.idle_timeout:.8g} s (--idle-timeout), found none"
            raise ClosedError(POLICY, "idle", found) from None
        if message["type"] == "websocket.disconnect":
            return None
        if message.get("bytes") is not None:
            return {"pcm": message["bytes"]}
        return parse_text(message.get("text") or "")

    async def _close(self, socket: WebSocket, error: ClosedError) -> None:
        """Tell the client why, then close."""
        if socket.client_state is not WebSocketState.CONNECTED:
            return
        try:
            values = {"type": "error", "code": error.kind, "message": str(error)}
            await asyncio.wait_for(socket.send_text(json.dumps(values)), self._limits.idle_timeout)
            await self._send_close(socket, error.code, str(error))
        except (WebSocketDisconnect, asyncio.TimeoutError, RuntimeError):
            pass  # it does not listen any more

    async def _send_close(self, socket: WebSocket, code: int, reason: str) -> None:
        short = reason.encode()[:REASON_BYTES].decode("utf-8", "ignore")
        await asyncio.wait_for(socket.close(code, short), self._limits.idle_timeout)


class _Stream:
    """One stream at its worker."""

    def __init__(self, worker: Worker, number: int, limits: Limits, socket: WebSocket) -> None:
        self._worker, self._number, self._limits, self._socket = worker, number, limits, socket
        self._generation = worker.generation
        self._begin = time.monotonic()
        self._num_bytes, self._num_segments, self._busy_sec = 0, 0, 0.0
        self._piece_bytes = 0
        self._rate = 0

    async def open(self, model: int, name: str, start: Start) -> None:
        answer = await self._ask("open", model=model, sampling_rate=start.sampling_rate, confidences=start.confidences)
        self._rate = answer["sampling_rate"]
        self._piece_bytes = round(PIECE_SEC * self._rate) * BYTES_PER_SAMPLE
        await self._send({"type": "ready", "model": name, "sampling_rate": self._rate})

    async def accept(self, pcm: bytes) -> None:
        """Compute with a message of samples, and send what became known."""
        self._require_time(len(pcm))
        for first in range(0, len(pcm), self._piece_bytes):
            answer = await self._ask("accept", pcm[first : first + self._piece_bytes])
            await self._send_segments(answer)
            if "partial" in answer:
                await self._send({"type": "partial", **answer["partial"], **self._times(answer)})

    async def final(self) -> None:
        """Send the last words."""
        answer = await self._ask("final")
        await self._send_segments(answer)
        await self._send({"type": "end", "text": answer["text"], **self._times(answer)})

    async def drop(self) -> None:
        """Forget the stream, also after an error. No answer is awaited for long: the client has gone."""
        with suppress(RefusedError, FaultError, WorkerEndedError):
            await self._ask("drop")

    def _require_time(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        audio_sec = self._num_bytes / (BYTES_PER_SAMPLE * self._rate)
        if max(audio_sec, time.monotonic() - self._begin) > self._limits.max_seconds:
            message = (
                f"expected a stream of at most {self._limits.max_seconds:.8g} s (--max-seconds); begin another one"
            )
            raise ClosedError(POLICY, "too_long", message)

    async def _ask(self, what: str, payload: bytes = b"", **values: Any) -> dict[str, Any]:
        if self._worker.generation != self._generation:
            raise WorkerEndedError
        answer = await self._worker.ask({"do": what, "stream": self._number, **values}, payload)
        self._busy_sec += answer["busy"]
        return answer

    async def _send_segments(self, answer: dict[str, Any]) -> None:
        for segment in answer["segments"]:
            await self._send({"type": "final", "segment": self._num_segments, **segment, **self._times(answer)})
            self._num_segments += 1

    def _times(self, answer: dict[str, Any]) -> dict[str, float]:
        """Seconds of audio that came, and of computing for them."""
        return {"audio": round(answer["audio"], TIME_DIGITS), "busy": round(self._busy_sec, TIME_DIGITS)}

    async def _send(self, values: dict[str, Any]) -> None:
        """asyncio.TimeoutError for a client that does not take it."""
        text = json.dumps(values, ensure_ascii=False)
        await asyncio.wait_for(self._socket.send_text(text), self._limits.idle_timeout)


def parse_text(text: str) -> dict[str, Any]:
    """A message of text: {"type": "start", ...} or {"type": "end"}. ClosedError for another one."""
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        values = None
    if not isinstance(values, dict) or values.get("type") not in ("start", "end"):
        message = f'expected bytes of 16-bit samples, {{"type": "start", ...}} or {{"type": "end"}}, found {text!r:.40}'
        raise ClosedError(POLICY, "bad_message", message)
    return {values["type"]: values}


def _start(values: dict[str, Any]) -> Start:
    """The values of a start message. ClosedError for what they cannot be."""
    unknown = sorted(set(values) - {"type", "sampling_rate", "model", "confidences"})
    rate, model, confidences = values.get("sampling_rate"), values.get("model"), values.get("confidences", True)
    problem = None
    if unknown:
        problem = f"sampling_rate, model and confidences, found {unknown[0]!r:.40}"
    elif rate is not None and (isinstance(rate, bool) or not isinstance(rate, int) or not 0 < rate <= MOST_RATE):
        problem = f"sampling_rate as Hz, a whole number up to {MOST_RATE}, found {rate!r:.40}"
    elif model is not None and not isinstance(model, str):
        problem = f"model as a name, found {model!r:.40}"
    elif not isinstance(confidences, bool):
        problem = f"confidences as true or false, found {confidences!r:.40}"
    if problem:
        raise ClosedError(POLICY, "bad_start", f"start message: expected {problem}")
    return Start(rate, model, confidences)
