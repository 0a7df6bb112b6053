"""The words that the arcs of a graph or lattice emit: an arc has a row of this table, a sequence of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

WordSequences = tuple[tuple[int, ...], ...]
"""Sequences of word ids. Row 0 is empty, row i > 0 is mostly the single word i - 1; longer sequences come last."""


def count_words(sequences: WordSequences) -> Tensor:
    """[rows] float32: the number of words in each row."""
    return torch.tensor([float(len(sequence)) for sequence in sequences])


def words_of(rows: Sequence[int], sequences: WordSequences, words: Sequence[str]) -> list[str]:
    """The words that the rows along a path stand for; `words` are names by word id."""
    return [words[word] for row in rows for word in sequences[row]]


def sequences_to_tensors(sequences: WordSequences) -> dict[str, Tensor]:
    """The table as tensors by name, to be saved."""
    flat = [word for sequence in sequences for word in sequence]
    return {
        "sequence_lengths": torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int32),
        "sequence_words": torch.tensor(flat, dtype=torch.int32),
    }


def sequences_from_tensors(tensors: Mapping[str, Tensor]) -> WordSequences:
    """The table that `sequences_to_tensors` described."""
    lengths, flat = tensors["sequence_lengths"].tolist(), tensors["sequence_words"].tolist()
    ends = np.cumsum(lengths).tolist()
    return tuple(tuple(flat[end - length : end]) for length, end in zip(lengths, ends, strict=True))
