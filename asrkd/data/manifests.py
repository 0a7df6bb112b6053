"""Manifests of a split at rest, and what identifies the audio that they name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from lhotse import Recording, RecordingSet, SupervisionSet

from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.files import atomic_file, file_fingerprint, fingerprint, read_lines, read_object, reading, utf8, write_json

RECORDINGS_FILE = "recordings.jsonl.gz"
SUPERVISIONS_FILE = "supervisions.jsonl.gz"
SPLIT_FILE = "split.json"
PACKING = 4  # gzip's level: 9 takes three times as long for a tenth less


class AudioFile(TypedDict):
    """What identifies an utterance's audio: size and times are a hint, the hash is the content."""

    path: str
    bytes: int
    mtime_ns: int
    ctime_ns: int
    """Time of the last change, which no program sets: copies of two corpora can have equal modification times."""
    fingerprint: str
    """Of the contents."""


class Transcript(NamedTuple):
    """What stages read of an utterance's supervision where they need its words alone."""

    utt_id: str
    speaker: str
    text: str


AUDIO_KEYS = AudioFile.__annotations__.keys()


def save_split(split: CorpusSplit, folder: Path) -> None:
    """Write recordings, supervisions and what is not among them."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_manifest(split.recordings, folder / RECORDINGS_FILE)
    _write_manifest(split.supervisions, folder / SUPERVISIONS_FILE)
    write_json(
        folder / SPLIT_FILE,
        {
            "excluded": split.excluded,
            "rejected": [[one.utt_id, one.reason] for one in split.rejected],
            "missing": split.missing,
            "missing_share": split.missing_share,
        },
    )


def load_split(folder: Path) -> CorpusSplit:
    """Read what `save_split` wrote."""
    content = read_object(folder / SPLIT_FILE)
    with reading(folder / SPLIT_FILE, "a split"):
        return _split(content, folder)


def _split(content: Mapping[str, Any], folder: Path) -> CorpusSplit:
    return CorpusSplit(
        _read_manifest(RecordingSet, folder / RECORDINGS_FILE),
        _read_manifest(SupervisionSet, folder / SUPERVISIONS_FILE),
        content["excluded"],
        tuple(Rejected(*row) for row in content["rejected"]),
        tuple(content["missing"]),
        content["missing_share"],
    )


def load_transcripts(folder: Path) -> list[Transcript]:
    """The transcripts of a split that `save_split` wrote: a tenth of the time and memory of Lhotse's objects."""
    path = folder / SUPERVISIONS_FILE
    lines = read_lines(path)
    with reading(path, "a Lhotse manifest"):
        rows = map(json.loads, lines)
        return [Transcript(row["id"], str(row.get("speaker")), row.get("text") or "") for row in rows]


def _write_manifest(items: RecordingSet | SupervisionSet, path: Path) -> None:
    """Write a manifest whole or not at all, in UTF-8 (Lhotse: the locale's encoding), equal ones in equal bytes."""
    with (
        atomic_file(path) as tmp_path,
        tmp_path.open("wb") as raw,
        gzip.GzipFile("", "wb", PACKING, fileobj=raw, mtime=0) as file,
    ):
        for item in items:
            file.write(utf8(json.dumps(_as_dict(item), ensure_ascii=False) + "\n"))


def _as_dict(item: Any) -> Any:
    """What Lhotse's `to_dict` makes of an item, without the deep copies that take most of its time."""
    is_plain = getattr(item, "transforms", None) is None and getattr(item, "alignment", None) is None
    return _plain(item) if is_plain else item.to_dict()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        values = ((field.name, getattr(value, field.name)) for field in fields(value))
        return {name: _plain(one) for name, one in values if one is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value


def _read_manifest(kind: Any, path: Path) -> Any:
    """A manifest of `_write_manifest`. InputError if it is missing or damaged."""
    lines = read_lines(path)
    with reading(path, "a Lhotse manifest"):
        return kind.from_dicts(json.loads(line) for line in lines)


def audio_files(recordings: Iterable[Recording], known: Mapping[str, AudioFile]) -> dict[str, AudioFile]:
    """utt_id -> its audio file. The hash of a `known` file that is unchanged is reused."""
    files: dict[str, AudioFile] = {}
    for recording in recordings:
        path = Path(recording.sources[0].source)
        stat = path.stat()
        before = known.get(recording.id)
        same = is_unchanged(path, before)
        content = before["fingerprint"] if before is not None and same else file_fingerprint(path)
        files[recording.id] = AudioFile(
            path=str(path),
            bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            ctime_ns=stat.st_ctime_ns,
            fingerprint=content,
        )
    return files


def is_unchanged(path: Path, known: AudioFile | None) -> bool:
    """Whether a file has the size and the times of a known one. Records of earlier versions lack one of the times."""
    if known is None or "ctime_ns" not in known or not path.is_file():
        return False
    stat = path.stat()
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) == (
        known["bytes"],
        known["mtime_ns"],
        known["ctime_ns"],
    )


def content_fingerprint(split: CorpusSplit, audio: Mapping[str, AudioFile], rejected: Sequence[Rejected]) -> str:
    """Changes with any utterance's text, speaker, marks, length or audio content, and not with paths."""
    lengths = {one.id: [one.sampling_rate, one.num_samples] for one in split.recordings}
    rows: list[Any] = []
    for one in sorted(split.supervisions, key=lambda supervision: str(supervision.id)):
        marks = {name: [list(item) for item in items] for name, items in (one.alignment or {}).items()}
        described = [str(one.id), str(one.speaker), one.text, one.start, one.duration, one.custom, marks]
        rows.append([*described, lengths[one.recording_id], audio[one.recording_id]["fingerprint"]])
    return fingerprint([rows, sorted(one.utt_id for one in rejected), split.excluded])
