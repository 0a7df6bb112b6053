"""Speech without transcripts, in short pieces: of Lhotse manifests, Kaldi data directories, or a folder of audio."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from asrkd.data.audio import AudioError
from asrkd.data.corpora.user import file_finder, source_files
from asrkd.data.kaldi_dir import read_kaldi_dir
from asrkd.data.lhotse_manifests import read_speech
from asrkd.data.segments import (
    LONGEST_UTT_ID,
    OVERSHOOT_SEC,
    Segment,
    duration_of,
    require_distinct,
    split_from_segments,
)
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError
from asrkd.files import fingerprint
from asrkd.unicode import clean

PIECE_SEC = 30.0
"""Longest piece. Networks read frames with a few neighbours, so that it matters little where a piece ends."""
NORMALISED_SEC = 1800.0
"""Longest part of a recording that is normalised as a whole: its frames are in memory at once."""
# Suffixes of audio files, those that ffmpeg decodes included. Other files of a folder are not read.
AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "flac", "ogg", "oga", "opus", "mp3", "sph", "nist", "aif", "aiff", "au", "caf", "w64", "rf64"),
        *("m4a", "mp4", "mka", "mkv", "webm", "aac", "amr", "wma", "asf", "avi", "flv", "mov", "mpg", "mpeg"),
    )
)
HIDDEN = "."


@dataclass(frozen=True)
class Pieces:
    """Untranscribed speech as pieces of at most PIECE_SEC."""

    split: CorpusSplit
    """One utterance a piece; its text is empty but for words of another recogniser, and its speaker is the recording
    where none is given."""
    cut: frozenset[str]
    """utt_ids of pieces of longer audio: silence in them is no fault."""
    num_recordings: int
    """Audio files."""


def untranscribed_files(path: Path, base: Path) -> tuple[list[Path], list[Path]]:
    """The manifests of `path`, and the audio files that they name, or that its folder has. InputError: as `read`."""
    audio = sorted({segment.path for segment in read_untranscribed(path, base)})
    return ([] if _is_audio_folder(path) else source_files(path)), audio


def read_untranscribed(path: Path, base: Path) -> list[Segment]:
    """The segments of speech of a manifest or a folder, as they are given, in order of utt_id; no text is read.

    A recording without segments is one; of several channels, one for each. Relative paths of audio are searched for in
    the current folder, that of the manifest and `base`. InputError if there is no such path, no audio in it, or a
    manifest that cannot be read.
    """
    if _is_audio_folder(path):
        return _folder_segments(path)
    if path.is_dir():
        return read_kaldi_dir(path, file_finder(path, base), transcribed=False)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    find = file_finder(path.parent, base)
    return [replace(segment, path=find(segment.path)) for segment in read_speech(path)]


def untranscribed_pieces(
    segments: Sequence[Segment],
    name: str,
    segments_dir: Path,
    texts: Mapping[str, str] = MappingProxyType({}),
    longest_sec: float = PIECE_SEC,
) -> Pieces:
    """Manifests of the segments' pieces; those that cannot be read are in `split.rejected`.

    What is longer than PIECE_SEC is cut into equal pieces, each copied once to a file in `segments_dir`. A segment
    without a speaker gets one that stands for its recording: half an hour of it at most, because the frames of a
    speaker are normalised together. A segment of at most `longest_sec` with one of `texts` (utt_id -> words of another
    recogniser) is not cut.
    """
    pieces: list[Segment] = []
    cut: set[str] = set()
    for segment in segments:
        parts = _cut(segment, segments_dir, longest_sec if segment.utt_id in texts else PIECE_SEC)
        pieces += parts
        cut.update(part.utt_id for part in parts if len(parts) > 1)
    pieces = with_speakers(pieces)
    require_distinct({name: pieces})
    spoken = [replace(piece, text=texts.get(piece.utt_id, "")) for piece in pieces]
    split = split_from_segments(spoken, segments_dir)
    return Pieces(split, frozenset(cut), len({segment.path for segment in segments}))


def _is_audio_folder(path: Path) -> bool:
    return path.is_dir() and not (path / "wav.scp").is_file()


def _folder_segments(folder: Path) -> list[Segment]:
    """One segment per audio file of a folder and the folders in it; ids are the paths in the folder."""
    by_id: dict[str, Segment] = {}
    for file in sorted(_audio_files(folder)):
        relative = file.relative_to(folder)
        utt_id = _utt_id(relative.with_suffix(""))
        if utt_id in by_id:
            utt_id = _utt_id(relative)
        if utt_id in by_id:
            utt_id = f"{utt_id[: LONGEST_UTT_ID // 4]}-{fingerprint(str(relative))}"
        by_id[utt_id] = Segment(utt_id, file.absolute(), 0.0, None, "", None)
    if not by_id:
        raise InputError(f"{folder}: expected audio files or a Kaldi data directory (wav.scp), found neither")
    return [by_id[utt_id] for utt_id in sorted(by_id)]


def _audio_files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES and not name.startswith(HIDDEN):
                yield Path(parent, name)


def _utt_id(relative: Path) -> str:
    """A path in the folder as an id: without slashes and spaces, and not too long for the name of a copy."""
    name = clean("-".join("_".join(part.split()) for part in relative.parts))
    if len(name.encode(errors="replace")) <= LONGEST_UTT_ID // 2:
        return name
    return f"{name[: LONGEST_UTT_ID // 8]}-{fingerprint(str(relative))}"


def _cut(segment: Segment, segments_dir: Path, longest_sec: float) -> list[Segment]:
    """Equal pieces of at most PIECE_SEC of a segment that is longer than `longest_sec`, else the segment itself."""
    end_sec = segment.end_sec
    if end_sec is not None and not end_sec - segment.start_sec > longest_sec:
        return [segment]
    try:
        whole_sec = duration_of(segment.path, segments_dir)
    except AudioError:
        return [segment]  # it is rejected later, with the reason
    end_sec = whole_sec if end_sec is None else end_sec
    is_inside = 0 <= segment.start_sec < end_sec <= whole_sec + OVERSHOOT_SEC
    number = math.ceil((end_sec - segment.start_sec) / PIECE_SEC) if is_inside else 1
    if number <= 1 or end_sec - segment.start_sec <= longest_sec:
        return [replace(segment, end_sec=end_sec)]
    end_sec = min(end_sec, whole_sec)
    width = len(str(number))
    starts = [segment.start_sec + n * (end_sec - segment.start_sec) / number for n in range(number)]
    return [
        replace(segment, utt_id=f"{segment.utt_id}-p{n:0{width}d}", start_sec=start, end_sec=end)
        for n, (start, end) in enumerate(zip(starts, [*starts[1:], end_sec], strict=True), start=1)
    ]


def with_speakers(pieces: Sequence[Segment]) -> list[Segment]:
    """The pieces, in which each part of a recording of unknown speakers is a speaker."""
    unknown: dict[tuple[Path, int | None], list[Segment]] = defaultdict(list)
    for piece in pieces:
        if not piece.speaker:
            unknown[piece.path, piece.channel].append(piece)
    named = {}
    for of_recording in unknown.values():
        total_sec = max((piece.end_sec or 0.0 for piece in of_recording), default=0.0)
        number = math.ceil(total_sec / NORMALISED_SEC) if math.isfinite(total_sec) else 1
        name = f"recording:{min(piece.utt_id for piece in of_recording)}"
        for piece in of_recording:
            part = int(piece.start_sec * number / total_sec) if number > 1 and math.isfinite(piece.start_sec) else 0
            named[piece.utt_id] = name if number <= 1 else f"{name}:{min(part, number - 1) + 1}"
    return [piece if piece.speaker else replace(piece, speaker=named[piece.utt_id]) for piece in pieces]
