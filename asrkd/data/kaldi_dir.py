"""Kaldi data directories: wav.scp, text, utt2spk and, where recordings hold several utterances, segments.

Lhotse's loader is not used. It runs the commands of wav.scp, stops with a traceback at the first missing file, and
truncates durations to milliseconds, so that no file seems to have the length that its header gives.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from asrkd.data.audio import AudioError, probe
from asrkd.data.manifest_items import CONTROL, URL
from asrkd.data.segments import Segment
from asrkd.data.transcripts import read_table
from asrkd.errors import InputError, name_some
from asrkd.files import read_lines

KALDI_FILES = ("wav.scp", "text", "utt2spk", "spk2utt", "segments", "reco2file_and_channel", "utt2uniq", "uniq2utt")
"""The files of a data directory that are read."""
# Programs that decode a file, with the flags that do not change its samples. libsndfile reads such files directly.
DECODING_FLAGS = {
    "cat": frozenset(),
    "flac": frozenset({"-c", "-d", "-s", "--stdout", "--decode", "--silent"}),
    "sph2pipe": frozenset({"-f", "wav", "-p"}),
}
CHANNEL_FLAG = "-c"  # of sph2pipe, which counts from 1
ARCHIVE_OFFSET = re.compile(r"\.ark:\d+(\[.*\])?$")
SECONDS = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?(nan|inf)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class _Wav:
    """The file of a recording, and the channel, from 0, that a command selects."""

    path: Path
    channel: int | None = None


def read_kaldi_dir(folder: Path, find: Callable[[Path], Path], transcribed: bool = True) -> list[Segment]:
    """Every utterance of any table, and recordings without utterances, in order of utt_id.

    `find` makes a path of wav.scp absolute. The channel of an utterance is that of its line of segments, of the command
    in wav.scp, or of reco2file_and_channel where the file has several channels. InputError, naming file and line, for
    a missing file, a bad line, a command instead of a file, an utterance without a recording or a speaker, a speaker
    without utterances, and a spk2utt that contradicts utt2spk. Of speech that is not `transcribed` no text is read,
    speakers may be unknown (empty), and recordings without segments are not listed where others have some.
    """
    wavs = {name: _Wav(find(one.path), one.channel) for name, one in _wavs(folder / "wav.scp").items()}
    wavs |= _with_channels(wavs, folder / "reco2file_and_channel")
    texts = _table(folder / "text", "an utterance and its words", may_be_empty=True) if transcribed else {}
    has_speakers = transcribed or any((folder / name).is_file() for name in ("utt2spk", "spk2utt"))
    speakers = _speakers(folder) if has_speakers else {}
    times = _times(folder / "segments") if (folder / "segments").is_file() else {}
    segments = []
    for utt_id in sorted({*texts, *speakers, *(times or wavs)}):
        if times and utt_id not in times:
            raise InputError(f"{folder / 'segments'}: expected a segment of a recording for {utt_id}, found none")
        recording, start, end, channel = times.get(utt_id, (utt_id, 0.0, None, None))
        if recording not in wavs:
            raise InputError(f"{folder / 'wav.scp'}: expected a recording {recording} of {utt_id}, found none")
        if has_speakers and utt_id not in speakers:
            raise InputError(f"{folder / 'utt2spk'}: expected a speaker of {utt_id}, found none")
        wav = wavs[recording]
        channel = wav.channel if channel is None else channel
        segments.append(Segment(utt_id, wav.path, start, end, speakers.get(utt_id, ""), texts.get(utt_id), channel))
    if times and transcribed:
        unused = wavs.keys() - {recording for recording, *_ in times.values()}
        segments += [Segment(recording, wavs[recording].path, 0.0, None, "", None) for recording in unused]
    return sorted(segments, key=lambda segment: segment.utt_id)


def read_originals(folder: Path) -> dict[str, str]:
    """utt_id -> the utterance that it is a copy of (itself, for an original), by utt2uniq or uniq2utt; else empty."""
    if (folder / "utt2uniq").is_file():
        return _table(folder / "utt2uniq", "an utterance and its original", one_word=True)
    if (folder / "uniq2utt").is_file():
        return _inverted(folder / "uniq2utt", "copies of")
    return {}


def _speakers(folder: Path) -> dict[str, str]:
    """The speaker of each utterance, by utt2spk or, where it is missing, spk2utt."""
    utt2spk, spk2utt = folder / "utt2spk", folder / "spk2utt"
    if not utt2spk.is_file() and spk2utt.is_file():
        return _inverted(spk2utt, "utterances of speaker")
    speakers = _table(utt2spk, "an utterance and its speaker", one_word=True)
    if spk2utt.is_file():
        _require_same_speakers(spk2utt, _inverted(spk2utt, "utterances of speaker"), speakers)
    return speakers


def _require_same_speakers(path: Path, found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """InputError unless spk2utt has the utterances and speakers of utt2spk: one of them is from other data."""
    advice = "make it from utt2spk (utt2spk_to_spk2utt.pl), or remove it"
    for utt_id, speaker in found.items():
        if expected.get(utt_id, speaker) != speaker:
            raise InputError(
                f"{path}: {utt_id}: expected its speaker {expected[utt_id]}, as in utt2spk, found {speaker}: {advice}"
            )
    for names, what in (
        (expected.keys() - found.keys(), "the utterances of utt2spk, found none of"),
        (found.keys() - expected.keys(), "utterances of utt2spk only, found"),
    ):
        if names:
            raise InputError(f"{path}: expected {what} {len(names)}: {name_some(sorted(names))}: {advice}")


def _inverted(path: Path, what: str) -> dict[str, str]:
    """The first word of the line on which each other word is, such as the speaker of each utterance."""
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        key, *others = line.split() or [""]
        if not others:
            raise InputError(f"{path}:{number}: expected {what} {key}, found none")
        for other in others:
            if table.setdefault(other, key) != key:
                raise InputError(f"{path}:{number}: expected {other} on one line, found it on that of {table[other]}")
    return table


def _wavs(path: Path) -> dict[str, _Wav]:
    """The file of each recording. InputError for a command that does more than decode a file."""
    wavs = {}
    for name, entry in _table(path, "a recording and its file").items():
        wav = _wav(entry)
        if wav is None:
            raise InputError(
                f"{path}: {name}: expected a file, found the command {entry[:60]!r}, which is not run: "
                "write its output to a file"
            )
        if URL.match(entry.lstrip("\"'")) or URL.match(str(wav.path)):
            raise InputError(
                f"{path}: {name}: expected a file, found the URL {entry[:60]!r}: write the path of a local file"
            )
        if ARCHIVE_OFFSET.search(str(wav.path)):
            raise InputError(
                f"{path}: {name}: expected a file, found a part of an archive {entry[:60]!r}: "
                "write it to a file (wav-copy)"
            )
        wavs[name] = wav
    return wavs


def _wav(entry: str) -> _Wav | None:
    """The file of `FILE`, or of `flac -c -d -s FILE |` and such commands; None for other commands."""
    if not entry.endswith("|"):
        quoted = len(entry) > 2 and entry[0] == entry[-1] and entry[0] in "\"'"
        return None if entry.startswith("|") or entry == "-" else _Wav(Path(entry[1:-1] if quoted else entry))
    try:
        program, *flags, file = shlex.split(entry[:-1])
    except ValueError:
        return None
    program, channel = Path(program).name, None
    if program == "sph2pipe" and CHANNEL_FLAG in flags[:-1]:
        at = flags.index(CHANNEL_FLAG)
        channel = {"1": 0, "2": 1}.get(flags[at + 1])
        flags[at : at + 2] = [] if channel is not None else [CHANNEL_FLAG]
    known = DECODING_FLAGS.get(program)
    return _Wav(Path(file), channel) if known is not None and known.issuperset(flags) else None


def _with_channels(wavs: Mapping[str, _Wav], path: Path) -> dict[str, _Wav]:
    """The recordings whose channel reco2file_and_channel gives: the table is for scoring, and lists mono files too.

    Channels are letters from A, or numbers from 1 as in CTM files; from 0 where the table has a 0.
    """
    if not path.is_file():
        return {}
    table = {name: line.split() for name, line in _table(path, "a recording, its file and channel").items()}
    first = 0 if any(fields[1:] == ["0"] for fields in table.values()) else 1
    found = {}
    for name in sorted(table.keys() & wavs.keys()):
        wav, fields = wavs[name], table[name]
        channel = _channel(fields[1], first) if len(fields) == 2 else None
        if channel is None:
            raise InputError(f"{path}: {name}: expected a file and its channel (A, B or a number), found {fields}")
        if wav.channel is None and (num_channels := _num_channels(wav.path)) > 1:
            if channel >= num_channels:
                raise InputError(f"{path}: {name}: expected one of {num_channels} channels, found {fields[1]}")
            found[name] = _Wav(wav.path, channel)
    return found


def _num_channels(path: Path) -> int:
    """Channels of a file; 1 where it cannot be read, for which its utterances are rejected later."""
    try:
        return int(probe(path, path.stem).num_channels)
    except AudioError:
        return 1


def _channel(name: str, first: int) -> int | None:
    """The index of a channel called A, B, ... or `first`, `first` + 1, ...; None for another name."""
    if re.fullmatch(r"[A-Z]", name):
        return ord(name) - ord("A")
    if re.fullmatch(r"\d{1,3}", name, re.ASCII) and int(name) >= first:
        return int(name) - first
    return None


def _table(path: Path, what: str, may_be_empty: bool = False, one_word: bool = False) -> dict[str, str]:
    """Values by key, from lines of a key and a value."""

    def parse(line: str) -> tuple[str, str]:
        key, *value = line.split(maxsplit=1) or [""]
        if not key or not (value or may_be_empty) or (one_word and len(value[0].split()) > 1):
            raise ValueError(what)
        if CONTROL.search(line.replace("\t", " ")):
            raise ValueError(f"{what}, without control characters")
        return key, value[0].strip() if value else ""

    table = read_table(path, parse, kind="line")
    if not table:
        raise InputError(f"{path}: expected lines of {what}, found none")
    return table


def _times(path: Path) -> dict[str, tuple[str, float, float | None, int | None]]:
    """Recording, start and end in seconds of each utterance, and channel; None is the end of the recording, -1 there.

    Channels are numbers from 0, as Kaldi's extract-segments reads them, or letters from A.
    """
    times = {}
    for utt_id, line in _table(path, "an utterance, its recording, start and end").items():
        fields = line.split()
        if len(fields) not in (3, 4) or not all(SECONDS.fullmatch(time) for time in fields[1:3]):
            raise InputError(f"{path}: {utt_id}: expected a recording, start and end, found {line[:60]!r}")
        start, end = float(fields[1]), float(fields[2])
        channel = _channel(fields[3], 0) if fields[3:] else None
        if fields[3:] and channel is None:
            raise InputError(f"{path}: {utt_id}: expected a channel (A, B or a number from 0), found {fields[3]}")
        times[utt_id] = (fields[0], start, None if end == -1 else end, channel)
    return times
