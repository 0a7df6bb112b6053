"""L: from phones to words, with optional silence around words (Mohri, Pereira and Riley 2008, section 3)."""

from __future__ import annotations

import math
from collections import Counter

from asrkd.graph.arrays import NO_FINAL, ArcList, FstArrays
from asrkd.lang.lexicon import Lexicon, Pronunciation

_START, _BETWEEN_WORDS, _BEFORE_SILENCE, _AFTER_SILENCE = range(4)


def phone_label(phone_id: int) -> int:
    """FST label of a phone: one more, because label 0 is epsilon."""
    return phone_id + 1


def word_labels(lexicon: Lexicon) -> dict[str, int]:
    """FST label of each word, from 1 in sorted order; the back-off symbol #0 has the label after the last word."""
    return {word: label for label, word in enumerate(lexicon.words, start=1)}


def backoff_label(lexicon: Lexicon) -> int:
    """Word label of the back-off symbol #0."""
    return len(lexicon.words) + 1


def disambiguated(lexicon: Lexicon) -> list[tuple[str, Pronunciation, int]]:
    """Each (word, pronunciation, n), as in Kaldi: n > 0 if the disambiguation symbol #n must follow the phones.

    It must if another entry has the same phones or begins with them. Otherwise L o G cannot be determinised.
    """
    entries = [(word, pron) for word in lexicon.words for pron in lexicon.prons[word]]
    times = Counter(pron for _, pron in entries)
    prefixes = {pron[:length] for pron in times for length in range(1, len(pron))}
    used: Counter[Pronunciation] = Counter()
    marked = []
    for word, pron in entries:
        if times[pron] > 1 or pron in prefixes:
            used[pron] += 1
        marked.append((word, pron, used[pron]))
    return marked


def pronunciation_fst(lexicon: Lexicon, silence_prob: float) -> FstArrays:
    """L: input labels are phone_id + 1 and then the disambiguation symbols, output labels are word labels.

    The symbols are #0 for backing off, #1, #2, ... after words, and a last one after silence. A pronunciation costs
    the negated log of its probability, which is not normalised, as in Kaldi's make_lexicon_fst.py; without
    probabilities it costs nothing. Silence occurs before, between and after words with probability `silence_prob`.
    """
    entries = disambiguated(lexicon)
    num_symbols = 2 + max(n for _, _, n in entries)
    first_symbol = phone_label(len(lexicon.phones))
    symbols = range(first_symbol, first_symbol + num_symbols)
    arcs = _Pronunciations()
    phone_ids = {phone: phone_id for phone_id, phone in enumerate(lexicon.phones)}
    labels = word_labels(lexicon)
    word_ends = {_BETWEEN_WORDS: -math.log1p(-silence_prob)}
    if silence_prob > 0:
        word_ends[_BEFORE_SILENCE] = -math.log(silence_prob)
        arcs.add(_BEFORE_SILENCE, _AFTER_SILENCE, phone_label(0), 0, 0.0)
        arcs.add(_AFTER_SILENCE, _BETWEEN_WORDS, symbols[-1], 0, 0.0)
    for state, cost in word_ends.items():
        arcs.add(_START, state, 0, 0, cost)
    arcs.add(_BETWEEN_WORDS, _BETWEEN_WORDS, symbols[0], backoff_label(lexicon), 0.0)
    # Not -log(1), which is -0.0: the graph of a lexicon without probabilities has cost 0.0.
    costs = [0.0 - math.log(prob) for word in lexicon.words for prob in lexicon.probs_of(word)]
    for (word, pron, n), cost in zip(entries, costs, strict=True):
        chain = [phone_label(phone_ids[phone]) for phone in pron] + ([symbols[n]] if n else [])
        arcs.add_word(chain, labels[word], word_ends, cost)
    final = [NO_FINAL] * arcs.next_state
    final[_BETWEEN_WORDS] = 0.0
    return arcs.fst(final)


class _Pronunciations(ArcList):
    """Arcs of L, and the number of its states."""

    def __init__(self) -> None:
        super().__init__()
        self.next_state = 4

    def add_word(self, chain: list[int], word_label: int, word_ends: dict[int, float], word_cost: float) -> None:
        """A chain of arcs from the state between words and back to it; the first arc has the word and its cost."""
        state, olabel, cost = _BETWEEN_WORDS, word_label, word_cost
        for label in chain[:-1]:
            self.add(state, self.next_state, label, olabel, cost)
            state, olabel, cost = self.next_state, 0, 0.0
            self.next_state += 1
        for end, end_cost in word_ends.items():
            self.add(state, end, chain[-1], olabel, cost + end_cost)
