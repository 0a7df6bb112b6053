"""What the server refuses, so that no client can take it from the others."""

from __future__ import annotations

from dataclasses import dataclass, fields

from asrkd.errors import InputError

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits on connections, size, time and memory."""

    max_connections: int = 256
    """Open connections of all kinds."""
    max_streams: int = 32
    """Streams at a time."""
    max_files: int = 16
    """Uploaded files at a time: those that come, wait and are transcribed."""
    max_upload_mb: float = 100.0
    """Size of a request."""
    max_seconds: float = 3600.0
    """Seconds of audio of a stream or a file, and how long a stream or the work on a file lasts."""
    idle_timeout: float = 30.0
    """Seconds without a message of a client, or in which it does not take one, after which it is disconnected."""
    max_memory_mb: float = 4096.0
    """Resident memory of all processes, above which nothing new begins."""

    def __post_init__(self) -> None:
        """InputError for a limit that lets nothing through."""
        for one in fields(Limits):
            value = getattr(self, one.name)
            if not value > 0:
                raise InputError(f"--{one.name.replace('_', '-')}: expected a number above 0, found {value}")
