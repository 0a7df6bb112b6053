"""From LG to HCLG: each phone arc becomes the HMM states of a triphone, in array operations.

Kaldi composes LG with C and H, determinises and minimises. The result has a fixed shape once LG is deterministic, so
it is built directly here:

* A context is (state of LG, left phone, phone). The phone is the last one read. It is not emitted yet, because its
  right neighbour is unknown. The next phone arc, or the end of the utterance, is that neighbour: the phone is then
  emitted as a triple of pdfs, one per HMM state.
* An exit is a way out of a context: the next phone arc, or the end.
* A chain is the HMM states of an exit. Exits of one context that begin with the same pdfs share these states, so
  that HCLG is as deterministic as LG.
* The last state of a chain has arcs to the first states of the context that is the target of its exit.

All arcs into a state have the same pdf, and the state loops on that pdf. Disambiguation symbols are no longer needed
after determinisation. They are epsilons here, and are followed at once instead of becoming arcs.

An example
----------
Three phones, SIL = 0, A = 1 and B = 2, have the pdfs 0 to 2, 3 to 5 and 6 to 8. The first state of B asks whether A
is on its left; if so its pdf is 9. LG has three states. Its phone arcs are

    arc   src  dst  phone  word  cost
     0     0    1     A      w   1.0
     1     1    2     A      -   0.5
     2     1    2     B      -   0.25

and state 2 is final at no cost. With P = 3 phones the code of a context is (state · P + left) · P + phone. A
neighbour that the tree cannot distinguish from an earlier one counts as that one: only B distinguishes its left
neighbours, so the left phone of an A is always 0.

    context   (state, left, phone)   code
       0         (1, 0, A)            10 = (1 · 3 + 0) · 3 + 1
       1         (2, 0, A)            19 = (2 · 3 + 0) · 3 + 1
       2         (2, A, B)            23 = (2 · 3 + 1) · 3 + 2

    exit   context   next    pdfs    cost   target
     0        0      arc 1   3 4 5   0.5    context 1
     1        0      arc 2   3 4 5   0.25   context 2
     2        1      end     3 4 5   0      end
     3        2      end     9 7 8   0      end

Exits 0 and 1 have the same pdfs and share a chain, so there are three chains of three states. State 0 of HCLG is the
start, states 1 to 3 are the first states of the chains, 4 to 6 the second ones, 7 to 9 the third ones, and 10 is
the end. Chain 0 has the states 1, 4 and 7. It charges the smaller cost of its exits, 0.25, on its first arc; the arc
to context 1 then adds the missing 0.25. Without the costs of the pdfs the arcs between different states are

    0 -> 1   label 4   cost 1.25   word w          (label: pdf + 1)
    1 -> 4   label 5   cost 0                      then 4 -> 7 with label 6; chains 1 and 2 likewise
    7 -> 2   label 4   cost 0.25                   context 1: A
    7 -> 3   label 10  cost 0                      context 2: B after A
    8 -> 10  label -1  cost 0                      the end; 9 -> 10 likewise
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrkd.graph.arrays import FstArrays
from asrkd.graph.triphones import TriphoneTable
from asrkd.graph.word_sequences import WordSequences
from asrkd.hmm.topology import NUM_STATES, SILENCE_ID, pdf_to_label
from asrkd.hmm.tree import SenoneTree
from asrkd.workflow.ragged import rows_of

# Codes of contexts are int64. Columns of arcs have 32 bits, because a graph has tens of millions of arcs.
Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]

FINAL_LABEL = -1  # k2's label of arcs into the final state
RowOfSequence = dict[tuple[int, ...], int]
"""Sequence of word ids -> its row in WordSequences; grows as arcs are joined."""


@dataclass(frozen=True)
class PdfCosts:
    """Costs [S] of entering a pdf and of staying in it for one more frame, negated natural logs."""

    entry: Floats
    loop: Floats


@dataclass(frozen=True)
class ExpandedArcs:
    """Arcs of HCLG, ordered by source and label. State 0 is the start, the last state is the end."""

    arcs: Ints
    """[arcs, 3] int32: source, destination, label."""
    cost: Floats
    """[arcs] float32, negated natural log."""
    words: Ints
    """[arcs] int32: row of `word_sequences` that the arc emits."""
    word_sequences: WordSequences
    """Row 0 is empty, row i is the word i - 1, longer sequences follow."""


def expand(lg: FstArrays, tree: SenoneTree, costs: PdfCosts, num_words: int) -> ExpandedArcs:
    """HCLG of a deterministic LG.

    Input labels of LG are phone_id + 1, and higher ones, which are epsilons; its output labels are word_id + 1, with
    word ids up to `num_words`.
    """
    sequences: RowOfSequence = {(): 0, **{(word,): word + 1 for word in range(num_words)}}
    parts = _parts(lg, tree, costs, sequences)
    return _sorted(parts, len(costs.loop), tuple(sequences))


def _parts(lg: FstArrays, tree: SenoneTree, costs: PdfCosts, sequences: RowOfSequence) -> list[_Arcs]:
    """All arcs, and the sequences of words that they emit; all else that it took is gone before they are sorted."""
    triphones = TriphoneTable.of(tree)
    phone_arcs = _PhoneArcs.of(lg, triphones.num_phones, sequences)
    contexts = _all_contexts(phone_arcs, triphones)
    chains = _Chains.of(_all_exits(phone_arcs, triphones, contexts), triphones)
    return _Assembly(phone_arcs, triphones, contexts, chains, costs, sequences).parts()


def _sorted(parts: list[_Arcs], num_pdfs: int, word_sequences: WordSequences) -> ExpandedArcs:
    """The arcs by source and label. Takes the columns out of `parts`, so that no two copies of all are in memory."""
    columns = [list(column) for column in zip(*parts, strict=True)]
    parts.clear()
    num_arcs = sum(map(len, columns[0]))
    num_labels = num_pdfs + 2  # FINAL_LABEL and 0 among them
    key = np.empty(num_arcs, dtype=np.int64)
    np.concatenate(columns[0], out=key)
    key *= num_labels
    key += np.concatenate(columns[2])
    order = np.argsort(key, kind="stable").astype(np.int32)
    del key
    arcs = np.empty((num_arcs, 3), dtype=np.int32)
    for column in range(3):
        arcs[:, column] = np.concatenate(columns[column])[order]
        columns[column].clear()
    cost, words = (np.concatenate(column)[order] for column in columns[3:])
    return ExpandedArcs(arcs, cost, words, word_sequences)


@dataclass(frozen=True)
class _Closure:
    """The states that each state of LG reaches by epsilons only, itself included; ordered by `src`."""

    src: Ints
    dst: Ints
    cost: Floats
    words: Ints

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """[states + 1]: the first row of each state."""
        return np.searchsorted(self.src, np.arange(int(self.src[-1]) + 2))

    def of(self, states: Ints) -> tuple[Ints, Ints]:
        """(which of `states`, row of this closure) of all that they reach."""
        return rows_of(self.first, states)


@dataclass(frozen=True)
class _PhoneArcs:
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
    def of(lg: FstArrays, num_phones: int, sequences: RowOfSequence) -> _PhoneArcs:
        is_phone = (lg.ilabel > 0) & (lg.ilabel <= num_phones)
        phones = lg.where(is_phone)
        return _PhoneArcs(
            start=lg.start,
            final=lg.final,
            src=phones.src,
            dst=phones.dst,
            phone=phones.ilabel - 1,
            cost=phones.cost,
            # Word labels count from 1, and so do the rows of single words.
            words=phones.olabel,
            closure=_closure(lg.where(~is_phone), sequences),
        )

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """[states + 1]: the first phone arc of each state."""
        return np.searchsorted(self.src, np.arange(len(self.final) + 1))

    def leaving(self, states: Ints) -> tuple[Ints, Ints]:
        """(which of `states`, phone arc) of all arcs out of them."""
        return rows_of(self.first, states)


def _closure(epsilons: FstArrays, sequences: RowOfSequence) -> _Closure:
    """All paths of epsilon arcs. ValueError if LG has a cycle of them, where paths have no end."""
    _require_acyclic(epsilons)
    first = np.searchsorted(epsilons.src, np.arange(epsilons.num_states + 1))
    states, none = np.arange(epsilons.num_states, dtype=np.int32), np.zeros(epsilons.num_states, dtype=np.int32)
    step = _Closure(states, states, none.astype(np.float32), none)
    steps = [step]
    while step.src.size:
        which, arc = rows_of(first, step.dst)
        joined = joined_words(step.words[which], epsilons.olabel[arc], sequences)
        step = _Closure(step.src[which], epsilons.dst[arc], step.cost[which] + epsilons.cost[arc], joined)
        steps.append(step)
    columns = [np.concatenate([getattr(one, name) for one in steps]) for name in ("src", "dst", "cost", "words")]
    order = np.argsort(columns[0], kind="stable")
    return _Closure(*(column[order] for column in columns))


def _require_acyclic(epsilons: FstArrays) -> None:
    src, dst = epsilons.src, epsilons.dst
    while src.size:
        # Arcs out of a state that no arc enters are in no cycle; those of a cycle remain.
        entered = np.bincount(dst, minlength=epsilons.num_states) > 0
        inner = entered[src]
        if inner.all():
            raise ValueError(f"expected no cycle of epsilons in LG, found one through state {src[0]} or a later one")
        src, dst = src[inner], dst[inner]


def joined_words(first: Ints, second: Ints, sequences: RowOfSequence) -> Ints:
    """Rows of the concatenated sequences; new sequences are added to the table."""
    rows = np.where(first == 0, second, first)
    both = np.flatnonzero((first > 0) & (second > 0))
    if both.size:
        known = list(sequences)
        pairs, where = np.unique(np.stack([first[both], second[both]]), axis=1, return_inverse=True)
        new = [sequences.setdefault(known[a] + known[b], len(sequences)) for a, b in zip(*pairs.tolist(), strict=True)]
        rows[both] = np.array(new)[where.ravel()]
    return rows


@dataclass(frozen=True)
class _Contexts:
    """Contexts (state of LG, left phone, phone) as sorted codes; a context's number is its index there."""

    codes: Ints
    num_phones: int

    def encode(self, state: Ints, left: Ints, phone: Ints) -> Ints:
        return (state.astype(np.int64) * self.num_phones + left) * self.num_phones + phone

    def find(self, state: Ints, left: Ints, phone: Ints) -> Ints:
        """The number of each context; all of them exist."""
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


def _all_contexts(phone_arcs: _PhoneArcs, triphones: TriphoneTable) -> _Contexts:
    """All contexts that a path may reach, by phone arcs and by the epsilons behind them."""
    number = triphones.num_phones
    contexts = _Contexts(np.zeros(0, dtype=np.int64), number)
    # (state, phone read last) of all paths. Before the first phone there is silence.
    last = np.append(
        phone_arcs.dst.astype(np.int64) * number + phone_arcs.phone, phone_arcs.start * number + SILENCE_ID
    )
    last = np.unique(_through_epsilons(np.unique(last), number, phone_arcs.closure))
    which, arc = phone_arcs.leaving(last // number)
    phone = phone_arcs.phone[arc]
    left = triphones.left_class[phone, (last % number)[which]]
    codes = np.unique(contexts.encode(phone_arcs.dst[arc], left, phone))
    return replace(contexts, codes=np.unique(_through_epsilons(codes, number**2, phone_arcs.closure)))


def _through_epsilons(codes: Ints, size: int, closure: _Closure) -> Ints:
    """Codes state * size + rest: with the same rest, all states that are reached by epsilons."""
    which, row = closure.of(codes // size)
    return closure.dst[row].astype(np.int64) * size + (codes % size)[which]


@dataclass(frozen=True)
class _Exits:
    """Ways out of contexts: the next phone arc, or the end. Ordered by context and triple."""

    context: Ints
    triple: Ints
    """Row of the triphone table's pdfs: the context's phone, with the next phone as its right neighbour."""
    cost: Floats
    arc: Ints
    """Phone arc of LG that is taken, -1 at the end."""
    target: Ints
    """Context behind it, -1 at the end."""


def _all_exits(phone_arcs: _PhoneArcs, triphones: TriphoneTable, contexts: _Contexts) -> _Exits:
    state, left, phone = contexts.state, contexts.left, contexts.phone
    context, arc = phone_arcs.leaving(state)
    following = phone_arcs.phone[arc]
    target = contexts.find(phone_arcs.dst[arc], triphones.left_class[following, phone[context]], following)
    ending = np.flatnonzero(np.isfinite(phone_arcs.final[state]))
    none = np.full(ending.size, -1)
    context = np.concatenate([context, ending])
    right = np.concatenate([following, np.full(ending.size, SILENCE_ID)])
    triple = triphones.triple(left[context], phone[context], right)
    order = np.argsort(context * len(triphones.pdfs) + triple, kind="stable")
    return _Exits(
        context[order].astype(np.int32),
        triple[order].astype(np.int32),
        np.concatenate([phone_arcs.cost[arc], phone_arcs.final[state[ending]]])[order],
        np.concatenate([arc, none])[order].astype(np.int32),
        np.concatenate([target, none])[order].astype(np.int32),
    )


@dataclass(frozen=True)
class _Chains:
    """HMM states of the exits. Exits of one context that begin with the same pdfs share states.

    `pdf`, `parent` and `cost` are lists with one array per HMM state of a phone, first to last.
    """

    exits: _Exits
    pdf: list[Ints]
    parent: list[Ints]
    """The state before this one: an index into the arrays of the level before, or the context at the first level."""
    cost: list[Floats]
    """The least cost of the exits behind each state."""
    last_state: Ints
    """[exits]: the last state of each exit, an index into the arrays of the last level."""

    @staticmethod
    def of(exits: _Exits, triphones: TriphoneTable) -> _Chains:
        parent, begins = exits.context, np.ones(exits.context.size, dtype=bool)
        begins[1:] = exits.context[1:] != exits.context[:-1]
        pdf, parents, cost = [], [], []
        for level in range(NUM_STATES):
            pdfs = triphones.pdfs[:, level][exits.triple]
            begins[1:] |= pdfs[1:] != pdfs[:-1]
            first = np.flatnonzero(begins)
            pdf.append(pdfs[first])
            parents.append(parent[first])
            cost.append(np.minimum.reduceat(exits.cost, first))
            parent = np.cumsum(begins, dtype=np.int32) - 1
        return _Chains(exits, pdf, parents, cost, parent)

    @cached_property
    def offset(self) -> NDArray[np.int64]:
        """[NUM_STATES + 1]: the first state of HCLG of each level, and the end. State 0 is the start."""
        return np.cumsum([1, *(pdf.size for pdf in self.pdf)])


@dataclass(frozen=True)
class _Joins:
    """From a state of HCLG to a context, where chains may begin."""

    src: Ints
    context: Ints
    cost: Floats
    words: Ints


_Arcs = tuple[Ints, Ints, Ints, Floats, Ints]
"""[A] each: source, destination, label, cost, row of words."""


def _arcs(src: Ints, dst: Ints, label: Ints, cost: Floats, words: Ints | None = None) -> _Arcs:
    """Arcs in 32 bits; without `words` they emit none."""
    source, target, labels = (column.astype(np.int32, copy=False) for column in (src, dst, label))
    rows = np.zeros(src.size, dtype=np.int32) if words is None else words
    return source, target, labels, cost.astype(np.float32, copy=False), rows


@dataclass(frozen=True)
class _Assembly:
    """Numbers the states of HCLG and makes its arcs."""

    phone_arcs: _PhoneArcs
    triphones: TriphoneTable
    contexts: _Contexts
    chains: _Chains
    costs: PdfCosts
    sequences: RowOfSequence

    def parts(self) -> list[_Arcs]:
        """All arcs of HCLG, in no order."""
        parts = [*self._chain_arcs(), self._final_arcs()]
        # Beginnings first: new sequences of words get the next rows.
        joins = [self._beginnings(), self._continuations()]
        while joins:
            parts.append(self._joining_arcs(self._with_epsilons(joins.pop(0))))
        return parts

    def _chain_arcs(self) -> list[_Arcs]:
        """Self-loops of all states, and the arcs from each chain's first state to its last."""
        chains, costs, arcs = self.chains, self.costs, []
        for level, (pdf, parent, cost) in enumerate(zip(chains.pdf, chains.parent, chains.cost, strict=True)):
            states, label = chains.offset[level] + np.arange(pdf.size), pdf_to_label(pdf)
            arcs.append(_arcs(states, states, label, costs.loop[pdf]))
            if level:
                step = cost - chains.cost[level - 1][parent] + costs.entry[pdf]
                arcs.append(_arcs(chains.offset[level - 1] + parent, states, label, step))
        return arcs

    def _final_arcs(self) -> _Arcs:
        chains = self.chains
        ends = np.flatnonzero(chains.exits.arc < 0)
        last = chains.last_state[ends]
        cost = chains.exits.cost[ends] - chains.cost[-1][last]
        src, label = chains.offset[NUM_STATES - 1] + last, np.full_like(ends, FINAL_LABEL)
        return _arcs(src, np.full_like(ends, chains.offset[-1]), label, cost)

    def _beginnings(self) -> _Joins:
        """From the start to the first phones of an utterance."""
        phone_arcs, closure = self.phone_arcs, self.phone_arcs.closure
        _, row = closure.of(np.array([phone_arcs.start]))
        which, arc = phone_arcs.leaving(closure.dst[row])
        phone = phone_arcs.phone[arc]
        left = self.triphones.left_class[phone, SILENCE_ID]
        return _Joins(
            np.zeros(arc.size, dtype=np.int32),
            self.contexts.find(phone_arcs.dst[arc], left, phone).astype(np.int32),
            closure.cost[row][which] + phone_arcs.cost[arc],
            joined_words(closure.words[row][which], phone_arcs.words[arc], self.sequences),
        )

    def _continuations(self) -> _Joins:
        """From the last state of each chain to the phones that come next."""
        chains, exits = self.chains, self.chains.exits
        inner = np.flatnonzero(exits.arc >= 0)
        last = chains.last_state[inner]
        return _Joins(
            (chains.offset[NUM_STATES - 1] + last).astype(np.int32),
            exits.target[inner],
            exits.cost[inner] - chains.cost[-1][last],
            self.phone_arcs.words[exits.arc[inner]],
        )

    def _with_epsilons(self, joins: _Joins) -> _Joins:
        """The same joins, and those to the contexts that are reached by epsilons, with the same phones."""
        contexts, closure = self.contexts, self.phone_arcs.closure
        state, left, phone = (column[joins.context] for column in (contexts.state, contexts.left, contexts.phone))
        which, row = closure.of(state)
        return _Joins(
            joins.src[which],
            contexts.find(closure.dst[row], left[which], phone[which]).astype(np.int32),
            joins.cost[which] + closure.cost[row],
            joined_words(joins.words[which], closure.words[row], self.sequences),
        )

    def _joining_arcs(self, joins: _Joins) -> _Arcs:
        """Arcs into every first state of the contexts that are joined to."""
        chains = self.chains
        first = np.searchsorted(chains.parent[0], np.arange(self.contexts.codes.size + 1))
        arc, chain = rows_of(first, joins.context)
        pdf = chains.pdf[0][chain]
        cost = joins.cost[arc] + chains.cost[0][chain] + self.costs.entry[pdf]
        return _arcs(joins.src[arc], chains.offset[0] + chain, pdf_to_label(pdf), cost, joins.words[arc])
