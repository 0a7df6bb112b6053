"""A second way to everything that decoding does, by enumeration: small and slow, for tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from asrkd.graph.build import GraphOptions
from asrkd.hmm.topology import NUM_STATES, TransitionModel
from asrkd.hmm.tree import LEAF, LEFT, RIGHT, SenoneTree
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.ngram import NgramModel

LN10 = math.log(10.0)
SIL = 0

# Homophones (TO, TWO), a word that begins another (A, AM), one of a single phone, one of two pronunciations.
LEXICON = Lexicon(
    {
        "A": (("AH",), ("EY",)),
        "AM": (("AH", "M"),),
        "TO": (("T", "UW"),),
        "TWO": (("T", "UW"),),
        "ME": (("M", "IY"),),
    }
)
TEXT = [
    "A ME",
    "AM A",
    "TO ME",
    "TWO",
    "TWO TO TWO",
    "AM ME TO",
    "A A",
    "ME TO A",
    "TO A ME",
    "TO ME TWO",
    "A ME TO",
]


def random_tree(phones: tuple[str, ...], seed: int) -> SenoneTree:
    """A tree that asks one random question about the left and one about the right of every state but
    silence's."""
    generator = np.random.default_rng(seed)
    num_roots = len(phones) * NUM_STATES
    questions = generator.random((4, len(phones))) < 0.5
    context, question, yes, no = [LEAF] * num_roots, [0] * num_roots, [0] * num_roots, [0] * num_roots

    def grow(node: int, sides: tuple[int, ...]) -> None:
        if not sides:
            return
        context[node], question[node] = sides[0], int(generator.integers(len(questions)))
        for children in (yes, no):
            children[node] = len(context)
            for values, value in ((context, LEAF), (question, 0), (yes, 0), (no, 0)):
                values.append(value)
            grow(children[node], sides[1:])

    for root in range(NUM_STATES, num_roots):
        grow(root, tuple(generator.permutation([LEFT, RIGHT])[: generator.integers(3)]))
    nodes = [np.array(values, dtype=np.int64) for values in (context, question, yes, no)]
    leaves = nodes[0] == LEAF
    nodes[1][leaves] = np.arange(leaves.sum())
    return SenoneTree(phones, questions, *nodes)


def random_transitions(num_pdfs: int, seed: int) -> TransitionModel:
    stay = np.random.default_rng(seed).uniform(0.2, 0.9, num_pdfs)
    return TransitionModel(torch.from_numpy(np.log(stay)).float(), torch.from_numpy(np.log1p(-stay)).float())


def pronunciations(words: Sequence[str], lexicon: Lexicon, silence_prob: float) -> Iterator[tuple[list[int], float]]:
    """Every phone sequence of a sentence, optional silences included, and its log-probability."""
    phone_id = {phone: index for index, phone in enumerate(lexicon.phones)}
    gaps = [False, True] if silence_prob > 0 else [False]
    variants_of = [list(zip(lexicon.prons[word], lexicon.probs_of(word), strict=True)) for word in words]
    for variants in itertools.product(*variants_of):
        log_variants = sum(math.log(prob) for _, prob in variants)
        for silences in itertools.product(gaps, repeat=len(words) + 1):
            phones = [SIL] if silences[0] else []
            for (pron, _), silence in zip(variants, silences[1:], strict=True):
                phones += [phone_id[phone] for phone in pron] + ([SIL] if silence else [])
            log_silences = sum(math.log(silence_prob if silence else 1 - silence_prob) for silence in silences)
            yield phones, log_variants + log_silences


def state_pdfs(phones: Sequence[int], tree: SenoneTree) -> list[int]:
    """pdf_ids of the states of a phone sequence, silence being around it."""
    padded = [SIL, *phones, SIL]
    left, phone, right = (torch.tensor(padded[i : len(phones) + i]).repeat_interleave(NUM_STATES) for i in range(3))
    return tree.pdf_ids(left, phone, right, torch.arange(NUM_STATES).repeat(len(phones))).tolist()


def best_backoff(model: NgramModel, words: Sequence[str]) -> float:
    """Natural log of the best way through the model, where backing off is allowed even from an n-gram that is
    there."""
    sentence = [*words, "</s>"]

    def best(history: tuple[str, ...], position: int) -> float:
        if position == len(sentence):
            return 0.0
        found = -math.inf
        entry = model.tables[len(history)].get(" ".join((*history, sentence[position])))
        if entry is not None:
            longer = (*history, sentence[position])[-(model.order - 1) :] if model.order > 1 else ()
            found = entry.log10_prob + best(longer, position + 1)
        if history:
            seen = model.tables[len(history) - 1].get(" ".join(history))
            found = max(found, (seen.log10_backoff if seen else 0.0) + best(history[1:], position))
        return found

    return LN10 * best(("<s>",) if model.order > 1 else (), 0)


def leave_and_stay(transitions: TransitionModel, options: GraphOptions) -> tuple[NDArray, NDArray]:
    """Scaled log-probabilities by pdf."""
    scale = options.self_loop_scale
    return (
        scale * transitions.log_forward.double().numpy(),
        scale * transitions.log_self_loop.double().numpy(),
    )


def viterbi(pdfs: Sequence[int], scores: NDArray, leave: NDArray, stay: NDArray) -> float:
    """Best score of a chain of states over all frames, acoustic scores [T, S] included; -inf if it does not
    fit."""
    if len(pdfs) > len(scores):
        return -math.inf
    best = np.full(len(pdfs), -np.inf)
    best[0] = scores[0, pdfs[0]]
    for frame in scores[1:]:
        entered = np.concatenate([[-np.inf], best[:-1] + leave[pdfs[:-1]]])
        best = np.maximum(best + stay[pdfs], entered) + frame[pdfs]
    return float(best[-1] + leave[pdfs[-1]])


def sentences(words: Sequence[str], longest: int) -> Iterator[tuple[str, ...]]:
    for length in range(longest + 1):
        yield from itertools.product(words, repeat=length)
