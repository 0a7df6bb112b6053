"""A corpus of the user: Lhotse manifests or Kaldi data directories, and speakers that are held out by a rule."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from asrkd.data.copies import warn_of_copies
from asrkd.data.corpora.options import UserCorpusOptions
from asrkd.data.hold_out import Copies, held_out_speakers
from asrkd.data.kaldi_dir import KALDI_FILES, read_kaldi_dir, read_originals
from asrkd.data.lhotse_manifests import read_lhotse
from asrkd.data.segments import Segment, require_distinct, split_from_segments
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError, name_some
from asrkd.files import find_file

logger = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.1
COPIES = "copies of utterances of dev or test"
"""Rule of `CorpusSplit.excluded`."""


def user_corpus_files(options: UserCorpusOptions) -> list[Path]:
    """The manifests, and the files of Kaldi data directories."""
    given = [path for pair in _sources(options) for path in pair if path is not None]
    return [file for path in given for file in source_files(path)]


def user_corpus_audio(base: Path, options: UserCorpusOptions) -> list[Path]:
    """The audio files that the manifests name. InputError as in `prepare_user_corpus`."""
    return sorted({segment.path for segments in _read_sources(base, options) for segment in segments})


def prepare_user_corpus(base: Path, options: UserCorpusOptions, only_probe: bool = False) -> dict[str, CorpusSplit]:
    """Manifests of train, dev and test.

    Relative paths of audio are searched for in the current folder, the folder of the manifest, and `base`. With
    `only_probe` no segment of a recording is copied; the result is for checks only. InputError if a manifest cannot
    be read or has a value of the wrong type, has audio behind a command or URL, has an utterance twice, or has too few
    speakers to hold some out.
    """
    splits, copies, num_copies = _held_out(base, options)
    _warn_of_shared_speakers(splits, copies)
    warn_of_copies(splits)
    # Workers of a cluster read the audio too, and their current folder is another one.
    segments_dir = None if only_probe else options.segments_dir.absolute()
    made = {name: split_from_segments(segments, segments_dir) for name, segments in splits.items()}
    if num_copies:
        logger.warning("%d copies of utterances of dev and test are excluded (utt2uniq)", num_copies)
        made["train"] = replace(made["train"], excluded={COPIES: num_copies})
    return made


def held_out_segments(base: Path, options: UserCorpusOptions) -> dict[str, list[Segment]]:
    """The segments of dev and test, by the files that the manifests name. InputError: as `prepare_user_corpus`."""
    splits, _, _ = _held_out(base, options)
    return {name: splits[name] for name in ("dev", "test")}


def _held_out(base: Path, options: UserCorpusOptions) -> tuple[dict[str, list[Segment]], Copies, int]:
    """The segments of train, dev and test, what is a copy of what, and the number of copies that are in none."""
    train, dev, test = _read_sources(base, options)
    require_distinct({"train": train, "dev": dev, "test": test})
    copies = Copies({one.utt_id: one.speaker for one in (*train, *dev, *test)}, copies_of(options))
    dev, num_dev_copies = _without_copies_of(dev, test, copies)
    train, num_copies = _without_copies_of(train, (*dev, *test), copies)
    num_copies += num_dev_copies
    if not test:
        train, test, number = _hold_out(train, copies, options.num_test_speakers, "test")
        num_copies += number
    if not dev:
        train, dev, number = _hold_out(train, copies, options.num_dev_speakers, "dev")
        num_copies += number
    return {"train": train, "dev": dev, "test": test}, copies, num_copies


def _warn_of_shared_speakers(splits: Mapping[str, Sequence[Segment]], copies: Copies) -> None:
    """Warn of speakers of dev and test that are in train too: the error rates of other speakers would be higher."""
    speakers = {
        name: {copies.speaker(segment.speaker) for segment in segments if segment.speaker}
        for name, segments in splits.items()
    }
    for name in ("dev", "test"):
        shared = sorted(speakers["train"] & speakers[name])
        if shared:
            logger.warning("%d speakers of %s are in train too: %s", len(shared), name, name_some(shared))


def _sources(options: UserCorpusOptions) -> list[tuple[Path | None, Path | None]]:
    return [
        (options.recordings, options.supervisions),
        (options.dev_recordings, options.dev_supervisions),
        (options.test_recordings, options.test_supervisions),
    ]


def source_files(path: Path) -> list[Path]:
    """The manifest, or the files of a Kaldi data directory."""
    if path.is_dir():
        return [path / name for name in KALDI_FILES if (path / name).is_file()]
    return [path]


def _read_sources(base: Path, options: UserCorpusOptions) -> list[list[Segment]]:
    """The segments of each source. One manifest of recordings can serve several manifests of supervisions.

    A recording without utterances in one source is no missing transcript where another source has utterances of it.
    A recording without utterances in any source is in the first one only.
    """
    sources = [_read(*source, base) for source in _sources(options)]
    used = [{one.path for one in segments if not one.is_unused_recording} for segments in sources]
    seen: set[tuple[str, Path]] = set()
    for number, segments in enumerate(sources):
        by_others = set[Path]().union(*used[:number], *used[number + 1 :])
        unused = {(one.utt_id, one.path) for one in segments if one.is_unused_recording}
        sources[number] = [
            one
            for one in segments
            if not one.is_unused_recording or (one.path not in by_others and (one.utt_id, one.path) not in seen)
        ]
        seen |= unused
    return sources


def _read(recordings: Path | None, supervisions: Path | None, base: Path) -> list[Segment]:
    """The segments of a source, with absolute paths of their audio."""
    if recordings is None:
        return []
    if not recordings.is_dir():
        find = file_finder(recordings.parent, base)
        segments = read_lhotse(recordings, supervisions)
        return [replace(segment, path=find(segment.path)) for segment in segments]
    if supervisions is not None:
        raise InputError(f"{supervisions}: expected no supervisions with a Kaldi data directory ({recordings})")
    return read_kaldi_dir(recordings, file_finder(recordings, base))


def file_finder(folder: Path, base: Path) -> Callable[[Path], Path]:
    """Absolute paths of audio; a file that does not exist gets its path in the folder of the manifest."""

    @cache
    def find(path: Path) -> Path:
        tried = [path, folder / path, base / path]
        try:
            return next((file for file in map(find_file, tried) if file), folder / path).absolute()
        except OSError as error:  # such as a name that is too long
            raise InputError(f"{folder}: expected audio in {str(path)[:60]!r}, found none ({error.strerror})") from None

    return find


def copies_of(options: UserCorpusOptions) -> dict[str, str]:
    """utt_id -> the utterance that it is a copy of, where a Kaldi directory lists such copies."""
    folders = [recordings for recordings, _ in _sources(options) if recordings is not None and recordings.is_dir()]
    return {utt_id: original for folder in folders for utt_id, original in read_originals(folder).items()}


def _without_copies_of(
    segments: list[Segment], held_out: Iterable[Segment], copies: Copies
) -> tuple[list[Segment], int]:
    """The segments that are no copies of utterances that are held out, and the number of the others."""
    held = {copies.root(segment.utt_id) for segment in held_out}
    others = [segment for segment in segments if copies.root(segment.utt_id) not in held]
    return others, len(segments) - len(others)


def _hold_out(
    segments: list[Segment], copies: Copies, number: int, name: str
) -> tuple[list[Segment], list[Segment], int]:
    """The segments of the other speakers, those of the speakers that are held out, and how many copies are in neither.

    A speaker and the speakers of copies of the same utterances are one; the originals alone are held out.
    """
    speakers = {copies.speaker(segment.speaker) for segment in segments if segment.speaker}
    number = number or max(1, round(HELD_OUT_SHARE * len(speakers)))
    if number >= len(speakers):
        given = {segment.speaker for segment in segments if segment.speaker}
        merged = f" ({len(given)} whose utterances are copies of each other's by utt2uniq)"
        raise InputError(
            f"{name} speakers: expected more than {number} to hold out {number}, found {len(speakers)}"
            f"{merged if len(given) > len(speakers) else ''}: give --{name}-recordings"
        )
    chosen = held_out_speakers(speakers, number)
    is_held = [bool(one.speaker) and copies.speaker(one.speaker) in chosen for one in segments]
    others = [segment for segment, held in zip(segments, is_held, strict=True) if not held]
    heard = [segment for segment, held in zip(segments, is_held, strict=True) if held]
    originals = [segment for segment in heard if copies.is_original(segment.utt_id)]
    return others, originals, len(heard) - len(originals)
