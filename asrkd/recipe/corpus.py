"""Stages 0 and 1: what a corpus is made of, and the good utterances of each split."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from asrkd.data.manifests import AUDIO_KEYS, AudioFile, audio_files, content_fingerprint, load_split, save_split
from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.data.validate import validate
from asrkd.errors import InputError, name_some
from asrkd.files import file_fingerprint, fingerprint, read_object, write_json
from asrkd.lang.text_rules import TextRules
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.options import SpeechOptions, corpus_options
from asrkd.recipe.scoring import Scoring
from asrkd.recipe.texts import apply_rules
from asrkd.recipe.untranscribed import transcribed_part

REJECTED_FILE = "rejected.json"
AUDIO_FILE = "audio.json"
CONTENT_FILE = "content.json"
CORPUS_STEP = "corpus"
PATHS_FILE = "audio_paths.json"


@dataclass(frozen=True)
class Corpus:
    """What a recipe states about its corpus."""

    name: str
    """Name of the recipe, e.g. `an4`."""
    prepare: Callable[..., Mapping[str, CorpusSplit]]
    """Source layout -> train, dev and test: of the folder, and of the `corpora` options where the recipe has them."""
    dictionary: Callable[[Path], Path | str]
    """The pronunciation dictionary that goes with the corpus: a file of it, or "cmudict"."""
    closed_vocabulary: bool
    """Whether the dictionary's words are the vocabulary (else the training text's words are)."""
    where: str
    """Where a person gets the corpus."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Utterances that the whole corpus has in each split, where that is known: a partial copy is refused."""
    speakers: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Who speaks in a split of the whole corpus, where that is listed: those missing from a partial copy are named."""
    plain_words: bool = False
    """Whether its module makes plain words of its texts; in others, stage 3 looks for tags, punctuation and digits."""
    scoring: Scoring = field(default_factory=Scoring)
    """What counts as an error."""
    where_model: str = ""
    """Where a person gets the language model that the recipe names, if it names one."""
    read: Callable[..., Sequence[Path]] | None = None
    """(folder, `corpora` options) -> the files and folders that a run reads, where the folder holds more. Changes of
    others do not matter."""
    files: Callable[[Any], Sequence[Path]] | None = None
    """`corpora` options -> the manifest files of a corpus that is not one folder."""
    audio: Callable[[Path, Any], Sequence[Path]] | None = None
    """(folder, `corpora` options) -> the audio files that those manifests name."""
    run: str = ""
    """The recipe's command; empty: recipes/NAME/run.sh."""

    @property
    def program(self) -> str:
        """The command that a person types, as results show it."""
        return self.run or f"recipes/{self.name}/run.sh"


@dataclass(frozen=True)
class AudioPaths:
    """The audio files that a user's manifests name, as a run has looked them up."""

    manifests: str
    """Fingerprint of what decides the paths: the manifests, the options, the folders that are searched."""
    paths: list[str]


def list_sources(corpus: Corpus, options: SpeechOptions) -> tuple[dict[str, Any], AudioPaths | None]:
    """Count, bytes and fingerprint of the files that a run reads of its corpus; the audio files of a user's manifests.

    Files count by name, size and modification time; manifests of a user's corpus by their contents. InputError if a
    folder or a file is missing.
    """
    if corpus.files is None:
        return _list_folder(corpus, options), None
    given = corpus_options(options)
    manifests = {str(path): file_fingerprint(path) for path in corpus.files(*given)}
    stats: dict[str, list[int]] = {}
    audio = None
    if corpus.audio is not None:
        folders = [os.getcwd(), *([] if options.corpus_dir is None else [str(options.corpus_dir)])]
        decides = fingerprint([manifests, folders, [repr(one) for one in given]])
        stats = _stats_of_known(options.exp_dir / CORPUS_STEP / PATHS_FILE, decides)
        stats = stats or {str(path): _size_and_time(path) for path in corpus.audio(_folder(options), *given)}
        audio = AudioPaths(decides, list(stats))
    return _listing(stats, fingerprint([manifests, stats])), audio


def list_audio(audio: Sequence[Path], manifests: Mapping[str, str]) -> dict[str, Any]:
    """Count, bytes and fingerprint of audio files and of the manifests (path -> fingerprint) that name them."""
    stats = {str(path): _size_and_time(path) for path in audio}
    return _listing(stats, fingerprint([manifests, stats]))


def _stats_of_known(file: Path, decides: str) -> dict[str, list[int]]:
    """Size and time of each audio file of a user's corpus, by the paths that stage 0 wrote; empty where one is missing.

    The manifests of 281,241 utterances take 20 seconds to read, and every run and listing starts here.
    """
    try:
        known = read_object(file, manifests=str, paths=list)
    except InputError:
        return {}
    stats = {path: _size_and_time(path) for path in known["paths"]} if known["manifests"] == decides else {}
    return stats if all(size >= 0 for size, _ in stats.values()) else {}


def _list_folder(corpus: Corpus, options: SpeechOptions) -> dict[str, Any]:
    corpus_dir = options.corpus_dir
    if corpus_dir is None:
        raise InputError(f"no --corpus-dir: {corpus.where}")
    if not corpus_dir.is_dir():
        raise InputError(f"--corpus-dir {corpus_dir}: no such folder; {corpus.where}")
    stats: dict[str, list[int]] = {}
    for part in corpus.read(corpus_dir, *corpus_options(options)) if corpus.read else [corpus_dir]:
        if part.is_file():
            stats[os.path.relpath(part, corpus_dir)] = _size_and_time(part)
            continue
        for folder, _, names in os.walk(part, followlinks=True):
            relative = os.path.relpath(folder, corpus_dir)
            prefix = "" if relative == os.curdir else f"{relative}{os.sep}"
            stats |= {f"{prefix}{name}": _size_and_time(f"{folder}{os.sep}{name}") for name in names}
    return _listing(stats, fingerprint(stats))


def _size_and_time(path: Path | str) -> list[int]:
    """Bytes and modification time (ns) of a file; -1 and 0 where there is none."""
    try:
        stat = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return [-1, 0]
    return [stat.st_size, stat.st_mtime_ns]


def _listing(stats: Mapping[str, list[int]], found: str) -> dict[str, Any]:
    return {"files": len(stats), "bytes": sum(size for size, _ in stats.values()), "fingerprint": found}


def prepare_corpus(
    corpus: Corpus,
    listing: Mapping[str, Any],
    options: SpeechOptions,
    out_dir: Path,
    paths: AudioPaths | None = None,
) -> None:
    """Stage 0: Lhotse manifests of every split, from headers alone. `paths` are for the listings of later runs."""
    splits = corpus.prepare(_folder(options), *corpus_options(options))
    _require_whole(corpus, splits, options)
    for name, split in splits.items():
        save_split(split, out_dir / name)
    write_json(out_dir / "files.json", listing)
    if paths is not None:
        write_json(out_dir / PATHS_FILE, paths)


def make_manifests(corpus: Corpus, name: str, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 1: manifests of a split's good utterances, what was rejected, and fingerprints of the audio.

    An utterance whose file has the size and modification time that an earlier run of this step saw is not read again.
    """
    folders = RunFolders(options.exp_dir)
    whole_split = load_split(folders.corpus(name))
    spoken = transcribed_part(whole_split, options) if name == "train" else whole_split
    split = apply_rules(spoken, TextRules.of(options.lang), name)
    known = _audio_of_folds(options) | known_audio_of(folders, name)
    good, bad = validate(
        split,
        options.features.sampling_rate,
        name,
        options.max_bad,
        num_jobs=options.num_jobs,
        known=known,
        max_duration_sec=options.max_duration,
    )
    save_manifests(good, bad, known, out_dir)
    whole = f" of {corpus.sizes[name]}" if name in corpus.sizes else ""
    others = len(whole_split.supervisions) - len(spoken.supervisions)
    untranscribed = f"; the transcripts of {others} others are not read" if others else ""
    print(f"   {name}: {len(good.supervisions)}{whole} utterances{untranscribed}", flush=True)
    for one in bad:
        print(f"   rejected {one}", flush=True)


def save_manifests(good: CorpusSplit, bad: Sequence[Rejected], known: Mapping[str, AudioFile], out_dir: Path) -> None:
    """Write the manifests of a split's good utterances, the bad ones, and fingerprints of the audio."""
    audio = audio_files(good.recordings, known)
    save_split(good, out_dir)
    write_json(out_dir / REJECTED_FILE, [{"utt_id": one.utt_id, "reason": one.reason} for one in bad])
    write_json(out_dir / AUDIO_FILE, audio)
    write_json(out_dir / CONTENT_FILE, {"fingerprint": content_fingerprint(good, audio, bad)})


def known_audio_of(folders: RunFolders, name: str) -> dict[str, AudioFile]:
    """The audio files of a split that an earlier run has read."""
    return known_audio(folders.manifests(name) / AUDIO_FILE)


def known_audio(path: Path) -> dict[str, AudioFile]:
    """The audio files that an earlier run has read; none where its record is missing or damaged."""
    try:
        found = read_object(path)
    except InputError:
        return {}
    sound = {utt_id: file for utt_id, file in found.items() if isinstance(file, dict) and file.keys() == AUDIO_KEYS}
    return cast(dict[str, AudioFile], sound)


def _audio_of_folds(options: SpeechOptions) -> dict[str, AudioFile]:
    """The audio files that other folds have read: every fold has the same ones."""
    files = sorted(options.exp_dir.parent.glob(f"fold_*/manifests/*/{AUDIO_FILE}")) if options.folds else []
    return {utt_id: file for path in files for utt_id, file in known_audio(path).items()}


def manifests_content(folder: Path) -> str:
    """Fingerprint of what a split's manifests say, whatever the paths of its audio."""
    fingerprint: str = read_object(folder / CONTENT_FILE, fingerprint=str)["fingerprint"]
    return fingerprint


def _require_whole(corpus: Corpus, splits: Mapping[str, CorpusSplit], options: SpeechOptions) -> None:
    """InputError if more of a split's utterances, or of its speech, are missing than `max_bad` allows."""
    for name, expected in corpus.sizes.items():
        found = splits[name].num_utterances
        if found < (1 - options.max_bad) * expected:
            faults = _known_rejects(splits[name], corpus.speakers.get(name, ()))
            raise InputError(
                f"{options.corpus_dir}: expected {expected} utterances in {name}, found {found}: is the copy whole? "
                f"(--max-bad {options.max_bad:g} may be missing)"
                + (f": {name_some(faults, separator='; ')}" if faults else "")
            )
    for name, split in splits.items():
        _require_speech(name, split, options)


def _require_speech(name: str, split: CorpusSplit, options: SpeechOptions) -> None:
    """InputError if more of the speech that the corpus' own table lists is missing than `max_bad` allows."""
    if split.missing_share > options.max_bad:
        raise InputError(
            f"{options.corpus_dir}: expected at most {options.max_bad:.1%} of the speech of {name} to be missing "
            f"(--max-bad), found {split.missing_share:.1%}: {name_some(split.missing, separator='; ')}: "
            "is the copy whole?"
        )
    for line in split.missing:
        print(f"   not whole: {line}", flush=True)


def _known_rejects(split: CorpusSplit, speakers: Collection[str]) -> list[Rejected]:
    """The rejected utterances, and the expected speakers without any utterance, rejected ones included."""
    heard = {supervision.speaker for supervision in split.supervisions}
    rejected = [fault.utt_id for fault in split.rejected]  # it is a speaker's name or begins with one
    absent = [name for name in sorted(set(speakers) - heard) if not any(one.startswith(name) for one in rejected)]
    return [*(Rejected(name, "speaker without files") for name in absent), *split.rejected]


def _folder(options: SpeechOptions) -> Path:
    """The corpus folder; `list_sources` refuses its absence before any stage runs."""
    assert options.corpus_dir is not None
    return options.corpus_dir
