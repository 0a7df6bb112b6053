"""Messages on the pipes between the server and its worker processes: a JSON object, and bytes that belong to it.

length of the JSON, length of the bytes (each 4 bytes, little-endian), JSON, bytes
"""

from __future__ import annotations

import json
import struct
from asyncio import IncompleteReadError, StreamReader
from typing import Any, BinaryIO, NamedTuple

HEADER = struct.Struct("<II")


class Message(NamedTuple):
    """One message."""

    values: dict[str, Any]
    payload: bytes = b""


def encode(message: Message) -> bytes:
    """The message as it is on a pipe."""
    text = json.dumps(message.values, ensure_ascii=False).encode("utf-8", "replace")
    return HEADER.pack(len(text), len(message.payload)) + text + message.payload


def read(pipe: BinaryIO) -> Message | None:
    """The next message of a pipe; None at its end."""
    header = pipe.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    text, payload = HEADER.unpack(header)
    content = pipe.read(text + payload)
    if len(content) < text + payload:
        return None
    return Message(json.loads(content[:text]), content[text:])


async def receive(reader: StreamReader) -> Message | None:
    """The same for the server's end of a pipe."""
    try:
        text, payload = HEADER.unpack(await reader.readexactly(HEADER.size))
        return Message(json.loads(await reader.readexactly(text)), await reader.readexactly(payload))
    except (IncompleteReadError, ConnectionError):
        return None
