"""Senone tree: which triphone states share a pdf.

After Young, Odell and Woodland, *Tree-based state tying for high accuracy acoustic modelling* (1994), with
the questions found by clustering as Kaldi's `build-tree` does. Each state of each phone has a tree of
questions about its left and right neighbours; silence has none, so its states know no context.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import fingerprint, read_json, write_json
from asrkd.hmm.questions import cluster_questions
from asrkd.hmm.statistics import TriphoneStats, log_likelihood
from asrkd.hmm.topology import NUM_STATES, SILENCE_ID

LEFT, RIGHT = 0, 1  # the neighbour that a question is about
LEAF = -1  # in place of the neighbour, at a node that asks nothing


@dataclass(frozen=True)
class TreeOptions:
    """How large a senone tree grows."""

    num_leaves: int = 300
    """senones in all, silence's included; fewer where the data does not carry them"""
    min_count: float = 50.0
    """frames that each side of a split must keep"""
    min_gain: float = 0.0
    """log-likelihood (nats) that a split must gain"""

    def __post_init__(self) -> None:
        if self.num_leaves < 1 or self.min_count <= 0:
            raise InputError(
                f"tree: expected num_leaves >= 1, min_count > 0, found {self.num_leaves}, {self.min_count}"
            )


@dataclass(frozen=True, eq=False)
class SenoneTree:
    """Trees of all states as flat arrays; node `phone · NUM_STATES + state` is a state's root.

    phones: names, silence first. questions: [Q, P] bool, the phone sets asked about. context: [nodes], LEFT,
    RIGHT or LEAF. question: [nodes], row of `questions` (at a leaf: its pdf_id). yes, no: [nodes], the
    children.
    """

    phones: tuple[str, ...]
    questions: NDArray[np.bool_]
    context: NDArray[np.int64]
    question: NDArray[np.int64]
    yes: NDArray[np.int64]
    no: NDArray[np.int64]
    log_likelihood_gain: float = field(default=0.0)

    @cached_property
    def num_pdfs(self) -> int:
        return int((self.context == LEAF).sum())

    @property
    def is_monophone(self) -> bool:
        """Whether no question is asked, of any phone."""
        return bool((self.context == LEAF).all())

    @cached_property
    def fingerprint(self) -> str:
        """Of everything that decides a pdf_id: phones and trees, not the gain."""
        return fingerprint({name: value for name, value in self._as_json().items() if name != "log_likelihood_gain"})

    @staticmethod
    def monophone(phones: tuple[str, ...]) -> SenoneTree:
        """One pdf a state of a phone, whatever its neighbours: pdf_id = phone · NUM_STATES + state."""
        num_pdfs = len(phones) * NUM_STATES
        none = np.zeros(num_pdfs, dtype=np.int64)
        return SenoneTree(
            phones=phones,
            questions=np.zeros((1, len(phones)), dtype=bool),
            context=np.full(num_pdfs, LEAF),
            question=np.arange(num_pdfs),
            yes=none,
            no=none,
        )

    def pdf_ids(self, left: Tensor, phone: Tensor, right: Tensor, state: Tensor) -> Tensor:
        """pdf_id of triphone states: four integer tensors of one shape -> int64 of that shape.

        The neighbours at the ends of an utterance are silence. A triphone never seen in training answers the
        questions like any other. ValueError for ids out of range.
        """
        arrays = [np.asarray(x).astype(np.int64).ravel() for x in (left, phone, right, state)]
        for name, values, limit in zip(
            ("left", "phone", "right", "state"), arrays, [len(self.phones)] * 3 + [NUM_STATES], strict=True
        ):
            if values.size and (values.min() < 0 or values.max() >= limit):
                raise ValueError(f"tree: expected {name} in [0, {limit}), found {values.min()}..{values.max()}")
        neighbours = np.stack((arrays[0], arrays[2]))
        node = arrays[1] * NUM_STATES + arrays[3]
        return torch.from_numpy(self._walk(node, neighbours)).reshape(torch.as_tensor(phone).shape)

    def _walk(self, node: NDArray[np.int64], neighbours: NDArray[np.int64]) -> NDArray[np.int64]:
        """Answer one question a step, for all items that have not come to a leaf."""
        active = np.flatnonzero(self.context[node] != LEAF)
        while active.size:
            here = node[active]
            asked = neighbours[self.context[here], active]
            answer = self.questions[self.question[here], asked]
            node[active] = here = np.where(answer, self.yes[here], self.no[here])
            active = active[self.context[here] != LEAF]
        return self.question[node]

    def save(self, path: Path | str) -> None:
        """Write as JSON, with the fingerprint."""
        write_json(path, self._as_json() | {"fingerprint": self.fingerprint})

    @staticmethod
    def load(path: Path | str) -> SenoneTree:
        """Read what `save` wrote; InputError if it is something else or was changed."""
        content = read_json(path)
        try:
            phones = tuple(content["phones"])
            questions = np.zeros((len(content["questions"]), len(phones)), dtype=bool)
            for row, members in zip(questions, content["questions"], strict=True):
                row[[phones.index(name) for name in members]] = True
            nodes = {name: np.asarray(content[name], dtype=np.int64) for name in ("context", "question", "yes", "no")}
            tree = SenoneTree(phones, questions, **nodes, log_likelihood_gain=content["log_likelihood_gain"])
            expected = content["fingerprint"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: expected a senone tree, found something else ({error!r})") from None
        if tree.fingerprint != expected:
            raise InputError(f"{path}: expected fingerprint {expected}, found {tree.fingerprint}: the file was changed")
        return tree

    def _as_json(self) -> dict[str, object]:
        return {
            "phones": list(self.phones),
            "questions": [[self.phones[p] for p in np.flatnonzero(row)] for row in self.questions],
            "context": self.context.tolist(),
            "question": self.question.tolist(),
            "yes": self.yes.tolist(),
            "no": self.no.tolist(),
            "log_likelihood_gain": self.log_likelihood_gain,
        }


@dataclass(frozen=True)
class _Split:
    """The best question at a node: what it gains and the rows of the statistics on either side."""

    gain: float
    context: int
    question: int
    yes_rows: NDArray[np.int64]
    no_rows: NDArray[np.int64]


def least_leaves(num_phones: int) -> int:
    """Leaves of a tree that asks no question: one for each state of each phone, silence included."""
    return num_phones * NUM_STATES


def require_leaves(options: TreeOptions, phones: Sequence[str]) -> None:
    """InputError where `num_leaves` is fewer than the tree has roots. It can be called before anything is trained."""
    least = least_leaves(len(phones))
    if options.num_leaves < least:
        raise InputError(
            f"--tree.num-leaves: expected at least {least}, for {NUM_STATES} states of each of {len(phones)} phones "
            f"(silence included), found {options.num_leaves}"
        )


def build_tree(stats: TriphoneStats, phones: tuple[str, ...], options: TreeOptions) -> SenoneTree:
    """Grow the trees of all states together, always by the split that gains most likelihood.

    Stops at `num_leaves`, or when no split keeps `min_count` frames on both sides and gains more than
    `min_gain`. States never seen keep one leaf. InputError as by `require_leaves`.
    """
    require_leaves(options, phones)
    num_roots = least_leaves(len(phones))
    questions = cluster_questions(stats, len(phones))
    context, question = [LEAF] * num_roots, [0] * num_roots
    yes, no = [0] * num_roots, [0] * num_roots
    root_of = stats.keys[:, 1] * NUM_STATES + stats.keys[:, 3]
    waiting: list[tuple[float, int, _Split]] = []

    def consider(node: int, rows: NDArray[np.int64]) -> None:
        split = _best_split(stats, rows, questions, options)
        if split is not None:
            heapq.heappush(waiting, (-split.gain, node, split))

    for root in range((SILENCE_ID + 1) * NUM_STATES, num_roots):
        consider(root, np.flatnonzero(root_of == root))
    num_leaves, gain = num_roots, 0.0
    while waiting and num_leaves < options.num_leaves:
        _, node, split = heapq.heappop(waiting)
        context[node], question[node] = split.context, split.question
        for children, rows in ((yes, split.yes_rows), (no, split.no_rows)):
            children[node] = len(context)
            for values, value in ((context, LEAF), (question, 0), (yes, 0), (no, 0)):
                values.append(value)
            consider(children[node], rows)
        num_leaves += 1
        gain += split.gain
    asked = np.asarray(question)
    asked[np.asarray(context) == LEAF] = np.arange(num_leaves)  # at a leaf the question's place holds the pdf_id
    return SenoneTree(phones, questions, np.asarray(context), asked, np.asarray(yes), np.asarray(no), gain)


def _best_split(
    stats: TriphoneStats, rows: NDArray[np.int64], questions: NDArray[np.bool_], options: TreeOptions
) -> _Split | None:
    """The question that gains most at a node with these rows of the statistics, if any may be asked."""
    count, total, squares = stats.count[rows], stats.total[rows], stats.squares[rows]
    if count.sum() < 2 * options.min_count:
        return None
    whole = log_likelihood(count.sum(), total.sum(0), squares.sum(0), stats.floor)
    best: _Split | None = None
    for context in (LEFT, RIGHT):
        neighbour = stats.keys[rows, 0 if context == LEFT else 2]
        asked = questions[:, neighbour].astype(np.float64)  # [Q, rows]
        yes_count, yes_total, yes_squares = asked @ count, asked @ total, asked @ squares
        no_count = count.sum() - yes_count
        no_total, no_squares = total.sum(0) - yes_total, squares.sum(0) - yes_squares
        gains = log_likelihood(yes_count, yes_total, yes_squares, stats.floor) - whole
        gains += log_likelihood(no_count, no_total, no_squares, stats.floor)
        gains[np.minimum(yes_count, no_count) < options.min_count] = -np.inf
        index = int(gains.argmax())
        if gains[index] > max(options.min_gain, best.gain if best else 0.0):
            inside = questions[index, neighbour]
            best = _Split(float(gains[index]), context, index, rows[inside], rows[~inside])
    return best
