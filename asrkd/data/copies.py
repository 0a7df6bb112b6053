"""Warnings of speech in dev or test that seems to be in train too, where no table lists which utterances are copies.

Copies at another speed, with noise or of another microphone have other ids and often another speaker, so that one may
be held out and the other trained on. What counts as a sign, each on one line for a split:

* names: an utt_id is another one's with whole components added at one end (`sp0.9-ann-1`, `ann-1_noise`), which are not
  numbers only, and the words are the same. Of speakers: such components are those of augmentation (AUGMENTED), the
  case differs, or one speaker says at least half of what the other says and few training speakers say.
* audio: the same contents of the file, and more than half of the same part of it.
* audio within a split: the same contents and nearly the same part of it, with other words. One of the texts is wrong.
* texts: at least three sentences of eight words or more that few training speakers say, and more than half of those of
  the split, or of a speaker where one training speaker says them. Prompts that many speakers read are no sign.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from asrkd.data.segments import Segment
from asrkd.errors import InputError, name_some
from asrkd.files import file_fingerprint

logger = logging.getLogger(__name__)

ADVICE = "the error rates of other speech would be higher; put copies into one split, or list them in Kaldi's utt2uniq"
COPIES_ADVICE = "they count several times; remove the copies, or list them in Kaldi's utt2uniq"
TRANSCRIPTS_ADVICE = "one transcript of them can be right; remove the others, or correct their file or times"
MIN_LONG_WORDS = 8
MIN_LONG_TEXTS = 3
MAX_SPEAKERS_OF_TEXT = 3  # in train; speed perturbation makes two copies of a speaker, or three
# Of the longer of two parts. Speakers who talk at the same time have parts of other lengths.
SAME_PART_SHARE = 0.75
SAMPLED_BYTES = 1 << 16  # of files of equal size, before all of them is read

_SEPARATOR = re.compile(r"[-_:]+|(?<!\d)\.+|\.+(?!\d)")  # not the point of sp0.9
_NO_NUMBERS = re.compile(r"[^\W\d_]|\d\.\d")  # a letter, or a factor such as 0.9
AUGMENTED = re.compile(
    r"(sp|tp|vp|speed|tempo|pitch|vol|volume)[-_]?\d+(\.\d+)?|(rev|rvb|reverb|noise|noisy|music|babble|aug|copy)[-_]?\d*",
    re.IGNORECASE,
)
"""Components of names that Kaldi, Lhotse and people give to copies."""


def warn_of_copies(splits: Mapping[str, Sequence[Segment]]) -> None:
    """Warn of utterances and speakers of dev and test that seem to be in train too, and of audio with two texts."""
    for name, segments in splits.items():
        _warn(
            _transcribed_twice(segments),
            f"utterances of {name} have the same audio as others of {name}, and other words",
            TRANSCRIPTS_ADVICE,
        )
    train = splits["train"]
    for name in ("dev", "test"):
        held = splits[name]
        _warn(
            _copies_within(held), f"utterances of {name} seem to be copies of others of {name}", "list them in utt2uniq"
        )
        speakers = _speakers_by_name(held, train)
        _warn(speakers, f"speakers of {name} seem to be in train under another name")
        held = [one for one in held if one.speaker not in speakers]  # one line is enough for a speaker
        _warn(_utterances_by_name(held, train), f"utterances of {name} seem to have copies in train, by id and words")
        _warn(_same_audio(held, train), f"utterances of {name} have the same audio as others in train")
        _warn(_same_texts(held, train), f"long sentences of {name} are in train too, where few speakers say them")


def warn_of_held_out_audio(held_out: Mapping[str, Sequence[Segment]], others: Sequence[Segment], name: str) -> None:
    """Warn of held-out utterances whose audio is in a set called `name` too, which students learn from."""
    for split, held in held_out.items():
        what = f"utterances of {split} have the same audio as others in {name}"
        _warn(
            _same_audio(held, others), what, f"the error rates of other speech would be higher; remove it from {name}"
        )
        shared = sorted({one.speaker for one in held if one.speaker} & {one.speaker for one in others})
        if shared:
            logger.warning("%d speakers of %s are in %s too: %s", len(shared), split, name, name_some(shared))


def _warn(found: Mapping[str, str], what: str, advice: str = ADVICE) -> None:
    """`found`: a speaker or an utterance -> the other one."""
    if found:
        pairs = [f"{name} ({other})" for name, other in sorted(found.items())]
        logger.warning("%d %s: %s: %s", len(pairs), what, name_some(pairs), advice)


def _speakers_by_name(held: Sequence[Segment], train: Sequence[Segment]) -> dict[str, str]:
    """Held-out speakers with names like those of train."""
    ours, theirs = _texts_by_speaker(held), _texts_by_speaker(train)
    who_says = _speakers_by_text(train, most=len(theirs))
    by_stem: dict[str, set[str]] = defaultdict(set)
    by_plain_name: dict[str, set[str]] = defaultdict(set)
    for other in theirs:
        by_plain_name[_plain_name(other)].add(other)
        for stem in (other, *_marked_stems(other)):
            by_stem[stem].add(other)
    found = {}
    for name in ours.keys() - theirs.keys():  # another warning names those in both
        alike = set[str]().union(*(by_stem[stem] for stem in (name, *_marked_stems(name))))
        alike = {other for other in alike if _say_enough(ours[name] | theirs[other])}
        similar = by_plain_name[_plain_name(name)] | (alike & _who_say_the_same(ours[name], who_says))
        if similar:
            found[name] = min(similar)
    return found


def _texts_by_speaker(segments: Iterable[Segment]) -> dict[str, set[str]]:
    texts: dict[str, set[str]] = defaultdict(set)
    for one in segments:
        if one.speaker:
            texts[one.speaker].update({_words(one)} - {""})
    return texts


def _speakers_by_text(segments: Iterable[Segment], most: int) -> dict[str, set[str]]:
    """Who says a text. Texts that more than half of `most` speakers say, such as prompts and commands, have no one."""
    speakers: dict[str, set[str]] = defaultdict(set)
    for speaker, texts in _texts_by_speaker(segments).items():
        for text in texts:
            speakers[text].add(speaker)
    return {text: names if 2 * len(names) <= max(2, most) else set() for text, names in speakers.items()}


def _who_say_the_same(texts: set[str], who_says: Mapping[str, set[str]]) -> set[str]:
    """The training speakers that say at least half of `texts`, of those that few say."""
    rare = [who_says.get(text, set()) for text in texts if len(who_says.get(text, ())) <= MAX_SPEAKERS_OF_TEXT]
    counts = Counter(name for names in rare for name in names)
    return {name for name, count in counts.items() if 2 * count >= len(rare)}


def _say_enough(texts: set[str]) -> bool:
    """Whether the texts of two speakers show who they are. Where each utterance has its speaker, many say YES."""
    return len(texts) > 1 or any(len(text.split()) >= MIN_LONG_WORDS for text in texts)


def _plain_name(name: str) -> str:
    """The name without components such as sp0.9 and noise, in one case: tables of several people differ in case."""
    while (stem := next((stem for stem, other in _stems(name) if AUGMENTED.fullmatch(other)), None)) is not None:
        name = stem
    return name.casefold()


def _utterances_by_name(held: Sequence[Segment], train: Sequence[Segment]) -> dict[str, str]:
    """Held-out utterances with a longer or shorter utt_id in train and the same words."""
    ours, theirs = ({one.utt_id: one for one in segments if one.text} for segments in (held, train))
    found: dict[str, str] = {}
    for mine, other in [
        *((one, theirs.get(stem)) for one in ours.values() for stem in _marked_stems(one.utt_id)),
        *((ours.get(stem), one) for one in theirs.values() for stem in _marked_stems(one.utt_id)),
    ]:
        if mine is not None and other is not None and _words(mine) == _words(other):
            found.setdefault(mine.utt_id, other.utt_id)
    return found


def _copies_within(held: Sequence[Segment]) -> dict[str, str]:
    """Utterances that are augmented copies of others of the split, by utt_id and words."""
    ours = {one.utt_id: one for one in held if one.text}
    by_folded = {utt_id.casefold(): one for utt_id, one in reversed(ours.items())}
    pairs = {utt_id: by_folded.get(_plain_name(utt_id)) for utt_id in ours}
    return {
        utt_id: other.utt_id
        for utt_id, other in pairs.items()
        if other is not None and other.utt_id != utt_id and _words(ours[utt_id]) == _words(other)
    }


def _words(segment: Segment) -> str:
    return _normal(segment.text or "")


@lru_cache(maxsize=1 << 20)  # each of a corpus' texts is compared in several ways
def _normal(text: str) -> str:
    return " ".join(text.upper().split())


def _stems(name: str) -> Iterator[tuple[str, str]]:
    """The name without whole components at one end, and those components: sp0.9-ann -> (ann, sp0.9), (sp0.9, ann)..."""
    for match in _SEPARATOR.finditer(name):
        before, after = name[: match.start()], name[match.end() :]
        if before and after:
            yield after, before
            yield before, after


def _marked_stems(name: str) -> Iterator[str]:
    """The stems whose other components are not numbers only, which utterances of a speaker and of a session have."""
    for stem, other in _stems(name):
        if _NO_NUMBERS.search(other):
            yield stem


def _same_audio(held: Sequence[Segment], train: Sequence[Segment]) -> dict[str, str]:
    """Held-out utterances with a part of an audio file that is in train too."""
    contents = _shared_contents({one.path for one in held}, {one.path for one in train})
    parts: dict[str, list[Segment]] = defaultdict(list)
    for one in sorted(train, key=lambda segment: segment.start_sec):
        if one.path in contents:
            parts[contents[one.path]].append(one)
    starts = {content: [row.start_sec for row in rows] for content, rows in parts.items()}
    last_ends = {content: list(accumulate(map(_end_sec, rows), max)) for content, rows in parts.items()}
    found = {}
    for one in held:
        if one.path not in contents:
            continue
        content = contents[one.path]
        rows, position = parts[content], bisect_left(starts[content], _end_sec(one))
        while position > 0 and last_ends[content][position - 1] > one.start_sec:
            position -= 1
            if _is_same_part(one, rows[position]):
                found[one.utt_id] = rows[position].utt_id
                break
    return found


def _transcribed_twice(segments: Sequence[Segment]) -> dict[str, str]:
    """Utterances with the same part of an audio file as another utterance, and with other words."""
    segments = [one for one in segments if one.text]
    contents = _repeated_contents(segments)
    rows: dict[str, list[Segment]] = defaultdict(list)
    for one in sorted(segments, key=lambda segment: (segment.start_sec, segment.utt_id)):
        if one.path in contents:
            rows[contents[one.path]].append(one)
    found = {}
    for of_content in rows.values():
        # By what is compared, so that many equal utterances take no quadratic time.
        active: dict[tuple[float, float, int | None, str], Segment] = {}
        for one in of_content:
            active = {key: other for key, other in active.items() if _end_sec(other) > one.start_sec}
            others = (other for other in active.values() if _words(other) != _words(one))
            other = next((other for other in others if _is_nearly_same_part(one, other)), None)
            if other is None:
                active.setdefault((one.start_sec, _end_sec(one), one.channel, _words(one)), one)
            else:
                found[one.utt_id] = other.utt_id
    return found


def _is_nearly_same_part(one: Segment, other: Segment) -> bool:
    """Whether most of the longer segment is in the shorter one, on the same channel."""
    if not _is_same_part(one, other):
        return False
    common = min(_end_sec(one), _end_sec(other)) - max(one.start_sec, other.start_sec)
    longer = max(_end_sec(segment) - segment.start_sec for segment in (one, other))
    return common > SAME_PART_SHARE * longer or common == math.inf


def _repeated_contents(segments: Sequence[Segment]) -> dict[Path, str]:
    """A name of the contents of each file of several utterances, which can be under several paths."""
    uses = Counter(one.path for one in segments)
    groups = [set(uses)]
    for key in (_size, _sample, file_fingerprint):
        groups = [same for paths in groups for same in _by_key_if_several(paths, key)]
    names = {path: str(number) for number, paths in enumerate(groups) if len(paths) > 1 for path in paths}
    return {path: names.get(path, str(path)) for path, count in uses.items() if count > 1 or path in names}


def _by_key_if_several(paths: set[Path], key: Callable[[Path], object]) -> list[set[Path]]:
    """The paths with equal keys. One path needs no key."""
    return list(_by_key(paths, key).values()) if len(paths) > 1 else []


def _end_sec(segment: Segment) -> float:
    return math.inf if segment.end_sec is None else segment.end_sec


def _is_same_part(one: Segment, other: Segment) -> bool:
    """Whether more than half of the shorter segment is in the other one, on the same channel."""
    if one.channel is not None and other.channel is not None and one.channel != other.channel:
        return False
    common = min(_end_sec(one), _end_sec(other)) - max(one.start_sec, other.start_sec)
    shorter = min(_end_sec(segment) - segment.start_sec for segment in (one, other))
    return common > shorter / 2 or common == math.inf


def _shared_contents(held: set[Path], train: set[Path]) -> dict[Path, str]:
    """A name of the contents of each file that is on both sides, under whatever path.

    Sizes are compared first, then a part in the middle of the files, so that few files are read.
    """
    groups: list[tuple[set[Path], set[Path]]] = [(held, train)]
    for key in (_size, _sample, file_fingerprint):
        groups = [pair for ours, theirs in groups for pair in _grouped(ours, theirs, key)]
    return {path: str(number) for number, pair in enumerate(groups) for paths in pair for path in paths}


def _grouped(held: set[Path], train: set[Path], key: Callable[[Path], object]) -> list[tuple[set[Path], set[Path]]]:
    """The paths with equal keys, where there are some on both sides. One path on both sides needs no key."""
    if held == train and len(held) == 1:
        return [(held, train)]
    ours, theirs = _by_key(held, key), _by_key(train, key)
    return [(ours[value], theirs[value]) for value in ours.keys() & theirs.keys()]


def _by_key(paths: set[Path], key: Callable[[Path], object]) -> dict[object, set[Path]]:
    found: dict[object, set[Path]] = defaultdict(set)
    for path in paths:
        try:
            found[key(path)].add(path)
        except (OSError, InputError):  # a file that cannot be read is rejected later
            continue
    return found


def _size(path: Path) -> int:
    return path.stat().st_size


def _sample(path: Path) -> str:
    """Digest of some bytes in the middle of a file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - SAMPLED_BYTES) // 2)
        return hashlib.sha256(file.read(SAMPLED_BYTES)).hexdigest()


def _same_texts(held: Sequence[Segment], train: Sequence[Segment]) -> dict[str, str]:
    """Held-out utterances of rare long sentences that are in train, where those are many of a speaker or of all."""
    who_says = _speakers_by_text(train, most=len({one.speaker for one in train}))
    in_train = {_words(one): one.utt_id for one in train}
    by_speaker: dict[str, dict[str, Segment]] = defaultdict(dict)
    for one in held:
        if len((words := _words(one)).split()) >= MIN_LONG_WORDS:
            by_speaker[one.speaker][words] = one
    everything: dict[str, str] = {}
    of_speakers: dict[str, str] = {}
    for said in by_speaker.values():
        shared = [text for text in said if 0 < len(who_says.get(text, ())) <= MAX_SPEAKERS_OF_TEXT]
        pairs = {said[text].utt_id: in_train[text] for text in shared}
        everything |= pairs
        most = max(Counter(name for text in shared for name in who_says[text]).values(), default=0)
        if _are_many(most, len(said)):
            of_speakers |= pairs
    return everything if _are_many(len(everything), sum(map(len, by_speaker.values()))) else of_speakers


def _are_many(shared: int, number: int) -> bool:
    return shared >= MIN_LONG_TEXTS and 2 * shared > number
