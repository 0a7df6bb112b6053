"""What a run loses after stage 1, counted against `max_bad` with what stage 1 rejected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from asrkd.data.manifests import load_transcripts
from asrkd.data.rejects import describe, missing_words, require_few_rejected, unpronounced
from asrkd.data.splits import Rejected
from asrkd.features.speeds import speed_id
from asrkd.files import read_rows
from asrkd.recipe.corpus import REJECTED_FILE
from asrkd.recipe.features import split_features
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.language import SplitWords
from asrkd.recipe.options import SpeechOptions

Texts = Mapping[str, Sequence[str]]
"""utt_id -> words."""


def split_texts(folders: RunFolders, split: str) -> dict[str, list[str]]:
    """Words of a split's utterances, in order of utt_id."""
    by_id = sorted(load_transcripts(folders.manifests(split)))
    return {one.utt_id: one.text.split() for one in by_id}


def rejected_before(folders: RunFolders, split: str) -> list[Rejected]:
    """What stage 1 rejected of a split."""
    rows = read_rows(folders.manifests(split) / REJECTED_FILE, utt_id=str, reason=str)
    return [Rejected(row["utt_id"], row["reason"]) for row in rows]


def require_few_lost(
    split: str, lost: Sequence[Rejected], options: SpeechOptions, copies: bool = False, advice: str = ""
) -> None:
    """InputError if a split has lost more than `max_bad` of its utterances: those of stage 1 and `lost`.

    `copies`: `lost` names copies at other speeds too, and copies are counted.
    """
    folders = RunFolders(options.exp_dir)
    before = rejected_before(folders, split)
    num_good = len(load_transcripts(folders.manifests(split)))
    speeds = split_features(split, options.features).speed_factors if copies else (1.0,)
    everything = [Rejected(speed_id(one.utt_id, speed), one.reason) for speed in speeds for one in before]
    require_few_rejected([*everything, *lost], len(everything) + len(speeds) * num_good, split, options.max_bad, advice)


def require_pronounced(
    split: str, texts: Texts, words: SplitWords, explain: Callable[[Sequence[str]], str], options: SpeechOptions
) -> list[Rejected]:
    """The utterances of a split that have words without a usable pronunciation. InputError if they are too many."""
    lost = unpronounced(texts, words.lexicon.prons, words.unheard)
    if lost:
        advice = explain(missing_words(list(texts.values()), words.lexicon.prons))
        require_few_lost(split, lost, options, advice=advice)
    return lost


def print_lost(split: str, lost: Sequence[Rejected]) -> None:
    """One line for what a step finds lost."""
    if lost:
        noun = "utterance" if len(lost) == 1 else "utterances"
        print(f"   {split}: {len(lost)} {noun} without frame labels: {describe(lost)}", flush=True)
