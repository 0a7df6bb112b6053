"""G: an n-gram model as an acceptor of words with back-off arcs, as Kaldi's `arpa2fst` makes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from asrkd.errors import InputError
from asrkd.graph.arrays import NO_FINAL, ArcRow, FstArrays, from_rows
from asrkd.lang.ngram import BOS, EOS, NEVER_LOG10, NgramModel

LN10 = math.log(10.0)
_BOS_ID = -1  # stands for <s> in a history; no word label is negative

History = tuple[int, ...]


@dataclass(frozen=True)
class Grammar:
    """G and the words of the model that no pronunciation is known of."""

    fst: FstArrays
    """Word labels in; out the same, epsilon on back-off arcs."""
    left_out: tuple[str, ...]
    """Words of the model outside the lexicon, sorted; their n-grams are not in G."""


@dataclass
class _Kept:
    """The n-grams of known words, by history, in word labels; natural logs."""

    following: dict[History, dict[int, float]] = field(default_factory=dict)
    ending: dict[History, float] = field(default_factory=dict)
    backoff: dict[History, float] = field(default_factory=dict)

    def histories(self) -> list[History]:
        """Every history that something follows, the empty one first, the others by length."""
        found = (self.following.keys() | self.ending.keys()) - {()}
        return [(), *sorted(found, key=lambda history: (len(history), history))]


def grammar_fst(model: NgramModel, word_labels: Mapping[str, int], backoff_label: int) -> Grammar:
    """Build G of the words in `word_labels`; back-off arcs carry `backoff_label` in and epsilon out.

    A state for each history that some n-gram extends. A history that nothing extends has no state: its
    back-off weight stands on the arcs that would enter it, which is exact because whatever follows backs off.
    InputError if the model has none of the words, or no sentence could end.
    """
    kept = _known_ngrams(model, word_labels)
    if not kept.following.get(()):
        raise InputError("language model: expected words of the lexicon, found none of them")
    if () not in kept.ending:
        raise InputError(f"language model: expected a unigram {EOS}, found none")
    histories = kept.histories()
    states = {history: state for state, history in enumerate(histories)}

    def enter(history: History) -> tuple[int, float]:
        """State of a history or of what it backs off to, and the cost of that."""
        cost = 0.0
        while history not in states:
            cost -= kept.backoff.get(history, 0.0)
            history = history[1:]
        return states[history], cost

    rows: list[ArcRow] = []
    for history, state in states.items():
        for word, log_prob in kept.following.get(history, {}).items():
            target, cost = enter((*history, word))
            rows.append((state, target, word, word, cost - log_prob))
        if history:
            target, cost = enter(history[1:])
            rows.append((state, target, backoff_label, 0, cost - kept.backoff.get(history, 0.0)))
    final = [-kept.ending[history] if history in kept.ending else NO_FINAL for history in histories]
    start, cost = enter((_BOS_ID,))
    if cost:  # nothing follows <s>, yet backing off from it costs: no arc enters it to carry that
        rows.append((len(final), start, backoff_label, 0, cost))
        start = len(final)
        final.append(NO_FINAL)
    left_out = tuple(sorted(model.vocabulary - word_labels.keys()))
    return Grammar(from_rows(rows, final, start), left_out)


def _known_ngrams(model: NgramModel, word_labels: Mapping[str, int]) -> _Kept:
    labels = {**word_labels, BOS: _BOS_ID}
    kept = _Kept()
    for table in model.tables:
        for ngram, (log10_prob, log10_backoff) in table.items():
            *context, last = ngram.split(" ")
            if any(word not in labels for word in context) or (last not in labels and last != EOS):
                continue
            history = tuple(labels[word] for word in context)
            if last != EOS:
                entered = (*history, labels[last])
                kept.backoff[entered] = log10_backoff * LN10
            if log10_prob <= NEVER_LOG10:
                continue
            if last == EOS:
                kept.ending[history] = log10_prob * LN10
            elif last != BOS:
                kept.following.setdefault(history, {})[labels[last]] = log10_prob * LN10
    return kept
