"""Connections that say nothing, say half of a request, or do not read: uvicorn's protocols with limits on these."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from asrkd.serve.limits import Limits


def http_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """HTTP/1.1 whose connections end when no whole request comes, and of which there are so many at most."""

    class LimitedHttp(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.max_connections:
                message = f"expected at most {limits.max_connections} connections (--max-connections); try again later"
                transport.write(unavailable(message))
                transport.close()
                return
            self._watch()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def _watch(self) -> None:
            """Wait for the rest of the headers, unless that has begun before."""
            if self.conn.their_state is not h11.IDLE:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = None
            elif self._timer is None:
                self._timer = self.loop.call_later(limits.idle_timeout, self._end)

        def _end(self) -> None:
            self._timer = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.abort()

    return LimitedHttp


def websocket_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """WebSockets whose connections end some time after the stream, also where the client does not read."""

    class LimitedWebSocket(WebSocketsSansIOProtocol):
        async def run_asgi(self) -> None:
            try:
                await super().run_asgi()
            finally:
                self.loop.call_later(limits.idle_timeout, self.transport.abort)

    return LimitedWebSocket


def unavailable(message: str) -> bytes:
    """A whole response that refuses a connection."""
    error = {"message": message, "type": "server_error", "param": None, "code": "too_many_connections"}
    body = json.dumps({"error": error}).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Retry-After: 5\r\nConnection: close\r\n\r\n".encode() + body
