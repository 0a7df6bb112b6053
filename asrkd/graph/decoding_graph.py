"""The decoding graph as it is saved, and as k2 and Kaldi's decoders read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import load_tensors, reading, save_tensors
from asrkd.graph.arrays import NO_FINAL, sorted_by_source, to_kaldifst
from asrkd.graph.hmm_states import FINAL_LABEL, ExpandedArcs
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
    import kaldifst

KIND = "decoding graph"


@dataclass(frozen=True, eq=False)
class DecodingGraph:
    """HCLG without epsilons. Arcs are ordered by source and label.

    State 0 is the start, and the last state is the only final one.
    """

    arcs: Tensor
    """[arcs, 3] int32: source, destination, label (pdf_id + 1, or FINAL_LABEL into the final state)."""
    scores: Tensor
    """[arcs] float32: the sum of language model, pronunciation and transition log-probabilities (natural log)."""
    words_on_arc: Tensor
    """[arcs] int32: row of `word_sequences` that the arc emits."""
    word_sequences: WordSequences
    """The sequences of word ids that single arcs emit."""
    words: tuple[str, ...]
    """Words by word id, from 0."""
    num_pdfs: int
    """The number of pdfs; labels are 1 to `num_pdfs`."""
    excluded: tuple[str, ...]
    """Words of the language model without a pronunciation; this graph cannot recognise them."""
    fingerprint: str
    """Of the lexicon, language model, tree, transitions and options."""

    @cached_property
    def num_states(self) -> int:
        """Number of states, the final one included."""
        return int(self.arcs[:, 1].max()) + 1

    @property
    def num_arcs(self) -> int:
        """Number of arcs, those into the final state included."""
        return len(self.arcs)

    @cached_property
    def num_words(self) -> Tensor:
        """[rows of word_sequences] float32: the number of words in each row."""
        return count_words(self.word_sequences)

    def to_k2(self, every_state_final: bool = False) -> k2.Fsa:
        """An arc-sorted k2.Fsa with the attributes `graph_scores` (equal to its scores) and `words_on_arc`.

        The attributes share the memory of this graph, which is a mapped file where it was loaded.
        With `every_state_final` a path may end in any state at no cost, for utterances that reach no final state.
        """
        k2 = import_k2()

        arcs, scores, words_on_arc = self.arcs, self.scores, self.words_on_arc
        if every_state_final:
            last = self.num_states - 1
            source = torch.arange(last, dtype=torch.int32)
            ending = torch.stack([source, torch.full_like(source, last), torch.full_like(source, FINAL_LABEL)], dim=1)
            inner = arcs[:, 2] != FINAL_LABEL
            order = torch.argsort(torch.cat([source, arcs[inner, 0]]), stable=True)
            arcs = torch.cat([ending, arcs[inner]])[order]
            scores = torch.cat([torch.zeros(last), scores[inner]])[order]
            words_on_arc = torch.cat([torch.zeros_like(source), words_on_arc[inner]])[order]
        fsa = k2.Fsa(torch.cat([arcs, scores.view(torch.int32)[:, None]], dim=1).contiguous())
        fsa.graph_scores = scores
        fsa.words_on_arc = words_on_arc
        return fsa

    def to_kaldifst(self) -> kaldifst.StdVectorFst:
        """The same graph as an FST of costs for Kaldi's decoders; output labels are rows of `word_sequences`.

        ValueError where an arc into the final state emits words.
        """
        source, target, label = (column.numpy() for column in self.arcs.T)
        ends = label == FINAL_LABEL
        final = np.full(self.num_states, NO_FINAL, dtype=np.float32)
        final[source[ends]] = -self.scores.numpy()[ends]
        words = self.words_on_arc.numpy()
        if words[ends].any():
            raise ValueError("expected no words on arcs into the final state")
        source, target, label, words = (column[~ends] for column in (source, target, label, words))
        return to_kaldifst(sorted_by_source((source, target, label, words, -self.scores.numpy()[~ends]), final))

    def text(self, rows: NDArray[np.int32] | Tensor) -> list[str]:
        """Words of the rows of `word_sequences` along a path."""
        return words_of(rows.tolist(), self.word_sequences, self.words)

    @staticmethod
    def of(
        expanded: ExpandedArcs, words: tuple[str, ...], num_pdfs: int, excluded: tuple[str, ...], fingerprint: str
    ) -> DecodingGraph:
        """The graph of expanded arcs."""
        return DecodingGraph(
            torch.from_numpy(expanded.arcs),
            torch.from_numpy(-expanded.cost),
            torch.from_numpy(expanded.words),
            expanded.word_sequences,
            words,
            num_pdfs,
            excluded,
            fingerprint,
        )

    def save(self, path: Path | str) -> None:
        """Write one safetensors file."""
        tensors = {
            "arcs": self.arcs,
            "scores": self.scores,
            "words_on_arc": self.words_on_arc,
            **sequences_to_tensors(self.word_sequences),
        }
        lists = {"words": self.words, "excluded": self.excluded}
        metadata = {name: json.dumps(values, ensure_ascii=False) for name, values in lists.items()}
        numbers = {"kind": KIND, "num_pdfs": str(self.num_pdfs), "fingerprint": self.fingerprint}
        save_tensors(path, tensors, {**metadata, **numbers})

    @staticmethod
    def load(path: Path | str) -> DecodingGraph:
        """Read what `save` wrote; InputError if it is something else."""
        tensors, metadata = load_tensors(path)
        if metadata.get("kind") != KIND:
            raise InputError(f"{path}: expected a {KIND}, found {metadata.get('kind', 'something else')}")
        with reading(path, "a decoding graph"):
            return DecodingGraph(
                tensors["arcs"],
                tensors["scores"],
                tensors["words_on_arc"],
                sequences_from_tensors(tensors),
                tuple(json.loads(metadata["words"])),
                int(metadata["num_pdfs"]),
                tuple(json.loads(metadata["excluded"])),
                metadata["fingerprint"],
            )
