"""Clients that no server should have, for serving.py: each is a connection that is used badly.

They are plain sockets, because a library would not send what they send.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import numpy as np
import soundfile
from serving_clients import BLOCK_SEC, MEGABYTE, Talk

GIGABYTE = 1 << 30
TRICKLE_SEC = 1.0
BURST_SEC = 20.0
"""Between two bursts."""
FORM = (
    b"Host: a\r\nContent-Type: multipart/form-data; boundary=b\r\n",
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n',
    b"\r\n--b--\r\n",
)
POST = b"POST /v1/audio/transcriptions HTTP/1.1\r\n" + FORM[0]
UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
TEXT, BINARY, PING, RESERVED = 1, 2, 9, 3


def frame(opcode: int, payload: bytes, length: int | None = None) -> bytes:
    """A masked frame whose mask is zero. `length`: what its header says, where that is another one."""
    return (
        bytes([0x80 | opcode, 0xFF])
        + struct.pack(">Q", len(payload) if length is None else length)
        + bytes(4)
        + payload
    )


@asynccontextmanager
async def connected(port: int, receive_buffer: int | None = None) -> AsyncIterator[socket.socket]:
    with socket.socket() as client:
        client.setblocking(False)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        yield client


@asynccontextmanager
async def streaming(port: int, receive_buffer: int | None = None) -> AsyncIterator[socket.socket]:
    """A connection whose handshake of WebSocket is done. RefusedError where it is refused."""
    async with connected(port, receive_buffer) as client:
        await send(client, UPGRADE)
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            # A byte at a time: what follows is the server's first message.
            data = await asyncio.get_running_loop().sock_recv(client, 1)
            if not data:
                break
            received += data
        if b" 101 " not in received:
            while data := await asyncio.get_running_loop().sock_recv(client, 4096):
                received += data
            raise RefusedError(summary(received))
        yield client


class RefusedError(Exception):
    """The server answers to a handshake with a refusal."""


async def send(client: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(client, data)


async def answer_of(client: socket.socket) -> str:
    """What the server sends until it ends the connection, in a few words."""
    received = b""
    try:
        while data := await asyncio.get_running_loop().sock_recv(client, 65536):
            received = (received + data)[-65536:]
    except ConnectionError:
        return summary(received) or "reset"
    return summary(received) or "closed"


def summary(received: bytes) -> str:
    """Status or close code of what a server sent, and the code of its message; empty without both."""
    found = [status.decode() for status in re.findall(rb"HTTP/1\.1 (\d{3})", received) if status != b"101"][-1:]
    if closed := re.search(rb"\x88[\x02-\x7d](..)[^\x88]*$", received, re.DOTALL):
        found = [str(struct.unpack(">H", closed[1])[0])]
    kinds = [kind.decode() for kind in re.findall(rb'"code": ?"(\w+)"', received)]
    return " ".join(found + kinds[-1:])


async def refused_while(client: socket.socket, sending: Awaitable[None]) -> str:
    """The answer to a client that sends as long as it can."""
    task = asyncio.ensure_future(sending)
    answer = asyncio.create_task(answer_of(client))
    try:
        await asyncio.wait({task, answer})
    finally:
        task.cancel()
        answer.cancel()
        await asyncio.gather(task, answer, return_exceptions=True)
    return answer.result()


async def repeatedly(client: socket.socket, data: bytes, times: int) -> None:
    for _ in range(times):
        await send(client, data)


class BadClients:
    """One method a kind: one connection, from its begin to the server's answer."""

    def __init__(self, port: int, talks: Sequence[Talk]) -> None:
        self._port, self._talks = port, itertools.cycle(talks)
        self._numbers = itertools.count()

    async def silent(self) -> str:
        async with connected(self._port) as client:
            return await answer_of(client)

    async def half_a_head(self) -> str:
        async with connected(self._port) as client:
            await send(client, b"GET / HTTP/1.1\r\nHost:")
            return await answer_of(client)

    async def a_byte_a_second(self) -> str:
        async with connected(self._port) as client:

            async def trickle() -> None:
                for byte in b"GET / HTTP/1.1\r\n" + 1000 * b"A: b\r\n":
                    await send(client, bytes([byte]))
                    await asyncio.sleep(TRICKLE_SEC)

            return await refused_while(client, trickle())

    async def half_an_upload(self) -> str:
        async with connected(self._port) as client:
            await send(client, POST + b"Content-Length: 100000\r\n\r\n" + FORM[1])
            return await answer_of(client)

    async def half_a_body_for_nobody(self) -> str:
        async with connected(self._port) as client:
            await send(client, b"POST /v1/none HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")
            return await answer_of(client)

    async def garbage(self) -> str:
        async with connected(self._port) as client:
            await send(client, os.urandom(4000))
            return await answer_of(client)

    async def garbage_in_a_stream(self) -> str:
        wrong = [
            frame(TEXT, b"words"),
            frame(TEXT, b"\xff\xfe"),
            frame(TEXT, b'{"type": "start", "sampling_rate": 7}'),
            frame(RESERVED, b""),
            frame(PING, bytes(200)),
            os.urandom(500),
            frame(BINARY, b"\0")[:9] + b"\0",  # and no more: it is idle
        ]
        async with streaming(self._port) as client:
            await send(client, wrong[next(self._numbers) % len(wrong)])
            return await answer_of(client)

    async def a_stream_that_reads_nothing(self) -> str:
        async with streaming(self._port, receive_buffer=2048) as client:
            for talk in self._talks:
                for block in talk.blocks():
                    await send(client, frame(BINARY, block))
                    await asyncio.sleep(BLOCK_SEC)
        return "all was taken"

    async def a_half_open_stream(self) -> str:
        async with streaming(self._port) as client:
            await send(client, frame(TEXT, b'{"type": "start"}') + frame(BINARY, bytes(16000)))
            return await answer_of(client)

    async def a_stream_that_vanishes(self) -> str:
        async with streaming(self._port) as client:
            await send(client, b"".join(frame(BINARY, block) for block in next(self._talks).blocks()[:10]))
            await asyncio.sleep(TRICKLE_SEC)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "reset by the client"

    async def pages_that_nobody_reads(self) -> str:
        async with connected(self._port, receive_buffer=2048) as client:
            await repeatedly(client, 1000 * b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1000)
        return "all was taken"

    async def an_upload_of_1_gb(self) -> str:
        async with connected(self._port) as client:
            length = f"Content-Length: {GIGABYTE}\r\n\r\n".encode()

            async def upload() -> None:
                await send(client, POST + length + FORM[1])
                await repeatedly(client, bytes(MEGABYTE), GIGABYTE // MEGABYTE)

            return await refused_while(client, upload())

    async def an_upload_of_1_gb_in_chunks(self) -> str:
        async with connected(self._port) as client:

            async def upload() -> None:
                await send(client, POST + b"Transfer-Encoding: chunked\r\n\r\n")
                await send(client, f"{len(FORM[1]):x}\r\n".encode() + FORM[1] + b"\r\n")
                await repeatedly(client, b"100000\r\n" + bytes(MEGABYTE) + b"\r\n", GIGABYTE // MEGABYTE)

            return await refused_while(client, upload())

    async def a_message_of_1_gb(self) -> str:
        async with streaming(self._port) as client:

            async def upload() -> None:
                await send(client, frame(BINARY, b"", GIGABYTE))
                await repeatedly(client, bytes(MEGABYTE), GIGABYTE // MEGABYTE)

            return await refused_while(client, upload())

    async def bad_files(self) -> str:
        files = [b"", b"text\n" * 99, wav(np.zeros((800, 8))), wav(np.full(800, np.nan)), wav(np.zeros(800))[:44]]
        content = FORM[1] + files[next(self._numbers) % len(files)] + FORM[2]
        async with connected(self._port) as client:
            length = f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            await send(client, POST + length + content)
            return await answer_of(client)

    async def burst_of_requests(self) -> str:
        """More connections than the server takes, at once."""
        request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        return await self._burst(300, lambda: connected(self._port), request)

    async def burst_of_streams(self) -> str:
        return await self._burst(40, lambda: streaming(self._port), frame(TEXT, b'{"type": "start"}'))

    async def _burst(
        self, number: int, opened: Callable[[], AbstractAsyncContextManager[socket.socket]], request: bytes
    ) -> str:
        async def one() -> str:
            async with opened() as client:
                await send(client, request)
                await asyncio.sleep(TRICKLE_SEC)
                return await asyncio.wait_for(answer_of(client), 2 * TRICKLE_SEC)

        found = await asyncio.gather(*(one() for _ in range(number)), return_exceptions=True)
        await asyncio.sleep(BURST_SEC)
        return " and ".join(sorted({one if isinstance(one, str) else _refusal(one) for one in found}))


def _refusal(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "served"
    return str(error) if isinstance(error, RefusedError) else "disconnected"


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format="WAV", subtype="FLOAT")
    return file.getvalue()
