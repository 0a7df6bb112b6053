"""Cross-validation over speakers: so many runs, each tested on speakers that its models never heard.

All speakers of the corpus are divided into groups (`asrkd.data.hold_out.speaker_folds`). Fold k is a whole run in
exp_dir/fold_k, with the options of the recipe: it tests on group k, develops on some speakers of group k + 1, and
trains on the others. Its steps are the recipe's, named `fold_k/...`. Stage 0 reads the corpus once for all folds, and
audio that one fold has checked is not read again by the others. All else depends on who is trained on, or on copies at
other speeds, which only training utterances have, and is made in each fold.

After the folds, stages 11 and 12 combine them (`asrkd.recipe.folds_results`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lhotse import RecordingSet, SupervisionSegment, SupervisionSet

from asrkd.data.corpora.user import COPIES
from asrkd.data.hold_out import Copies, fold_splits, speaker_folds
from asrkd.data.manifests import load_split, save_split
from asrkd.data.splits import CorpusSplit
from asrkd.errors import name_some
from asrkd.files import write_json
from asrkd.recipe import folds_results
from asrkd.recipe.copies import listed_copies
from asrkd.recipe.corpus import CORPUS_STEP, Corpus
from asrkd.recipe.folders import FOLD_FILE, SPLITS, RunFolders, fold_name
from asrkd.recipe.options import SpeechOptions, options_of_folds
from asrkd.recipe.run_options import save_config
from asrkd.workflow.steps import Step

logger = logging.getLogger(__name__)

RunSteps = Callable[[Step, Corpus, SpeechOptions, str], list[Step]]
"""(step of stage 0, corpus, options, command) -> every step of one run."""


def build_steps(first: Step, run_steps: RunSteps, corpus: Corpus, options: SpeechOptions, command: str) -> list[Step]:
    """Every step of all folds, and those that combine them. `first` is stage 0 of the whole corpus."""
    steps = [first]
    for fold, one in enumerate(options_of_folds(options)):
        divide = partial(divide_corpus, options, fold)
        decides = {"folds": options.folds, "fold": fold, "fold_seed": options.fold_seed}
        division = Step(0, CORPUS_STEP, divide, decides)
        run = run_steps(division, _of_fold(corpus, fold), one, command)
        steps += [_in_folder(fold_name(fold), step) for step in run]
    return [*steps, *folds_results.build_steps(corpus, options, command, steps)]


def save_configs(options: SpeechOptions) -> None:
    """Write config.json of the whole run, and of each fold, which is a run."""
    save_config(options)
    for one in options_of_folds(options):
        one.exp_dir.mkdir(parents=True, exist_ok=True)
        save_config(one)


def _of_fold(corpus: Corpus, fold: int) -> Corpus:
    """The corpus as a fold has it: its splits are others, and stage 0 has checked the whole of it."""
    return replace(corpus, name=f"{corpus.name} {fold_name(fold)}", run=corpus.program, sizes={}, speakers={})


def _in_folder(folder: str, step: Step) -> Step:
    """A step of a run as one of the whole experiment, whose stage 0 the run's own reads."""
    inputs = (CORPUS_STEP,) if step.name == CORPUS_STEP else tuple(f"{folder}/{name}" for name in step.inputs)
    return replace(step, name=f"{folder}/{step.name}", inputs=inputs)


def divide_corpus(options: SpeechOptions, fold: int, out_dir: Path) -> None:
    """Stage 0 of a fold: train, dev and test of it, from the manifests of the whole corpus."""
    folders = RunFolders(options.exp_dir)
    whole = [load_split(folders.corpus(split)) for split in SPLITS]
    assert options.folds is not None
    divided = divide(whole, options.folds, fold, options.fold_seed, listed_copies(options))
    for name in SPLITS:
        save_split(divided.splits[name], out_dir / name)
    write_json(out_dir / FOLD_FILE, {"speakers": divided.speakers, "words": divided.words})
    shown = ", ".join(f"{len(divided.speakers[name])} in {name}" for name in SPLITS)
    unknown = [one.id for one in divided.splits["train"].supervisions if not one.speaker]
    if unknown:
        logger.warning("%d utterances without a speaker are in no test set: %s", len(unknown), name_some(unknown))
    print(f"   {sum(map(len, divided.speakers.values()))} speakers: {shown}", flush=True)


@dataclass(frozen=True)
class Division:
    """A corpus as a fold divides it."""

    splits: dict[str, CorpusSplit]
    speakers: dict[str, list[str]]
    """Speakers of each split."""
    words: dict[str, int]
    """Words of each split."""


def divide(
    whole: Iterable[CorpusSplit], number: int, fold: int, seed: int = 0, originals: Mapping[str, str] | None = None
) -> Division:
    """Train, dev and test of fold `fold` of `number`, from all utterances of a corpus.

    Speakers are weighed by their words. `originals`: utt_id -> the utterance that it is a copy of; the speakers of
    copies are one, and copies of test and development speakers are excluded. Utterances of unknown speakers are in
    train, and those without a recording or a transcript count there. InputError as `speaker_folds` and `fold_splits`.
    """
    parts = list(whole)
    spoken = sorted((one for part in parts for one in part.supervisions), key=lambda one: str(one.id))
    copies = Copies({one.id: one.speaker or "" for one in spoken}, originals or {})
    person = {one.id: copies.speaker(one.speaker) if one.speaker else "" for one in spoken}
    words: Counter[str] = Counter()
    for one in (one for one in spoken if one.speaker):
        words[person[one.id]] += len((one.text or "").split()) if copies.is_original(one.id) else 0
    names = fold_splits(speaker_folds(dict(words), number, seed), fold)
    chosen = {name: [one for one in spoken if person[one.id] in names[name]] for name in SPLITS}
    chosen["train"] += [one for one in spoken if not one.speaker]
    originals_of = {name: [one for one in chosen[name] if copies.is_original(one.id)] for name in ("dev", "test")}
    num_copies = sum(len(chosen[name]) - len(originals_of[name]) for name in originals_of)
    excluded = sum((Counter(part.excluded) for part in parts), Counter({COPIES: num_copies} if num_copies else {}))
    recordings = {one.id: one for part in parts for one in part.recordings}
    untranscribed = sorted(recordings.keys() - {one.recording_id for one in spoken})
    splits = {name: _split(supervisions, recordings) for name, supervisions in {**chosen, **originals_of}.items()}
    train = splits["train"]
    splits["train"] = replace(
        train,
        recordings=RecordingSet.from_recordings([*train.recordings, *(recordings[one] for one in untranscribed)]),
        excluded=dict(sorted(excluded.items())),
        rejected=tuple(one for part in parts for one in part.rejected),
    )
    speakers = {name: sorted(names[name]) for name in SPLITS}
    return Division(splits, speakers, {name: sum(words[one] for one in names[name]) for name in SPLITS})


def _split(supervisions: Sequence[SupervisionSegment], recordings: Mapping[str, object]) -> CorpusSplit:
    """The utterances with their recordings; those whose recording is missing stay, for validation to report."""
    ids = dict.fromkeys(one.recording_id for one in supervisions)
    return CorpusSplit(
        RecordingSet.from_recordings([recordings[one] for one in ids if one in recordings]),
        SupervisionSet.from_segments(supervisions),
    )
