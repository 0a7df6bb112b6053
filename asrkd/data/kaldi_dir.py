"""Kaldi data directories: wav.scp, text, utt2spk and, where recordings hold several utterances, segments.

Lhotse has a loader of its own, which is not used: it runs the commands of wav.scp, stops with a traceback at the
first file that is missing, and cuts durations down to milliseconds, so that every file seems to be of another length.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from asrkd.data.segments import Segment
from asrkd.data.textfile import read_lines
from asrkd.errors import InputError

# Programs that decode a file which libsndfile reads too, and their flags that change nothing of what is in it.
DECODING_FLAGS = {
    "cat": frozenset(),
    "flac": frozenset({"-c", "-d", "-s", "--stdout", "--decode", "--silent"}),
    "sph2pipe": frozenset({"-f", "wav", "-p"}),
}


def read_kaldi_dir(folder: Path) -> list[Segment]:
    """Every utterance that any table speaks of, and recordings that have none, in order of utt_id.

    InputError, naming file and line, for a missing file, a line that is none of its kind, a command instead of a
    file, an utterance of no recording or without a speaker, and a speaker without utterances.
    """
    wavs = _files(folder / "wav.scp")
    texts = _table(folder / "text", "an utterance and its words", may_be_empty=True)
    speakers = _table(folder / "utt2spk", "an utterance and its speaker")
    _require_utterances(folder / "spk2utt")
    places = _places(folder / "segments") if (folder / "segments").is_file() else {}
    found = []
    for utt_id in sorted({*texts, *speakers, *(places or wavs)}):
        if places and utt_id not in places:
            raise InputError(f"{folder / 'segments'}: expected a stretch of a recording for {utt_id}, found none")
        recording, start, end = places.get(utt_id, (utt_id, 0.0, None))
        if recording not in wavs:
            raise InputError(f"{folder / 'wav.scp'}: expected a recording {recording} of {utt_id}, found none")
        if utt_id not in speakers:
            raise InputError(f"{folder / 'utt2spk'}: expected a speaker of {utt_id}, found none")
        found.append(Segment(utt_id, Path(wavs[recording]), start, end, speakers[utt_id], texts.get(utt_id)))
    if places:
        unheard = wavs.keys() - {recording for recording, _, _ in places.values()}
        found += [Segment(recording, Path(wavs[recording]), 0.0, None, "", None) for recording in unheard]
    return sorted(found, key=lambda segment: segment.utt_id)


def _files(path: Path) -> dict[str, str]:
    """The file of each recording. InputError for a command that does more than read one."""
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
    """The file of `FILE`, or of `flac -c -d -s FILE |` and the like, which is read as it is; None of other commands."""
    if not entry.endswith("|"):
        return None if entry.startswith("|") else entry
    try:
        program, *flags, file = shlex.split(entry[:-1])
    except ValueError:
        return None
    known = DECODING_FLAGS.get(Path(program).name)
    return file if known is not None and known.issuperset(flags) else None


def _table(path: Path, what: str, may_be_empty: bool = False) -> dict[str, str]:
    """Lines of a key and a value."""
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        key, *value = line.split(maxsplit=1) or [""]
        if not key or not (value or may_be_empty):
            raise InputError(f"{path}:{number}: expected {what}, found {line[:60]!r}")
        if key in table:
            raise InputError(f"{path}:{number}: expected one line of {key}, found two")
        table[key] = value[0].strip() if value else ""
    if not table:
        raise InputError(f"{path}: expected lines of {what}, found none")
    return table


def _places(path: Path) -> dict[str, tuple[str, float, float | None]]:
    """Recording, start and end in seconds of each utterance; an end of -1 is the recording's."""
    places = {}
    for utt_id, line in _table(path, "an utterance, its recording, start and end").items():
        fields = line.split()
        try:
            recording, start, end = fields[0], float(fields[1]), float(fields[2])
        except (IndexError, ValueError):
            raise InputError(f"{path}: {utt_id}: expected a recording, start and end, found {line[:60]!r}") from None
        if fields[3:] not in ([], ["0"], ["A"]):
            raise InputError(f"{path}: {utt_id}: expected recordings of one channel, found channel {fields[3]}")
        places[utt_id] = (recording, start, None if end == -1 else end)
    return places


def _require_utterances(path: Path) -> None:
    if path.is_file():
        for number, line in enumerate(read_lines(path), start=1):
            if len(line.split()) == 1:
                raise InputError(f"{path}:{number}: expected utterances of speaker {line.strip()}, found none")
