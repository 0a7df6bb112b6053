"""The texts of a run: made by the rules of its options once, in stage 1, and checked before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from lhotse import SupervisionSet
from lhotse.utils import fastcopy

from asrkd.data.splits import CorpusSplit, Rejected
from asrkd.lang.lookalikes import shape
from asrkd.lang.text_checks import candidates, require_words, warnings_of
from asrkd.lang.text_rules import TextRules, is_dash
from asrkd.recipe.language import LexiconSource

logger = logging.getLogger(__name__)


def apply_rules(split: CorpusSplit, rules: TextRules, name: str) -> CorpusSplit:
    """The split with its texts by the rules. An utterance that has no word but tags and dashes is rejected.

    Dashes between spaces are no words: a warning counts them.
    """
    rejected, supervisions, dashes = [], [], []
    known = {fault.utt_id for fault in split.rejected}
    for one in split.supervisions:
        before = (one.text or "").split()
        after = rules.apply(one.text or "").split()
        if any(map(is_dash, before)):
            dashes.append(one.id)
        if before and all(map(rules.is_noise, after)) and one.recording_id not in known:
            rejected.append(Rejected(one.recording_id, f"empty transcript: no word in {' '.join(before)[:60]!r}"))
        supervisions.append(one if before == after else fastcopy(one, text=" ".join(after)))
    if dashes:
        logger.warning("texts of %s: a single dash in %d utterances is no word and is removed", name, len(dashes))
    if not rejected and all(one is other for one, other in zip(supervisions, split.supervisions, strict=True)):
        return split
    return replace(
        split,
        supervisions=SupervisionSet.from_segments(supervisions),
        rejected=(*split.rejected, *rejected),
    )


def check_texts(splits: Mapping[str, CorpusSplit], source: LexiconSource, options: str) -> list[str]:
    """Warn of odd words in the texts of all splits; the warnings. InputError for tags and words without a letter.

    `options` is what the names of options begin with, in messages.
    """
    texts = {str(one.id): one.text or "" for split in splits.values() for one in split.supervisions}
    odd = candidates(texts.values())
    known = source.known_words(odd)
    # A dictionary that is no file is asked for the plain spelling of words of look-alike letters.
    alike = source.known_words({shape(word) for word in odd if not word.isascii()})
    warnings = warnings_of(texts, known, {*source.dictionary_words(), *alike}, options)
    for warning in warnings:
        logger.warning("%s", warning)
    require_words(texts, known, options, source.has_dictionary)
    return warnings
