"""POST /v1/audio/transcriptions, as OpenAI's clients call it."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message

from asrkd.errors import system_error
from asrkd.serve.limits import MEGABYTE, Limits
from asrkd.serve.pool import FaultError, Pool, RefusedError, WorkerEndedError
from asrkd.serve.responses import EVENT_STREAM, GRANULARITIES, MEDIA_TYPES, STREAMED_FORMATS

LOGGER = logging.getLogger("asrkd.serve")
MOST_FIELDS = 32
RETRY_SEC = 5
NAME_CHARACTERS = 80
BOOLEANS = {"true": True, "false": False}
GRANULARITY_FIELDS = ("timestamp_granularities[]", "timestamp_granularities")
"""With brackets, as clients of OpenAI send lists, and without."""


class ApiError(Exception):
    """A refusal: HTTP status, and an object as OpenAI's clients read it."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def response(self) -> JSONResponse:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        headers = {"Retry-After": str(RETRY_SEC)} if self.status in (429, 503) else {}
        # What is left of a request that was refused is not read.
        headers |= {"Connection": "close"} if self.status in (408, 413) else {}
        return JSONResponse({"error": error}, self.status, headers)


def unknown_model(pool: Pool, name: object) -> ApiError:
    """The refusal of a model that is not served."""
    known = ", ".join(one["id"] for one in pool.described)
    return ApiError(404, "model_not_found", f"model: expected one of {known}, found {name!r:.60}", "model")


@dataclass(frozen=True)
class _Form:
    """The fields of a request that have an effect. language, prompt, temperature and others are accepted."""

    upload: UploadFile
    model: int
    response_format: str
    granularities: tuple[str, ...]
    stream: bool
    """Whether the client reads events."""

    @property
    def media_type(self) -> str:
        return EVENT_STREAM if self.stream else MEDIA_TYPES[self.response_format]


class Transcriptions:
    """The endpoint."""

    def __init__(self, pool: Pool, limits: Limits) -> None:
        self._pool, self._limits = pool, limits
        self.num_open = 0

    async def serve(self, request: Request) -> Response:
        """One request."""
        try:
            async with self._admitted(request):
                return await self._serve(request)
        except ApiError as error:
            return error.response()
        except RefusedError as error:
            return ApiError(400, "invalid_audio", str(error), "file").response()
        except FaultError as error:
            return ApiError(500, "fault", str(error)).response()
        except WorkerEndedError:
            return ApiError(503, "restart", "the process of this file ended; send it again").response()

    @asynccontextmanager
    async def _admitted(self, request: Request) -> AsyncIterator[None]:
        """Count a request. ApiError for one that is too many, or too large by its own header."""
        self._require_size(int(request.headers.get("content-length", 0)))
        if self.num_open >= self._limits.max_files:
            message = f"expected at most {self._limits.max_files} files at a time (--max-files); try again later"
            raise ApiError(503, "too_many_files", message)
        used = self._pool.memory_mb()
        if used > self._limits.max_memory_mb:
            raise ApiError(503, "memory", f"the server uses {used:.0f} MB (--max-memory-mb); try again later")
        self.num_open += 1
        try:
            yield
        finally:
            self.num_open -= 1

    def _require_size(self, num_bytes: int) -> None:
        most = self._limits.max_upload_mb
        if num_bytes > most * MEGABYTE:
            message = f"expected a request of at most {most:.8g} MB (--max-upload-mb), found {num_bytes / MEGABYTE:.1f}"
            raise ApiError(413, "too_large", message, "file")

    async def _serve(self, request: Request) -> Response:
        bounded = Request(request.scope, self._bounded(request))
        try:
            async with bounded.form(max_files=1, max_fields=MOST_FIELDS) as fields:
                form = self._form(fields)
                with TemporaryDirectory(prefix="asrkd-upload-") as folder:
                    path = Path(folder, "audio")
                    # In a thread: a slow disk stops nobody else.
                    await asyncio.to_thread(_copy, form.upload, path)
                    await form.upload.close()
                    answer = await self._transcribe(request, form, path)
        except (MultiPartException, HTTPException) as error:
            detail = error.message if isinstance(error, MultiPartException) else error.detail
            raise ApiError(400, "bad_request", f"expected multipart/form-data with a file, found: {detail}") from None
        except ClientDisconnect:
            raise ApiError(400, "gone", "the client has gone") from None
        except OSError as error:
            LOGGER.error("an upload could not be stored: %s", system_error(error))
            message = "the server has no room for this file; try again later"
            raise ApiError(503, "storage", message, "file") from None
        return Response(answer["body"], media_type=form.media_type)

    def _bounded(self, request: Request) -> Any:
        """`receive`, with limits on the size and on the time between two parts."""
        num_bytes = 0

        async def receive() -> Message:
            nonlocal num_bytes
            timeout = self._limits.idle_timeout
            try:
                message = await asyncio.wait_for(request.receive(), timeout)
            except asyncio.TimeoutError:
                found = f"expected more of the request within {timeout:.8g} s (--idle-timeout), found nothing"
                raise ApiError(408, "idle", found) from None
            num_bytes += len(message.get("body", b""))
            self._require_size(num_bytes)
            return message

        return receive

    def _form(self, fields: FormData) -> _Form:
        """The fields. ApiError for one that is missing or wrong."""
        upload = fields.get("file")
        if not isinstance(upload, UploadFile):
            _refuse("file", "expected an audio file in the field `file`, found none")
        name, response_format = fields.get("model"), fields.get("response_format", "json")
        index = self._pool.model_index(name if isinstance(name, str) else None)
        if index is None:
            raise unknown_model(self._pool, name)
        if response_format not in MEDIA_TYPES:
            _refuse("response_format", f"expected one of {', '.join(MEDIA_TYPES)}, found {response_format!r:.60}")
        granularities = [str(one) for name in GRANULARITY_FIELDS for one in fields.getlist(name)]
        for one in granularities:
            if one not in GRANULARITIES:
                _refuse("timestamp_granularities", f"expected {' or '.join(GRANULARITIES)}, found {one!r:.60}")
        stream = fields.get("stream", "false")
        if stream not in BOOLEANS:
            _refuse("stream", f"expected true or false, found {stream!r:.60}")
        if BOOLEANS[str(stream)] and response_format not in STREAMED_FORMATS:
            _refuse(
                "stream", f"expected response_format {' or '.join(STREAMED_FORMATS)}, found {response_format!r:.60}"
            )
        return _Form(upload, index, str(response_format), tuple(granularities) or ("segment",), BOOLEANS[str(stream)])

    async def _transcribe(self, request: Request, form: _Form, path: Path) -> dict[str, Any]:
        """The worker's answer, unless the client goes away before: then its worker stops."""
        work = asyncio.create_task(self._ask(form, path))
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ApiError(400, "gone", "the client has gone")
            return work.result()
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _ask(self, form: _Form, path: Path) -> dict[str, Any]:
        name = PurePosixPath((form.upload.filename or "file").replace("\\", "/")).name
        printable = "".join(one if one.isprintable() else "_" for one in name)
        values = {
            "path": str(path),
            "name": printable[:NAME_CHARACTERS] or "file",
            "model": form.model,
            "max_sec": self._limits.max_seconds,
            "confidences": form.response_format == "verbose_json",
            "response_format": form.response_format,
            "granularities": form.granularities,
            "stream": form.stream,
        }
        async with self._pool.file_worker() as worker:
            return await worker.ask({"do": "transcribe", **values}, timeout=self._limits.max_seconds)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _copy(upload: UploadFile, path: Path) -> None:
    upload.file.seek(0)
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file, MEGABYTE)


def _refuse(param: str, message: str) -> NoReturn:
    raise ApiError(400, "invalid_value", f"{param}: {message}", param)
