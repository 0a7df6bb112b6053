"""The graph of one text: the senones in which its words can be said, from the first word to the last.

It is what the decoding graph is for all texts: pronunciations side by side, optional silence around words, and phones
in the context of their neighbours, across words too. It has no language model, because there is one text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asrkd.errors import InputError
from asrkd.files import reading
from asrkd.runtime.graph import Senones

NUM_STATES = 3
"""HMM states of every phone."""
SILENCE_ID = 0
LEAF = -1
NO_WORD = -1
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ContextTree:
    """Which senones a phone has between its neighbours: what tree.json says, see `asrkd.hmm.tree.SenoneTree`."""

    phone_ids: Mapping[str, int]
    questions: NDArray[np.bool_]
    """[Q, P]."""
    context: tuple[int, ...]
    """By node: 0 asks about the left neighbour, 1 about the right one, LEAF nothing."""
    question: tuple[int, ...]
    yes: tuple[int, ...]
    no: tuple[int, ...]

    @staticmethod
    def load(path: Path) -> ContextTree:
        """The tree of a model's folder. InputError for a file that is missing or damaged."""
        from asrkd.files import read_json

        if not path.is_file():
            raise InputError(f"{path}: expected the senone tree of the model, found none; export it again")
        content = read_json(path)
        with reading(path, "a senone tree"):
            ids = {name: number for number, name in enumerate(content["phones"])}
            questions = np.zeros((len(content["questions"]), len(ids)), dtype=bool)
            for row, members in zip(questions, content["questions"], strict=True):
                row[[ids[name] for name in members]] = True
            return ContextTree(ids, questions, *(tuple(content[name]) for name in ("context", "question", "yes", "no")))

    def pdf_ids(self, left: int, phone: int, right: int) -> tuple[int, ...]:
        """The senones of a phone's states, first to last. The neighbour beyond either end of a text is silence."""
        return tuple(self._pdf_id(phone * NUM_STATES + state, (left, right)) for state in range(NUM_STATES))

    def _pdf_id(self, node: int, neighbours: tuple[int, int]) -> int:
        while self.context[node] != LEAF:
            is_yes = self.questions[self.question[node], neighbours[self.context[node]]]
            node = self.yes[node] if is_yes else self.no[node]
        return self.question[node]


@dataclass(frozen=True)
class GraphWeights:
    """The weights of the decoding graph, in natural logarithms."""

    silence: float
    """Of silence between two words, against none; -inf: there is none."""
    loop: NDArray[np.float64]
    """[C]: staying in a senone for one more frame."""
    entry: NDArray[np.float64]
    """[C]: a visit to a senone."""

    @staticmethod
    def of(senones: Senones, options: Mapping[str, float]) -> GraphWeights:
        """The same as of HCLG (`asrkd.graph.build.pdf_costs`). `options`: those of model.json."""
        probability, scale = options["silence_prob"], options["self_loop_scale"]
        silence = math.log(probability) - math.log1p(-probability) if probability > 0 else -math.inf
        stay = senones.log_self_loop.astype(np.float64)
        return GraphWeights(silence, scale * stay, scale * np.log1p(-np.exp(stay)))


@dataclass(frozen=True, eq=False)
class TextGraph:
    """Phones in context, the units [U]. Every unit comes after those that can be before it."""

    pdfs: Ints
    """[U, NUM_STATES]: senones of its states."""
    phone: Ints
    """[U]: phone ids."""
    word: Ints
    """[U]: index of the word; NO_WORD for silence."""
    predecessors: Ints
    """[U, K]: units that can be before it; U where there are fewer than K."""
    weight: NDArray[np.float64]
    """[U]: of entering it, natural log."""
    is_first: NDArray[np.bool_]
    """[U]: a path can begin with it."""
    is_last: NDArray[np.bool_]

    @cached_property
    def reach(self) -> Ints:
        """[U]: the last unit that can follow this one or an earlier one."""
        size = len(self.phone)
        reach = np.arange(size)
        for column in self.predecessors.T:
            there = np.flatnonzero(column < size)
            np.maximum.at(reach, column[there], there)
        return np.maximum.accumulate(reach)

    @cached_property
    def min_frames(self) -> int:
        """Frames of the shortest path: one for each state."""
        size = len(self.phone)
        units = np.full(size + 1, np.inf)
        for unit in range(size):
            before = 0.0 if self.is_first[unit] else units[self.predecessors[unit]].min()
            units[unit] = before + 1
        return int(units[:-1][self.is_last].min()) * NUM_STATES


@dataclass
class _Phone:
    """A phone of a pronunciation, or silence between words, without its context."""

    phone: int
    word: int
    before: list[int]
    """Indices of the phones that can be before it."""
    is_first: bool = False
    is_last: bool = False


def text_graph(prons: Sequence[Sequence[Sequence[int]]], tree: ContextTree, weights: GraphWeights) -> TextGraph:
    """The graph of a text: of each word its pronunciations, as phone ids. ValueError for a text without words."""
    if not prons:
        raise ValueError("expected at least one word, found none")
    phones = _phones(prons, with_silence=weights.silence > -math.inf)
    after: list[list[int]] = [[] for _ in phones]
    for number, phone in enumerate(phones):
        for previous in phone.before:
            after[previous].append(number)
    units: list[tuple[int, int, int]] = []  # a phone between two neighbours
    rows: dict[tuple[int, int, int], int] = {}
    for number, phone in enumerate(phones):
        lefts = {phones[one].phone for one in phone.before} | ({SILENCE_ID} if phone.is_first else set())
        rights = {phones[one].phone for one in after[number]} | ({SILENCE_ID} if phone.is_last else set())
        for left in sorted(lefts):
            for right in sorted(rights):
                rows[number, left, right] = len(units)
                units.append((number, left, right))
    return _assembled(phones, units, rows, tree, weights)


def _phones(prons: Sequence[Sequence[Sequence[int]]], with_silence: bool) -> list[_Phone]:
    found: list[_Phone] = []
    ends: list[int] = []  # the phones that can be before the next word
    for word, alternatives in enumerate(prons):
        if with_silence:
            found.append(_Phone(SILENCE_ID, NO_WORD, list(ends), is_first=word == 0))
            ends.append(len(found) - 1)
        new_ends = []
        for pron in alternatives:
            for position, phone in enumerate(pron):
                before = list(ends) if position == 0 else [len(found) - 1]
                found.append(_Phone(phone, word, before, is_first=word == 0 and position == 0))
            new_ends.append(len(found) - 1)
        ends = new_ends
    for end in ends:
        found[end].is_last = True
    if with_silence:
        found.append(_Phone(SILENCE_ID, NO_WORD, list(ends), is_last=True))
    return found


def _assembled(
    phones: Sequence[_Phone],
    units: Sequence[tuple[int, int, int]],
    rows: Mapping[tuple[int, int, int], int],
    tree: ContextTree,
    weights: GraphWeights,
) -> TextGraph:
    of_phone: dict[int, list[int]] = {}
    for row, (number, _, _) in enumerate(units):
        of_phone.setdefault(number, []).append(row)
    before: list[list[int]] = []
    for number, left, _ in units:
        phone = phones[number]
        # The unit before is the left neighbour, and has this phone as its right one.
        candidates = [row for one in phone.before if phones[one].phone == left for row in of_phone[one]]
        before.append([row for row in candidates if units[row][2] == phone.phone])
    width = max(1, max(map(len, before)))
    predecessors = np.array([one + [len(units)] * (width - len(one)) for one in before], dtype=np.int64)
    pdfs = np.array([tree.pdf_ids(left, phones[number].phone, right) for number, left, right in units])
    own = [phones[number] for number, _, _ in units]
    is_silence = np.array([one.word == NO_WORD for one in own])
    return TextGraph(
        pdfs=pdfs,
        phone=np.array([one.phone for one in own]),
        word=np.array([one.word for one in own]),
        predecessors=predecessors,
        weight=np.where(is_silence, weights.silence, 0.0),
        is_first=np.array([one.is_first and left == SILENCE_ID for one, (_, left, _) in zip(own, units, strict=True)]),
        is_last=np.array([one.is_last and right == SILENCE_ID for one, (_, _, right) in zip(own, units, strict=True)]),
    )
