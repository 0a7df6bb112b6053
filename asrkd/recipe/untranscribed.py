"""Training speakers whose transcripts a run does not read: their audio is its transfer set."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from lhotse import RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.utils import fastcopy

from asrkd.data.hold_out import Copies
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError, name_some
from asrkd.recipe.copies import listed_copies
from asrkd.recipe.options import SpeechOptions


def untranscribed_stamp(options: SpeechOptions) -> dict[str, Any]:
    """What decides who is transcribed; nothing where all are."""
    given = options.transfer
    return {} if given.untranscribed is None else {"untranscribed": [given.untranscribed, given.untranscribed_seed]}


def draw_speakers(speakers: Collection[str], fraction: float, seed: int) -> set[str]:
    """That fraction of the speakers, by the SHA-256 of `seed` and name, as folds draw theirs.

    A larger fraction has the speakers of a smaller one. InputError unless some are drawn and some are left.
    """
    ranked = sorted(set(speakers), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
    number = round(fraction * len(ranked))
    if not 0 < number < len(ranked):
        raise InputError(
            f"--transfer.untranscribed {fraction:g}: expected some training speakers with transcripts and some "
            f"without, found {number} of {len(ranked)} without ({name_some(ranked)})"
        )
    return set(ranked[:number])


def transcribed_part(split: CorpusSplit, options: SpeechOptions) -> CorpusSplit:
    """The training split without the utterances of untranscribed speakers; all of it where there are none."""
    if options.transfer.untranscribed is None:
        return split
    drawn = _untranscribed(split, options)
    dropped = {one.recording_id for one in drawn}
    return replace(
        split,
        recordings=RecordingSet.from_recordings(one for one in split.recordings if one.id not in dropped),
        supervisions=SupervisionSet.from_segments(one for one in split.supervisions if one.recording_id not in dropped),
        rejected=tuple(one for one in split.rejected if one.utt_id not in dropped),
    )


def untranscribed_part(split: CorpusSplit, options: SpeechOptions) -> CorpusSplit:
    """The utterances of untranscribed speakers, without words and marks."""
    drawn = _untranscribed(split, options)
    chosen = {one.recording_id for one in drawn}
    return CorpusSplit(
        RecordingSet.from_recordings(one for one in split.recordings if one.id in chosen),
        SupervisionSet.from_segments(fastcopy(one, text="", alignment=None) for one in drawn),
        rejected=tuple(one for one in split.rejected if one.utt_id in chosen),
    )


def _untranscribed(split: CorpusSplit, options: SpeechOptions) -> list[SupervisionSegment]:
    """The utterances of the training split whose speakers are drawn.

    The speakers of copies that the corpus lists are one. Utterances of unknown speakers are transcribed.
    """
    spoken = list(split.supervisions)
    copies = Copies({one.id: one.speaker or "" for one in spoken}, listed_copies(options))
    person = {one.id: copies.speaker(one.speaker) for one in spoken if one.speaker}
    given = options.transfer
    assert given.untranscribed is not None
    drawn = draw_speakers(set(person.values()), given.untranscribed, given.untranscribed_seed)
    return [one for one in spoken if person.get(one.id) in drawn]
