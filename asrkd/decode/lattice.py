"""Lattices: the paths near the best one, with separate acoustic and graph scores."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from asrkd.decode.compact import UtteranceLattice
from asrkd.errors import InputError
from asrkd.files import load_tensors, reading, save_tensors
from asrkd.graph.decoding_graph import DecodingGraph
from asrkd.graph.word_sequences import (
    WordSequences,
    count_words,
    sequences_from_tensors,
    sequences_to_tensors,
    words_of,
)
from asrkd.workflow.k2_library import import_k2

if TYPE_CHECKING:
    import k2

KIND = "lattices"


@dataclass(frozen=True)
class Scales:
    """Weights of a path's sums: its score is acoustic_scale * am + lm_scale * graph + insertion_score * words."""

    acoustic_scale: float = 0.1
    """Weight of log p(frame | senone), nats."""
    lm_scale: float = 1.0
    """Weight of the graph's log-probabilities: language model, pronunciations and transitions."""
    insertion_score: float = 0.0
    """Added for each word; negative against insertions."""

    def __post_init__(self) -> None:
        if not self.acoustic_scale > 0 or not self.lm_scale >= 0:
            raise InputError(
                f"decoding: expected acoustic_scale > 0 and lm_scale >= 0, "
                f"found {self.acoustic_scale} and {self.lm_scale}"
            )
        if not all(math.isfinite(value) for value in (self.acoustic_scale, self.lm_scale, self.insertion_score)):
            raise InputError(f"decoding: expected finite scales, found {self}")


@dataclass(frozen=True, eq=False)
class Lattices:
    """The lattices of a test set, concatenated."""

    utt_ids: tuple[str, ...]
    """Utterances, in order."""
    offsets: Tensor
    """[N + 1] int64: arcs of utterance n are offsets[n]:offsets[n + 1]; none where the search failed."""
    arcs: Tensor
    """[arcs, 3] int32, as in UtteranceLattice; states count from 0 in each utterance."""
    words_on_arc: Tensor
    """[arcs] int32."""
    am_scores: Tensor
    """[arcs] float32."""
    graph_scores: Tensor
    """[arcs] float32."""
    word_sequences: WordSequences
    """Word ids that an arc emits, by `words_on_arc`."""
    words: tuple[str, ...]
    """Words by word id."""
    graph_fingerprint: str
    """Of the decoding graph."""

    @staticmethod
    def of(graph: DecodingGraph, by_utt: Mapping[str, UtteranceLattice]) -> Lattices:
        """Put the lattices of single utterances together."""
        return _concatenated(by_utt, graph.word_sequences, graph.words, graph.fingerprint)

    def replaced(self, by_utt: Mapping[str, UtteranceLattice], graph_fingerprint: str) -> Lattices:
        """Lattices of the same words with other scores; `graph_fingerprint` is that of what they were made from."""
        return _concatenated(by_utt, self.word_sequences, self.words, graph_fingerprint)

    def without(self, utt_ids: Collection[str]) -> Lattices:
        """The lattices of the other utterances."""
        unwanted = set(utt_ids)
        if unwanted.isdisjoint(self.utt_ids):
            return self
        chosen = [utt_id for utt_id in self.utt_ids if utt_id not in unwanted]
        return self.replaced({utt_id: self.utt(utt_id) for utt_id in chosen}, self.graph_fingerprint)

    def utt(self, utt_id: str) -> UtteranceLattice:
        """One utterance's lattice."""
        part = self._arcs_of(self._rows[utt_id])
        return UtteranceLattice(
            self.arcs[part].numpy(),
            self.words_on_arc[part].numpy(),
            self.am_scores[part].numpy(),
            self.graph_scores[part].numpy(),
        )

    def best_paths(self, scales: Scales) -> dict[str, list[str]]:
        """Words of the best path of each utterance under `scales`; none where the lattice is empty."""
        if self._are_paths:
            return {utt_id: self._words(self._arcs_of(row)) for row, utt_id in enumerate(self.utt_ids)}
        k2 = import_k2()

        lattices, rows = self._non_empty
        result: dict[str, list[str]] = {utt_id: [] for utt_id in self.utt_ids}
        if not rows:
            return result
        lattices.scores = self.total_scores(scales)
        best = k2.shortest_path(lattices, use_double_scores=True)
        path_ends = best.arcs.row_splits(2)[best.arcs.row_splits(1).long()].tolist()
        sequences = best.words_on_arc.tolist()
        for position, row in enumerate(rows):
            path = sequences[path_ends[position] : path_ends[position + 1]]
            result[self.utt_ids[row]] = words_of(path, self.word_sequences, self.words)
        return result

    def total_scores(self, scales: Scales) -> Tensor:
        """[arcs] float32: every arc's score under `scales`."""
        return (
            scales.acoustic_scale * self.am_scores
            + scales.lm_scale * self.graph_scores
            + scales.insertion_score * self._num_words
        )

    @cached_property
    def _are_paths(self) -> bool:
        """Whether each lattice is a single path, or empty."""
        if not torch.equal(self.arcs[:, 1], self.arcs[:, 0] + 1):
            return False  # mostly so, and known at once
        first = self.offsets[:-1].repeat_interleave(self.offsets[1:] - self.offsets[:-1])
        position = torch.arange(len(self.arcs)) - first
        return torch.equal(self.arcs[:, 0].long(), position)

    @cached_property
    def _rows(self) -> dict[str, int]:
        """utt_id -> row."""
        return {utt_id: row for row, utt_id in enumerate(self.utt_ids)}

    def _arcs_of(self, row: int) -> slice:
        return slice(int(self.offsets[row]), int(self.offsets[row + 1]))

    def _words(self, path: slice) -> list[str]:
        return words_of(self.words_on_arc[path].tolist(), self.word_sequences, self.words)

    @cached_property
    def _num_words(self) -> Tensor:
        """[arcs] float32: how many words each arc emits. Scales are tuned in a hundred passes over the arcs."""
        return count_words(self.word_sequences)[self.words_on_arc.long()]

    @cached_property
    def _non_empty(self) -> tuple[k2.Fsa, list[int]]:
        """All lattices that have a path as one FsaVec, and the rows of `utt_ids` they belong to."""
        k2 = import_k2()

        rows = torch.nonzero(self.offsets[1:] > self.offsets[:-1]).flatten().tolist()
        fsas = []
        for row in rows:
            source, target, _ = self.arcs[self._arcs_of(row)].T
            # k2 wants -1 on arcs into the final state; the words of the others are in words_on_arc.
            label = torch.where(target == target.max(), -1, 1).int()
            fsas.append(k2.Fsa(torch.stack([source, target, label, torch.zeros_like(label)], dim=1)))
        if not fsas:
            return None, rows
        lattices = k2.create_fsa_vec(fsas)
        lattices.words_on_arc = self.words_on_arc
        return lattices, rows

    def save(self, path: Path | str) -> None:
        """Write one safetensors file."""
        tensors = {
            "offsets": self.offsets,
            "arcs": self.arcs,
            "words_on_arc": self.words_on_arc,
            "am_scores": self.am_scores,
            "graph_scores": self.graph_scores,
            **sequences_to_tensors(self.word_sequences),
        }
        lists: dict[str, Sequence[str]] = {"utt_ids": self.utt_ids, "words": self.words}
        metadata = {name: json.dumps(values, ensure_ascii=False) for name, values in lists.items()}
        save_tensors(path, tensors, {**metadata, "kind": KIND, "graph_fingerprint": self.graph_fingerprint})

    @staticmethod
    def load(path: Path | str, graph_fingerprint: str | None = None) -> Lattices:
        """Read what `save` wrote. InputError if it is something else or of another graph than the given one."""
        tensors, metadata = load_tensors(path)
        if metadata.get("kind") != KIND:
            raise InputError(f"{path}: expected {KIND}, found {metadata.get('kind', 'something else')}")
        with reading(path, "lattices"):
            found = metadata["graph_fingerprint"]
            if graph_fingerprint is not None and found != graph_fingerprint:
                raise InputError(f"{path}: expected lattices of graph {graph_fingerprint}, found graph {found}")
            return Lattices(
                tuple(json.loads(metadata["utt_ids"])),
                tensors["offsets"],
                tensors["arcs"],
                tensors["words_on_arc"],
                tensors["am_scores"],
                tensors["graph_scores"],
                sequences_from_tensors(tensors),
                tuple(json.loads(metadata["words"])),
                found,
            )


def _concatenated(
    by_utt: Mapping[str, UtteranceLattice],
    word_sequences: WordSequences,
    words: tuple[str, ...],
    graph_fingerprint: str,
) -> Lattices:
    lattices = list(by_utt.values())
    return Lattices(
        tuple(by_utt),
        torch.tensor([0, *(len(lattice.arcs) for lattice in lattices)]).cumsum(0),
        torch.from_numpy(np.concatenate([lattice.arcs for lattice in lattices])),
        torch.from_numpy(np.concatenate([lattice.words_on_arc for lattice in lattices])),
        torch.from_numpy(np.concatenate([lattice.am_scores for lattice in lattices])),
        torch.from_numpy(np.concatenate([lattice.graph_scores for lattice in lattices])),
        word_sequences,
        words,
        graph_fingerprint,
    )
