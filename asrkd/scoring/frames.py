"""Frame accuracy and cross-entropy, as sums per utterance that the bootstrap can resample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.scoring.bootstrap import UtteranceMetric

# A row of log_probs with a larger |log sum exp| contains logits, not log-probabilities.
NORMALISATION_TOLERANCE = 1e-2


@dataclass(frozen=True)
class FrameMetrics:
    """Frame accuracy (a fraction) and cross-entropy (nats per frame) against the alignment's pdf_ids."""

    accuracy: UtteranceMetric
    """Share of frames on which the most probable senone is the aligned one."""
    cross_entropy: UtteranceMetric
    """Mean of -log p(pdf_id)."""


def frame_metrics(log_probs: Iterable[tuple[str, Tensor]], labels: Mapping[str, Tensor]) -> FrameMetrics:
    """Frame accuracy and cross-entropy of (utt_id, natural-log posteriors [T, S]) against pdf_ids [T].

    `labels` may have more utterances than `log_probs`. InputError if the lengths differ, an utterance has no labels or
    a row is not made of log-probabilities.
    """
    utt_ids: list[str] = []
    rows: list[tuple[float, float, float]] = []
    for utt_id, frames in log_probs:
        if utt_id not in labels:
            raise InputError(f"{utt_id}: expected labels to score against, found none")
        utt_ids.append(utt_id)
        rows.append(_frame_sums(utt_id, frames, labels[utt_id]))
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    names = tuple(utt_ids)
    return FrameMetrics(
        UtteranceMetric("frame_accuracy", names, table[:, 0], table[:, 2], higher_is_better=True),
        UtteranceMetric("cross_entropy", names, table[:, 1], table[:, 2]),
    )


def _frame_sums(utt_id: str, log_probs: Tensor, pdf_ids: Tensor) -> tuple[float, float, float]:
    if log_probs.dim() != 2 or pdf_ids.shape != log_probs.shape[:1]:
        raise InputError(
            f"{utt_id}: expected one label per frame, found {tuple(pdf_ids.shape)} labels for {tuple(log_probs.shape)}"
        )
    if log_probs.shape[0] == 0:
        return 0.0, 0.0, 0.0
    excess = torch.logsumexp(log_probs.float(), dim=1).abs().max().item()
    if not excess < NORMALISATION_TOLERANCE:
        raise InputError(f"{utt_id}: expected log-probabilities that sum to one, found logits (log-sum {excess:.3g})")
    target = pdf_ids.long()
    correct = (log_probs.argmax(dim=1) == target).sum().item()
    cross_entropy = -log_probs.gather(1, target[:, None]).double().sum().item()
    return float(correct), cross_entropy, float(len(target))
