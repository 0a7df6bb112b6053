"""Speech of other manifests than the corpus', read as utterances that a run can decode."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from asrkd.data.corpora.user import file_finder, source_files
from asrkd.data.kaldi_dir import read_kaldi_dir
from asrkd.data.lhotse_manifests import read_lhotse
from asrkd.data.manifests import AudioFile, load_transcripts
from asrkd.data.segments import COPY_FORMAT, Segment, require_distinct, split_from_segments
from asrkd.data.splits import CorpusSplit
from asrkd.data.untranscribed import AUDIO_SUFFIXES, read_untranscribed, with_speakers
from asrkd.data.validate import validate
from asrkd.errors import InputError, name_some
from asrkd.files import file_fingerprint
from asrkd.lang.text_rules import TextRules
from asrkd.recipe.corpus import known_audio_of, list_audio, save_manifests
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.new_data_options import NewDataOptions
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.texts import apply_rules

log = logging.getLogger(__name__)

SPLIT = "test"
"""The new speech in the output folder, which has the form of a run: RunFolders finds it."""
IN_MESSAGES = "the new speech"


@dataclass(frozen=True)
class NewSpeech:
    """The utterances that the manifests name."""

    segments: tuple[Segment, ...]
    manifests: tuple[Path, ...]
    num_unused: int = 0
    """Recordings without supervisions, where others have some."""

    @classmethod
    def read(cls, options: NewDataOptions) -> NewSpeech:
        """Read the manifests. InputError, naming file and line, for what is wrong in them."""
        path = options.speech
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES:
            raise InputError(
                f"{path}: expected a manifest or a folder of audio files, found an audio file: give its folder"
            )
        segments = _read(path, options)
        if not segments:
            raise InputError(f"{path}: expected utterances, found none")
        used = [one for one in segments if not one.is_unused_recording]
        if options.supervisions is None or not used:
            used = segments
        require_distinct({IN_MESSAGES: used})
        files = [options.supervisions] if options.supervisions is not None else []
        named = [] if path.is_dir() and not (path / "wav.scp").is_file() else source_files(path)
        return cls(tuple(with_speakers(used)), (*named, *files), len(segments) - len(used))

    @cached_property
    def has_texts(self) -> bool:
        """Whether any utterance has a transcript; then all should."""
        return any(segment.text for segment in self.segments)

    def stamp(self) -> dict[str, Any]:
        """What decides the utterances: the manifests' contents, and the audio files by size and time."""
        manifests = {str(path.absolute()): file_fingerprint(path) for path in self.manifests}
        audio = sorted({segment.path for segment in self.segments})
        return {"files": list_audio(audio, manifests), "copies": COPY_FORMAT}


def _read(path: Path, options: NewDataOptions) -> list[Segment]:
    if options.kaldi_dir is not None and not (path / "wav.scp").is_file():
        raise InputError(f"--kaldi-dir {path}: expected a folder with wav.scp, found none")
    if (path / "wav.scp").is_file():
        if options.supervisions is not None:
            raise InputError(f"{options.supervisions}: expected no supervisions with a Kaldi data directory ({path})")
        return read_kaldi_dir(path, file_finder(path, Path()), transcribed=(path / "text").is_file())
    if path.is_dir() and (options.cuts is not None or options.supervisions is not None):
        raise InputError(f"{path}: expected a Lhotse manifest, found a folder")
    if options.cuts is None and options.supervisions is None:
        return read_untranscribed(path, Path())
    find = file_finder(path.parent, Path())
    return [replace(segment, path=find(segment.path)) for segment in read_lhotse(path, options.supervisions)]


def make_manifests(
    speech: NewSpeech,
    run: SpeechOptions,
    options: NewDataOptions,
    heard: Path,
    segments_dir: Path,
    out_dir: Path,
) -> None:
    """Stage 1: manifests of the good utterances, by the run's rules for texts, and what was rejected.

    `run` has the output folder as exp_dir. A warning names speakers of `heard`, the manifests of the run's training.
    InputError if more utterances are bad than `max_bad` allows.
    """
    if speech.num_unused:
        log.warning("%d recordings without supervisions are not decoded", speech.num_unused)
    _warn_of_heard_speakers(speech, heard)
    segments = speech.segments
    if not speech.has_texts:
        segments = tuple(replace(segment, text="") for segment in segments)
    split = split_from_segments(segments, segments_dir)
    if speech.has_texts:
        split = apply_rules(split, TextRules.of(run.lang), IN_MESSAGES)
    known = known_audio_of(RunFolders(run.exp_dir), SPLIT)
    good, bad = _validated(split, run, options, known, speech.has_texts)
    save_manifests(good, bad, known, out_dir)
    print(f"   {len(good.supervisions)} utterances of {len(_speakers(good))} speakers", flush=True)
    if bad:
        log.warning("%d utterances are not decoded: %s", len(bad), name_some(bad, separator="; "))


def _warn_of_heard_speakers(speech: NewSpeech, heard: Path) -> None:
    """Error rates of speakers that the networks were trained on are lower than those of others."""
    speakers = {segment.speaker for segment in speech.segments}
    shared = sorted(speakers & {one.speaker for one in load_transcripts(heard)})
    if shared:
        log.warning(
            "%d of %d speakers have the names of speakers that the run was trained on: %s",
            *(len(shared), len(speakers), name_some(shared)),
        )


def _validated(
    split: CorpusSplit,
    run: SpeechOptions,
    options: NewDataOptions,
    known: Mapping[str, AudioFile],
    has_texts: bool,
) -> tuple[CorpusSplit, Sequence[Any]]:
    return validate(
        split,
        run.features.sampling_rate,
        IN_MESSAGES,
        options.max_bad,
        num_jobs=options.num_jobs,
        known=known,
        max_duration_sec=options.max_duration or run.max_duration,
        has_texts=has_texts,
    )


def _speakers(split: CorpusSplit) -> set[str]:
    return {str(one.speaker) for one in split.supervisions}
