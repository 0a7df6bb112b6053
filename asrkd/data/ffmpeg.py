"""Audio that libsndfile does not read (m4a, video, ...), decoded to FLAC by ffmpeg where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from asrkd.data.audio import AudioError

PROGRAM = "ffmpeg"
TIME_LIMIT_SEC = 3600.0  # ten hours of video take minutes
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
    """Write the first audio stream of a file as FLAC, with its sampling rate and all of its channels.

    AudioError if ffmpeg is not installed, reports any error, or takes longer than TIME_LIMIT_SEC.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise AudioError(
            f"{container_of(path)} in {path} needs {PROGRAM}, which is not installed: "
            "install it, or convert the file to FLAC"
        )
    try:
        done = subprocess.run(
            _command(program, path, out), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT_SEC
        )
    except subprocess.TimeoutExpired:
        raise AudioError(f"{PROGRAM} took longer than {TIME_LIMIT_SEC:g} s for {path}") from None
    # A file that is cut is an error that it reports and survives.
    errors = done.stderr.decode(errors="replace").split("\n")[0].strip()
    if done.returncode or errors:
        raise AudioError(f"unreadable audio in {path} ({PROGRAM}: {errors or f'exit code {done.returncode}'})")


def _command(program: str, path: Path, out: Path) -> list[str]:
    """A fixed list of arguments. With `file:` no name is read as an option or as the address of a server."""
    source = ["-protocol_whitelist", "file", "-format_whitelist", FORMATS, "-i", f"file:{path.absolute()}"]
    audio = ["-map", "0:a:0", "-vn", "-sn", "-dn", "-map_metadata", "-1", "-c:a", "flac", "-sample_fmt", "s16"]
    return [program, "-nostdin", "-v", "error", "-y", *source, *audio, "-f", "flac", f"file:{out.absolute()}"]
