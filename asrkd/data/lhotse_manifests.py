"""Utterances of Lhotse manifests: recordings with their supervisions, or cuts.

Every value that is used is checked when its item is read: a manifest may come from a script that wrote numbers as ids,
lists as texts or null as a path.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from asrkd.data.manifest_items import CONTROL, URL, Fields, described, read_items
from asrkd.data.segments import Length, Segment
from asrkd.errors import InputError
from asrkd.unicode import clean

RECORDINGS, SUPERVISIONS, CUTS = "a Lhotse RecordingSet", "a Lhotse SupervisionSet", "a Lhotse CutSet"
LONGEST_PATH = 4096  # bytes, as in Linux
SAME_TIME_SEC = 1e-6  # less than a sample; Lhotse rounds to 1e-8 s
# Why a cut of another kind is refused. `Cut` was the name of a MonoCut before Lhotse 0.8.
READ_CUTS = ("MonoCut", "MultiCut", "Cut")
REFUSED_CUTS = {"PaddingCut": "which has no speech", "MixedCut": "whose mixed or padded audio is in no file"}


@dataclass(frozen=True)
class _Item:
    """One object of a manifest. Its methods check a field: InputError names the file, the line, the item and it."""

    where: str
    fields: Fields

    @classmethod
    def of(cls, where: str, fields: Fields) -> _Item:
        """The item, named by its id, which is checked."""
        return cls(f"{where}: {cls(where, fields).text('id')}", fields)

    def error(self, name: str, expected: str, advice: str = "") -> InputError:
        found = described(self.fields[name]) if name in self.fields else "none"
        return InputError(f"{self.where}: expected {expected} as `{name}`, found {found}{advice}")

    def text(self, name: str) -> str:
        """A text without control characters, as ids, speakers and paths are; in one spelling, but for paths."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            raise self.error(name, "a text", f': write "{value!r:.30}"' if is_number else "")
        cleaned = value if name == "source" else clean(value)
        if not cleaned or CONTROL.search(cleaned):
            raise self.error(name, "a text of printable characters")
        return cleaned

    def words(self) -> str:
        """The transcript; empty where it is null or missing."""
        value = self.fields.get("text")
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.error("text", "a text")
        if CONTROL.search(" ".join(value.split())):  # words may be on several lines
            raise self.error("text", "a text of printable characters")
        return clean(value)

    def speaker(self) -> str:
        """The speaker; empty where it is null, missing or empty."""
        return "" if self.fields.get("speaker") in (None, "") else self.text("speaker")

    def seconds(self, name: str) -> float:
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(name, "a number of seconds")
        return float(value)

    def count(self, name: str) -> int:
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(name, "a whole number")
        return value

    def objects(self, name: str) -> list[Fields]:
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.error(name, "a list of objects")
        return value

    def channels(self, name: str) -> tuple[int, ...]:
        """One number or a list of them."""
        value = self.fields.get(name)
        numbers = value if isinstance(value, list) else [value]
        if not numbers or any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in numbers):
            raise self.error(name, "a channel or a list of channels, from 0,")
        return tuple(numbers)


@dataclass(frozen=True)
class _Recording:
    """The files of a recording, each with its channels."""

    recording_id: str
    files: tuple[tuple[Path, tuple[int, ...]], ...]
    length: Length

    def file(self, channel: int | None) -> tuple[Path, int | None] | None:
        """The file with a channel, and the channel's index in the file, None if it has one; None if there is none.

        Without a channel: the file of a recording that has one channel.
        """
        if channel is None:
            path, channels = self.files[0]
            return (path, None) if len(self.files) == len(channels) == 1 else None
        for path, channels in self.files:
            if channel in channels:
                return path, channels.index(channel) if len(channels) > 1 else None
        return None

    @property
    def described_channels(self) -> str:
        return ", ".join(str(one) for _, channels in self.files for one in channels)


def read_lhotse(recordings: Path, supervisions: Path | None) -> list[Segment]:
    """One segment per supervision, and one per recording or cut without a supervision, in order of utt_id.

    Without `supervisions`, `recordings` is a manifest of cuts. InputError, naming file, line, item and field, for a
    value of the wrong type, a recording that is given twice or not at all, audio that is not a plain file, a cut that
    is mixed or padded, and a channel that the recording does not have.
    """
    if supervisions is None:
        segments = _distinct(_read_cuts(recordings))
    else:
        segments = _read_supervisions(supervisions, _read_recordings(recordings), recordings)
    if not segments:
        raise InputError(f"{recordings}: expected {RECORDINGS if supervisions else CUTS}, found an empty file")
    return sorted(segments, key=lambda segment: segment.utt_id)


def read_speech(path: Path) -> list[Segment]:
    """The speech of a manifest of recordings or of cuts, in order of utt_id.

    One segment per supervision of a cut, per cut without one, and per channel of a recording. InputError: as
    `read_lhotse`.
    """
    _, first = next(read_items(path, f"{RECORDINGS} or {CUTS}"), ("", {}))
    if _kind(first) not in ("Recording", "object"):
        return read_lhotse(path, None)
    segments = [one for recording in _read_recordings(path).values() for one in _channel_segments(recording)]
    if not segments:
        raise InputError(f"{path}: expected {RECORDINGS} or {CUTS}, found an empty file")
    return sorted(segments, key=lambda segment: segment.utt_id)


def _channel_segments(recording: _Recording) -> list[Segment]:
    """The whole of a recording; each channel is one where it has several."""
    channels = [(path, channel) for path, of_file in recording.files for channel in of_file]
    if len(channels) == 1:
        return [Segment(recording.recording_id, channels[0][0], 0.0, None, "", None, expected=recording.length)]
    return [
        Segment(
            f"{recording.recording_id}-{channel}",
            path,
            0.0,
            None,
            "",
            None,
            (recording.file(channel) or (path, None))[1],
            recording.length,
        )
        for path, channel in channels
    ]


def _distinct(segments: Iterable[Segment]) -> list[Segment]:
    """The segments without those that differ from an earlier one in rounding only.

    Cuts of overlapping speech share supervisions, and windows share those at their ends. Their times count from other
    starts in each.
    """
    first: dict[str, Segment] = {}
    distinct = []
    for one in segments:
        earlier = first.setdefault(one.utt_id, one)
        if earlier is one or not _is_same(one, earlier):
            distinct.append(one)
    return distinct


def _is_same(one: Segment, other: Segment) -> bool:
    times = [(segment.start_sec, segment.end_sec or 0.0) for segment in (one, other)]
    is_near = all(abs(mine - theirs) <= SAME_TIME_SEC for mine, theirs in zip(*times, strict=True))
    return is_near and replace(one, start_sec=other.start_sec, end_sec=other.end_sec) == other


def _read_recordings(path: Path) -> dict[str, _Recording]:
    by_id: dict[str, _Recording] = {}
    for where, fields in read_items(path, RECORDINGS):
        kind = _kind(fields)
        if kind in (*READ_CUTS, *REFUSED_CUTS):
            raise InputError(f"{path}: expected {RECORDINGS}, found a {kind} in it: give cuts without --supervisions")
        if kind not in ("Recording", "object"):
            raise InputError(f"{path}: expected {RECORDINGS}, found a {kind} in it")
        recording = _recording(_Item.of(where, fields))
        if by_id.setdefault(recording.recording_id, recording) is not recording:
            raise InputError(f"{path}: expected one recording {recording.recording_id}, found two")
    return by_id


def _read_supervisions(path: Path, by_id: dict[str, _Recording], recordings: Path) -> list[Segment]:
    segments, used = [], set()
    for where, fields in read_items(path, SUPERVISIONS):
        kind = _kind(fields)
        if kind not in ("SupervisionSegment", "object"):
            raise InputError(f"{path}: expected {SUPERVISIONS}, found a {kind} in it")
        item = _Item.of(where, fields)
        recording_id = item.text("recording_id")
        if recording_id not in by_id:
            raise InputError(f"{recordings}: expected a recording {recording_id} of {item.text('id')}, found none")
        used.add(recording_id)
        segments.append(_segment(item, by_id[recording_id], 0.0))
    if by_id and not segments:
        raise InputError(f"{path}: expected {SUPERVISIONS}, found an empty file")
    unused = [one for name, one in by_id.items() if name not in used]
    return segments + [
        Segment(one.recording_id, one.files[0][0], 0.0, None, "", None, expected=one.length) for one in unused
    ]


def _read_cuts(path: Path) -> Iterator[Segment]:
    for where, fields in read_items(path, CUTS):
        kind = _kind(fields)
        if kind in REFUSED_CUTS:
            raise InputError(
                f"{where}: {fields.get('id')!r:.60}: expected a MonoCut, found a {kind}, {REFUSED_CUTS[kind]}: "
                "write its audio with CutSet.save_audios"
            )
        if kind == "Recording":
            raise InputError(f"{path}: expected --supervisions with a manifest of recordings, found none")
        if kind not in READ_CUTS:
            raise InputError(f"{path}: expected {RECORDINGS} or {CUTS}, found a {kind} in it")
        yield from _cut_segments(_Item.of(where, fields))


def _cut_segments(cut: _Item) -> Iterator[Segment]:
    """A segment of the recording for each supervision: all of its speech, where the cut has a part of it too."""
    if not isinstance(cut.fields.get("recording"), dict):
        raise cut.error("recording", "a recording", ": features alone have no audio")
    recording = _recording(_Item.of(f"{cut.where}: recording", cut.fields["recording"]))
    start_sec, duration_sec = cut.seconds("start"), cut.seconds("duration")
    channels = cut.channels("channel") if "channel" in cut.fields else ()
    supervisions = cut.objects("supervisions") if cut.fields.get("supervisions") is not None else []
    for fields in supervisions:
        item = _Item.of(f"{cut.where}: supervision", fields)
        yield _segment(item, recording, start_sec, channels[0] if len(channels) == 1 else None)
    if not supervisions:
        end_sec = start_sec + duration_sec
        yield Segment(cut.text("id"), recording.files[0][0], start_sec, end_sec, "", None, expected=recording.length)


def _kind(fields: Fields) -> str:
    """The class of Lhotse that wrote an item; "object" where its fields do not show it."""
    if fields.get("type") in (*READ_CUTS, *REFUSED_CUTS):
        return str(fields["type"])
    signs = {"tracks": "MixedCut", "recording_id": "SupervisionSegment", "sources": "Recording"}
    signs |= {"recording": "MonoCut", "num_frames": "Features"}
    return next((kind for sign, kind in signs.items() if sign in fields), "object")


def _recording(item: _Item) -> _Recording:
    """InputError unless the recording is in plain files, and each channel in one of them."""
    length = Length(item.count("sampling_rate"), item.count("num_samples"), item.seconds("duration"))
    if item.fields.get("transforms"):
        raise item.error("transforms", "one unchanged file, without transforms,", ": write its audio to a file")
    files = []
    for number, fields in enumerate(item.objects("sources"), start=1):
        source = _Item(f"{item.where}: source {number}", fields)
        kind = source.text("type")
        if kind != "file":
            raise InputError(
                f"{item.where}: expected one unchanged file, found a {kind:.30}: write its audio to a file"
            )
        path = source.text("source")
        if URL.match(path):
            raise source.error("source", "a path", ", a URL: write the path of a local file")
        if len(path.encode()) > LONGEST_PATH:
            raise source.error("source", f"a path of at most {LONGEST_PATH} bytes")
        files.append((Path(path), source.channels("channels")))
    channels = [channel for _, of_file in files for channel in of_file]
    if not channels or len(channels) != len(set(channels)):
        raise item.error("sources", "files with each channel once")
    return _Recording(item.text("id"), tuple(files), length)


def _segment(item: _Item, recording: _Recording, offset_sec: float, channel: int | None = None) -> Segment:
    """The segment of a supervision whose times count from `offset_sec`; `channel` is used where it gives none."""
    if item.fields.get("channel") is not None:
        channels = item.channels("channel")
        if len(channels) > 1:
            raise item.error("channel", "one channel", ": an utterance is read from one")
        channel = channels[0]
    file = recording.file(channel)
    if file is None:
        expected = f"one of the channels {recording.described_channels} of recording {recording.recording_id}"
        raise item.error("channel", expected)
    start_sec, duration_sec = item.seconds("start"), item.seconds("duration")
    start_sec = round(offset_sec + start_sec, 8)  # Lhotse rounds sums of times too
    end_sec = round(start_sec + duration_sec, 8)
    speaker, words = item.speaker(), item.words()
    return Segment(item.text("id"), file[0], start_sec, end_sec, speaker, words, file[1], recording.length)
