"""CMU AN4 (Census, 1991): people spell names, addresses and numbers; 948 training and 130 test utterances.

The speech is of 74 training speakers, seven of whom are held out for tuning, and of 10 test speakers. Source: Acero,
Acoustical and Environmental Robustness in Automatic Speech Recognition, 1993.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lhotse import Recording, RecordingSet, SupervisionSet

from asrkd.data.audio import AudioError, make_supervision, probe
from asrkd.data.hold_out import held_out_speakers
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.data.transcripts import read_table
from asrkd.errors import InputError

NUM_DEV_SPEAKERS = 7
AUDIO_SUFFIXES = (".flac", ".wav", ".sph")  # in order of preference, if an utterance has several
WHERE_TO_GET = (
    "AN4 is free: git clone https://github.com/cmusphinx/an4, or an4_sphere.tar.gz from "
    "http://www.speech.cs.cmu.edu/databases/an4/; give its folder (with wav/ and etc/ in it) as --corpus-dir"
)
TRAIN = ("wav/an4_clstk", "etc/an4_train.transcription")
TEST = ("wav/an4test_clstk", "etc/an4_test.transcription")
TRANSCRIPT = re.compile(r"(?P<text>.*)\((?P<utt_id>[^()\s]+)\)")
SENTENCE_MARKS = ("<s>", "</s>", "<sil>")


@dataclass(frozen=True)
class _Entry:
    """One utterance; `recording` or `text` is None if the corpus does not have it."""

    utt_id: str
    speaker: str
    recording: Recording | None
    text: str | None
    fault: str | None


def prepare_an4(corpus_dir: Path | str | None, num_dev_speakers: int = NUM_DEV_SPEAKERS) -> dict[str, CorpusSplit]:
    """Manifests of AN4's train, dev and test: FLAC, WAV or SPHERE audio under wav/, transcripts under etc/.

    dev is the speech of `num_dev_speakers` of the training speakers, chosen by `dev_speakers`; test speakers are only
    in test. A transcript without audio, or with audio without a readable header, is in the `rejected` of its split.
    Audio without a transcript is a recording without a supervision. InputError if the layout is not AN4's, or a
    transcript cannot be read.
    """
    root = _find_root(corpus_dir)
    train, test = _read_part(root, *TRAIN), _read_part(root, *TEST)
    speakers = {entry.speaker for entry in train}
    shared = sorted(speakers & {entry.speaker for entry in test})
    if shared:
        raise InputError(f"{root}: expected test speakers only in test, found {', '.join(shared)} in both")
    dev = dev_speakers(speakers, num_dev_speakers)
    return {
        "train": _split(entry for entry in train if entry.speaker not in dev),
        "dev": _split(entry for entry in train if entry.speaker in dev),
        "test": _split(test),
    }


def dev_speakers(speakers: Iterable[str], num_dev_speakers: int = NUM_DEV_SPEAKERS) -> set[str]:
    """The training speakers that `held_out_speakers` chooses; the name of a female speaker begins with f."""
    names = set(speakers)
    return held_out_speakers(names, num_dev_speakers, women={name for name in names if name.startswith("f")})


def _find_root(corpus_dir: Path | str | None) -> Path:
    """The folder with wav/ and etc/: `corpus_dir` or its an4/."""
    if corpus_dir is None:
        raise InputError(f"--corpus-dir: expected the folder of AN4, found none given. {WHERE_TO_GET}")
    for root in (Path(corpus_dir), Path(corpus_dir) / "an4"):
        if (root / "wav").is_dir() and (root / "etc").is_dir():
            return root
    found = "no wav/ and etc/ in it" if Path(corpus_dir).is_dir() else "no such folder"
    raise InputError(f"{corpus_dir}: expected the folder of AN4, found {found}. {WHERE_TO_GET}")


def _read_part(root: Path, audio_folder: str, transcript_file: str) -> list[_Entry]:
    """Every utterance of one part, in order of utt_id."""
    paths = _find_audio(root / audio_folder)
    texts = _read_transcripts(root / transcript_file)
    return [
        _entry(utt_id, paths.get(utt_id), texts.get(utt_id), root / transcript_file)
        for utt_id in sorted({*paths, *texts})
    ]


def _entry(utt_id: str, path: Path | None, text: str | None, transcript_file: Path) -> _Entry:
    # an251-fash-b: recording, speaker, take. The folder is named after the speaker too, and has priority.
    speaker = path.parent.name if path else [*utt_id.split("-"), "unknown"][1]
    if path is None:
        fault = f"missing audio: {transcript_file.name} has a transcript for it"
        return _Entry(utt_id, speaker, None, text, fault)
    try:
        return _Entry(utt_id, speaker, probe(path, utt_id), text, None)
    except AudioError as error:
        return _Entry(utt_id, speaker, None, text, str(error))


def _find_audio(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: expected AN4's audio, found no such folder. {WHERE_TO_GET}")
    paths: dict[str, Path] = {}
    for suffix in reversed(AUDIO_SUFFIXES):
        paths |= {path.stem: path for path in sorted(folder.rglob(f"*{suffix}"))}
    if not paths:
        kinds = ", ".join(AUDIO_SUFFIXES)
        raise InputError(f"{folder}: expected audio ({kinds}), found none of these. {WHERE_TO_GET}")
    return paths


def _read_transcripts(path: Path) -> dict[str, str]:
    """Upper-case words by utt_id, from lines of `<s> WORDS </s> (utt_id)`."""
    if not path.is_file():
        raise InputError(f"{path}: expected AN4's transcripts, found no such file. {WHERE_TO_GET}")
    return read_table(path, _parse_transcript)


def _parse_transcript(line: str) -> tuple[str, str] | None:
    if not line.strip():
        return None
    match = TRANSCRIPT.fullmatch(line.strip())
    if match is None:
        raise ValueError("words and (utt_id)")
    words = [word for word in match["text"].split() if word not in SENTENCE_MARKS]
    return match["utt_id"], " ".join(words).upper()


def _split(entries: Iterable[_Entry]) -> CorpusSplit:
    recordings, supervisions, rejected = [], [], []
    for entry in entries:
        if entry.recording is None:
            rejected.append(Rejected(entry.utt_id, entry.fault or "missing audio"))
            continue
        recordings.append(entry.recording)
        if entry.text is not None:
            supervisions.append(make_supervision(entry.recording, entry.speaker, entry.text))
    return CorpusSplit(
        RecordingSet.from_recordings(recordings),
        SupervisionSet.from_segments(supervisions),
        rejected=tuple(rejected),
    )
