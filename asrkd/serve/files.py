"""An uploaded file to the body of a response."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asrkd.errors import InputError
from asrkd.runtime.audio import open_input
from asrkd.runtime.inputs import AudioInput
from asrkd.runtime.model import Model
from asrkd.runtime.transcribe import TranscribeOptions, transcribe_input
from asrkd.serve.responses import body, event_stream


def transcribe_upload(model: Model, values: dict[str, Any]) -> dict[str, Any]:
    """Transcribe the file at `path` that a client calls `name`. InputError as `transcribe_input`, with that name."""
    path, name, max_sec = Path(values["path"]), values["name"], values["max_sec"]
    options = TranscribeOptions(confidences=values["confidences"])
    try:
        with open_input(AudioInput(name, path), path.parent) as audio:
            if audio.duration_sec > max_sec:
                raise InputError(
                    f"{name}: expected at most {max_sec:.8g} s of audio, found {audio.duration_sec:.1f} s; "
                    "send it in parts (--max-seconds of the server)"
                )
            # Of what only ffmpeg reads there is a decoded file by now.
            transcript = transcribe_input(model, AudioInput(name, audio.path), options, tmp_dir=path.parent)
    except InputError as error:
        message = str(error).replace(str(path), name)
        raise InputError(message.replace(str(path.parent), "upload")) from None
    if values["stream"]:
        text = event_stream(transcript)
    else:
        text = body(transcript, values["response_format"], values["granularities"])
    return {"body": text, "audio": transcript.duration}
