"""Sizes of a new recipe, chosen by the hours of its training speech and by its number of units.

They are starting points: each row below names the corpus that its value comes from. Between two rows a value is
interpolated (linearly in the logarithms); before the first row and after the last it stays as it is there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from asrkd.hmm.tree import least_leaves

Rows = tuple[tuple[float, float], ...]
"""(hours of training speech, value)."""

# AN4, mini LibriSpeech (recipes/librispeech), LibriSpeech's 100 hours (Kaldi's tri4b), the paper's 2,000 hours.
TREE_LEAVES: Rows = ((0.7, 300), (4, 1200), (100, 4200), (2000, 14000))
# The same corpora: units of each hidden layer, and the number of layers.
HIDDEN_DIM: Rows = ((0.7, 512), (4, 768), (100, 1024), (2000, 2560))
NUM_LAYERS: Rows = ((0.7, 4), (4, 4), (100, 5), (2000, 8))
# AN4 and mini LibriSpeech (there two passes over three speeds). More than that is not measured.
EPOCHS: Rows = ((0.7, 15), (4, 6), (100, 4))
LABEL_EPOCHS: Rows = ((0.7, 4), (4, 3), (100, 1))
# AN4. More than that is not measured.
VOCAB_SIZE: Rows = ((0.7, 80), (100, 300), (2000, 1000))

# The prompts recipe: fewer frames than this give too few steps in batches of 1024.
SHORT_HOURS, SHORT_BATCH, BATCH = 0.5, 256, 1024
# Leaves over the tree's roots (the states of the units without context), so that the questions have leaves to add.
ROOM = 1.5


@dataclass(frozen=True)
class Sizes:
    """What a recipe sets to fit its corpus."""

    num_leaves: int
    """Senones of the tree (--tree.num-leaves)."""
    hidden_dim: int
    """Units in each hidden layer of teachers and students."""
    num_layers: int
    """Hidden layers of teachers and students."""
    epochs: int
    """Passes over the training frames."""
    label_epochs: int
    """Passes of each network that makes the labels."""
    batch_size: int
    """Frames per step."""


def choose_sizes(hours: float, num_phones: int) -> Sizes:
    """Sizes for so many hours of training speech and so many phones, or subword units, silence included."""
    return Sizes(
        num_leaves=_rounded(max(_at(TREE_LEAVES, hours), ROOM * least_leaves(num_phones)), 50),
        hidden_dim=_rounded(_at(HIDDEN_DIM, hours), 64),
        num_layers=round(_at(NUM_LAYERS, hours)),
        epochs=round(_at(EPOCHS, hours)),
        label_epochs=round(_at(LABEL_EPOCHS, hours)),
        batch_size=SHORT_BATCH if hours < SHORT_HOURS else BATCH,
    )


def choose_vocab_size(hours: float) -> int:
    """SentencePiece pieces for so many hours of training speech."""
    return _rounded(_at(VOCAB_SIZE, hours), 10)


def _at(rows: Rows, hours: float) -> float:
    known, values = zip(*rows, strict=True)
    return math.exp(np.interp(math.log(max(hours, known[0])), np.log(known), np.log(values)))


def _rounded(value: float, step: int) -> int:
    """The next multiple of `step`, unless the value is one up to rounding errors."""
    return step * math.ceil(value / step - 1e-6)
