"""Training graphs: everything that an utterance's words may sound like, as HMM states for k2.

words -> pronunciation variants with optional silence around -> phones -> cross-word triphones -> HMM states.
The shape depends on words and lexicon alone; senones and scores are filled in for a tree and a model. Graphs of several
utterances are built together, as flat arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.hmm.topology import NUM_STATES, SILENCE_ID, TransitionModel, pdf_to_label
from asrkd.hmm.tree import SenoneTree
from asrkd.lang.lexicon import Lexicon
from asrkd.workflow.k2_library import import_k2
from asrkd.workflow.ragged import ranges

if TYPE_CHECKING:
    import k2

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SILENCE_PROB = 0.5  # of a pause at each end and between two words
FINAL_LABEL = -1  # k2's label of the arcs into the final state
OUTSIDE = -1  # in place of an HMM state: before the first, after the last


class _Variants(NamedTuple):
    """The pronunciations of a word and their log-probabilities."""

    prons: tuple[tuple[str, ...], ...]
    log_probs: tuple[float, ...]


class _PhoneNetwork:
    """Phones of many utterances as one directed acyclic graph, built word by word."""

    def __init__(self, phone_ids: dict[str, int], silence_prob: float) -> None:
        self._phone_ids = phone_ids
        self._log_silence, self._log_no_silence = math.log(silence_prob), math.log1p(-silence_prob)
        self._words: dict[tuple[tuple[str, ...], ...], list[list[int]]] = {}
        self.phone: list[int] = []
        self.utt: list[int] = []
        self.edges: list[tuple[int, int]] = []
        self.edge_weight: list[float] = []
        self.starts: list[tuple[int, float]] = []
        self.ends: list[tuple[int, float]] = []

    def add(self, utt: int, variants_of_words: Sequence[_Variants]) -> None:
        """Append one utterance: silence? word silence? word … silence?"""
        silence = self._add_nodes(utt, [SILENCE_ID])
        self.starts.append((silence, self._log_silence))
        exits = [(silence, 0.0)]
        before_first = True
        for prons, log_variants in variants_of_words:
            lasts = []
            for ids, log_variant in zip(self._to_ids(prons), log_variants, strict=True):
                first = self._add_nodes(utt, ids)
                for source, weight in exits:
                    self._connect(source, first, weight + log_variant)
                if before_first:
                    self.starts.append((first, self._log_no_silence + log_variant))
                last = first + len(ids) - 1
                self.edges.extend((node, node + 1) for node in range(first, last))
                self.edge_weight.extend([0.0] * (last - first))
                lasts.append(last)
            silence = self._add_nodes(utt, [SILENCE_ID])
            for last in lasts:
                self._connect(last, silence, self._log_silence)
            exits = [(silence, 0.0), *((last, self._log_no_silence) for last in lasts)]
            before_first = False
        self.ends.extend(exits)

    def _add_nodes(self, utt: int, ids: list[int]) -> int:
        first = len(self.phone)
        self.phone.extend(ids)
        self.utt.extend([utt] * len(ids))
        return first

    def _connect(self, source: int, target: int, weight: float) -> None:
        self.edges.append((source, target))
        self.edge_weight.append(weight)

    def _to_ids(self, prons: tuple[tuple[str, ...], ...]) -> list[list[int]]:
        ids = self._words.get(prons)
        if ids is None:
            try:
                ids = self._words[prons] = [[self._phone_ids[phone] for phone in pron] for pron in prons]
            except KeyError as phone:
                raise InputError(f"phone {phone}: in the lexicon, but the senone tree has no such phone") from None
        return ids


@dataclass(frozen=True, eq=False)
class TrainingGraphs:
    """Graphs of N utterances, without senones or scores.

    An instance is a triphone at one position of one utterance. HMM state `state` of instance i has the number
    `i · NUM_STATES + state`.

    left, phone, right: [I] phone ids of the instances; instance_offsets: [N+1].
    Arcs are ordered by utterance and source. source, target: [A] states of the FSA (0 starts, the last ends).
    leaves, enters: [A] HMM states that the arc goes out of and into (OUTSIDE at the ends). weight: [A] log-probability
    of pauses and variants. arc_offsets: [N+1].
    """

    left: Ints
    phone: Ints
    right: Ints
    instance_offsets: Ints
    source: Ints
    target: Ints
    leaves: Ints
    enters: Ints
    weight: Floats
    arc_offsets: Ints

    @property
    def num_utterances(self) -> int:
        return self.arc_offsets.size - 1

    @staticmethod
    def build(
        texts: Sequence[str],
        lexicon: Lexicon,
        phones: tuple[str, ...],
        silence_prob: float = SILENCE_PROB,
        with_context: bool = True,
    ) -> TrainingGraphs:
        """Graphs of these texts (words separated by spaces).

        Without context, for a tree that asks nothing, a phone has one instance, not one for each pair of neighbours.
        InputError for a word that is not in the lexicon or a phone that is not in `phones`.
        """
        network = _PhoneNetwork({phone: index for index, phone in enumerate(phones)}, silence_prob)
        for utt, text in enumerate(texts):
            network.add(utt, [_variants(lexicon, word) for word in text.split()])
        return _expand(network, len(texts), len(phones), with_context)

    def compile(self, tree: SenoneTree, transitions: TransitionModel) -> CompiledGraphs:
        """With senones as labels and transition scores."""
        left, phone, right = (
            torch.from_numpy(x).repeat_interleave(NUM_STATES) for x in (self.left, self.phone, self.right)
        )
        state = torch.arange(NUM_STATES).repeat(self.phone.size)
        pdf_ids = tree.pdf_ids(left, phone, right, state).numpy()
        # One more entry, which OUTSIDE (-1) indexes: the values at the ends.
        label_of = np.append(pdf_to_label(pdf_ids), FINAL_LABEL)
        stay = np.append(transitions.log_self_loop.double().numpy()[pdf_ids], 0.0)
        leave = np.append(transitions.log_forward.double().numpy()[pdf_ids], 0.0)
        loop = (self.leaves == self.enters) & (self.leaves != OUTSIDE)
        score = self.weight + np.where(loop, stay[self.leaves], leave[self.leaves])
        label = label_of[self.enters]
        utt = np.repeat(np.arange(self.num_utterances), np.diff(self.arc_offsets))
        # k2 wants arcs sorted by source, then label; it compares labels unsigned, so the final -1 comes last.
        order = np.lexsort((label.astype(np.uint32), self.source, utt))
        arcs = np.empty((order.size, 4), dtype=np.int32)
        for column, values in enumerate((self.source, self.target, label)):
            arcs[:, column] = values[order]
        arcs[:, 3] = score[order].astype(np.float32).view(np.int32)
        local_state = self.enters - NUM_STATES * self.instance_offsets[utt]
        return CompiledGraphs(
            self, arcs, np.where(self.enters == OUTSIDE, OUTSIDE, local_state)[order].astype(np.int32)
        )


@dataclass(frozen=True, eq=False)
class CompiledGraphs:
    """Training graphs with senones and scores: arcs [A, 4] as k2 has them, hmm_state [A] entered."""

    graphs: TrainingGraphs
    arcs: NDArray[np.int32]
    hmm_state: NDArray[np.int32]

    def compact(self) -> tuple[CompiledGraphs, Ints]:
        """The same graphs with the labels 1 … L for the senones in them, and the pdf_ids [L] of these, ascending.

        Searches then need the scores of L senones alone.
        """
        labels = np.unique(self.arcs[:, 2])
        labels = labels[labels != FINAL_LABEL]
        arcs = self.arcs.copy()
        arcs[:, 2] = np.where(arcs[:, 2] == FINAL_LABEL, FINAL_LABEL, pdf_to_label(np.searchsorted(labels, arcs[:, 2])))
        return CompiledGraphs(self.graphs, arcs, self.hmm_state), labels.astype(np.int64) - pdf_to_label(0)

    def fsa_vec(self, begin: int, end: int) -> k2.Fsa:
        """Utterances begin … end-1 as one k2.Fsa with labels pdf_id+1 and the attribute hmm_state."""
        k2 = import_k2()

        arc_offsets = self.graphs.arc_offsets[begin : end + 1]
        num_states = NUM_STATES * np.diff(self.graphs.instance_offsets[begin : end + 1]) + 2
        span = slice(arc_offsets[0], arc_offsets[-1])
        # k2's serialised FsaVec: how many, 0, row splits of states and of arcs, arcs. One array for a batch, because
        # making a k2.Fsa for each utterance costs about as much as aligning it.
        flat = np.concatenate(
            [
                [end - begin, 0, 0],
                np.cumsum(num_states),
                arc_offsets - arc_offsets[0],
                self.arcs[span].ravel(),
            ]
        )
        fsa = k2.Fsa(torch.from_numpy(flat.astype(np.int32)))
        fsa.hmm_state = torch.from_numpy(self.hmm_state[span])
        return fsa


def _variants(lexicon: Lexicon, word: str) -> _Variants:
    """Pronunciations with probabilities that sum to one: the sum of a word's path weights must not depend on whether
    the lexicon states probabilities. The best path does not depend on the sum."""
    if word not in lexicon.prons:
        raise InputError(f"word {word}: not in the lexicon")
    prons, probs = lexicon.prons[word], lexicon.probs.get(word)
    if probs is None:
        return _Variants(prons, (-math.log(len(prons)),) * len(prons))
    return _Variants(prons, tuple(math.log(prob / sum(probs)) for prob in probs))


@dataclass(frozen=True)
class _Contexts:
    """The phones on one side of each node, by node and phone; silence alone for a context-independent node."""

    codes: Ints
    count: Ints
    first: Ints
    context_independent: NDArray[np.bool_]
    num_phones: int

    @staticmethod
    def of(node: Ints, neighbour: Ints, context_independent: NDArray[np.bool_], num_phones: int) -> _Contexts:
        codes = np.unique(node * num_phones + np.where(context_independent[node], SILENCE_ID, neighbour))
        count = np.bincount(codes // num_phones, minlength=context_independent.size)
        return _Contexts(codes, count, np.cumsum(count) - count, context_independent, num_phones)

    def position(self, node: Ints, neighbour: Ints) -> Ints:
        """Index of a context in its node's list."""
        code = node * self.num_phones + np.where(self.context_independent[node], SILENCE_ID, neighbour)
        return np.searchsorted(self.codes, code) - self.first[node]


@dataclass(frozen=True)
class _Instances:
    """Triphones of each node: every left context with every right one, right fastest."""

    lefts: _Contexts
    rights: _Contexts
    base: Ints
    """First instance of each node."""
    node_of: Ints
    """Node of each instance."""

    @staticmethod
    def of(lefts: _Contexts, rights: _Contexts) -> _Instances:
        per_node = lefts.count * rights.count
        node_of = np.repeat(np.arange(per_node.size), per_node)
        return _Instances(lefts, rights, np.cumsum(per_node) - per_node, node_of)

    def neighbours(self) -> tuple[Ints, Ints]:
        """Left and right phone of each instance."""
        lefts, rights, node = self.lefts, self.rights, self.node_of
        rank = np.arange(node.size) - self.base[node]
        left = lefts.codes[lefts.first[node] + rank // rights.count[node]] % lefts.num_phones
        right = rights.codes[rights.first[node] + rank % rights.count[node]] % rights.num_phones
        return left, right

    def leaving(self, node: Ints, neighbour: Ints, index: Ints) -> Ints:
        """Instance of the node with its index-th left context and this right neighbour."""
        return self.base[node] + index * self.rights.count[node] + self.rights.position(node, neighbour)

    def entering(self, node: Ints, neighbour: Ints, index: Ints) -> Ints:
        """Instance of the node with this left neighbour and its index-th right context."""
        return self.base[node] + self.lefts.position(node, neighbour) * self.rights.count[node] + index


def _expand(network: _PhoneNetwork, num_utterances: int, num_phones: int, with_context: bool) -> TrainingGraphs:
    """Phones to triphones to HMM states.

    Example: the word A, of the one phone AH, is a network of three nodes, SIL - AH - SIL, and either silence may be
    skipped. Each node has one phone on each side, so it is one instance: 0, 1, 2. With three states each these are the
    HMM states 0 1 2, 3 4 5 and 6 7 8, and the 21 arcs are, as leaves -> enters:

        self-loops        0 -> 0, 1 -> 1, … 8 -> 8
        within a phone    0 -> 1, 1 -> 2, 3 -> 4, 4 -> 5, 6 -> 7, 7 -> 8
        between phones    2 -> 3, 5 -> 6
        into the graph    OUTSIDE -> 0, OUTSIDE -> 3
        out of it         5 -> OUTSIDE, 8 -> OUTSIDE

    A node with two phones on its left and three on its right would be six instances, one for each pair.
    """
    phone, utt = np.asarray(network.phone), np.asarray(network.utt)
    tail, head = np.asarray(network.edges, dtype=np.int64).reshape(-1, 2).T
    start, end = (np.asarray([node for node, _ in nodes]) for nodes in (network.starts, network.ends))
    start_weight, end_weight = (np.asarray([weight for _, weight in nodes]) for nodes in (network.starts, network.ends))
    outside = np.full_like
    context_independent = phone == SILENCE_ID if with_context else np.ones(phone.size, dtype=bool)
    to_left = np.append(phone[tail], outside(start, SILENCE_ID))
    to_right = np.append(phone[head], outside(end, SILENCE_ID))
    lefts = _Contexts.of(np.append(head, start), to_left, context_independent, num_phones)
    rights = _Contexts.of(np.append(tail, end), to_right, context_independent, num_phones)
    instances = _Instances.of(lefts, rights)

    # An edge between phones joins each left context of its tail with each right context of its head.
    edge, index = ranges(lefts.count[tail] * rights.count[head])
    from_instance = instances.leaving(tail[edge], phone[head[edge]], index // rights.count[head[edge]])
    to_instance = instances.entering(head[edge], phone[tail[edge]], index % rights.count[head[edge]])
    begin, index = ranges(rights.count[start])
    begin_instance = instances.entering(start[begin], outside(begin, SILENCE_ID), index)
    finish, index = ranges(lefts.count[end])
    end_instance = instances.leaving(end[finish], outside(finish, SILENCE_ID), index)

    states = np.arange(NUM_STATES * instances.node_of.size)
    inner = states[states % NUM_STATES != NUM_STATES - 1]
    last = NUM_STATES - 1
    entry, exit_ = outside(begin, OUTSIDE), outside(finish, OUTSIDE)
    arcs = _Arcs(
        np.concatenate([states, inner, NUM_STATES * from_instance + last, entry, NUM_STATES * end_instance + last]),
        np.concatenate([states, inner + 1, NUM_STATES * to_instance, NUM_STATES * begin_instance, exit_]),
        np.concatenate(
            [
                np.zeros(states.size + inner.size),
                np.asarray(network.edge_weight)[edge],
                start_weight[begin],
                end_weight[finish],
            ]
        ),
    )
    left, right = instances.neighbours()
    num_instances = np.bincount(utt[instances.node_of], minlength=num_utterances)
    return _order_arcs(arcs, left, phone[instances.node_of], right, utt[instances.node_of], num_instances)


class _Arcs(NamedTuple):
    """Arcs between HMM states, in any order: as in `TrainingGraphs`."""

    leaves: Ints
    enters: Ints
    weight: Floats


def _order_arcs(
    arcs: _Arcs, left: Ints, phone: Ints, right: Ints, utt_of_instance: Ints, num_instances: Ints
) -> TrainingGraphs:
    """Number the FSA's states (start, HMM states, end) and sort arcs by utterance and source."""
    leaves, enters, weight = arcs
    offsets = np.concatenate([[0], np.cumsum(num_instances)])
    inside = np.where(leaves == OUTSIDE, enters, leaves)  # an HMM state of the arc's utterance
    utt = utt_of_instance[inside // NUM_STATES]
    first_state = NUM_STATES * offsets[utt]
    source = np.where(leaves == OUTSIDE, 0, leaves - first_state + 1)
    target = np.where(enters == OUTSIDE, NUM_STATES * num_instances[utt] + 1, enters - first_state + 1)
    order = np.lexsort((source, utt))
    num_arcs = np.bincount(utt, minlength=num_instances.size)
    return TrainingGraphs(
        left=left,
        phone=phone,
        right=right,
        instance_offsets=offsets,
        source=source[order],
        target=target[order],
        leaves=leaves[order],
        enters=enters[order],
        weight=weight[order],
        arc_offsets=np.concatenate([[0], np.cumsum(num_arcs)]),
    )
