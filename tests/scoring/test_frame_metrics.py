"""Frame accuracy and cross-entropy worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from asrkd.errors import InputError
from asrkd.scoring.frames import frame_metrics


def test_frame_metrics_by_hand() -> None:
    log_probs = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]]).log()
    found = frame_metrics(
        [("a", log_probs[:2]), ("b", log_probs[2:])], {"a": torch.tensor([0, 1]), "b": torch.tensor([1])}
    )
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.cross_entropy.value == pytest.approx(-(math.log(0.7) + math.log(0.1) + math.log(0.4)) / 3)
    assert found.accuracy.numerator.tolist() == [1.0, 1.0]
    assert found.accuracy.denominator.tolist() == [2.0, 1.0]


def test_frame_metrics_refuse_logits_and_wrong_lengths() -> None:
    labels = {"a": torch.tensor([0, 1])}
    with pytest.raises(InputError, match="a: expected log-probabilities that sum to one, found logits"):
        frame_metrics([("a", torch.ones(2, 3))], labels)
    with pytest.raises(InputError, match="a: expected one label per frame"):
        frame_metrics([("a", torch.zeros(3, 1))], labels)
    with pytest.raises(InputError, match="b: expected labels"):
        frame_metrics([("b", torch.zeros(2, 1))], labels)
