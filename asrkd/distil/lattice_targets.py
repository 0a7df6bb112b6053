"""Targets from lattices: the senones' occupations, alone or averaged with the frame's own posterior.

A frame's own posterior knows one window of speech. The occupation of a senone in the ensemble's lattice, by
forward-backward, also knows the words before and after and what the language model makes of them (Wong and Gales, 2016,
sequence student-teacher training).

Targets are made at temperature 1 and stored as the logits log p. A student at temperature T then learns the p^(1/T),
normalised, of its targets, as it learns those of an ensemble's posteriors: its best logits are log p at any
temperature.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asrkd.distil.compression import Compressed, StoreOptions, compress
from asrkd.errors import InputError

# A senone without occupation gets a small probability. All of these together have, at the highest temperature of a
# store, at most this share of the most probable senone's.
IMPOSSIBLE_SHARE = 1e-3


def averaged(occupation: Tensor, log_probs: Tensor, weight: float) -> Tensor:
    """weight * occupation + (1 - weight) * exp(log_probs): probabilities [T, S].

    occupation: [T, S], whose rows sum to one. log_probs: [T, S] the frames' own log-posteriors. InputError for another
    weight than in (0, 1].
    """
    if not 0.0 < weight <= 1.0:
        raise InputError(f"lattice targets: expected a weight above 0 and up to 1, found {weight}")
    return weight * occupation + (1.0 - weight) * log_probs.exp() if weight < 1.0 else occupation


def target_rows(probs: Tensor, options: StoreOptions) -> Compressed:
    """Rows of a store for targets probs [T, S] at temperature 1."""
    return compress(probs.log().clamp_(min=_floor(probs, options)), options)


def _floor(probs: Tensor, options: StoreOptions) -> Tensor:
    """Natural log [T, 1] of the least probability of each row: see IMPOSSIBLE_SHARE.

    It could be lower. But a row's logits are rounded to 256 levels between its greatest and its least stored one.
    """
    share = math.log(IMPOSSIBLE_SHARE) - math.log(probs.shape[1])
    return probs.amax(dim=1, keepdim=True).log() + max(options.temperatures) * share


def rows_without_targets(num_frames: int, num_classes: int, options: StoreOptions) -> Compressed:
    """Rows of an utterance without any lattice path: not a number, so that no student learns them by mistake.

    `PosteriorStore.utt_ids_without_targets` lists such utterances.
    """
    rows = compress(torch.zeros(num_frames, num_classes), options)
    return rows._replace(depth=torch.full_like(rows.depth, math.nan))
