"""Senone tree: which triphone states share a pdf.

Source: Young, Odell and Woodland, *Tree-based state tying for high accuracy acoustic modelling* (1994). The questions
come from clustering, as in Kaldi's `build-tree`. Each state of each phone has a tree of questions about its left and
right neighbours. Silence asks none: its states are context-independent.
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
from asrkd.files import DAMAGED, fingerprint, read_json, write_json
from asrkd.hmm.questions import cluster_questions
from asrkd.hmm.statistics import TriphoneStats, log_likelihood
from asrkd.hmm.topology import NUM_STATES, SILENCE_ID

LEFT, RIGHT = 0, 1  # the neighbour that a question is about
LEAF = -1  # `context` of a node that asks nothing


@dataclass(frozen=True)
class TreeOptions:
    """The size of a senone tree."""

    num_leaves: int = 300
    """senones in total, with those of silence; fewer if the data does not suffice"""
    min_count: float = 50.0
    """frames that each side of a split must have at least"""
    min_gain: float = 0.0
    """log-likelihood (nats) that a split must gain at least"""

    def __post_init__(self) -> None:
        if self.num_leaves < 1 or self.min_count <= 0:
            raise InputError(
                f"tree: expected num_leaves >= 1, min_count > 0, found {self.num_leaves}, {self.min_count}"
            )


@dataclass(frozen=True, eq=False)
class SenoneTree:
    """The trees of all states as flat arrays.

    The first nodes are the roots: state s of phone p has the root p · NUM_STATES + s. With two phones, SIL and A, the
    roots are the nodes 0 to 5, and the three states of A have the roots 3, 4 and 5. If root 3 asks whether its left
    neighbour is in the set of row 1 of `questions`, then context[3] = LEFT and question[3] = 1. Its children are the
    first nodes behind the roots: yes[3] = 6 and no[3] = 7. Both are leaves: context[6] = LEAF, and question[6] is
    the pdf_id of that leaf.
    """

    phones: tuple[str, ...]
    """[P] names, silence first."""
    questions: NDArray[np.bool_]
    """[Q, P]: the phone sets that are asked about."""
    context: NDArray[np.int64]
    """[nodes]: LEFT, RIGHT or LEAF."""
    question: NDArray[np.int64]
    """[nodes]: row of `questions`; at a leaf its pdf_id."""
    yes: NDArray[np.int64]
    """[nodes]: the child where the neighbour is in the set; 0 at a leaf."""
    no: NDArray[np.int64]
    """[nodes]: the child where it is not; 0 at a leaf."""
    log_likelihood_gain: float = field(default=0.0)
    """Log-likelihood (nats) that the splits gained on the statistics."""

    @cached_property
    def num_pdfs(self) -> int:
        """Number of leaves."""
        return int((self.context == LEAF).sum())

    @property
    def is_monophone(self) -> bool:
        """Whether the tree asks no question at all."""
        return bool((self.context == LEAF).all())

    @cached_property
    def fingerprint(self) -> str:
        """Changes with everything that a pdf_id depends on: phones and trees, but not the gain."""
        return fingerprint({name: value for name, value in self._as_json().items() if name != "log_likelihood_gain"})

    @staticmethod
    def monophone(phones: tuple[str, ...]) -> SenoneTree:
        """One pdf per state of a phone, for all neighbours: pdf_id = phone · NUM_STATES + state."""
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

        The neighbour beyond either end of an utterance is silence. A triphone that was never seen in training answers
        the questions like any other. ValueError for ids out of range.
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
        """Answer one question per step, for all items that have not reached a leaf."""
        active = np.flatnonzero(self.context[node] != LEAF)
        while active.size:
            current = node[active]
            asked = neighbours[self.context[current], active]
            answer = self.questions[self.question[current], asked]
            node[active] = current = np.where(answer, self.yes[current], self.no[current])
            active = active[self.context[current] != LEAF]
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
            phone_ids = {name: phone_id for phone_id, name in enumerate(phones)}
            questions = np.zeros((len(content["questions"]), len(phones)), dtype=bool)
            for row, members in zip(questions, content["questions"], strict=True):
                row[[phone_ids[name] for name in members]] = True
            nodes = {name: np.asarray(content[name], dtype=np.int64) for name in ("context", "question", "yes", "no")}
            tree = SenoneTree(phones, questions, **nodes, log_likelihood_gain=content["log_likelihood_gain"])
            expected = content["fingerprint"]
        except DAMAGED as error:
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
    """The best question at a node: its gain, and the rows of the statistics on either side."""

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
    """Grow the trees of all states together; each step makes the split that gains most likelihood.

    It stops at `num_leaves`, or when no split has `min_count` frames on both sides and gains more than `min_gain`.
    States that were never seen have one leaf. InputError as by `require_leaves`.
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
    asked[np.asarray(context) == LEAF] = np.arange(num_leaves)
    return SenoneTree(phones, questions, np.asarray(context), asked, np.asarray(yes), np.asarray(no), gain)


def _best_split(
    stats: TriphoneStats, rows: NDArray[np.int64], questions: NDArray[np.bool_], options: TreeOptions
) -> _Split | None:
    """The question that gains most at a node with these rows of the statistics; None if none may be asked."""
    count, total, squares = stats.count[rows], stats.total[rows], stats.squares[rows]
    if count.sum() < 2 * options.min_count:
        return None
    whole = log_likelihood(count.sum(), total.sum(0), squares.sum(0), stats.floor)
    best: _Split | None = None
    for context in (LEFT, RIGHT):
        neighbour = stats.keys[rows, 0 if context == LEFT else 2]
        is_yes = questions[:, neighbour].astype(np.float64)  # [Q, rows]
        yes_count, yes_total, yes_squares = is_yes @ count, is_yes @ total, is_yes @ squares
        no_count = count.sum() - yes_count
        no_total, no_squares = total.sum(0) - yes_total, squares.sum(0) - yes_squares
        gains = log_likelihood(yes_count, yes_total, yes_squares, stats.floor) - whole
        gains += log_likelihood(no_count, no_total, no_squares, stats.floor)
        gains[np.minimum(yes_count, no_count) < options.min_count] = -np.inf
        index = int(gains.argmax())
        if gains[index] > max(options.min_gain, best.gain if best else 0.0):
            yes = questions[index, neighbour]
            best = _Split(float(gains[index]), context, index, rows[yes], rows[~yes])
    return best
