"""`asrkd serve`: exported models over HTTP and WebSocket, with a page."""

from __future__ import annotations

from asrkd.commands.command import Command
from asrkd.errors import InputError
from asrkd.serve.options import ServerOptions


def run(options: ServerOptions) -> int:
    try:
        from asrkd.serve.server import serve
    except ImportError as error:
        advice = "pip install 'asrkd[runtime,serve]'"
        raise InputError(f"asrkd serve needs {error.name}, which is not installed: {advice}") from None
    serve(options)
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
    options=lambda: ServerOptions,
    run=run,
)
