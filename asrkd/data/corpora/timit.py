"""TIMIT: 630 speakers of American English read ten sentences each; every phone is marked by hand (LDC93S1).

Splits: all 462 training speakers, 50 of the test speakers for tuning, and the 24 speakers of the core test. The two
sentences that all speakers read (SA) are excluded, as is usual: test sentences would be known from training, and
their phones would be too frequent.

Phones: TIMIT's 61 phones are mapped to 48 for training and 39 for scoring (Lee and Hon, *Speaker-independent phone
recognition using hidden Markov models*, 1989). The glottal stop (q) is in neither set. Pauses (h#, pau) are silence.
Closures are phones of the 48 (CL, VCL, EPI) and silence in the 39.

A text consists of phones as words, without pauses. The aligner finds the pauses, because silence may occur before,
between and after words, and its times are compared with the marks. The marks are the supervision's alignment "phone":
phones of the 48, SIL for a pause, Q for a glottal stop.

The tables of phones and speakers are Lhotse's. Its `prepare_timit` is not used. It needs the layout
data/TRAIN/*/*/*.WAV in upper case, includes the SA sentences, does not name a missing file, and stops with a traceback
at a damaged file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.recipes.timit import get_phonemes, get_speakers
from lhotse.supervision import AlignmentItem

from asrkd.data.audio import AudioError, make_supervision, probe
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.data.transcripts import SILENCE
from asrkd.errors import InputError
from asrkd.files import read_lines

SAMPLING_RATE = 16000  # Hz; the times of the marks are in samples
GLOTTAL_STOP = "Q"
NUM_UTTERANCES: Mapping[str, int] = {"train": 3696, "dev": 400, "test": 192}
"""Utterances of the whole corpus, without SA."""
WHERE_TO_GET = "TIMIT is licensed by the Linguistic Data Consortium as LDC93S1; give the folder of its TRAIN and TEST"

# Rules that exclude utterances: keys of CorpusSplit.excluded.
DIALECT = "dialect sentence (SA), read by every speaker"
OTHER_SPEAKER = "test speaker of neither dev nor core test"

AUDIO, MARKS = "WAV", "PHN"
RECODED_AUDIO = "WAV.WAV"  # some copies have a recoded second file; it is used if it is the only one


def _phones(number: int) -> dict[str, str]:
    """TIMIT's phone -> its phone in the set of `number` phones."""
    return {ours.upper(): theirs.upper() for ours, theirs in get_phonemes(number).items() if ours != "sil"}


TO_48: Mapping[str, str] = _phones(48) | {GLOTTAL_STOP: GLOTTAL_STOP}
"""A phone of TIMIT's 61 -> the phone of the 48 that is trained. Q, which is none of them, stays Q."""
TO_39: Mapping[str, str] = {TO_48[ours]: scored for ours, scored in _phones(39).items() if ours != GLOTTAL_STOP}
"""A phone of the 48 -> the phone of the 39 that is scored."""
DEV_SPEAKERS, CORE_TEST_SPEAKERS = (frozenset(name.upper() for name in names) for names in get_speakers())


def prepare_timit(corpus_dir: Path | str | None) -> dict[str, CorpusSplit]:
    """Manifests of TIMIT's train, dev and core test, from TRAIN/DR1/FCJF0/SX37.WAV and .PHN in either case.

    A recording without marks, marks without a recording, unreadable files and speakers without utterances are in the
    `rejected` of their split. InputError if the layout is not TIMIT's.
    """
    train, test = (_find_utterances(folder) for folder in _find_parts(corpus_dir))
    others = test.keys() - DEV_SPEAKERS - CORE_TEST_SPEAKERS
    splits = {
        "train": _split(train),
        "dev": _split({name: test[name] for name in test.keys() & DEV_SPEAKERS}),
        "test": _split({name: test[name] for name in test.keys() & CORE_TEST_SPEAKERS}),
    }
    num_others = sum(not _is_dialect(sentence) for name in others for sentence in test[name])
    if num_others:
        splits["test"].excluded[OTHER_SPEAKER] = num_others
    return splits


def reference_phones(supervision: SupervisionSegment) -> list[str]:
    """The reference as in Kaldi's TIMIT recipe: phones of the 48, with pauses and without glottal stops."""
    return [item.symbol for item in supervision.alignment["phone"] if item.symbol != GLOTTAL_STOP]


def read_marks(path: Path) -> list[AlignmentItem]:
    """Phones of the 48, SIL and Q with their times, from lines of `first_sample end_sample phone`.

    InputError, naming file and line, for a bad line, times out of order, and an unknown phone.
    """
    items: list[AlignmentItem] = []
    before = 0
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or not (fields[0].isdecimal() and fields[1].isdecimal()):
            raise InputError(f"{path}:{number}: expected two sample numbers and a phone, found {line.strip()[:60]!r}")
        start, end, phone = int(fields[0]), int(fields[1]), fields[2].upper()
        if not before <= start < end:
            raise InputError(f"{path}:{number}: expected times in order, found {start} to {end} after {before}")
        if phone not in TO_48:
            raise InputError(f"{path}:{number}: expected one of TIMIT's 61 phones, found {fields[2]!r}")
        items.append(AlignmentItem(TO_48[phone], start / SAMPLING_RATE, (end - start) / SAMPLING_RATE))
        before = start
    return items


Utterances = Mapping[str, Mapping[str, Path]]
"""Sentence (SX37) -> kind of file (WAV, PHN) -> path."""


def _find_parts(corpus_dir: Path | str | None) -> tuple[Path, Path]:
    """The folders TRAIN and TEST, in `corpus_dir` or up to two folders below it (timit/TIMIT, data)."""
    if corpus_dir is None:
        raise InputError(f"--corpus-dir: expected the folder of TIMIT, found none given. {WHERE_TO_GET}")
    root = Path(corpus_dir)
    if not root.is_dir():
        raise InputError(f"{root}: expected the folder of TIMIT, found no such folder. {WHERE_TO_GET}")
    only = ""
    for folder in (root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))):
        parts = {path.name.upper(): path for path in folder.glob("*") if path.is_dir()}
        if {"TRAIN", "TEST"} <= parts.keys():
            return parts["TRAIN"], parts["TEST"]
        only = only or ", ".join({"TRAIN", "TEST"} & parts.keys())
    found = f"only {only}" if only else "neither"
    raise InputError(f"{root}: expected TIMIT's TRAIN and TEST, found {found}. {WHERE_TO_GET}")


def _find_utterances(part: Path) -> dict[str, dict[str, dict[str, Path]]]:
    """Speaker -> sentence -> kind of file -> path, also for speakers without files. InputError without a speaker."""
    speakers: dict[str, dict[str, dict[str, Path]]] = {}
    for folder in sorted(part.glob("*/*")):
        if not folder.is_dir():
            continue
        sentences = speakers.setdefault(folder.name.upper(), {})
        for path in sorted(folder.iterdir()):
            sentence, _, kind = path.name.upper().partition(".")
            if kind in (AUDIO, RECODED_AUDIO, MARKS):
                sentences.setdefault(sentence, {})[kind] = path
    if not speakers:
        raise InputError(f"{part}: expected speakers' folders such as DR1/FCJF0, found none. {WHERE_TO_GET}")
    return speakers


def _is_dialect(sentence: str) -> bool:
    return sentence.startswith("SA")


def _split(speakers: Mapping[str, Utterances]) -> CorpusSplit:
    recordings, supervisions, rejected = [], [], []
    excluded: Counter[str] = Counter()
    for speaker, sentences in sorted(speakers.items()):
        spoken = {name: files for name, files in sentences.items() if not _is_dialect(name)}
        excluded[DIALECT] += len(sentences) - len(spoken)
        if not spoken:
            rejected.append(Rejected(speaker, "speaker without utterances other than SA"))
        for sentence, files in sorted(spoken.items()):
            utt_id = f"{speaker}-{sentence}"
            try:
                recording = _recording(utt_id, files)
                marks = read_marks(files[MARKS]) if MARKS in files else None
            except (AudioError, InputError) as error:
                rejected.append(Rejected(utt_id, str(error)))
                continue
            recordings.append(recording)
            if marks is not None:
                text = " ".join(item.symbol for item in marks if item.symbol not in (SILENCE, GLOTTAL_STOP))
                supervisions.append(make_supervision(recording, speaker, text).with_alignment("phone", marks))
    return CorpusSplit(
        RecordingSet.from_recordings(recordings),
        SupervisionSet.from_segments(supervisions),
        dict(+excluded),
        tuple(rejected),
    )


def _recording(utt_id: str, files: Mapping[str, Path]) -> Recording:
    path = files.get(AUDIO) or files.get(RECODED_AUDIO)
    return probe(path or files[MARKS].with_suffix(f".{AUDIO}"), utt_id)
