"""How long a file is by its own header. libsndfile reads a shorter file to its end without an error."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# Data sizes of WAV files that were written to a pipe: their writer did not know the size, and could not go back to
# write it. The file is read to its end.
PLACE_HOLDERS = (
    0x7FFFF000,  # sox, espeak-ng
    2_000_000_000,  # pocket recorders
    0x7FFFFFFF,  # lame, arecord
    0x80000000,  # arecord, where it is the largest size of its header
    0xFFFFFFFF,  # ffmpeg, mpg123
)
UNKNOWN_AU_BYTES = 0xFFFFFFFF
SPHERE_HEADER_BYTES = 1024
MOST_CHUNKS = 10_000  # more are no audio: each search ends
GUID_BYTES = 16
REST_BYTES = 64  # that are looked at behind the data
# How a file of these formats begins: bytes that show a second one behind the data.
FILE_STARTS = {"AU": (b".snd", b"dns."), "NIST": (b"NIST_1A",), "W64": (b"riff",)}
FLAC_START = b"fLaC\0\0\0\x22"  # with the head of its first block: no chance of 16-bit samples has it
OGG_HEADER = struct.Struct("<4sBBqIIIB")
OGG_FIRST_PAGE = 2  # flag of the page that begins a stream
ID3_HEADER_BYTES = 10
ID3_FOOTER = 0x10  # flag of a tag that has 10 bytes more
MP3_TAG_BYTES = 64  # the tags are within the first 52 bytes of a frame
MAX_UINT32 = 0xFFFFFFFF
MAX_INT64 = (1 << 63) - 1


@dataclass(frozen=True)
class WavData:
    """The data chunk of a WAV file."""

    size_offset: int
    """Position of the 4 bytes that state its size."""
    num_bytes: int
    """Its size by the header."""
    order: str
    """Byte order of the header, as `struct` names it."""
    block_bytes: int
    """Bytes of a block of samples, by the `fmt` chunk; 1 where there is none."""
    is_followed: bool
    """Whether another chunk follows directly on the size: the data are empty."""

    @property
    def start(self) -> int:
        """Position of the first sample."""
        return self.size_offset + 4

    @property
    def is_place_holder(self) -> bool:
        """Whether the size means unknown. Some writers subtract the header from it, and round it down to a block."""
        if self.num_bytes == 0:
            return not self.is_followed
        return any(one - self.start - self.block_bytes < self.num_bytes <= one for one in PLACE_HOLDERS)


@dataclass(frozen=True)
class Rf64Data:
    """The data of an RF64 file, with a size of 64 bits in the chunk ds64."""

    size_offset: int
    """Position of the 8 bytes that state its size; 0 if there are none."""
    num_bytes: int
    """Its size by the header."""
    start: int
    """Position of the first sample."""

    @property
    def is_place_holder(self) -> bool:
        """Whether the size means unknown: the file was written to a pipe."""
        return self.num_bytes == 0 or self.num_bytes >= MAX_INT64 or self.num_bytes == MAX_UINT32


def read_wav_data(path: Path) -> WavData | None:
    """The data chunk of a RIFF or RIFX file; None if there is none."""
    with path.open("rb") as file:
        order = ">" if file.read(12)[:4] == b"RIFX" else "<"
        block_bytes = 1
        for name, num_bytes in _chunks(file, f"{order}4sI", 2):
            if name == b"fmt ":
                block_bytes = max(1, *struct.unpack(f"{order}H", file.read(14)[12:].ljust(2, b"\0")))
            elif name == b"data":
                size_offset = file.tell() - 4
                return WavData(size_offset, num_bytes, order, block_bytes, _is_chunk(file, order, path))
    return None


def expected_bytes(path: Path, audio_format: str) -> int | None:
    """The size of the file by its own header, in libsndfile's name of its format; None if the header does not state it.

    Formats: WAV, WAVEX, RF64, W64, AIFF, AU, NIST, MP3.
    """
    read = {
        "WAV": _wav_bytes,
        "WAVEX": _wav_bytes,
        "RF64": _rf64_bytes,
        "W64": _w64_bytes,
        "AIFF": _aiff_bytes,
        "AU": _au_bytes,
        "NIST": _sphere_bytes,
        "MP3": _mp3_bytes,
    }.get(audio_format)
    return read(path) if read else None


def joined_fault(path: Path, audio_format: str) -> str | None:
    """What libsndfile passes over: a last page of an Ogg file that is cut, and audio after the end that is stated."""
    if audio_format == "OGG":
        return _ogg_fault(path)
    if audio_format in ("WAV", "WAVEX"):
        return _wav_fault(path)
    if audio_format in FILE_STARTS:
        return _rest_fault(path, audio_format)
    length = read_mp3_length(path) if audio_format == "MP3" else None
    if length and length.is_followed:
        return f"expected one MP3 file, found another one at byte {length.end}: convert it to FLAC"
    return None


def _wav_fault(path: Path) -> str | None:
    """Bytes behind the data that are no chunk, no text and no zeros: samples, of a size that is too small."""
    data = read_wav_data(path)
    if data is None or data.is_place_holder:
        return None
    end = data.start + data.num_bytes
    with path.open("rb") as file:
        file.seek(end)
        rest = file.read(REST_BYTES)
    # Chunks begin at even positions, but not all writers know it.
    if len(rest) < REST_BYTES or not any(rest) or any(_is_printable(rest[start : start + 4]) for start in (0, 1)):
        return None
    return (
        f"expected the last sample at byte {end} by the header, found {path.stat().st_size} bytes: "
        "rewrite the file with `sox --ignore-length`"
    )


def _rest_fault(path: Path, audio_format: str) -> str | None:
    """Bytes behind the end that the header states: another file, or samples of a size that is too small."""
    end = expected_bytes(path, audio_format)
    if end is None:
        return None
    with path.open("rb") as file:
        file.seek(end)
        rest = file.read(REST_BYTES)
    if rest.startswith(FILE_STARTS[audio_format]):
        return f"expected one {audio_format} file, found another one at byte {end}: convert it to FLAC"
    if audio_format != "AU" or len(rest) < REST_BYTES or not any(rest):
        return None
    return f"expected the last sample at byte {end} by the header, found {path.stat().st_size} bytes"


def second_flac(path: Path) -> int | None:
    """Position of a second FLAC file behind the first one, which libsndfile passes over; None if there is none.

    The whole file is read, unlike by the other functions of this module.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = content.find(FLAC_START, 4) if content[:4] == FLAC_START[:4] else -1
        return None if found < 0 else found


def _ogg_fault(path: Path) -> str | None:
    size, has_data = path.stat().st_size, False
    with path.open("rb") as file:
        position = 0
        while len(head := file.read(OGG_HEADER.size)) == OGG_HEADER.size and head[:4] == b"OggS":
            *_, flags, _, _, _, _, num_segments = OGG_HEADER.unpack(head)
            if flags & OGG_FIRST_PAGE and has_data:
                return f"expected one Ogg stream, found another one at byte {position}: convert it to FLAC"
            has_data = not flags & OGG_FIRST_PAGE
            position += OGG_HEADER.size + num_segments + sum(file.read(num_segments))
            file.seek(position)
    return f"truncated audio: expected a page up to byte {position}, found {size} bytes" if position > size else None


@dataclass(frozen=True)
class Mp3Length:
    """What the first frame of an MP3 file states (tags Xing, Info and VBRI)."""

    end: int
    """Position behind the last frame; 0: not stated."""
    is_followed: bool
    """Whether the frames of another file follow there."""


def read_mp3_length(path: Path) -> Mp3Length | None:
    """The length that an MP3 file states; None if it states none."""
    with path.open("rb") as file:
        start = 0
        while (head := file.read(ID3_HEADER_BYTES))[:3] == b"ID3" and len(head) == ID3_HEADER_BYTES:
            size = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
            start += ID3_HEADER_BYTES + size + ID3_HEADER_BYTES * bool(head[5] & ID3_FOOTER)
            file.seek(start)
        file.seek(start)
        frame = file.read(MP3_TAG_BYTES)
        place = next((at for tag in (b"Xing", b"Info") if (at := frame.find(tag, 4)) >= 0), -1)
        if place >= 0:
            flags, *numbers = struct.unpack(">3I", frame[place + 4 : place + 16].ljust(12, b"\0"))
            has_frames, num_bytes = bool(flags & 1), numbers[flags & 1] if flags & 2 else 0
        elif (place := frame.find(b"VBRI", 4)) >= 0:
            num_bytes, num_frames = struct.unpack(">2I", frame[place + 10 : place + 18].ljust(8, b"\0"))
            has_frames = num_frames > 0
        else:
            return None
        if not has_frames:
            return None
        end = start + num_bytes if num_bytes else 0
        file.seek(end)
        behind = file.read(4) if end else b""
        # The same version and layer: bytes 0 and 1, but for the bit of the check sum. Or the tag of another file.
        is_frame = len(behind) == 4 and behind[0] == frame[0] and behind[1] | 1 == frame[1] | 1
        return Mp3Length(end, is_frame or behind[:3] == b"ID3")


def sphere_coding(path: Path) -> str:
    """The sample_coding of a NIST SPHERE header, for example `pcm,embedded-shorten-v2.00`; empty if there is none."""
    return _sphere_fields(path)[1].get("sample_coding", "")


def _chunks(file: BinaryIO, layout: str, padding: int, header_in_size: bool = False) -> Iterator[tuple[bytes, int]]:
    """Name and size of each chunk, with the file at its contents."""
    header, file_bytes = struct.Struct(layout), os.fstat(file.fileno()).st_size
    for _ in range(MOST_CHUNKS):
        head = file.read(header.size)
        if len(head) < header.size:
            return
        name, num_bytes = header.unpack(head)
        if header_in_size:
            num_bytes -= header.size
        start = file.tell()
        yield name, num_bytes
        end = start + num_bytes + -num_bytes % padding
        if num_bytes < 0 or end > file_bytes:
            return
        file.seek(end)


def _is_chunk(file: BinaryIO, order: str, path: Path) -> bool:
    """Whether a chunk that fits into the file begins here, or the file ends."""
    start, size = file.tell(), path.stat().st_size
    head = file.read(8)
    if not head:
        return True
    if len(head) < 8 or not _is_printable(head[:4]):
        return False
    (num_bytes,) = struct.unpack(f"{order}I", head[4:])
    return start + 8 + int(num_bytes) <= size


def _is_printable(name: bytes) -> bool:
    return name.isascii() and name.decode("ascii").isprintable()


def _wav_bytes(path: Path) -> int | None:
    """The position of the end of the data chunk; None if its size is a place-holder."""
    data = read_wav_data(path)
    return None if data is None or data.is_place_holder else data.start + data.num_bytes


def read_rf64_data(path: Path) -> Rf64Data | None:
    """The data of an RF64 file; None if a chunk is missing."""
    with path.open("rb") as file:
        file.seek(12)
        size_offset, num_bytes = 0, 0
        for name, chunk_bytes in _chunks(file, "<4sI", 2):
            if name == b"ds64":
                size_offset = file.tell() + 8
                (num_bytes,) = struct.unpack("<Q", file.read(16)[8:].ljust(8, b"\0"))
            elif name == b"data":
                is_in_ds64 = chunk_bytes == MAX_UINT32 and size_offset > 0
                return Rf64Data(size_offset, num_bytes if is_in_ds64 else chunk_bytes, file.tell())
    return None


def _rf64_bytes(path: Path) -> int | None:
    """The position of the end of the data; None if its size is a place-holder."""
    data = read_rf64_data(path)
    return None if data is None or data.is_place_holder else data.start + data.num_bytes


def _w64_bytes(path: Path) -> int | None:
    """The same, with sizes of 64 bits that include the chunk's header."""
    with path.open("rb") as file:
        file.seek(2 * GUID_BYTES + 8)
        for name, num_bytes in _chunks(file, f"<{GUID_BYTES}sQ", 8, header_in_size=True):
            if name.startswith(b"data"):
                return file.tell() + num_bytes if 0 < num_bytes < 1 << 62 else None
    return None


def _aiff_bytes(path: Path) -> int | None:
    """The position of the end of the chunk SSND; None if it is as long as a stream's."""
    with path.open("rb") as file:
        file.seek(12)
        for name, num_bytes in _chunks(file, ">4sI", 2):
            if name == b"SSND":
                return file.tell() + num_bytes if 0 < num_bytes < 0x7F000000 else None
    return None


def _au_bytes(path: Path) -> int | None:
    with path.open("rb") as file:
        head = file.read(12)
    start, num_bytes = struct.unpack("<II" if head[:4] == b"dns." else ">II", head[4:].ljust(8, b"\0"))
    return None if num_bytes in (0, UNKNOWN_AU_BYTES) else start + num_bytes


def _mp3_bytes(path: Path) -> int | None:
    length = read_mp3_length(path)
    return length.end if length and length.end else None


def _sphere_bytes(path: Path) -> int | None:
    """The size of the header plus sample_count × channel_count × sample_n_bytes."""
    header_bytes, fields = _sphere_fields(path)
    try:
        sizes = [int(fields[name]) for name in ("sample_count", "channel_count", "sample_n_bytes")]
    except (KeyError, ValueError):
        return None
    return header_bytes + sizes[0] * sizes[1] * sizes[2] if header_bytes else None


def _sphere_fields(path: Path) -> tuple[int, dict[str, str]]:
    """The bytes of the header (0 if it does not state them) and its fields."""
    with path.open("rb") as file:
        lines = file.read(SPHERE_HEADER_BYTES).decode("ascii", "replace").splitlines()
    fields = {parts[0]: parts[2] for line in lines if len(parts := line.split()) == 3}
    size = lines[1].strip() if len(lines) > 1 else ""
    return int(size) if size.isdecimal() else 0, fields
