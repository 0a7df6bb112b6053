"""`asrkd serve`: exported models over HTTP and WebSocket, with a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asrkd.commands.command import Command
from asrkd.errors import InputError
from asrkd.options import first_word


@dataclass(frozen=True)
class Options:
    """What is served, where, and what is refused."""

    models: tuple[Path, ...] = field(metadata=first_word())
    """Models of `asrkd export`: folders, or the same as .tar.gz. The first one serves requests that name none."""
    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0: all of this machine's, for everybody who can reach it, without a password."""
    port: int = 8000
    """Port; 0: any free one."""
    precision: Literal["auto", "float32", "int8"] = "auto"
    """Weights of the network; auto: int8 where the model has it."""
    num_workers: int | None = None
    """Processes that streams share; none: one for each core, 4 at most. Each has the models in memory."""
    num_jobs: int = 1
    """Processes that transcribe uploaded files, each one file at a time."""
    max_connections: int = 256
    """Open connections of all kinds."""
    max_streams: int = 32
    """Streams at a time."""
    max_files: int = 16
    """Uploaded files at a time: those that come, wait and are transcribed."""
    max_upload_mb: float = 100.0
    """Size of an upload."""
    max_seconds: float = 3600.0
    """Seconds of audio of a stream or a file, and how long a stream or the work on a file lasts."""
    idle_timeout: float = 30.0
    """Seconds without a message of a client, or in which it does not take one, after which it is disconnected."""
    max_memory_mb: float = 4096.0
    """Resident memory of all processes, above which nothing new begins."""


def run(options: Options) -> int:
    try:
        from asrkd.serve.server import ServerOptions, serve
    except ImportError as error:
        advice = "pip install 'asrkd[runtime,serve]'"
        raise InputError(f"asrkd serve needs {error.name}, which is not installed: {advice}") from None
    from asrkd.serve.limits import Limits

    limits = Limits(
        max_connections=options.max_connections,
        max_streams=options.max_streams,
        max_files=options.max_files,
        max_upload_mb=options.max_upload_mb,
        max_seconds=options.max_seconds,
        idle_timeout=options.idle_timeout,
        max_memory_mb=options.max_memory_mb,
    )
    serve(
        ServerOptions(
            models=options.models,
            host=options.host,
            port=options.port,
            precision=options.precision,
            num_workers=options.num_workers,
            num_jobs=options.num_jobs,
            limits=limits,
        )
    )
    return 0


COMMAND = Command(
    name="serve",
    summary="Serve exported models over HTTP and WebSocket, with a page.",
    description="""
The page at http://127.0.0.1:8000/ takes speech of the microphone or a file and shows words as they come. With two
models it shows where they agree.

  GET  /v1/stream                 WebSocket: 16-bit PCM in, partial and final words as JSON out
  POST /v1/audio/transcriptions   a file, as OpenAI's clients send it: json, text, srt, vtt or verbose_json
  GET  /v1/models, /healthz       what is served, and whether it works

Only this machine reaches it unless --host says otherwise. What a limit refuses gets a status or a close code and a
message that names the option. Ctrl-C ends it.""",
    examples=(
        "asrkd serve model/",
        "asrkd serve student/ teacher/ --port 8080",
        "asrkd serve model.tar.gz --max-streams 8 --max-upload-mb 20 --max-seconds 600",
        "curl -F file=@a.wav -F response_format=srt http://127.0.0.1:8000/v1/audio/transcriptions",
    ),
    options=lambda: Options,
    run=run,
)
