"""Asterisk's English voice prompts: one speaker, 8 kHz, some 25 minutes.

The corpus is one folder with two unpacked Debian packages: asterisk-core-sounds-en-wav has the audio and
asterisk-core-sounds-en the transcripts (core-sounds-en.txt.gz). The name of a prompt is its path without suffix, such
as digits/1 or vm-goodbye.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asrkd.data.audio import AudioError, make_supervision, probe
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.data.transcripts import read_table
from asrkd.errors import InputError

TEST_FRACTION = 0.2
DEV_FRACTION = 0.1
SAMPLING_RATE = 8000  # Hz
SPEAKER = "allison"
VOICE_FOLDER = "en_US_f_Allison"
TRANSCRIPT_FILES = ("core-sounds-en.txt.gz", "core-sounds-en.txt")
WHERE_TO_GET = (
    "unpack Debian's packages asterisk-core-sounds-en-wav and asterisk-core-sounds-en into one folder "
    "(local/fetch_prompts.sh does) and give it as --corpus-dir"
)

# Rules that exclude prompts: keys of CorpusSplit.excluded.
TONE = "tone"
BRACKETED = "bracketed text"
EMPTY = "empty transcript"
NUMBER = "number read in an unknown way"

BRACKETS = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")
TONE_WORDS = re.compile(r"\b(tones?|beeps?)\b", re.IGNORECASE)
LONG_NUMBER = re.compile(r"\d\d|\d\.\d")  # 500, 1234, 28.8, H.323: five hundred, or five oh oh?
DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
SIGNS = {"*": "STAR", "#": "POUND"}  # as in the prompts whose transcripts spell them out
JOINED_PREFIXES = ("RE", "DE", "UN")  # re-enter is one word, call-forward two
CAPITALS = re.compile(r"\b[A-Z]{2,}\b")  # abbreviations, in the transcript's own case: PBX, USB
SPOKEN_AS_WORDS = ("DAHDI", "IAX", "SIP")  # their recordings are too short for single letters
HOST_NAME = re.compile(r"\bwww(\.\w+)+", re.IGNORECASE)
WORD = re.compile(r"[A-Z]+(?:'[A-Z]+)*'?")
MISSPELT = {
    "EXCLAIMATION": "EXCLAMATION",
    "FOURTIETH": "FORTIETH",
    "REPRESENATIVES": "REPRESENTATIVES",
    "UMUTE": "UNMUTE",
    "UNINDENTIFIED": "UNIDENTIFIED",
    "WITHELD": "WITHHELD",
}


def prepare_prompts(
    corpus_dir: Path | str | None,
    test_fraction: float = TEST_FRACTION,
    dev_fraction: float = DEV_FRACTION,
) -> dict[str, CorpusSplit]:
    """Manifests of the prompts' train, dev and test; utt_id is the name with "/" as "-".

    `split_of` chooses the split by the name only. Tones, bracketed text, empty transcripts and long numbers are
    excluded, and counted in the split of their name. A transcript without audio, or with unreadable audio, is in the
    `rejected` of its split. Audio without a transcript is a recording without a supervision. InputError if the folder
    does not contain the prompts, or their transcripts cannot be read.
    """
    root = _find_root(corpus_dir)
    texts = read_transcripts(_find_transcripts(root))
    paths = _find_audio(root)
    names: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for name in sorted({*texts, *paths}):
        names[split_of(name, test_fraction, dev_fraction)].append(name)
    return {part: _split(names[part], texts, paths) for part in names}


def split_of(name: str, test_fraction: float = TEST_FRACTION, dev_fraction: float = DEV_FRACTION) -> str:
    """train, dev or test, by the SHA-256 of a prompt's name as a fraction of 1, whatever other prompts there are.

    InputError if the fractions are not below 1 together.
    """
    if min(test_fraction, dev_fraction) < 0 or test_fraction + dev_fraction >= 1:
        raise InputError(
            "fractions of the prompts: expected test and dev below 1 together, "
            f"found {test_fraction} and {dev_fraction}"
        )
    fraction = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    if fraction < test_fraction:
        return "test"
    return "dev" if fraction < test_fraction + dev_fraction else "train"


def why_excluded(text: str) -> str | None:
    """The rule that excludes a prompt; None if its transcript is speech."""
    spoken = BRACKETS.sub(" ", text)
    if not spoken.strip() and text.strip():
        return TONE if TONE_WORDS.search(text) else BRACKETED
    if LONG_NUMBER.search(spoken):
        return NUMBER
    return None if normalise_text(text) else EMPTY


def normalise_text(text: str) -> str:
    """The spoken words in upper case, of letters A-Z and inner apostrophes, without notes in brackets.

    Digits are read one by one, * and # by name, abbreviations letter by letter (p.m. as P M, PBX as P B X).
    """
    text = BRACKETS.sub(" ", text).replace("’", "'")
    text = HOST_NAME.sub(lambda match: _spelt_host(match[0]), text)
    text = CAPITALS.sub(lambda match: match[0] if match[0] in SPOKEN_AS_WORDS else " ".join(match[0]), text)
    text = text.upper()
    for sign, name in SIGNS.items():
        text = text.replace(sign, f" {name} ")
    text = re.sub(r"\d", lambda match: f" {DIGITS[int(match[0])]} ", text)
    text = re.sub(rf"\b({'|'.join(JOINED_PREFIXES)})-", r"\1", text)
    words = (word.rstrip("'") for word in WORD.findall(text))
    return " ".join(MISSPELT.get(word, word) for word in words)


def read_transcripts(path: Path) -> dict[str, str]:
    """Unchanged texts by name, from lines of `name: text`; lines that start with ; are comments.

    InputError if the file cannot be read, naming the line for a bad line and for a second text of a name.
    """
    return read_table(path, _parse_transcript)


def _parse_transcript(line: str) -> tuple[str, str] | None:
    if not line.strip() or line.lstrip().startswith(";"):
        return None
    name, colon, text = line.partition(":")
    if not colon:
        raise ValueError("`name: text`")
    return name.strip(), text.strip()


def _split(names: list[str], texts: Mapping[str, str], paths: Mapping[str, Path]) -> CorpusSplit:
    excluded: Counter[str] = Counter()
    recordings: list[Recording] = []
    supervisions: list[SupervisionSegment] = []
    rejected: list[Rejected] = []
    for name in names:
        utt_id = name.replace("/", "-")  # an id may become a file's name
        rule = why_excluded(texts[name]) if name in texts else None
        if rule is not None:
            excluded[rule] += 1
            continue
        try:
            recording = probe(paths[name], utt_id)
        except KeyError:
            rejected.append(Rejected(utt_id, "missing audio: it has a transcript only"))
            continue
        except AudioError as error:
            rejected.append(Rejected(utt_id, str(error)))
            continue
        recordings.append(recording)
        if name in texts:
            supervisions.append(make_supervision(recording, SPEAKER, normalise_text(texts[name])))
    return CorpusSplit(
        RecordingSet.from_recordings(recordings),
        SupervisionSet.from_segments(supervisions),
        dict(sorted(excluded.items())),
        tuple(rejected),
    )


def _spelt_host(host: str) -> str:
    first, *others = host.split(".")
    return " ".join([*first, *(f"dot {part}" for part in others)])


def _find_root(corpus_dir: Path | str | None) -> Path:
    if corpus_dir is None:
        raise InputError(f"--corpus-dir: expected the prompts' folder, found none given; {WHERE_TO_GET}")
    if not Path(corpus_dir).is_dir():
        raise InputError(f"{corpus_dir}: expected the prompts' folder, found no such folder; {WHERE_TO_GET}")
    return Path(corpus_dir)


def _find_transcripts(root: Path) -> Path:
    for name in TRANSCRIPT_FILES:
        paths = sorted(root.rglob(name))
        if paths:
            return paths[0]
    expected = " or ".join(TRANSCRIPT_FILES)
    raise InputError(f"{root}: expected {expected} in it, found neither; {WHERE_TO_GET}")


def _find_audio(root: Path) -> dict[str, Path]:
    """Paths of the recordings by name."""
    voices = [folder for folder in sorted(root.rglob(VOICE_FOLDER)) if folder.is_dir()]
    if not voices:
        raise InputError(f"{root}: expected a folder {VOICE_FOLDER} in it, found none; {WHERE_TO_GET}")
    voice = voices[0]
    paths = {path.relative_to(voice).with_suffix("").as_posix(): path for path in sorted(voice.rglob("*.wav"))}
    if not paths:
        raise InputError(f"{voice}: expected .wav files, found none; {WHERE_TO_GET}")
    return paths
