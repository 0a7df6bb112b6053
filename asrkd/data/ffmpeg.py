"""Audio that libsndfile does not read (m4a, video, ...), decoded to FLAC by ffmpeg where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import soundfile

from asrkd.data.audio import AudioError

PROGRAM, PROBE = "ffmpeg", "ffprobe"
TIME_LIMIT_SEC = 3600.0  # ten hours of video take minutes
# How much less than a file says may be decoded: a frame of a codec, and what its statement of the duration is worth.
SHORTER_SEC, SHORTER = 0.25, 0.02
# Container -> where its first bytes differ from others', and which they are.
CONTAINERS = {
    "MP4 or m4a": (4, (b"ftyp", b"moov", b"mdat", b"wide")),
    "Matroska or WebM": (0, (b"\x1aE\xdf\xa3",)),
    "AVI": (8, (b"AVI ",)),
    "ASF or WMA": (0, (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",)),
    "FLV": (0, (b"FLV\x01",)),
    "MPEG": (0, (b"\0\0\x01\xba", b"\0\0\x01\xb3")),
    "AMR": (0, (b"#!AMR",)),
    "AAC": (0, (b"\xff\xf1", b"\xff\xf9")),
}
# ffmpeg's readers of these: no playlist, which could name other files.
FORMATS = "mov,mp4,m4a,matroska,webm,avi,asf,flv,mpeg,amr,aac"


def container_of(path: Path) -> str | None:
    """The container that a file begins as; None if it is none of them, or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return None
    for name, (offset, magics) in CONTAINERS.items():
        if head[offset:].startswith(magics):
            return name
    return None


def decode(path: Path, out: Path) -> None:
    """Write the audio stream of a file as FLAC, with its sampling rate and all of its channels.

    Times are those of a video: sound that begins after the picture, or has gaps, gets silence there. AudioError if
    ffmpeg is not installed, reports any error, or takes longer than TIME_LIMIT_SEC; and for a file with several audio
    streams or floating-point samples, or shorter than it says.
    """
    program = _program(PROGRAM, path)
    _require_whole_avi(path)
    stream = _probe(path)
    _run(_command(program, path, out, stream.has_picture), path)
    with soundfile.SoundFile(out) as file:
        found = file.frames / file.samplerate
    # ffmpeg passes over the missing end of some containers, such as AVI and FLV.
    if stream.duration_sec is not None and found < stream.duration_sec - max(SHORTER_SEC, SHORTER * found):
        raise AudioError(f"truncated audio: expected {stream.duration_sec:.2f} s in {path}, found {found:.2f} s")


def stated_seconds(path: Path) -> float | None:
    """Seconds that a container says it has; None if it is none of CONTAINERS, says nothing, or ffprobe is missing."""
    if not path.is_file() or container_of(path) is None:
        return None
    try:
        command = [_program(PROBE, path), "-v", "error", "-of", "json", "-show_entries", "format=duration"]
        content = json.loads(_run([*command, *_source(path)], path) or "{}")
    except AudioError:
        return None
    return _seconds(content.get("format", {}).get("duration"))


class _Stream(NamedTuple):
    """What ffprobe says of the audio of a file."""

    duration_sec: float | None
    """None where the container has none for the audio alone."""
    has_picture: bool


def _probe(path: Path) -> _Stream:
    """AudioError unless a file has one audio stream, of samples that FLAC can have."""
    entries = "stream=codec_type,codec_name,duration:stream_disposition=attached_pic:format=duration"
    command = [_program(PROBE, path), "-v", "error", "-of", "json", "-show_entries", entries, *_source(path)]
    content = json.loads(_run(command, path) or "{}")
    streams = content.get("streams", [])
    audio = [stream for stream in streams if stream.get("codec_type") == "audio"]
    if len(audio) != 1:
        raise AudioError(
            f"expected one audio stream in {path}, found {len(audio)}: write the one that is spoken to a file"
        )
    codec = str(audio[0].get("codec_name"))
    if codec.startswith("pcm_f"):
        raise AudioError(f"expected integer or coded samples in {path}, found {codec}: convert the file to WAV")
    duration = audio[0].get("duration") or (content.get("format", {}).get("duration") if len(streams) == 1 else None)
    has_picture = any(one.get("codec_type") == "video" and not _is_cover(one) for one in streams)
    return _Stream(_seconds(duration), has_picture)


def _seconds(duration: str | None) -> float | None:
    """None where there is none, or none that is a number ("N/A")."""
    try:
        return None if duration is None else float(duration)
    except ValueError:
        return None


def _is_cover(stream: Mapping[str, Any]) -> bool:
    return bool(stream.get("disposition", {}).get("attached_pic"))


def _require_whole_avi(path: Path) -> None:
    """AudioError for an AVI file that is shorter than its header says: ffmpeg then shortens the duration too."""
    with path.open("rb") as file:
        head = file.read(12)
    if container_of(path) == "AVI" and len(head) == 12:
        expected, found = 8 + int.from_bytes(head[4:8], "little"), path.stat().st_size
        if found < expected:
            raise AudioError(f"truncated audio: expected {expected} bytes in {path}, found {found}")


def _program(name: str, path: Path) -> str:
    program = shutil.which(name)
    if program is None:
        raise AudioError(
            f"{container_of(path)} in {path} needs {name}, which is not installed: "
            "install it, or convert the file to FLAC"
        )
    return program


def _run(command: list[str], path: Path) -> bytes:
    """What a command prints. AudioError if it reports any error."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT_SEC)
    except subprocess.TimeoutExpired:
        raise AudioError(f"{PROGRAM} took longer than {TIME_LIMIT_SEC:g} s for {path}") from None
    # A file that is cut is an error that it reports and survives.
    errors = done.stderr.decode(errors="replace").split("\n")[0].strip()
    if done.returncode or errors:
        raise AudioError(f"unreadable audio in {path} ({PROGRAM}: {errors or f'exit code {done.returncode}'})")
    return done.stdout


def _source(path: Path) -> list[str]:
    """With `file:` no name is read as an option or as the address of a server."""
    return ["-protocol_whitelist", "file", "-format_whitelist", FORMATS, "-i", f"file:{path.absolute()}"]


def _command(program: str, path: Path, out: Path, has_picture: bool) -> list[str]:
    """A fixed list of arguments. `has_picture`: times count from the picture's begin, and gaps get silence."""
    audio = ["-map", "0:a:0", "-vn", "-sn", "-dn", "-map_metadata", "-1"]
    if has_picture:
        audio += ["-af", "aresample=async=1:first_pts=0"]  # fills and cuts, and does not stretch
    coded = ["-c:a", "flac", "-sample_fmt", "s16", "-f", "flac", f"file:{out.absolute()}"]
    return [program, "-nostdin", "-v", "error", "-y", *_source(path), *audio, *coded]
