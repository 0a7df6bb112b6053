"""A corpus of the user: Lhotse manifests or Kaldi data directories, and speakers that are held out by a rule."""

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
from asrkd.data.segments import Segment, require_distinct, split_from_segments
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError, name_some

logger = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.1
KALDI_FILES = ("wav.scp", "text", "utt2spk", "spk2utt", "segments")
# Errors that Lhotse raises for a file that is not a manifest, is cut short or is damaged.
_MANIFEST_ERRORS = (
    *(ValueError, KeyError, TypeError, AttributeError, AssertionError, OSError, EOFError),
    *(zlib.error, yaml.YAMLError),
)


@dataclass(frozen=True)
class UserCorpusOptions:
    """Manifests or data directories of a corpus, and how many speakers are held out of training."""

    recordings: Path
    """Lhotse manifest of recordings, or a Kaldi data directory."""
    supervisions: Path | None = None
    """Lhotse manifest of supervisions; not with a Kaldi data directory."""
    dev_recordings: Path | None = None
    """Manifest or data directory of the speech for tuning the scales; default: training speakers are held out."""
    dev_supervisions: Path | None = None
    """Manifest of its supervisions."""
    test_recordings: Path | None = None
    """Manifest or data directory of the speech for testing; default: training speakers are held out."""
    test_supervisions: Path | None = None
    """Manifest of its supervisions."""
    num_dev_speakers: int = 0
    """Number of speakers held out for tuning, chosen by SHA-256 of their names; 0: a tenth, at least one."""
    num_test_speakers: int = 0
    """Number of speakers held out for testing, chosen by SHA-256 of their names; 0: a tenth, at least one."""
    segments_dir: Path = Path("data/segments")
    """Folder for copies of the utterances that are segments of longer recordings, one file each."""

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
    """The audio files that the manifests name. InputError as in `prepare_user_corpus`."""
    segments = (one for source in _sources(options) for one in _with_absolute_paths(_read(*source), source[0], base))
    return sorted({segment.path for segment in segments})


def prepare_user_corpus(base: Path, options: UserCorpusOptions, only_probe: bool = False) -> dict[str, CorpusSplit]:
    """Manifests of train, dev and test.

    Relative paths of audio are searched for in the current folder, the folder of the manifest, and `base`. With
    `only_probe` no segment of a recording is copied; the result is for checks only. InputError if a manifest cannot
    be read, has audio behind a command or URL, has an utterance twice, or has too few speakers to hold some out.
    """
    train, dev, test = (_with_absolute_paths(_read(*source), source[0], base) for source in _sources(options))
    if not test:
        train, test = _hold_out(train, options.num_test_speakers, "test")
    if not dev:
        train, dev = _hold_out(train, options.num_dev_speakers, "dev")
    splits = {"train": train, "dev": dev, "test": test}
    require_distinct(splits)
    _warn_of_shared_speakers(splits)
    # Workers of a cluster read the audio too, and their current folder is another one.
    segments_dir = None if only_probe else options.segments_dir.absolute()
    return {name: split_from_segments(segments, segments_dir) for name, segments in splits.items()}


def _warn_of_shared_speakers(splits: Mapping[str, Sequence[Segment]]) -> None:
    """Warn of speakers of dev and test that are in train too: the error rates of other speakers would be higher."""
    trained = {segment.speaker for segment in splits["train"]}
    for name in ("dev", "test"):
        shared = sorted(trained & {segment.speaker for segment in splits[name]} - {""})
        if shared:
            logger.warning("%d speakers of %s are in train too: %s", len(shared), name, name_some(shared))


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
            raise InputError(f"{supervisions}: expected no supervisions with a Kaldi data directory ({recordings})")
        return read_kaldi_dir(recordings)
    if supervisions is None:
        raise InputError(f"{recordings}: expected --supervisions with a manifest of recordings, found none")
    return _read_manifests(recordings, supervisions)


def _with_absolute_paths(segments: list[Segment], manifest: Path | None, base: Path) -> list[Segment]:
    """The segments with absolute paths; a file that does not exist gets its path in the folder of the manifest."""
    if manifest is None:
        return segments
    folder = manifest if manifest.is_dir() else manifest.parent
    absolute: dict[Path, Path] = {}
    for path in {segment.path for segment in segments}:
        tried = [path, folder / path, base / path]
        absolute[path] = next((one for one in tried if one.is_file()), folder / path).absolute()
    return [replace(segment, path=absolute[segment.path]) for segment in segments]


def _read_manifests(recordings: Path, supervisions: Path) -> list[Segment]:
    """One segment per supervision, and one per recording without a supervision."""
    by_id: dict[str, Recording] = {}
    for recording in _load(RecordingSet, Recording, recordings):
        if by_id.setdefault(recording.id, recording) is not recording:
            raise InputError(f"{recordings}: expected one recording {recording.id}, found two")
        kinds = {source.type for source in recording.sources}
        if kinds != {"file"} or len(recording.sources) != 1 or recording.transforms:
            raise InputError(
                f"{recordings}: {recording.id}: expected one unchanged file, found {_source_of(recording)}"
            )
    segments, used = [], set()
    for one in _load(SupervisionSet, SupervisionSegment, supervisions):
        if one.recording_id not in by_id:
            raise InputError(f"{recordings}: expected a recording {one.recording_id} of {one.id}, found none")
        recording = by_id[one.recording_id]
        used.add(recording.id)
        is_whole = one.start == 0 and abs(one.duration - recording.duration) < 1e-3
        end = None if is_whole else one.start + one.duration
        segments.append(
            Segment(one.id, Path(recording.sources[0].source), one.start, end, one.speaker or "", one.text or "")
        )
    for name in sorted(by_id.keys() - used):
        segments.append(Segment(name, Path(by_id[name].sources[0].source), 0.0, None, "", None))
    return sorted(segments, key=lambda segment: segment.utt_id)


def _source_of(recording: Recording) -> str:
    sources = recording.sources
    if len(sources) != 1:
        return f"{len(sources)} sources"
    return f"a {sources[0].type}" if sources[0].type != "file" else "transforms"


def _load(kind: Any, item: Any, path: Path) -> Sequence[Any]:
    """A Lhotse manifest. InputError if it is missing or something else."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        items = list(kind.from_file(path))
    except PermissionError:
        raise InputError(f"{path}: expected a file that can be read, found none (permission denied)") from None
    except _MANIFEST_ERRORS as error:
        raise InputError(f"{path}: expected a Lhotse {kind.__name__}, found something else ({error!r:.80})") from None
    other = next((type(one).__name__ for one in items if not isinstance(one, item)), None)
    if other is not None:  # Lhotse reads a manifest of any kind
        raise InputError(f"{path}: expected a Lhotse {kind.__name__}, found a {other} in it")
    return items


def _hold_out(segments: list[Segment], number: int, name: str) -> tuple[list[Segment], list[Segment]]:
    """The segments of the other speakers, and those of the speakers that are held out."""
    speakers = {segment.speaker for segment in segments if segment.speaker}
    number = number or max(1, round(HELD_OUT_SHARE * len(speakers)))
    if number >= len(speakers):
        raise InputError(
            f"{name} speakers: expected more than {number} to hold out {number}, found {len(speakers)}: "
            f"give --{name}-recordings"
        )
    chosen = held_out_speakers(speakers, number)
    others = [segment for segment in segments if segment.speaker not in chosen]
    return others, [segment for segment in segments if segment.speaker in chosen]
