"""HCLG: from pdf labels to words (Mohri, Pereira and Riley 2008; the steps are Kaldi's `mkgraph.sh`).

L o G is determinised and minimised; context and states are composed onto it without self-loops, determinised
and minimised again; then disambiguation symbols go, self-loops come, and epsilons go.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kaldifst
import numpy as np
import torch
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.files import fingerprint
from asrkd.graph.arrays import FstArrays, from_kaldifst, sorted_by_source, to_kaldifst
from asrkd.graph.decoding_graph import DecodingGraph, epsilon_free
from asrkd.graph.grammar import grammar_fst
from asrkd.graph.pronunciations import backoff_label, pronunciation_fst, word_labels
from asrkd.graph.word_arcs import words_on_emitting_arcs
from asrkd.hmm.topology import NUM_STATES, TransitionModel, pdf_to_label
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.ngram import NgramModel, read_arpa

log = logging.getLogger(__name__)

TRIPHONE_WIDTH, TRIPHONE_CENTRE = 3, 1
SILENCE_ID = 0


@dataclass(frozen=True)
class GraphOptions:
    """How the decoding graph weighs silence and durations."""

    silence_prob: float = 0.5
    """Probability of silence before, between and after words (0: none anywhere)."""
    self_loop_scale: float = 0.1
    """Weight of the log-probabilities of staying in a state and of leaving it (Kaldi's, with acoustic scales
    of 0.1)."""
    transition_scale: float = 1.0
    """Weight of what a way out of a state has beyond that; nothing in a left-to-right topology without
    skips."""

    def __post_init__(self) -> None:
        if not 0 <= self.silence_prob < 1:
            raise InputError(f"graph: expected silence_prob in [0, 1), found {self.silence_prob}")
        if self.self_loop_scale < 0 or self.transition_scale < 0:
            raise InputError("graph: expected scales of at least 0")


def build_hclg(
    lexicon: Lexicon,
    language_model: Path | str | NgramModel,
    tree: SenoneTree,
    transitions: TransitionModel,
    options: GraphOptions = GraphOptions(),
) -> DecodingGraph:
    """The decoding graph of a lexicon, an n-gram model (or its ARPA file), a senone tree and its transitions.

    Words of the model without a pronunciation are left out and listed in `left_out`. InputError where the
    parts do not belong together.
    """
    if lexicon.phones != tree.phones:
        differing = sorted(set(lexicon.phones) ^ set(tree.phones))
        raise InputError(
            f"graph: expected the phones of the tree in the lexicon, found a difference in {differing[:10]}"
        )
    if transitions.num_pdfs != tree.num_pdfs:
        raise InputError(f"graph: expected transitions of {tree.num_pdfs} pdfs, found {transitions.num_pdfs}")
    model = language_model if isinstance(language_model, NgramModel) else read_arpa(language_model)
    pronunciations = pronunciation_fst(lexicon, options.silence_prob)
    grammar = grammar_fst(model, word_labels(lexicon), backoff_label(lexicon))
    lg = lexicon_and_grammar(pronunciations.fst, grammar.fst)
    log.info("LG: %d states", lg.num_states)
    states = with_states(lg, pronunciations.disambiguation, tree)
    states, word_sequences = words_on_emitting_arcs(states, len(lexicon.words))
    looped = with_self_loops(states, tree.num_pdfs, transitions, options)
    log.info("HCLG with epsilons: %d states, %d arcs", looped.num_states, looped.num_arcs)
    made_from = {
        "lexicon": lexicon.fingerprint,
        "grammar": grammar.fst.digest(),
        "tree": tree.fingerprint,
        "transitions": [tensor.tolist() for tensor in transitions.to_tensors().values()],
        "options": options,
    }
    return epsilon_free(
        looped,
        word_sequences,
        words=lexicon.words,
        num_pdfs=tree.num_pdfs,
        left_out=grammar.left_out,
        fingerprint=fingerprint(made_from),
    )


def lexicon_and_grammar(lexicon: FstArrays, grammar: FstArrays) -> kaldifst.StdVectorFst:
    """LG, deterministic and minimal: phones and disambiguation symbols in, words out."""
    left, right = to_kaldifst(lexicon), to_kaldifst(grammar)
    kaldifst.arcsort(left, "olabel")
    kaldifst.arcsort(right, "ilabel")
    lg = kaldifst.compose(left, right)
    # In the log semiring, as Kaldi does, weights move so that what is left at a state is a probability: it
    # prunes better.
    kaldifst.determinize_star(lg, use_log=True)
    kaldifst.minimize_encoded(lg)
    return lg


def with_states(lg: kaldifst.StdVectorFst, disambiguation: Sequence[int], tree: SenoneTree) -> FstArrays:
    """H o C o LG without self-loops, deterministic but for disambiguation symbols, which have become
    epsilons."""
    clg, windows = kaldifst.compose_context(list(disambiguation), TRIPHONE_WIDTH, TRIPHONE_CENTRE, lg)
    hmm_of_window, hmm_pdfs, num_symbols = _hmms(windows, tree)
    arrays = from_kaldifst(clg)
    clg = to_kaldifst(
        sorted_by_source(
            arrays.src,
            arrays.dst,
            hmm_of_window[arrays.ilabel],
            arrays.olabel,
            arrays.cost,
            arrays.final,
            arrays.start,
        )
    )
    kaldifst.arcsort(clg, "ilabel")
    hmms = to_kaldifst(_hmm_fst(hmm_pdfs, num_symbols, tree.num_pdfs))
    kaldifst.arcsort(hmms, "olabel")
    hclg = kaldifst.compose(hmms, clg)
    kaldifst.determinize_star(hclg, use_log=True)
    arrays = from_kaldifst(hclg)
    emitting = np.where(arrays.ilabel > tree.num_pdfs, 0, arrays.ilabel)
    hclg = to_kaldifst(
        sorted_by_source(arrays.src, arrays.dst, emitting, arrays.olabel, arrays.cost, arrays.final, arrays.start)
    )
    kaldifst.minimize_encoded(hclg)
    return from_kaldifst(hclg)


def _hmms(windows: Sequence[Sequence[int]], tree: SenoneTree) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
    """HMM label of each of `compose_context`'s labels, pdf_ids [HMMs, states] of each HMM, number of other
    symbols.

    A window is [] for epsilon, [0] or [-symbol] for what is not a phone, [left, phone, right] for a triphone,
    in phone labels with 0 past the ends of the utterance, where silence is taken to be. Triphones of the same
    pdfs are one HMM. Labels: HMMs from 1, the symbols after them.
    """
    triphones = np.array([window for window in windows if len(window) == TRIPHONE_WIDTH], dtype=np.int64)
    left, phone, right = torch.from_numpy(np.maximum(triphones - 1, SILENCE_ID)).T
    pdfs = np.stack(
        [tree.pdf_ids(left, phone, right, torch.full_like(phone, state)).numpy() for state in range(NUM_STATES)],
        axis=1,
    )
    hmm_pdfs, hmm = np.unique(pdfs, axis=0, return_inverse=True)
    labels = np.zeros(len(windows), dtype=np.int32)
    length = np.array([len(window) for window in windows])
    labels[length == TRIPHONE_WIDTH] = hmm.ravel() + 1
    num_symbols = int((length == 1).sum())
    labels[length == 1] = len(hmm_pdfs) + 1 + np.arange(num_symbols)
    return labels, hmm_pdfs, num_symbols


def _hmm_fst(hmm_pdfs: NDArray[np.int64], num_symbols: int, num_pdfs: int) -> FstArrays:
    """H: closure of all HMMs, each a chain of its pdf labels, and a loop for each symbol that is no phone."""
    num_hmms = len(hmm_pdfs)
    inner = 1 + np.arange(num_hmms)[:, None] * (NUM_STATES - 1) + np.arange(NUM_STATES - 1)
    hub = np.zeros((num_hmms, 1), dtype=np.int64)
    olabel = np.zeros((num_hmms, NUM_STATES), dtype=np.int64)
    olabel[:, 0] = 1 + np.arange(num_hmms)
    loops = np.zeros(num_symbols, dtype=np.int64)
    symbols = np.arange(num_symbols)
    columns = [
        (np.hstack([hub, inner]), loops),
        (np.hstack([inner, hub]), loops),
        (np.asarray(pdf_to_label(torch.from_numpy(hmm_pdfs))), 1 + num_pdfs + symbols),
        (olabel, num_hmms + 1 + symbols),
    ]
    src, dst, ilabel, out = (np.concatenate([chain.ravel(), loop]) for chain, loop in columns)
    final = np.full(1 + num_hmms * (NUM_STATES - 1), np.inf)
    final[0] = 0.0
    return sorted_by_source(src, dst, ilabel, out, np.zeros(len(src)), final)


def with_self_loops(fst: FstArrays, num_pdfs: int, transitions: TransitionModel, options: GraphOptions) -> FstArrays:
    """Add what lets a path stay in a pdf: each state is split by the label that enters it, and the copy loops
    on it.

    Scores as in Kaldi (`AddSelfLoops`): a visit of d frames to a pdf scores self_loop_scale * ((d-1) * log
    stay + log leave) + transition_scale * (log_forward - log leave), leave = 1 - stay. The way out is paid
    for on the way in: every visit has one of each, so a whole path scores the same.
    """
    stay = transitions.log_self_loop.double().numpy()
    leave = np.log1p(-np.exp(stay))
    forward = transitions.log_forward.double().numpy()
    on_entry = -(options.self_loop_scale * leave + options.transition_scale * (forward - leave))
    on_loop = -options.self_loop_scale * stay

    # Copies of a state, one a label that enters it; 0 for entering by epsilon and for starting there.
    stride = num_pdfs + 1
    entered = fst.dst.astype(np.int64) * stride + fst.ilabel
    start_key = fst.start * stride
    copies = np.unique(np.append(entered, start_key))
    copy_state, copy_label = copies // stride, copies % stride
    arc_target = np.searchsorted(copies, entered)

    # Every copy has all arcs of its state.
    first = np.searchsorted(fst.src, copy_state, side="left")
    count = np.searchsorted(fst.src, copy_state, side="right") - first
    src = np.repeat(np.arange(len(copies)), count)
    arc = np.arange(count.sum()) + np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
    label = fst.ilabel[arc]
    entry_cost = np.concatenate([[0.0], on_entry])[label]
    looping = np.flatnonzero(copy_label > 0)
    return sorted_by_source(
        np.concatenate([src, looping]),
        np.concatenate([arc_target[arc], looping]),
        np.concatenate([label, copy_label[looping]]),
        np.concatenate([fst.olabel[arc], np.zeros(len(looping), dtype=np.int32)]),
        np.concatenate([fst.cost[arc] + entry_cost, on_loop[copy_label[looping] - 1]]),
        fst.final[copy_state],
        int(np.searchsorted(copies, start_key)),
    )
