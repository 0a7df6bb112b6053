"""The one rule on utterances that a run loses: at most `max_bad` of each split, whichever stages lose them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set

from asrkd.data.splits import Rejected
from asrkd.errors import InputError, name_some

# Kinds of reasons after stage 1. A reason is a kind, a colon and the details of the utterance.
NO_PRONUNCIATION = "no pronunciation"
# Of a held-out word: its units have no senones. This is no fault of the data, and the utterance is decoded and scored.
UNHEARD = "units that training never heard"
TOO_FEW_FRAMES = "too few frames"
NO_PATH = "no path"
DOUBTFUL = "doubtful transcript"
# Half an hour. With 2,000 senones its alignment needs 4 GB (LOG.md).
MAX_DURATION_SEC = 1800.0


def require_max_bad(max_bad: float) -> None:
    """InputError unless `max_bad` is a fraction, which NaN is not."""
    if not 0 <= max_bad <= 1:
        raise InputError(f"--max-bad: expected 0 to 1, found {max_bad:g}")


def require_few_rejected(
    rejected: Sequence[Rejected], num_utterances: int, name: str, max_bad: float, advice: str = ""
) -> None:
    """InputError if more than `max_bad` of a split's utterances, or all of them, are rejected.

    Those with UNHEARD units do not count against `max_bad`: a small corpus has such words, and they cost frame metrics.
    `num_utterances` counts the rejected ones too. The message counts the kinds of reasons and names the first
    utterances; `advice` is what mends it.
    """
    part = f" in {name}" if name else ""
    if num_utterances == 0:
        raise InputError(f"corpus: expected at least one utterance{part}, found none")
    counted = sum(one.kind != UNHEARD for one in rejected)
    if counted <= max_bad * num_utterances and len(rejected) < num_utterances:
        return
    raise InputError(
        f"corpus: expected at most {max_bad:.1%} bad utterances{part} (--max-bad), "
        f"found {len(rejected)} of {num_utterances}: {describe(rejected)}{'; ' + advice if advice else ''}"
    )


def describe(rejected: Sequence[Rejected]) -> str:
    """How many utterances have each kind of reason, where there are several kinds, and the first few utterances."""
    kinds = Counter(one.kind for one in rejected)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{counted + ': ' if len(kinds) > 1 else ''}{name_some(rejected, separator='; ')}"


def unpronounced(
    texts: Mapping[str, Sequence[str]], known: Collection[str], unheard: Set[str] = frozenset()
) -> list[Rejected]:
    """The utterances (utt_id -> words) that have words outside `known`; `unheard` are those with UNHEARD units."""
    rejected = []
    for utt_id, words in texts.items():
        missing = missing_words([words], known)
        if missing:
            kind = UNHEARD if unheard >= set(missing) else NO_PRONUNCIATION
            rejected.append(Rejected(utt_id, f"{kind}: {name_some(missing)}"))
    return rejected


def missing_words(sentences: Collection[Sequence[str]], known: Collection[str]) -> list[str]:
    """Words outside `known`, those of most sentences first."""
    found = Counter(word for words in sentences for word in dict.fromkeys(words) if word not in known)
    return [word for word, _ in found.most_common()]
