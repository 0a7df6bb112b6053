"""What to transcribe: files, folders, Lhotse manifests and standard input."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from asrkd.data.manifest_items import CONTROL, URL, Fields, described, read_items
from asrkd.errors import InputError, name_some

STDIN = "-"
STDIN_NAME = "stdin"
MANIFEST = "a Lhotse manifest of recordings or cuts"
MANIFEST_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
# What libsndfile reads, and containers that ffmpeg does. They choose the files of a folder; a file that is named itself
# is read whatever its suffix.
AUDIO_SUFFIXES = frozenset(
    ".aif .aifc .aiff .au .caf .flac .mp2 .mp3 .nist .oga .ogg .opus .rf64 .snd .sph .w64 .wav .wv1 .wv2 "
    ".3gp .aac .amr .asf .avi .flv .m4a .m4b .mka .mkv .mov .mp4 .mpeg .mpg .webm .wma".split()
)


@dataclass(frozen=True)
class AudioInput:
    """A recording to transcribe, or a part of one."""

    name: str
    """Of its outputs, without a suffix; with slashes for what is in folders of a folder."""
    path: Path | None
    """None: standard input."""
    start_sec: float = 0.0
    end_sec: float | None = None
    """None: the end of the file."""
    channel: int | None = None
    """Index in the file, where a manifest gives one."""

    def __str__(self) -> str:
        if self.path is None:
            return "standard input"
        return str(self.path) if self.end_sec is None else f"{self.name} ({self.path})"


def find_inputs(arguments: Sequence[str]) -> list[AudioInput]:
    """What the arguments of a command line name, in their order; files of a folder by path.

    Inputs of one name get the folders or the suffixes of their files. InputError for a path that does not exist, a
    folder without audio, a damaged manifest, and names that are still equal.
    """
    found: list[AudioInput] = []
    for argument in arguments:
        found += _inputs_of(argument)
    if not found:
        raise InputError("expected audio files, folders, manifests or - (standard input), found none")
    return _with_distinct_names(found)


def _inputs_of(argument: str) -> list[AudioInput]:
    if not argument:
        raise InputError("expected the name of a file or folder, found an empty one")
    path = Path(argument)
    if argument == STDIN:
        return [AudioInput(STDIN_NAME, None)]
    if path.is_dir():
        return _inputs_in(path)
    if not path.exists():
        raise InputError(f"{argument}: no such file or folder")
    if path.name.lower().endswith(MANIFEST_SUFFIXES):
        return _manifest_inputs(path)
    if not path.is_file() and not path.is_fifo():
        raise InputError(f"{argument}: expected a file or folder, found a device")
    return [AudioInput(path.stem, path)]


def _inputs_in(folder: Path) -> list[AudioInput]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        found += [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES]
    if not found:
        suffixes = "wav, flac, mp3, ogg, m4a, mp4 and the like"
        raise InputError(f"{folder}: expected files with a suffix of audio ({suffixes}), found none; name other files")
    return [AudioInput(path.relative_to(folder).with_suffix("").as_posix(), path) for path in sorted(found)]


def _manifest_inputs(path: Path) -> list[AudioInput]:
    found = [_item_input(where, fields) for where, fields in read_items(path, MANIFEST)]
    if not found:
        raise InputError(f"{path}: expected {MANIFEST}, found an empty file")
    name, count = Counter(one.name for one in found).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: expected items of different ids, found {count} of the id {name}")
    return found


def _item_input(where: str, fields: Fields) -> AudioInput:
    """The recording of a manifest's item, or the part of it that is a cut."""
    name = _text(where, fields, "id")
    where = f"{where}: {name}"
    if "sources" in fields:
        return AudioInput(_output_name(name), _source(where, fields)[0])
    recording = fields.get("recording")
    if not isinstance(recording, dict) or fields.get("type") == "MixedCut":
        kind = fields.get("type") or "an item without audio"
        raise InputError(f"{where}: expected an item of {MANIFEST}, found {kind:.40}")
    path, channels = _source(f"{where}: recording", recording)
    start, duration = _seconds(where, fields, "start"), _seconds(where, fields, "duration")
    channel = fields.get("channel")
    if isinstance(channel, list):
        channel = channel[0] if len(channel) == 1 else None
    if channel is not None and channel not in channels:
        raise InputError(f"{where}: expected one of the channels {channels} of its recording, found {channel!r:.40}")
    index = None if channel is None or len(channels) == 1 else channels.index(channel)
    return AudioInput(_output_name(name), path, start, start + duration, index)


def _source(where: str, fields: Fields) -> tuple[Path, list[int]]:
    """The file of a recording and its channels."""
    sources = fields.get("sources")
    if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], dict):
        found = len(sources) if isinstance(sources, list) else described(sources)
        raise InputError(f"{where}: expected one file in `sources`, found {found}: name the files themselves")
    if sources[0].get("type") != "file" or fields.get("transforms"):
        found = "transforms" if fields.get("transforms") else described(sources[0].get("type"))
        raise InputError(f"{where}: expected one unchanged file, found {found}: write its audio to a file")
    path, channels = _text(where, sources[0], "source"), sources[0].get("channels")
    if URL.match(path):
        raise InputError(f"{where}: expected a path as `source`, found a URL: write the path of a local file")
    if not isinstance(channels, list) or not channels or not all(isinstance(one, int) for one in channels):
        raise InputError(f"{where}: expected channels of the file in `channels`, found {described(channels)}")
    return Path(path), channels


def _text(where: str, fields: Fields, name: str) -> str:
    value: Any = fields.get(name)
    if not isinstance(value, str) or not value or CONTROL.search(value):
        raise InputError(f"{where}: expected a text of printable characters as `{name}`, found {described(value)}")
    return value


def _seconds(where: str, fields: Fields, name: str) -> float:
    value: Any = fields.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise InputError(f"{where}: expected a number of seconds as `{name}`, found {described(value)}")
    return float(value)


def _output_name(name: str) -> str:
    """A path below the folder of outputs, whatever an id holds."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..", ".")]
    return "/".join(parts) or "_"


def _with_distinct_names(inputs: Sequence[AudioInput]) -> list[AudioInput]:
    """Inputs of one name get their folders as far as these differ, or else the suffixes of their files."""
    named = list(inputs)
    for rename in (_with_folders, _with_suffixes, _with_folders):
        groups: dict[str, list[int]] = defaultdict(list)
        for number, one in enumerate(named):
            groups[one.name].append(number)
        for numbers in groups.values():
            if len(numbers) > 1:
                for number, renamed in zip(numbers, rename([named[one] for one in numbers]), strict=True):
                    named[number] = renamed
    repeated = [name for name, count in Counter(one.name for one in named).items() if count > 1]
    if repeated:
        where = [str(one) for one in named if one.name == repeated[0]]
        raise InputError(
            f"expected inputs of different names, found {name_some(where)} of the name {repeated[0]}: "
            "give their folder, or transcribe them one after the other"
        )
    return named


def _with_folders(group: Sequence[AudioInput]) -> list[AudioInput]:
    """Inputs of one name in different folders, named by their paths from the folder that they share."""
    paths = [Path(os.path.abspath(one.path)) for one in group if one.path is not None]
    if len({path.parent for path in paths}) < len(group):
        return list(group)
    shared = os.path.commonpath([path.parent for path in paths])
    folders = [path.parent.relative_to(shared).as_posix() for path in paths]
    return [
        replace(one, name=f"{folder}/{one.name.rpartition('/')[2]}".removeprefix("./"))
        for one, folder in zip(group, folders, strict=True)
    ]


def _with_suffixes(group: Sequence[AudioInput]) -> list[AudioInput]:
    return [one if one.path is None else replace(one, name=one.name + one.path.suffix) for one in group]
