"""Digits that the report shows: the errors that remain, and the most informative soft targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asrkd.data.corpora.mnist import NUM_CLASSES
from recipes.mnist.data import DigitData
from recipes.mnist.score import Scored

REMAINING_SHOWN = 60
# Probability of the label at T = 1 from which on the teachers are sure of a digit.
SURE = 0.9


def remaining_errors(scored: Scored, shown: int = REMAINING_SHOWN) -> dict[str, Any]:
    """How many evaluation digits some or all networks have wrong, and the digits that most of them have wrong.

    A row per digit: its index, its label and the prediction of each network [M].
    """
    wrong = torch.from_numpy(scored.outcome.wrong).sum(dim=0)
    ranked = torch.sort(wrong, descending=True, stable=True).indices[:shown]
    digits = [
        {"digit": int(i), "label": int(scored.labels[i]), "predicted": scored.predictions[:, i].tolist()}
        for i in ranked
        if wrong[i] > 0
    ]
    by_every_seed = int((wrong == len(scored.predictions)).sum())
    return {"by_some_seed": int((wrong > 0).sum()), "by_every_seed": by_every_seed, "digits": digits}


def dark_knowledge(logits: Tensor, data: DigitData, temperature: float) -> list[dict[str, Any]]:
    """The training digit of each class with the most information in its soft targets beyond the label.

    It has the largest KL divergence (nats) from the mean soft targets of its class, at the students' temperature. Its
    label has a probability of at least SURE in the ensemble of teachers. logits [M, N, 10] are the teachers'. A class
    without such a digit has no row.
    """
    labels = data.train.labels[: data.num_train]
    ensemble = logits[:, : data.num_train].mean(dim=0)
    probs, softened = torch.softmax(ensemble, dim=1), torch.softmax(ensemble / temperature, dim=1)
    rows = []
    for label in range(NUM_CLASSES):
        sure = ((labels == label) & (probs[:, label] >= SURE)).nonzero().squeeze(1)
        if len(sure) == 0:
            continue
        mean = softened[labels == label].mean(dim=0)
        kl = (softened[sure] * (softened[sure] / mean).log()).sum(dim=1)
        digit = int(sure[kl.argmax()])
        rows.append(
            {
                "digit": digit,
                "label": label,
                "kl_to_class_mean": float(kl.max()),
                "probs": probs[digit].tolist(),
                "softened": softened[digit].tolist(),
            }
        )
    return rows
