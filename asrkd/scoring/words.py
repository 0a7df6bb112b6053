"""Word errors: counts, alignments, confusions and the worst utterances.

kaldialign aligns the words. Alignments with optional words follow sclite's costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kaldialign
import numpy as np

from asrkd.errors import InputError, require_same_utterances
from asrkd.scoring.bootstrap import NUM_REPLICATES, UtteranceMetric, by_speaker, interval

# kaldialign's symbol for no word. No transcript contains it. Outside of this module it is None.
_GAP = "\0"
# sclite's costs (wwd_WORD in SCTK's word.c): omitting an optional word costs less than an error. The units below _COST
# count errors, so that the alignment with the fewest errors wins among alignments of equal cost.
_COST = 1 << 32
_SUBSTITUTED, _INSERTED, _DELETED, _OMITTED = 4 * _COST + 1, 3 * _COST + 1, 3 * _COST + 1, 2 * _COST
Pair = tuple["str | None", "str | None"]
"""(reference word, recognised word). None stands for no word: an insertion or a deletion."""


@dataclass(frozen=True)
class UtteranceErrors:
    """Edit counts of one utterance, and the alignment behind them."""

    utt_id: str
    """The utterance."""
    ins: int
    """Inserted words."""
    dels: int
    """Deleted words (`del` is a keyword)."""
    subs: int
    """Substituted words."""
    words: int
    """Words in the reference."""
    pairs: tuple[Pair, ...]
    """The alignment in order. A correctly omitted optional word is in no pair."""

    @property
    def errors(self) -> int:
        """Sum of insertions, deletions and substitutions."""
        return self.ins + self.dels + self.subs


@dataclass(frozen=True)
class WordErrors:
    """Edit counts of a test set, per utterance and in total."""

    utterances: tuple[UtteranceErrors, ...]
    """One entry per utterance, in the order of the references."""
    speakers: Mapping[str, str] | None = None
    """utt_id -> speaker, where the bootstrap draws speakers; None: it draws utterances."""

    @property
    def ins(self) -> int:
        """Inserted words."""
        return sum(utt.ins for utt in self.utterances)

    @property
    def dels(self) -> int:
        """Deleted words."""
        return sum(utt.dels for utt in self.utterances)

    @property
    def subs(self) -> int:
        """Substituted words."""
        return sum(utt.subs for utt in self.utterances)

    @property
    def words(self) -> int:
        """Words in the references."""
        return sum(utt.words for utt in self.utterances)

    @property
    def errors(self) -> int:
        """Sum of insertions, deletions and substitutions."""
        return sum(utt.errors for utt in self.utterances)

    @property
    def percent(self) -> float:
        """Word error rate in percent: 100 * (ins + del + sub) / words."""
        return 100.0 * self.errors / self.words

    @property
    def metric(self) -> UtteranceMetric:
        """The word error rate as a ratio that the bootstrap can resample."""
        metric = UtteranceMetric(
            name="wer",
            utt_ids=tuple(utt.utt_id for utt in self.utterances),
            numerator=np.array([utt.errors for utt in self.utterances], dtype=np.float64),
            denominator=np.array([utt.words for utt in self.utterances], dtype=np.float64),
            scale=100.0,
        )
        return metric if self.speakers is None else by_speaker(metric, self.speakers)

    def as_json(self, num_replicates: int = NUM_REPLICATES, seed: int = 0) -> dict[str, Any]:
        """The `wer` entry of results.json: percent, ins, del, sub, words, ci95."""
        return {
            "percent": self.percent,
            "ins": self.ins,
            "del": self.dels,
            "sub": self.subs,
            "words": self.words,
            "ci95": list(interval(self.metric, num_replicates, seed)),
        }


def wer(
    refs: Mapping[str, Sequence[str]], hyps: Mapping[str, Sequence[str]], optional: Collection[str] = ()
) -> WordErrors:
    """Levenshtein word errors of `hyps` against `refs`, both utt_id -> words.

    A reference word in `optional` may be missing without an error. It still counts as a word. With optional words the
    alignments are those of sclite. An empty hypothesis counts as deletions.

    InputError if a reference has no hypothesis, a hypothesis has no reference, or the references have no words.
    """
    require_same_utterances(refs, hyps)
    result = WordErrors(tuple(utterance_errors(utt_id, ref, hyps[utt_id], optional) for utt_id, ref in refs.items()))
    if result.words == 0:
        raise InputError(f"references: expected words, found none in {len(refs)} utterances")
    return result


def utterance_errors(
    utt_id: str, ref: Sequence[str], hyp: Sequence[str], optional: Collection[str] = ()
) -> UtteranceErrors:
    """Edit counts and alignment of one utterance."""
    pairs = _align_with_optional(ref, hyp, optional) if optional else _align(ref, hyp)
    ins = sum(a is None for a, _ in pairs)
    dels = sum(b is None for _, b in pairs)
    subs = sum(a != b for a, b in pairs) - ins - dels
    return UtteranceErrors(utt_id, ins, dels, subs, len(ref), tuple(pairs))


def _align(ref: Sequence[str], hyp: Sequence[str]) -> list[Pair]:
    """An alignment with the fewest errors."""
    aligned = kaldialign.align(list(ref), list(hyp), _GAP)
    return [(None if a == _GAP else a, None if b == _GAP else b) for a, b in aligned]


def _align_with_optional(ref: Sequence[str], hyp: Sequence[str], optional: Collection[str]) -> list[Pair]:
    """The alignment of lowest cost by sclite's costs, without the optional words that it omits."""
    deletion = [_OMITTED if word in optional else _DELETED for word in ref]
    differs = np.array(ref, dtype=object)[:, None] != np.array(hyp, dtype=object)
    # Costs are relative to inserting every word of the hypothesis, so that an insertion adds nothing.
    match = _SUBSTITUTED * differs.astype(np.int64) - _INSERTED
    # costs[i][j]: the first i reference words aligned with the first j recognised words.
    costs = [np.zeros(len(hyp) + 1, dtype=np.int64)]
    for i in range(len(ref)):
        row = costs[i] + deletion[i]
        row[1:] = np.minimum(row[1:], costs[i][:-1] + match[i])
        costs.append(np.minimum.accumulate(row))
    pairs: list[Pair] = []
    i, j = len(ref), len(hyp)
    while i or j:
        if i and j and costs[i][j] == costs[i - 1][j - 1] + match[i - 1][j - 1]:
            i, j = i - 1, j - 1
            pairs.append((ref[i], hyp[j]))
        elif i and costs[i][j] == costs[i - 1][j] + deletion[i - 1]:
            i -= 1
            if ref[i] not in optional:
                pairs.append((ref[i], None))
        else:
            j -= 1
            pairs.append((None, hyp[j]))
    return pairs[::-1]


def worst_utterances(errors: WordErrors, count: int) -> list[UtteranceErrors]:
    """The `count` utterances of the highest error rate. Of equal rates the one with the most errors is first.

    Utterances without errors are excluded.
    """
    wrong = [utt for utt in errors.utterances if utt.errors > 0]
    return sorted(wrong, key=lambda utt: (-utt.errors / max(utt.words, 1), -utt.errors, utt.utt_id))[:count]


def confusions(errors: WordErrors, count: int | None = None) -> list[tuple[str | None, str | None, int]]:
    """Rows (reference word, recognised word, count) of differing words, the most frequent first."""
    pairs = Counter(pair for utt in errors.utterances for pair in utt.pairs if pair[0] != pair[1])
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1] or ""))
    return [(ref, hyp, number) for (ref, hyp), number in ranked[:count]]
