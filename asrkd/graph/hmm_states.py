"""From LG to HCLG: each phone arc becomes the HMM states of a triphone, in array operations.

What Kaldi does by composing with C and H, determinising and minimising has a fixed shape once LG is deterministic:

* A place in LG is (state, left, phone): the last phone read, not yet put out, and the one before it. The next
  phone, or the end, is its right context and puts it out as three pdfs.
* From one place, triphones that begin with the same pdfs share states, so that HCLG is as deterministic as LG.
* Where a triphone is done, the phones that come next from all the places it may lead to begin.

An arc enters each state with one pdf only, and so the state loops on that pdf. Disambiguation symbols have done
their work in LG: here they are epsilons, followed at once instead of being kept as arcs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrkd.graph.arrays import FstArrays
from asrkd.graph.triphones import TriphoneTable
from asrkd.hmm.topology import NUM_STATES, SILENCE_ID, pdf_to_label
from asrkd.hmm.tree import SenoneTree
from asrkd.workflow.ragged import rows_of

# Codes of places are int64; what there is one of an arc is 32 bits wide, for a graph has tens of millions of them.
Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]

FINAL_LABEL = -1  # k2's label of arcs into the final state
WordSequences = dict[tuple[int, ...], int]


@dataclass(frozen=True)
class PdfCosts:
    """Costs [S] of entering a pdf and of staying in it for one more frame."""

    entry: Floats
    loop: Floats


@dataclass(frozen=True)
class ExpandedArcs:
    """Arcs of HCLG, ordered by source and label. State 0 starts, the last one ends."""

    arcs: Ints
    """[arcs, 3]: source, destination, label."""
    cost: Floats
    """[arcs]"""
    words: Ints
    """[arcs]: row of `word_sequences` that the arc puts out."""
    word_sequences: tuple[tuple[int, ...], ...]
    """Sequences of word ids: row 0 none, row i the word i - 1, longer ones after them."""


def expand(lg: FstArrays, tree: SenoneTree, costs: PdfCosts, num_words: int) -> ExpandedArcs:
    """HCLG of a deterministic LG: phone labels (phone_id + 1, higher ones are epsilons) in, word labels out."""
    sequences: WordSequences = {(): 0, **{(word,): word + 1 for word in range(num_words)}}
    contexts = TriphoneTable.of(tree)
    source = _Source.of(lg, contexts.num_phones, sequences)
    places = _places(source, contexts)
    exits = _exits(source, contexts, places)
    chains = _Chains.of(exits, contexts)
    return _assemble(source, contexts, places, chains, costs, sequences)


@dataclass(frozen=True)
class _Closure:
    """What epsilons alone lead to from each state of LG, the state itself included, ordered by `src`."""

    src: Ints
    dst: Ints
    cost: Floats
    words: Ints

    @cached_property
    def first(self) -> NDArray[np.int64]:
        return np.searchsorted(self.src, np.arange(int(self.src[-1]) + 2))

    def of(self, states: Ints) -> tuple[Ints, Ints]:
        """(which of `states`, row of this closure) for all that they lead to."""
        return rows_of(self.first, states)


@dataclass(frozen=True)
class _Source:
    """LG's phone arcs, ordered by source, its final costs, and the closure over its epsilons."""

    start: int
    final: Floats
    src: Ints
    dst: Ints
    phone: Ints
    cost: Floats
    words: Ints
    closure: _Closure

    @staticmethod
    def of(lg: FstArrays, num_phones: int, sequences: WordSequences) -> _Source:
        is_phone = (lg.ilabel > 0) & (lg.ilabel <= num_phones)
        phones = lg.where(is_phone)
        return _Source(
            start=lg.start,
            final=lg.final,
            src=phones.src,
            dst=phones.dst,
            phone=phones.ilabel - 1,
            cost=phones.cost,
            # Word labels count from 1, as the rows of single words do.
            words=phones.olabel,
            closure=_closure(lg.where(~is_phone), sequences),
        )

    @cached_property
    def first(self) -> NDArray[np.int64]:
        return np.searchsorted(self.src, np.arange(len(self.final) + 1))

    def arcs_of(self, states: Ints) -> tuple[Ints, Ints]:
        """(which of `states`, phone arc) for all arcs out of them."""
        return rows_of(self.first, states)


def _closure(epsilons: FstArrays, sequences: WordSequences) -> _Closure:
    """Every way through epsilons, one after the other; LG has no cycle of them."""
    first = np.searchsorted(epsilons.src, np.arange(epsilons.num_states + 1))
    here, none = np.arange(epsilons.num_states, dtype=np.int32), np.zeros(epsilons.num_states, dtype=np.int32)
    step = _Closure(here, here, none.astype(np.float32), none)
    steps = [step]
    while step.src.size:
        which, arc = rows_of(first, step.dst)
        joined = joined_words(step.words[which], epsilons.olabel[arc], sequences)
        step = _Closure(step.src[which], epsilons.dst[arc], step.cost[which] + epsilons.cost[arc], joined)
        steps.append(step)
    everything = [np.concatenate([getattr(one, name) for one in steps]) for name in ("src", "dst", "cost", "words")]
    order = np.argsort(everything[0], kind="stable")
    return _Closure(*(column[order] for column in everything))


def joined_words(first: Ints, second: Ints, sequences: WordSequences) -> Ints:
    """Rows of the concatenated sequences, new ones added to the table."""
    rows = np.where(first == 0, second, first)
    both = np.flatnonzero((first > 0) & (second > 0))
    if both.size:
        known = list(sequences)
        pairs, where = np.unique(np.stack([first[both], second[both]]), axis=1, return_inverse=True)
        new = [sequences.setdefault(known[a] + known[b], len(sequences)) for a, b in zip(*pairs.tolist(), strict=True)]
        rows[both] = np.array(new)[where.ravel()]
    return rows


@dataclass(frozen=True)
class _Places:
    """Places (state, left, phone) of LG, by their sorted codes."""

    codes: Ints
    num_phones: int

    def encode(self, state: Ints, left: Ints, phone: Ints) -> Ints:
        return (state.astype(np.int64) * self.num_phones + left) * self.num_phones + phone

    def find(self, state: Ints, left: Ints, phone: Ints) -> Ints:
        """Number of each place, which must be there."""
        return np.searchsorted(self.codes, self.encode(state, left, phone))

    @property
    def state(self) -> Ints:
        return self.codes // self.num_phones**2

    @property
    def left(self) -> Ints:
        return self.codes // self.num_phones % self.num_phones

    @property
    def phone(self) -> Ints:
        return self.codes % self.num_phones


def _places(source: _Source, contexts: TriphoneTable) -> _Places:
    """All places that a path may come to, by phone arcs and by the epsilons after them."""
    number = contexts.num_phones
    places = _Places(np.zeros(0, dtype=np.int64), number)
    # Which phones come last at each state; before the first phone there is silence.
    last = np.append(source.dst.astype(np.int64) * number + source.phone, source.start * number + SILENCE_ID)
    last = np.unique(_followed(np.unique(last), number, source.closure))
    which, arc = source.arcs_of(last // number)
    phone = source.phone[arc]
    left = contexts.left_class[phone, (last % number)[which]]
    codes = np.unique(places.encode(source.dst[arc], left, phone))
    return replace(places, codes=np.unique(_followed(codes, number**2, source.closure)))


def _followed(codes: Ints, size: int, closure: _Closure) -> Ints:
    """Codes state * size + context of all that the states' epsilons lead to."""
    which, row = closure.of(codes // size)
    return closure.dst[row].astype(np.int64) * size + (codes % size)[which]


@dataclass(frozen=True)
class _Exits:
    """Ways out of places: the next phone's arc, or the end. Ordered by place and triple."""

    place: Ints
    triple: Ints
    """Row of the triphone table's pdfs that the place's phone puts out on this way."""
    cost: Floats
    arc: Ints
    """Phone arc of LG that is taken, -1 at the end."""
    target: Ints
    """Place that it leads to, -1 at the end."""


def _exits(source: _Source, contexts: TriphoneTable, places: _Places) -> _Exits:
    state, left, phone = places.state, places.left, places.phone
    place, arc = source.arcs_of(state)
    following = source.phone[arc]
    target = places.find(source.dst[arc], contexts.left_class[following, phone[place]], following)
    ending = np.flatnonzero(np.isfinite(source.final[state]))
    outside = np.full(ending.size, -1)
    place = np.concatenate([place, ending])
    right = np.concatenate([following, np.full(ending.size, SILENCE_ID)])
    triple = contexts.triple(left[place], phone[place], right)
    order = np.argsort(place * len(contexts.pdfs) + triple, kind="stable")
    return _Exits(
        place[order].astype(np.int32),
        triple[order].astype(np.int32),
        np.concatenate([source.cost[arc], source.final[state[ending]]])[order],
        np.concatenate([arc, outside])[order].astype(np.int32),
        np.concatenate([target, outside])[order].astype(np.int32),
    )


@dataclass(frozen=True)
class _Chains:
    """HMM states of the exits: those of one place that begin alike share them.

    One list a level, first pdf to last: `pdf` of each state, `above`, the state before it (the place, for the
    first), and `cost`, the least of any exit beyond.
    """

    exits: _Exits
    pdf: list[Ints]
    above: list[Ints]
    cost: list[Floats]
    of_exit: Ints
    """Last state of each exit."""

    @staticmethod
    def of(exits: _Exits, contexts: TriphoneTable) -> _Chains:
        above, begins = exits.place, np.ones(exits.place.size, dtype=bool)
        begins[1:] = exits.place[1:] != exits.place[:-1]
        pdf, parents, cost = [], [], []
        for level in range(NUM_STATES):
            pdfs = contexts.pdfs[:, level][exits.triple]
            begins[1:] |= pdfs[1:] != pdfs[:-1]
            first = np.flatnonzero(begins)
            pdf.append(pdfs[first])
            parents.append(above[first])
            cost.append(np.minimum.reduceat(exits.cost, first))
            above = np.cumsum(begins, dtype=np.int32) - 1
        return _Chains(exits, pdf, parents, cost, above)


@dataclass(frozen=True)
class _Joins:
    """Where chains go on: from a state of HCLG to a place, whose chains may begin."""

    src: Ints
    place: Ints
    cost: Floats
    words: Ints

    def through_epsilons(self, source: _Source, places: _Places, sequences: WordSequences) -> _Joins:
        """Also to all places that LG's epsilons lead to, at the same phones."""
        state, left, phone = places.state[self.place], places.left[self.place], places.phone[self.place]
        which, row = source.closure.of(state)
        return _Joins(
            self.src[which],
            places.find(source.closure.dst[row], left[which], phone[which]).astype(np.int32),
            self.cost[which] + source.closure.cost[row],
            joined_words(self.words[which], source.closure.words[row], sequences),
        )


def _assemble(
    source: _Source,
    contexts: TriphoneTable,
    places: _Places,
    chains: _Chains,
    costs: PdfCosts,
    sequences: WordSequences,
) -> ExpandedArcs:
    """Number the states (start, first states of all chains, second ones, ..., end) and join chains to chains."""
    offset = np.cumsum([1, *(pdf.size for pdf in chains.pdf)])
    joins = [_beginnings(source, contexts, places, sequences), _continuations(source, chains, offset)]
    pieces = [*_chain_arcs(chains, costs, offset), _final_arcs(chains, offset)]
    pieces += [
        _joining_arcs(join.through_epsilons(source, places, sequences), places, chains, costs, offset) for join in joins
    ]
    arcs, cost, words = (np.concatenate(column) for column in zip(*pieces, strict=True))
    del pieces, joins
    num_labels = len(costs.loop) + 2  # the end's -1 and epsilon's 0 among them
    order = np.argsort(arcs[:, 0].astype(np.int64) * num_labels + arcs[:, 2], kind="stable")
    return ExpandedArcs(arcs[order], cost[order], words[order], tuple(sequences))


_Arcs = tuple[Ints, Floats, Ints]


def _arcs(src: Ints, dst: Ints, label: Ints, cost: Floats, words: Ints | None = None) -> _Arcs:
    """Arcs [A, 3], costs [A] and rows of words [A], no words unless given."""
    arcs = np.empty((src.size, 3), dtype=np.int32)
    for column, values in enumerate((src, dst, label)):
        arcs[:, column] = values
    return arcs, cost.astype(np.float32), np.zeros(src.size, dtype=np.int32) if words is None else words


def _chain_arcs(chains: _Chains, costs: PdfCosts, offset: Ints) -> list[_Arcs]:
    """Self-loops of all states, and the arcs from each chain's first state to its last."""
    arcs = []
    for level, (pdf, above, cost) in enumerate(zip(chains.pdf, chains.above, chains.cost, strict=True)):
        states, label = offset[level] + np.arange(pdf.size), pdf_to_label(pdf)
        arcs.append(_arcs(states, states, label, costs.loop[pdf]))
        if level:
            step = cost - chains.cost[level - 1][above] + costs.entry[pdf]
            arcs.append(_arcs(offset[level - 1] + above, states, label, step))
    return arcs


def _final_arcs(chains: _Chains, offset: Ints) -> _Arcs:
    ends = np.flatnonzero(chains.exits.arc < 0)
    last = chains.of_exit[ends]
    cost = chains.exits.cost[ends] - chains.cost[-1][last]
    return _arcs(offset[NUM_STATES - 1] + last, np.full_like(ends, offset[-1]), np.full_like(ends, FINAL_LABEL), cost)


def _beginnings(source: _Source, contexts: TriphoneTable, places: _Places, sequences: WordSequences) -> _Joins:
    """From the start to the first phones of an utterance."""
    _, row = source.closure.of(np.array([source.start]))
    which, arc = source.arcs_of(source.closure.dst[row])
    phone = source.phone[arc]
    return _Joins(
        np.zeros(arc.size, dtype=np.int32),
        places.find(source.dst[arc], contexts.left_class[phone, SILENCE_ID], phone).astype(np.int32),
        source.closure.cost[row][which] + source.cost[arc],
        joined_words(source.closure.words[row][which], source.words[arc], sequences),
    )


def _continuations(source: _Source, chains: _Chains, offset: Ints) -> _Joins:
    """From the last state of each chain to the phones that come next."""
    exits = chains.exits
    on = np.flatnonzero(exits.arc >= 0)
    last = chains.of_exit[on]
    return _Joins(
        (offset[NUM_STATES - 1] + last).astype(np.int32),
        exits.target[on],
        exits.cost[on] - chains.cost[-1][last],
        source.words[exits.arc[on]],
    )


def _joining_arcs(joins: _Joins, places: _Places, chains: _Chains, costs: PdfCosts, offset: Ints) -> _Arcs:
    """Arcs into every first state of the places that are joined to."""
    first = np.searchsorted(chains.above[0], np.arange(places.codes.size + 1))
    arc, chain = rows_of(first, joins.place)
    pdf = chains.pdf[0][chain]
    cost = joins.cost[arc] + chains.cost[0][chain] + costs.entry[pdf]
    return _arcs(joins.src[arc], offset[0] + chain, pdf_to_label(pdf), cost, joins.words[arc])
