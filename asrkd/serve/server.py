"""The server from its start to Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn

from asrkd.errors import InputError
from asrkd.serve.app import build_app
from asrkd.serve.connections import http_protocol, websocket_protocol
from asrkd.serve.limits import MEGABYTE, Limits
from asrkd.serve.options import ServerOptions
from asrkd.serve.pool import Pool

GRACE_SEC = 3
"""For requests that run when the server is told to end."""
KEEP_ALIVE_SEC = 5
BUFFER_BYTES = 1 << 18
"""Of the system for each direction of a connection. It would take megabytes for a client that does not read, which no
limit on the memory of processes counts."""
MOST_WORKERS = 4
"""Of processes for streams where none are asked for: each has the models in memory."""


def default_workers() -> int:
    """One for each core that this process may use, and MOST_WORKERS at most."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, MOST_WORKERS)


def serve(options: ServerOptions) -> None:
    """Serve until Ctrl-C or SIGTERM. InputError for a model that cannot be loaded and an address that is not free."""
    logging.basicConfig(stream=sys.stderr, format="asrkd serve: %(message)s", level=logging.WARNING)
    with _listen(options.host, options.port) as listening, suppress(KeyboardInterrupt):
        asyncio.run(_serve(options, listening))


class _Server(uvicorn.Server):
    """uvicorn's, which ends at the signals and does not raise them again: the workers end after it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


async def _serve(options: ServerOptions, listening: socket.socket) -> None:
    pool = Pool(options.models, options.precision, options.num_workers or default_workers(), options.num_jobs)
    await pool.start()
    try:
        server = _Server(_config(build_app(pool, options), options))
        for one in pool.described:
            print(f"model {one['id']}: {one['name']}, {one['sampling_rate']} Hz", file=sys.stderr)
        print(f"listening on {_address(listening)} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        await server.serve([listening])
    finally:
        await pool.stop()


def _config(app: object, limits: Limits) -> uvicorn.Config:
    ping_sec = max(1.0, limits.idle_timeout)
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an application of Starlette
        http=http_protocol(limits),
        ws=websocket_protocol(limits),
        ws_max_size=MEGABYTE,
        ws_per_message_deflate=False,  # a small message could expand to a large one
        ws_ping_interval=ping_sec,
        ws_ping_timeout=ping_sec,
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="error",  # what a client does wrong is said to the client
        server_header=False,
        timeout_keep_alive=min(KEEP_ALIVE_SEC, math.ceil(limits.idle_timeout)),
        timeout_graceful_shutdown=GRACE_SEC,
        backlog=128,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is bound. InputError for an address that is not ours, or not free."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            listening.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)  # connections inherit it
        return listening
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--host {host} --port {port}: expected an address to listen on: {reason}") from None


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
