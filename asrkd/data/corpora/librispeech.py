"""LibriSpeech: 960 hours of books read aloud, in parts (Panayotov et al., ICASSP 2015; openslr 12 and 31).

A part is a folder with the name of the part: PART/SPEAKER/CHAPTER/*.flac, with a *.trans.txt in each chapter.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lhotse import RecordingSet, SupervisionSet
from lhotse.recipes.librispeech import parse_utterance

from asrkd.data.audio import AudioError, probe
from asrkd.data.corpora.options import LibrispeechOptions
from asrkd.data.hold_out import held_out_speakers
from asrkd.data.splits import PART_KEY, CorpusSplit, Rejected
from asrkd.data.transcripts import read_table
from asrkd.errors import InputError
from asrkd.files import read_lines

logger = logging.getLogger(__name__)

WHERE_TO_GET = (
    "LibriSpeech is free: https://www.openslr.org/12 (/31 for the mini set); unpack its archives and give the folder "
    "LibriSpeech as --corpus-dir"
)
READERS_FILE = "SPEAKERS.TXT"
ROUNDING_MINUTES = 0.1  # the minutes of SPEAKERS.TXT are sums of rounded chapters, with two decimals
SEC_PER_MINUTE = 60.0


def librispeech_files(
    corpus_dir: Path | str,
    options: LibrispeechOptions = LibrispeechOptions(),  # noqa: B008 - frozen
) -> list[Path]:
    """The folders and files that `prepare_librispeech` reads."""
    root, chosen = _find_root(corpus_dir), options.resolved()
    return [root / name for name in (*chosen.parts, *chosen.dev_parts, *chosen.test_parts, READERS_FILE)]


def prepare_librispeech(
    corpus_dir: Path | str,
    options: LibrispeechOptions = LibrispeechOptions(),  # noqa: B008 - frozen
) -> dict[str, CorpusSplit]:
    """Manifests of the chosen parts. A supervision has the part of its utterance under PART_KEY.

    Transcripts without audio, audio without a transcript and unreadable audio are in the `rejected` of their split, so
    that a partial download is reported. (Lhotse's `prepare_librispeech` skips the first two without a message and stops
    at the third, so only its `parse_utterance` is used.) Readers with fewer minutes than in SPEAKERS.TXT are in
    `missing`; that table does not have the parts of the mini set. InputError for a missing part, a part or a speaker's
    folder without utterances, a chosen speaker that does not exist, or speech that would be in two splits.
    """
    chosen = options.resolved()
    root = _find_root(corpus_dir)
    _require_disjoint({"parts": chosen.parts, "dev-parts": chosen.dev_parts, "test-parts": chosen.test_parts})
    train = _joined(_read_part(root, part) for part in chosen.parts)
    speakers = {_speaker(utt_id) for utt_id in train}
    missing = sorted(set(chosen.test_speakers) - speakers)
    if missing:
        raise InputError(f"--corpora.test-speakers: expected speakers of {', '.join(chosen.parts)}, found {missing[0]}")
    readers = _read_readers(root / READERS_FILE)
    _warn_of_unlisted(root, readers, (*chosen.parts, *chosen.dev_parts, *chosen.test_parts))
    women = {reader.name for reader in readers if reader.is_woman}
    dev_speakers = held_out_speakers(speakers - set(chosen.test_speakers), chosen.num_dev_speakers, women=women)
    held_out = {*chosen.test_speakers, *dev_speakers}
    dev = _joined(_read_part(root, part) for part in chosen.dev_parts)
    test = _joined(_read_part(root, part) for part in chosen.test_parts)
    _require_other_speakers(root, "dev", dev, "trained on", train)
    _require_other_speakers(root, "test", test, "trained on", train)
    _require_other_speakers(root, "test", test, "tuned on", dev)
    splits = {
        "train": _split(entry for utt_id, entry in train.items() if _speaker(utt_id) not in held_out),
        "dev": _split([*dev.values(), *_of_speakers(train, dev_speakers)]),
        "test": _split([*test.values(), *_of_speakers(train, set(chosen.test_speakers))]),
    }
    return {
        "train": _with_missing(splits["train"], train, chosen.parts, readers),
        "dev": _with_missing(splits["dev"], dev, chosen.dev_parts, readers),
        "test": _with_missing(splits["test"], test, chosen.test_parts, readers),
    }


@dataclass(frozen=True)
class _Entry:
    """One utterance of a part: its transcript, or why it cannot be used."""

    utt_id: str
    part: Path
    line: str
    duration_sec: float
    fault: str | None


@dataclass(frozen=True)
class _Reader:
    """A line of SPEAKERS.TXT: one reader in one part."""

    name: str
    is_woman: bool
    part: str
    minutes: float


def _find_root(corpus_dir: Path | str) -> Path:
    """The folder with the parts: `corpus_dir` or its LibriSpeech/."""
    inner = Path(corpus_dir) / "LibriSpeech"
    return inner if inner.is_dir() else Path(corpus_dir)


def _read_part(root: Path, part: str) -> dict[str, _Entry]:
    """Every utterance of a part, in order of utt_id."""
    folder = root / part
    if Path(part).name != part or not folder.is_dir():
        names = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())) or "no folder"
        raise InputError(f"{folder}: expected a part of LibriSpeech, found no such folder but {names}. {WHERE_TO_GET}")
    audio = {path.stem: path for path in sorted(folder.glob("*/*/*.flac"))}
    lines = _transcripts(folder)
    utt_ids = {*audio, *lines}
    if not utt_ids:
        raise InputError(f"{folder}: expected SPEAKER/CHAPTER/*.flac, found none. {WHERE_TO_GET}")
    speakers = {_speaker(utt_id) for utt_id in utt_ids}
    for speaker in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        if speaker not in speakers:
            raise InputError(f"{folder / speaker}: expected utterances of this speaker, found none (partial download?)")
    return {utt_id: _entry(utt_id, folder, audio, lines) for utt_id in sorted(utt_ids)}


def _transcripts(folder: Path) -> dict[str, str]:
    """Lines of `utt_id WORDS` by utt_id."""
    lines: dict[str, str] = {}
    for path in sorted(folder.glob("*/*/*.trans.txt")):
        chapter = read_table(path, partial(_parse_transcript, f"{path.parent.parent.name}-{path.parent.name}-"))
        for utt_id in chapter.keys() & lines.keys():
            raise InputError(f"{path}: expected one transcript of {utt_id}, found another in this folder")
        lines |= chapter
    return lines


def _parse_transcript(prefix: str, line: str) -> tuple[str, str] | None:
    """`prefix`: what every utt_id of the chapter begins with."""
    utt_id, _, text = line.strip().partition(" ")
    if not utt_id:
        return None
    if not utt_id.startswith(prefix) or not text.strip():
        raise ValueError("SPEAKER-CHAPTER-NUMBER and words")
    return utt_id, f"{utt_id} {text.upper()}"


def _entry(utt_id: str, part: Path, audio: Mapping[str, Path], lines: Mapping[str, str]) -> _Entry:
    duration_sec, fault = 0.0, None
    if utt_id not in audio:
        fault = "missing audio: it has a transcript only (partial download?)"
    else:
        try:
            duration_sec = probe(audio[utt_id], utt_id).duration
        except AudioError as error:
            fault = str(error)
        if utt_id not in lines:
            fault = f"missing transcript: none in {audio[utt_id].parent} (partial download?)"
    return _Entry(utt_id, part, lines.get(utt_id, ""), duration_sec, fault)


def _split(entries: Iterable[_Entry]) -> CorpusSplit:
    recordings, supervisions, rejected = [], [], []
    for entry in entries:
        parsed = None if entry.fault else parse_utterance(entry.part, entry.line, {})
        if parsed is None:
            rejected.append(Rejected(entry.utt_id, entry.fault or "missing audio"))
            continue
        recording, supervision = parsed
        recordings.append(recording)
        supervision.custom = {PART_KEY: entry.part.name}
        supervisions.append(supervision)
    return CorpusSplit(
        RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions), rejected=tuple(rejected)
    )


def _of_speakers(entries: Mapping[str, _Entry], speakers: set[str]) -> list[_Entry]:
    return [entry for utt_id, entry in entries.items() if _speaker(utt_id) in speakers]


def _joined(parts: Iterable[dict[str, _Entry]]) -> dict[str, _Entry]:
    return {utt_id: entry for part in parts for utt_id, entry in part.items()}


def _speaker(utt_id: str) -> str:
    """`7312-92432-0003` -> `7312`."""
    return utt_id.partition("-")[0]


def _read_readers(path: Path) -> list[_Reader]:
    """LibriSpeech's table of `ID | SEX | SUBSET | MINUTES | NAME`; empty if it is missing."""
    if not path.is_file():
        return []
    readers = []
    for number, line in enumerate(read_lines(path), start=1):
        if line.startswith(";") or not line.strip():
            continue
        fields = [field.strip() for field in line.split("|")]
        try:
            readers.append(_Reader(fields[0], fields[1] == "F", fields[2], float(fields[3])))
        except (IndexError, ValueError):
            raise InputError(f"{path}:{number}: expected ID | SEX | SUBSET | MINUTES, found {line[:60]!r}") from None
    return readers


def _warn_of_unlisted(root: Path, readers: Sequence[_Reader], parts: Sequence[str]) -> None:
    """Warn of parts whose readers are not in the table."""
    unlisted = sorted(set(parts) - {reader.part for reader in readers})
    if unlisted:
        logger.warning(
            "%s: no readers of %s, so missing readers cannot be found", root / READERS_FILE, ", ".join(unlisted)
        )


def _with_missing(
    split: CorpusSplit, entries: Mapping[str, _Entry], parts: Sequence[str], readers: Sequence[_Reader]
) -> CorpusSplit:
    """The split, with the minutes of the readers of these parts that are not in `entries`."""
    minutes: defaultdict[tuple[str, str], float] = defaultdict(float)
    for utt_id, entry in entries.items():
        minutes[entry.part.name, _speaker(utt_id)] += entry.duration_sec / SEC_PER_MINUTE
    expected = [reader for reader in readers if reader.part in parts]
    short = [one for one in expected if minutes[one.part, one.name] < one.minutes - ROUNDING_MINUTES]
    if not short:
        return split
    missing = sum(one.minutes - minutes[one.part, one.name] for one in short)
    return replace(
        split,
        missing=tuple(
            f"{one.part}, reader {one.name}: {minutes[one.part, one.name]:.2f} of {one.minutes:.2f} minutes"
            for one in short
        ),
        missing_share=missing / sum(one.minutes for one in expected),
    )


def _require_other_speakers(root: Path, part: str, entries: Iterable[str], use: str, others: Iterable[str]) -> None:
    """InputError if a speaker is in the utterances of both."""
    shared = sorted({_speaker(utt_id) for utt_id in entries} & {_speaker(utt_id) for utt_id in others})
    if shared:
        raise InputError(f"{root}: expected {part} speakers that are not {use}, found {shared[0]} in both")


def _require_disjoint(parts: Mapping[str, tuple[str, ...]]) -> None:
    seen: dict[str, str] = {}
    for option, names in parts.items():
        for name in names:
            if seen.setdefault(name, option) != option:
                raise InputError(f"--corpora.{option}: expected no part of --corpora.{seen[name]}, found {name}")
