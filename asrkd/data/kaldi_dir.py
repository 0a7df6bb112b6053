"""Kaldi data directories: wav.scp, text, utt2spk and, where recordings hold several utterances, segments.

Lhotse's loader is not used. It runs the commands of wav.scp, stops with a traceback at the first missing file, and
truncates durations to milliseconds, so that no file seems to have the length that its header gives.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from asrkd.data.segments import Segment
from asrkd.data.transcripts import read_table
from asrkd.errors import InputError
from asrkd.files import read_lines

# Programs that decode a file, with the flags that do not change its samples. libsndfile reads such files directly.
DECODING_FLAGS = {
    "cat": frozenset(),
    "flac": frozenset({"-c", "-d", "-s", "--stdout", "--decode", "--silent"}),
    "sph2pipe": frozenset({"-f", "wav", "-p"}),
}


def read_kaldi_dir(folder: Path) -> list[Segment]:
    """Every utterance of any table, and recordings without utterances, in order of utt_id.

    InputError, naming file and line, for a missing file, a bad line, a command instead of a file, an utterance without
    a recording or a speaker, and a speaker without utterances.
    """
    wavs = _files(folder / "wav.scp")
    texts = _table(folder / "text", "an utterance and its words", may_be_empty=True)
    speakers = _table(folder / "utt2spk", "an utterance and its speaker")
    _require_utterances(folder / "spk2utt")
    times = _times(folder / "segments") if (folder / "segments").is_file() else {}
    segments = []
    for utt_id in sorted({*texts, *speakers, *(times or wavs)}):
        if times and utt_id not in times:
            raise InputError(f"{folder / 'segments'}: expected a segment of a recording for {utt_id}, found none")
        recording, start, end = times.get(utt_id, (utt_id, 0.0, None))
        if recording not in wavs:
            raise InputError(f"{folder / 'wav.scp'}: expected a recording {recording} of {utt_id}, found none")
        if utt_id not in speakers:
            raise InputError(f"{folder / 'utt2spk'}: expected a speaker of {utt_id}, found none")
        segments.append(Segment(utt_id, Path(wavs[recording]), start, end, speakers[utt_id], texts.get(utt_id)))
    if times:
        unused = wavs.keys() - {recording for recording, _, _ in times.values()}
        segments += [Segment(recording, Path(wavs[recording]), 0.0, None, "", None) for recording in unused]
    return sorted(segments, key=lambda segment: segment.utt_id)


def _files(path: Path) -> dict[str, str]:
    """The file of each recording. InputError for a command that does more than decode a file."""
    files = {}
    for name, entry in _table(path, "a recording and its file").items():
        file = _file_of(entry)
        if file is None:
            raise InputError(
                f"{path}: {name}: expected a file, found the command {entry[:60]!r}, which is not run: "
                "write its output to a file"
            )
        files[name] = file
    return files


def _file_of(entry: str) -> str | None:
    """The file of `FILE`, or of `flac -c -d -s FILE |` and such commands; None for other commands."""
    if not entry.endswith("|"):
        return None if entry.startswith("|") else entry
    try:
        program, *flags, file = shlex.split(entry[:-1])
    except ValueError:
        return None
    known = DECODING_FLAGS.get(Path(program).name)
    return file if known is not None and known.issuperset(flags) else None


def _table(path: Path, what: str, may_be_empty: bool = False) -> dict[str, str]:
    """Values by key, from lines of a key and a value."""

    def parse(line: str) -> tuple[str, str]:
        key, *value = line.split(maxsplit=1) or [""]
        if not key or not (value or may_be_empty):
            raise ValueError(what)
        return key, value[0].strip() if value else ""

    table = read_table(path, parse, kind="line")
    if not table:
        raise InputError(f"{path}: expected lines of {what}, found none")
    return table


def _times(path: Path) -> dict[str, tuple[str, float, float | None]]:
    """Recording, start and end in seconds of each utterance; None is the end of the recording, -1 in the file."""
    times = {}
    for utt_id, line in _table(path, "an utterance, its recording, start and end").items():
        fields = line.split()
        try:
            recording, start, end = fields[0], float(fields[1]), float(fields[2])
        except (IndexError, ValueError):
            raise InputError(f"{path}: {utt_id}: expected a recording, start and end, found {line[:60]!r}") from None
        if fields[3:] not in ([], ["0"], ["A"]):
            raise InputError(f"{path}: {utt_id}: expected recordings of one channel, found channel {fields[3]}")
        times[utt_id] = (recording, start, None if end == -1 else end)
    return times


def _require_utterances(path: Path) -> None:
    if path.is_file():
        for number, line in enumerate(read_lines(path), start=1):
            if len(line.split()) == 1:
                raise InputError(f"{path}:{number}: expected utterances of speaker {line.strip()}, found none")
