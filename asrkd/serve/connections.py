"""Connections that say nothing, say half of a request, or do not read: uvicorn's protocols with limits on these."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from asrkd.serve.limits import Limits

DISCARD_SEC = 0.05
"""Between two reads of what is discarded: some megabytes a second, so that it takes no time from the streams."""


class ClosingTransport:
    """A transport that ends in a bounded time, and not under a client that is sending.

    Where a socket is closed with unread bytes, the client can see a reset instead of the answer. So `close()` ends the
    server's side alone while the client sends. What comes is discarded until the client closes too.
    """

    def __init__(self, transport: Any, timeout: float, is_sending: Callable[[], bool]) -> None:
        """`timeout`: seconds in which a client must take something of what was written."""
        self.wrapped, self._timeout, self._is_sending = transport, timeout, is_sending
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._discards = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def is_closing(self) -> bool:
        return self._discards or self.wrapped.is_closing()

    def close(self) -> None:
        """End it: what was written is sent first, but not to a client that takes nothing."""
        if self.is_closing():
            return
        self.watch_writing()
        if not self._is_sending():
            self.wrapped.close()
            return
        self._discards = True
        self.wrapped.resume_reading()
        self.wrapped.write_eof()

    def discard(self) -> None:
        """Read no more for a moment."""
        if self._discards:
            self.wrapped.pause_reading()
            self._loop.call_later(DISCARD_SEC, self.wrapped.resume_reading)

    def watch_writing(self) -> None:
        """End it at once where the client takes nothing in time."""
        self.stop_watching()
        size = self.wrapped.get_write_buffer_size()
        self._timer = self._loop.call_later(self._timeout, self._end_unless_read, size)

    def stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end_unless_read(self, before: int) -> None:
        if 0 < self.wrapped.get_write_buffer_size() < before:
            self.watch_writing()
        else:
            self.wrapped.abort()


def http_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """HTTP/1.1 whose connections end when no whole request comes, and of which there are so many at most."""

    class LimitedHttp(H11Protocol):
        transport: Any
        _timer: asyncio.TimerHandle | None = None
        _is_upgraded = _is_refused = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(ClosingTransport(transport, limits.idle_timeout, self._is_sending))  # type: ignore[arg-type]  # it has all of a transport
            if len(self.connections) > limits.max_connections:
                message = f"expected at most {limits.max_connections} connections (--max-connections); try again later"
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", message)
            else:
                self._watch()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                self.transport.discard()
                return
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.SEND_BODY:
                self.transport.close()  # the rest of a body that nobody reads
            self._watch()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.transport.watch_writing()

        def resume_writing(self) -> None:
            super().resume_writing()
            if not self.transport.is_closing():
                self.transport.stop_watching()

        def handle_websocket_upgrade(self, event: h11.Request) -> None:
            self._is_upgraded = True
            self.transport = self.transport.wrapped
            super().handle_websocket_upgrade(event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            self.transport.stop_watching()
            super().connection_lost(exc)

        def _is_sending(self) -> bool:
            return self._is_refused or self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

        def _watch(self) -> None:
            """Wait for a whole request, unless that has begun before. No time is too long for an answer."""
            if self._is_upgraded or (self.cycle is not None and not self.cycle.response_complete):
                self._stop_waiting()
            elif self._timer is None:
                self._timer = self.loop.call_later(limits.idle_timeout, self._end_waiting)

        def _end_waiting(self) -> None:
            if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0] and not self.transport.is_closing():
                message = f"expected a whole request within {limits.idle_timeout:.8g} s (--idle-timeout), found a part"
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, "idle", message)
            else:
                self.transport.close()

        def _refuse(self, status: HTTPStatus, code: str, message: str) -> None:
            self._is_refused = True
            self.transport.write(refusal(status, code, message))
            self.transport.close()

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None

    return LimitedHttp


def websocket_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """WebSockets whose connections end some time after the stream, also where the client does not read."""

    class LimitedWebSocket(WebSocketsSansIOProtocol):
        transport: Any
        _received_at = 0.0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(ClosingTransport(transport, limits.idle_timeout, self._is_sending))  # type: ignore[arg-type]  # it has all of a transport

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                self.transport.discard()
                return
            self._received_at = self.loop.time()
            super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            self.transport.stop_watching()
            super().connection_lost(exc)

        def send_receive_event_to_app(self) -> None:
            if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
                self.frames = []
                self.conn.fail(CloseCode.INVALID_DATA, "expected text in UTF-8")
                self.handle_parser_exception()
            else:
                super().send_receive_event_to_app()

        def keepalive_timeout(self) -> None:
            """A client that sends faster than the server computes is alive: its pong comes after its audio."""
            if self.read_paused or self._received_at > self.ping_sent_at:
                self.stop_keepalive()
                self.schedule_ping()
            else:
                super().keepalive_timeout()

        def _is_sending(self) -> bool:
            return self.conn.close_rcvd is None

    return LimitedWebSocket


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def refusal(status: HTTPStatus, code: str, message: str) -> bytes:
    """A whole response that ends a connection, in the form of the application's errors."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    retry = "Retry-After: 5\r\n" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ""
    return f"{head}{retry}Connection: close\r\n\r\n".encode() + body
