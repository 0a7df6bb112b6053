"""Whether the numbers of a language model are probabilities: those of the unigrams sum to one."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from asrkd.errors import InputError
from asrkd.lang.ngram import BOS, NgramModel, power_of_ten

log = logging.getLogger(__name__)

# Sums of unigram probabilities: 1, but for the rounding of four digits, and for words that a person removed.
_MAX_SUM = 1.05
_MIN_SUM = 0.5


def require_unigram_probabilities(path: Path | str, model: NgramModel) -> None:
    """InputError if the unigrams of a person's model are no probabilities, with logarithms of base 10.

    A warning if they sum to less than 0.5: the probabilities of words that are no longer there are lost.
    """
    logs = [entry.log10_prob for word, entry in model.tables[0].items() if word != BOS]
    total = sum(map(power_of_ten, logs))
    if total > _MAX_SUM:
        raise InputError(
            f"{path}: expected probabilities of the {len(logs)} unigrams that sum to 1 ({BOS} does not count), found a "
            f"sum of {total:.4g}"
        )
    natural = sum(power_of_ten(one / math.log(10)) for one in logs)
    if total < _MIN_SUM and abs(natural - 1.0) < _MAX_SUM - 1.0:
        raise InputError(
            f"{path}: expected log10 probabilities of the unigrams that sum to 1, found a sum of {total:.4g}, and of "
            f"{natural:.4g} with base e: these look like natural logarithms (divide them by {math.log(10):.6f})"
        )
    if total < _MIN_SUM:
        log.warning("%s: the probabilities of the %d unigrams sum to %.4g, expected about 1", path, len(logs), total)
