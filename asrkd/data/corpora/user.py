"""A corpus of one's own: Lhotse manifests or Kaldi data directories, split by name or by a fixed rule."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from asrkd.data.hold_out import held_out_speakers
from asrkd.data.kaldi_dir import read_kaldi_dir
from asrkd.data.segments import Segment, require_distinct, split_of
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError, name_some

logger = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.1
KALDI_FILES = ("wav.scp", "text", "utt2spk", "spk2utt", "segments")
# What Lhotse lets through of a file that is something else, is cut short or is damaged.
NO_MANIFEST = (
    *(ValueError, KeyError, TypeError, AttributeError, AssertionError, OSError, EOFError),
    *(zlib.error, yaml.YAMLError),
)


@dataclass(frozen=True)
class UserCorpusOptions:
    """What the corpus is made of, and what is held out of training."""

    recordings: Path
    """Lhotse manifest of recordings, or a Kaldi data directory."""
    supervisions: Path | None = None
    """Lhotse manifest of supervisions; none with a Kaldi data directory."""
    dev_recordings: Path | None = None
    """The same of the speech that scales are tuned on; none: speakers are held out."""
    dev_supervisions: Path | None = None
    """Its supervisions."""
    test_recordings: Path | None = None
    """The same of the speech that is decoded and reported; none: speakers are held out."""
    test_supervisions: Path | None = None
    """Its supervisions."""
    num_dev_speakers: int = 0
    """Speakers held out for tuning, by SHA-256 of their names; 0: a tenth, at least one."""
    num_test_speakers: int = 0
    """Speakers held out to be decoded, by SHA-256 of their names; 0: a tenth, at least one."""
    pieces_dir: Path = Path("data/pieces")
    """Where utterances go that are stretches of longer recordings, a file each."""

    def __post_init__(self) -> None:
        for name, recordings, supervisions, number in (
            ("dev", self.dev_recordings, self.dev_supervisions, self.num_dev_speakers),
            ("test", self.test_recordings, self.test_supervisions, self.num_test_speakers),
        ):
            if recordings is not None and number:
                raise InputError(f"--{name}-recordings: expected it or --num-{name}-speakers, found both")
            if recordings is None and supervisions is not None:
                raise InputError(f"--{name}-supervisions: expected --{name}-recordings with it, found none")


def user_corpus_files(options: UserCorpusOptions) -> list[Path]:
    """The manifests, and the files of Kaldi data directories."""
    given = [path for pair in _sources(options) for path in pair if path is not None]
    return [file for path in given for file in _files_of(path)]


def user_corpus_audio(base: Path, options: UserCorpusOptions) -> list[Path]:
    """The audio files that the manifests name. InputError as `prepare_user_corpus`."""
    segments = (one for source in _sources(options) for one in _located(_read(*source), source[0], base))
    return sorted({segment.path for segment in segments})


def prepare_user_corpus(base: Path, options: UserCorpusOptions, only_probe: bool = False) -> dict[str, CorpusSplit]:
    """Manifests of train, dev and test; audio of relative paths is looked for here, beside its manifest and in `base`.

    With `only_probe` no stretch of a recording is cut out: what comes back tells whether that could be done.
    InputError where a manifest cannot be read, sends for audio by a command or address, holds an utterance twice,
    or has too few speakers to hold some out.
    """
    train, dev, test = (_located(_read(*source), source[0], base) for source in _sources(options))
    if not test:
        train, test = _hold_out(train, options.num_test_speakers, "test")
    if not dev:
        train, dev = _hold_out(train, options.num_dev_speakers, "dev")
    splits = {"train": train, "dev": dev, "test": test}
    require_distinct(splits)
    _warn_of_shared_speakers(splits)
    # Workers of a cluster, which read the audio, are in folders of their own.
    pieces_dir = None if only_probe else options.pieces_dir.absolute()
    return {name: split_of(segments, pieces_dir) for name, segments in splits.items()}


def _warn_of_shared_speakers(splits: Mapping[str, Sequence[Segment]]) -> None:
    """A corpus of one speaker is none the worse for it; of many, its error rates would be too low."""
    learnt = {segment.speaker for segment in splits["train"]}
    for name in ("dev", "test"):
        shared = sorted(learnt & {segment.speaker for segment in splits[name]} - {""})
        if shared:
            logger.warning("%d speakers of %s are trained on too: %s", len(shared), name, name_some(shared))


def _sources(options: UserCorpusOptions) -> list[tuple[Path | None, Path | None]]:
    return [
        (options.recordings, options.supervisions),
        (options.dev_recordings, options.dev_supervisions),
        (options.test_recordings, options.test_supervisions),
    ]


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return [path / name for name in KALDI_FILES if (path / name).is_file()]
    return [path]


def _read(recordings: Path | None, supervisions: Path | None) -> list[Segment]:
    if recordings is None:
        return []
    if recordings.is_dir():
        if supervisions is not None:
            raise InputError(f"{supervisions}: expected no supervisions beside a Kaldi data directory ({recordings})")
        return read_kaldi_dir(recordings)
    if supervisions is None:
        raise InputError(f"{recordings}: expected --supervisions with a manifest of recordings, found none")
    return _read_manifests(recordings, supervisions)


def _located(segments: list[Segment], manifest: Path | None, base: Path) -> list[Segment]:
    """The segments with the full paths at which their files are; if nowhere, as they would be beside the manifest."""
    if manifest is None:
        return segments
    beside = manifest if manifest.is_dir() else manifest.parent
    places: dict[Path, Path] = {}
    for path in {segment.path for segment in segments}:
        tried = [path, beside / path, base / path]
        places[path] = next((one for one in tried if one.is_file()), beside / path).absolute()
    return [replace(segment, path=places[segment.path]) for segment in segments]


def _read_manifests(recordings: Path, supervisions: Path) -> list[Segment]:
    """A segment of each supervision, and of each recording without one."""
    by_id: dict[str, Recording] = {}
    for recording in _load(RecordingSet, Recording, recordings):
        if by_id.setdefault(recording.id, recording) is not recording:
            raise InputError(f"{recordings}: expected one recording {recording.id}, found two")
        kinds = {source.type for source in recording.sources}
        if kinds != {"file"} or len(recording.sources) != 1 or recording.transforms:
            raise InputError(f"{recordings}: {recording.id}: expected one file as it is, found {_kind(recording)}")
    found, heard = [], set()
    for one in _load(SupervisionSet, SupervisionSegment, supervisions):
        if one.recording_id not in by_id:
            raise InputError(f"{recordings}: expected a recording {one.recording_id} of {one.id}, found none")
        recording = by_id[one.recording_id]
        heard.add(recording.id)
        is_whole = one.start == 0 and abs(one.duration - recording.duration) < 1e-3
        end = None if is_whole else one.start + one.duration
        found.append(
            Segment(one.id, Path(recording.sources[0].source), one.start, end, one.speaker or "", one.text or "")
        )
    for name in sorted(by_id.keys() - heard):
        found.append(Segment(name, Path(by_id[name].sources[0].source), 0.0, None, "", None))
    return sorted(found, key=lambda segment: segment.utt_id)


def _kind(recording: Recording) -> str:
    sources = recording.sources
    if len(sources) != 1:
        return f"{len(sources)} sources"
    return f"a {sources[0].type}" if sources[0].type != "file" else "transforms"


def _load(kind: Any, item: Any, path: Path) -> Sequence[Any]:
    """A Lhotse manifest. InputError if it is missing or something else."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        found = list(kind.from_file(path))
    except PermissionError:
        raise InputError(f"{path}: expected a file that can be read, found none (permission denied)") from None
    except NO_MANIFEST as error:
        raise InputError(f"{path}: expected a Lhotse {kind.__name__}, found something else ({error!r:.80})") from None
    other = next((type(one).__name__ for one in found if not isinstance(one, item)), None)
    if other is not None:  # Lhotse reads whatever manifest there is
        raise InputError(f"{path}: expected a Lhotse {kind.__name__}, found a {other} in it")
    return found


def _hold_out(segments: list[Segment], number: int, name: str) -> tuple[list[Segment], list[Segment]]:
    """What is left, and what the speakers said who are held out."""
    speakers = {segment.speaker for segment in segments if segment.speaker}
    number = number or max(1, round(HELD_OUT_SHARE * len(speakers)))
    if number >= len(speakers):
        raise InputError(
            f"{name} speakers: expected more than {number} to hold out {number}, found {len(speakers)}: "
            f"give --{name}-recordings"
        )
    chosen = held_out_speakers(speakers, number)
    left = [segment for segment in segments if segment.speaker not in chosen]
    return left, [segment for segment in segments if segment.speaker in chosen]
