"""The addresses of the server."""

from __future__ import annotations

from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from asrkd.serve.limits import Limits
from asrkd.serve.pool import Pool
from asrkd.serve.streams import Streams
from asrkd.serve.transcriptions import ApiError, Transcriptions, unknown_model

OWNER = "asrkd"
PAGE_HEADERS = {
    # The page is one file: nothing comes from elsewhere.
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; "
    "style-src 'unsafe-inline'; connect-src 'self' ws: wss:; img-src data:; media-src blob:; base-uri 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


def build_app(pool: Pool, limits: Limits) -> Starlette:
    """The application: streams, transcriptions, models, health and the page."""
    streams, transcriptions = Streams(pool, limits), Transcriptions(pool, limits)
    page = files("asrkd.serve").joinpath("page.html").read_text(encoding="utf-8")

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers=PAGE_HEADERS)

    async def health(request: Request) -> Response:
        values = {
            "status": "ok" if pool.is_ready else "starting",
            "streams": streams.num_open,
            "files": transcriptions.num_open,
            "memory_mb": round(pool.memory_mb()),
        }
        return JSONResponse(values, 200 if pool.is_ready else 503)

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(one) for one in pool.described]})

    async def model(request: Request) -> Response:
        index = pool.model_index(request.path_params["model"])
        if index is None:
            return unknown_model(pool, request.path_params["model"]).response()
        return JSONResponse(_model(pool.described[index]))

    return Starlette(
        routes=[
            Route("/", index),
            Route("/healthz", health),
            Route("/v1/models", models),
            Route("/v1/models/{model}", model),
            Route("/v1/audio/transcriptions", transcriptions.serve, methods=["POST"]),
            WebSocketRoute("/v1/stream", streams.serve),
        ],
        middleware=[Middleware(SameOrigin)],
        exception_handlers={HTTPException: _http_error},  # type: ignore[dict-item]  # of a subclass of Exception
    )


def _model(described: dict[str, Any]) -> dict[str, Any]:
    return {"object": "model", "created": 0, "owned_by": OWNER, **described}


def _http_error(request: Request, error: HTTPException) -> Response:
    """Unknown addresses and methods, in the form of the other errors."""
    message = f"{request.method} {request.url.path}: {error.detail}"
    return ApiError(error.status_code, "not_found" if error.status_code == 404 else "bad_request", message).response()


class SameOrigin:
    """Refuses what the page of another site asks in a browser: a server on this machine is not theirs to use."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                message = f"expected requests of this server's page or of programs, found the page {origin:.80}"
                response = ApiError(403, "foreign_origin", message).response()
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
