"""Targets from occupations in lattices, as rows of a posterior store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from asrkd.distil.compression import Rows, StoreOptions, expand
from asrkd.distil.lattice_targets import averaged, rows_without_targets, target_rows
from asrkd.distil.store import PosteriorStore, StoreDescription, write_store
from asrkd.errors import InputError

NUM_CLASSES = 60
OPTIONS = StoreOptions(top_k=10, temperatures=(1.0, 2.0, 5.0, 10.0))


def occupied(num_frames: int = 40, num_senones: int = 3) -> Tensor:
    """Occupations of a few senones in each frame."""
    generator = torch.Generator().manual_seed(1)
    probs = torch.zeros(num_frames, NUM_CLASSES)
    for row in probs:
        chosen = torch.randperm(NUM_CLASSES, generator=generator)[:num_senones]
        row[chosen] = torch.randn(num_senones, generator=generator).mul(2).softmax(dim=0)
    return probs


def own_log_probs(num_frames: int = 40) -> Tensor:
    return torch.randn(num_frames, NUM_CLASSES, generator=torch.Generator().manual_seed(2)).mul(4).log_softmax(dim=1)


def dense(rows: object, column: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Probabilities [T, S] of stored classes and the tails [T]."""
    found = expand(rows, column, temperature)  # type: ignore[arg-type]
    assert found.pdf_ids is not None and found.tail is not None
    return torch.zeros(len(found.probs), NUM_CLASSES).scatter(1, found.pdf_ids, found.probs), found.tail


def test_targets_are_the_average_of_occupation_and_posterior() -> None:
    occupation, log_probs = occupied(), own_log_probs()
    mixed = averaged(occupation, log_probs, 0.25)
    torch.testing.assert_close(mixed, 0.25 * occupation + 0.75 * log_probs.exp())
    assert torch.equal(averaged(occupation, log_probs, 1.0), occupation)
    whole = StoreOptions(top_k=NUM_CLASSES, temperatures=(1.0,))
    found, tail = dense(target_rows(mixed, whole), 0, 1.0)
    torch.testing.assert_close(found, mixed, atol=2e-3, rtol=2e-2)
    assert tail.eq(0).all()


@pytest.mark.parametrize("weight", [0.0, -0.5, 1.5, float("nan")])
def test_another_weight_is_refused(weight: float) -> None:
    with pytest.raises(InputError, match="weight above 0 and up to 1"):
        averaged(occupied(), own_log_probs(), weight)


@pytest.mark.parametrize("column", range(len(OPTIONS.temperatures)))
def test_at_a_temperature_senones_without_occupation_have_next_to_nothing(column: int) -> None:
    """p^(1/T), normalised: 0 stays 0, though a store has more classes than are occupied."""
    temperature = OPTIONS.temperatures[column]
    occupation = occupied()
    found, tail = dense(target_rows(occupation, OPTIONS), column, temperature)
    softened = occupation.pow(1 / temperature)
    softened = softened / softened.sum(dim=1, keepdim=True)
    torch.testing.assert_close(found, softened, atol=1e-2, rtol=0.0)
    kl = torch.where(softened > 0, softened * (softened.log() - found.log()), torch.zeros(())).sum(dim=1)
    assert float(kl.mean()) < 1e-3, "what rounding costs, nats"
    assert torch.isfinite(found).all() and torch.isfinite(tail).all()
    outside = found.masked_fill(occupation > 0, 0.0).sum(dim=1) + tail
    assert (outside < 1e-3).all()


class Utterances:
    """Three utterances of 10, 20 and 10 frames."""

    utt_ids = ("a", "b", "c")
    offsets = torch.tensor([0, 10, 30, 40])
    fingerprint = "frames"


class Rewritten:
    """A task that has no targets for the second utterance."""

    def open(self) -> Rewritten:
        return self

    def __call__(self, span: tuple[int, int]) -> Rows:
        if span == (10, 30):
            return rows_without_targets(20, NUM_CLASSES, OPTIONS).as_rows()
        return target_rows(occupied()[slice(*span)], OPTIONS).as_rows()


def test_an_utterance_without_a_lattice_is_listed_and_has_no_target_to_learn_by_mistake(tmp_path: Path) -> None:
    description = StoreDescription(OPTIONS, "teachers", NUM_CLASSES, 2, "tree", Utterances())
    store = write_store(tmp_path / "store", description, Rewritten(), [(0, 10), (10, 30), (30, 40)])
    assert store.utt_ids_without_targets == ["b"]
    assert torch.isnan(store.targets(torch.arange(10, 30), 2.0).probs).all()
    good = torch.cat([torch.arange(10), torch.arange(30, 40)])
    assert torch.isfinite(store.targets(good, 2.0).probs).all()
    assert torch.equal(store.top_classes(30, 40), occupied()[30:40].argmax(dim=1))
    assert PosteriorStore.open(tmp_path / "store").utt_ids_without_targets == ["b"]
    assert np.isnan(rows_without_targets(3, NUM_CLASSES, OPTIONS).as_rows()[2]).all()
