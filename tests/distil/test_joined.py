"""Stores and frames end to end, and the loss of examples of which only some have labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_posteriors import DIM, NUM_CLASSES, make_ensemble, make_inputs, write

from asrkd.distil.compression import StoreOptions
from asrkd.distil.joined import JoinedTargets
from asrkd.distil.loss import DenseTargets, Distillation, DistilOptions
from asrkd.distil.online import OnlineTargets
from asrkd.errors import InputError
from asrkd.nnet.inputs import Batch
from asrkd.nnet.losses import label_cross_entropy

CPU = torch.device("cpu")
IDS = torch.tensor([3, 150, 1, 99, 100, 0, 199])


def test_joined_targets_are_those_of_each_store(tmp_path: Path) -> None:
    stores = [write(tmp_path / f"{seed}", ensemble=make_ensemble(seed)) for seed in (0, 5)]
    joined = JoinedTargets(stores)
    assert len(joined) == 200
    found = joined.targets(IDS, 2.0)
    part = joined.subset(IDS, CPU).targets(torch.arange(len(IDS)), 2.0)
    for row, frame in enumerate(IDS.tolist()):
        expected = stores[frame // 100].targets(torch.tensor([frame % 100]), 2.0)
        for one in (found, part):
            for name in ("pdf_ids", "probs", "tail"):
                assert torch.equal(getattr(one, name)[row : row + 1], getattr(expected, name))
    assert joined.fingerprint not in (stores[0].fingerprint, JoinedTargets(stores[::-1]).fingerprint)
    with pytest.raises(InputError, match="expected a temperature"):
        joined.targets(IDS, 3.0)


def test_stores_of_other_options_are_not_joined(tmp_path: Path) -> None:
    other = write(tmp_path / "other", StoreOptions(top_k=5))
    with pytest.raises(InputError, match=f"posterior store {other.fingerprint}: expected"):
        JoinedTargets([write(tmp_path / "one"), other])


def dense(temperature: float = 2.0) -> DenseTargets:
    with torch.no_grad():
        return DenseTargets.from_logits(make_ensemble()(make_inputs().values), temperature)


def test_the_hard_loss_is_that_of_labelled_examples_and_the_soft_one_that_of_all() -> None:
    options = DistilOptions(alpha=0.6, temperature=2.0)
    labels = torch.arange(100) % NUM_CLASSES
    some = labels.clone()
    some[50:] = -1
    logits = torch.randn(8, NUM_CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([1, 60, 2, 70, 3, 80, 4, 90])
    half = Distillation(some, dense(), options, labelled_share=0.5)
    soft = Distillation(None, dense(), replace(options, alpha=1.0))(logits, ids)
    hard = label_cross_entropy(logits[::2], labels[ids[::2]])
    torch.testing.assert_close(half(logits, ids), 0.6 * soft + 0.4 * hard)
    # The parts of several processes add up to the batch: each example counts by itself.
    parts = [half(logits[rows], ids[rows]) * len(ids[rows]) / 8 for rows in (slice(0, 3), slice(3, 8))]
    torch.testing.assert_close(sum(parts), half(logits, ids))
    assert half.subset(ids, CPU).labelled_share == 0.5
    assert half.fingerprint != Distillation(some, dense(), options).fingerprint


def test_mixtures_have_the_labels_that_there_are() -> None:
    """λ of one label where the other example has none, and nothing where neither has one."""
    options = DistilOptions(alpha=0.5, temperature=1.0, targets="online")
    labels = torch.tensor([2, -1, 4, -1])
    objective = Distillation(labels, OnlineTargets(make_ensemble()), options, labelled_share=0.5)
    inputs = make_inputs(4).values
    logits = torch.randn(4, NUM_CLASSES, generator=torch.Generator().manual_seed(2))
    ids, mixed, weights = torch.arange(4), torch.tensor([1, 0, 2, 3]), torch.tensor([0.25, 0.25, 0.5, 0.5])
    found = objective.batch_loss(logits, Batch(inputs, ids, mixed, weights))
    log_q = torch.log_softmax(logits, dim=1)
    hard = -(0.25 * log_q[0, 2] + 0.75 * log_q[1, 2] + log_q[2, 4]) / 4 / 0.5
    soft = Distillation(None, OnlineTargets(make_ensemble()), replace(options, alpha=1.0)).batch_loss(
        logits, Batch(inputs, ids)
    )
    torch.testing.assert_close(found, 0.5 * soft + 0.5 * hard)
    assert inputs.shape[1] == DIM


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="expected a labelled share above 0"):
        Distillation(torch.zeros(100), dense(), DistilOptions(), share)
