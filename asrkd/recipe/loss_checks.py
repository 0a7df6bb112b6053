"""Steps that stop a run which loses too many utterances, each as early as the losses can be known.

Stage 3 knows the words without a pronunciation, stage 4 the utterances with too few frames for their words, stage 5
those that could not be aligned and those whose transcripts are doubtful. The steps take seconds, and their stamps have
`max_bad`: another limit trains nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asrkd.align import Alignment
from asrkd.align.doubtful import TypicalFit
from asrkd.align.viterbi import why_not_aligned
from asrkd.data.manifests import load_transcripts
from asrkd.data.rejects import DOUBTFUL, NO_PATH, NO_PRONUNCIATION, UNHEARD, unpronounced
from asrkd.data.splits import Rejected
from asrkd.errors import name_some
from asrkd.features.speeds import speed_id
from asrkd.features.store import FrameStore
from asrkd.files import fingerprint, read_object, write_json
from asrkd.lang.lexicon import Lexicon
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.features import split_features
from asrkd.recipe.folders import LOSSES_FILE, SPLITS, RunFolders
from asrkd.recipe.lang import held_out_words, lexicon_source
from asrkd.recipe.language import SplitWords
from asrkd.recipe.losses import print_lost, rejected_before, require_few_lost, require_pronounced, split_texts
from asrkd.recipe.options import SpeechOptions


def check_words(corpus: Corpus, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 3: utterances of every split that have a word without a pronunciation. InputError if they are too many."""
    folders = RunFolders(options.exp_dir)
    source = lexicon_source(corpus, options, folders.lexicon.parent)
    explain = partial(source.explain_missing, Lexicon.load(folders.lexicon))
    found = {}
    for split in SPLITS:
        words = _words(corpus, split, options)
        found[split] = require_pronounced(split, split_texts(folders, split), words, explain, options)
        print_lost(split, found[split])
    _write(found, out_dir)


def check_frames(corpus: Corpus, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 4, first: utterances of every split that cannot be aligned, whatever their scores. InputError if they are
    too many."""
    folders = RunFolders(options.exp_dir)
    found = {}
    for split in SPLITS:
        store, words = FrameStore.open(folders.features(split)), _words(corpus, split, options)
        found[split] = _too_short(store, words)
        require_few_lost(split, found[split], options, copies=True)
        # Stage 3 printed the others.
        print_lost(split, [one for one in found[split] if one.kind not in (NO_PRONUNCIATION, UNHEARD)])
    _write(found, out_dir)


def check_labels(split: str, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 5, last: utterances of a split that have no labels, and those whose transcripts are doubtful.

    InputError if those without labels and those excluded as doubtful are too many.
    """
    folders = RunFolders(options.exp_dir)
    alignment = Alignment.load(folders.alignment(split))
    unaligned = [Rejected(utt_id, reason) for utt_id, reason in alignment.rejected.items()]
    fit, doubtful = _doubtful(split, alignment, options)
    excluded = [
        Rejected(speed_id(row["utt_id"], speed), row["reason"])
        for speed in split_features(split, options.features).speed_factors
        for row in doubtful
        if row["excluded"]
    ]
    require_few_lost(split, [*unaligned, *excluded], options, copies=True)
    print_lost(split, [one for one in unaligned if one.kind == NO_PATH])  # the others were printed before
    aligned = set(alignment.utt_ids)
    content = {
        "unaligned": [{"utt_id": one.utt_id, "reason": one.reason} for one in unaligned],
        "median": fit.median,
        "deviation": fit.deviation,
        "doubtful": doubtful,
        "excluded": {one.utt_id: one.reason for one in excluded if one.utt_id in aligned},
    }
    write_json(out_dir / LOSSES_FILE, content)
    _print_doubtful(split, doubtful, fit)
    _print_lost_speakers(split, folders, [*rejected_before(folders, split), *unaligned, *excluded])


def losses_content(folder: Path) -> str:
    """Fingerprint of what is excluded from training: networks read nothing else."""
    return fingerprint(sorted(read_object(folder / LOSSES_FILE, excluded=dict)["excluded"]))


def _too_short(store: FrameStore, words: SplitWords) -> list[Rejected]:
    """The utterances of a store that have words without a usable pronunciation, or too few frames for their words."""
    texts = {utt_id: text.split() for utt_id, text in zip(store.utt_ids, store.texts, strict=True)}
    reasons = {one.utt_id: one.reason for one in unpronounced(texts, words.lexicon.prons, words.unheard)}
    for utt_id, length in zip(store.utt_ids, store.offsets.diff().tolist(), strict=True):
        reason = reasons.get(utt_id) or why_not_aligned(texts[utt_id], length, words.lexicon)
        if reason:
            reasons[utt_id] = reason
    return [Rejected(utt_id, reasons[utt_id]) for utt_id in store.utt_ids if utt_id in reasons]


def _words(corpus: Corpus, split: str, options: SpeechOptions) -> SplitWords:
    """What a split is aligned with."""
    if split == "train":
        return SplitWords(Lexicon.load(RunFolders(options.exp_dir).lexicon))
    return held_out_words(corpus, split, options)


def _doubtful(split: str, alignment: Alignment, options: SpeechOptions) -> tuple[TypicalFit, list[dict[str, Any]]]:
    """The doubtful transcripts of a split, the worst first. An utterance is judged over its copies at all speeds."""
    texts = split_texts(RunFolders(options.exp_dir), split)
    speeds = split_features(split, options.features).speed_factors
    log_like = dict(zip(alignment.utt_ids, alignment.log_like.tolist(), strict=True))
    frames = dict(zip(alignment.utt_ids, alignment.offsets.diff().tolist(), strict=True))
    copies = {utt_id: [speed_id(utt_id, speed) for speed in speeds] for utt_id in texts}
    aligned = {utt_id: [one for one in names if one in frames] for utt_id, names in copies.items()}
    utt_ids = [utt_id for utt_id, names in aligned.items() if names]
    per_frame = np.array(
        [sum(log_like[one] for one in aligned[u]) / sum(frames[one] for one in aligned[u]) for u in utt_ids]
    )
    fit = TypicalFit.of(per_frame)
    rows = []
    for utt_id, value, below in zip(utt_ids, per_frame, fit.deviations_below(per_frame), strict=True):
        limit = options.doubtful.exclude_beyond
        if below > options.doubtful.list_beyond:
            excluded = split != "test" and limit is not None and below > limit
            rows.append(_doubtful_row(utt_id, texts[utt_id], value, below, excluded, fit))
    return fit, sorted(rows, key=lambda row: (-row["deviations_below"], row["utt_id"]))


def _doubtful_row(
    utt_id: str, words: Sequence[str], value: float, below: float, excluded: bool, fit: TypicalFit
) -> dict[str, Any]:
    return {
        "utt_id": utt_id,
        "words": " ".join(words),
        "log_like_per_frame": float(value),
        "deviations_below": float(below),
        "excluded": bool(excluded),
        "reason": f"{DOUBTFUL}: {value:.2f} nats a frame, {below:.1f} deviations below the median {fit.median:.2f}",
    }


def _print_doubtful(split: str, doubtful: Sequence[Mapping[str, Any]], fit: TypicalFit) -> None:
    if not doubtful:
        return
    noun = "transcript" if len(doubtful) == 1 else "transcripts"
    excluded = sum(row["excluded"] for row in doubtful)
    action = f"{excluded} excluded from training and tuning" if excluded else "none excluded"
    named = name_some([f"{row['utt_id']} {row['log_like_per_frame']:.2f}" for row in doubtful])
    print(
        f"   {split}: {len(doubtful)} doubtful {noun} ({action}), by nats a frame where the median is "
        f"{fit.median:.2f}: {named}",
        flush=True,
    )


def _print_lost_speakers(split: str, folders: RunFolders, lost: Sequence[Rejected]) -> None:
    """Name the speakers of whom nothing is left to train or to measure frames on."""
    gone = {one.utt_id for one in lost}
    by_speaker: dict[str, set[str]] = {}
    for one in load_transcripts(folders.corpus(split)):
        by_speaker.setdefault(one.speaker, set()).add(one.utt_id)
    silent = [speaker for speaker, utt_ids in sorted(by_speaker.items()) if utt_ids <= gone]
    if silent:
        print(f"   {split}: no utterance is left of {len(silent)} speakers: {name_some(silent)}", flush=True)


def _write(found: Mapping[str, Sequence[Rejected]], out_dir: Path) -> None:
    rows = {split: [{"utt_id": one.utt_id, "reason": one.reason} for one in lost] for split, lost in found.items()}
    write_json(out_dir / LOSSES_FILE, rows)
