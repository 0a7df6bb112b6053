"""Models trained together come out as each would alone: order, augmentation, dropout and clipping are its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import asrkd.nnet.trainer
from asrkd.distil.loss import DenseTargets, Distillation, DistilOptions
from asrkd.errors import InputError
from asrkd.nnet import ArrayInputs, HardTargets, Objective, TrainOptions, train, train_stacked
from asrkd.nnet.checkpoint import CHECKPOINT_NAME
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.stacked import StackedEnsemble

SHAPE = ModelOptions(hidden_dim=24, num_layers=2, dropout=0.4, input_dropout=0.1, max_norm=1.2)
SEEDS = (3, 11, 4)
SGD = TrainOptions(
    epochs=3, batch_size=32, optimizer="sgd", learning_rate=0.05, weight_decay=0.001, clip_norm=0.5,
    precision="float32", num_threads=1, show_progress=False,
)  # fmt: skip
# Sums of products in another order: some float32 steps of rounding, over three epochs.
TOLERANCE = {"atol": 2e-5, "rtol": 2e-4}


class NoisyInputs(ArrayInputs):
    """Draws noise for every batch from the generator it is given."""

    def batch(self, ids: Tensor, generator: torch.Generator | None = None) -> Tensor:
        values = super().batch(ids)
        if generator is None:
            return values
        return values + 0.1 * torch.randn(values.shape, generator=generator, device=values.device)


def examples(num_examples: int = 333) -> tuple[NoisyInputs, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (num_examples,), generator=generator)
    centres = torch.randn(5, 9, generator=generator)
    return NoisyInputs(centres[labels] + torch.randn(num_examples, 9, generator=generator)), labels


def untrained(seed: int, shape: ModelOptions = SHAPE) -> AcousticDnn:
    return AcousticDnn(9, 5, shape, seed=seed)


def stack(shape: ModelOptions = SHAPE) -> StackedEnsemble:
    return StackedEnsemble([untrained(seed, shape) for seed in SEEDS])


def soft(labels: Tensor) -> Distillation:
    teacher = torch.randn(2, len(labels), 5, generator=torch.Generator().manual_seed(1))
    return Distillation(labels, DenseTargets.from_logits(teacher, 3.0), DistilOptions(alpha=0.6, temperature=3.0))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clip_norm": None, "momentum": 0.0},
        {"optimizer": "adamw", "learning_rate": 0.003, "average_decay": 0.8},
    ],
    ids=["sgd, clipped", "plain sgd", "adamw, averaged"],
)
@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_members_equal_models_trained_alone(changes: dict, targets: str, tmp_path: Path) -> None:
    inputs, labels = examples()
    objective: Objective = HardTargets(labels) if targets == "hard" else soft(labels)
    options = replace(SGD, **changes)
    ensemble = stack()
    together = train_stacked(ensemble, SEEDS, inputs, objective, options, tmp_path / "together")
    losses = []
    for seed, member in zip(SEEDS, ensemble.members(), strict=True):
        alone = untrained(seed)
        result = train(alone, inputs, objective, replace(options, seed=seed), tmp_path / f"alone{seed}")
        losses.append([epoch["train_loss"] for epoch in result.history])
        for found, expected in zip(member.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(found, expected, **TOLERANCE)
    mean_loss = torch.tensor(losses).mean(dim=0)
    torch.testing.assert_close(
        torch.tensor([epoch["train_loss"] for epoch in together.history]), mean_loss, atol=1e-4, rtol=1e-4
    )


def test_a_member_that_explodes_is_clipped_alone() -> None:
    ensemble = stack(replace(SHAPE, dropout=0.0, input_dropout=0.0))
    for parameter in ensemble.parameters():
        parameter.grad = torch.ones_like(parameter)
        parameter.grad[1] *= 1e4
    before = [parameter.grad.clone() for parameter in ensemble.parameters() if parameter.grad is not None]
    ensemble.clip_gradients_(50.0)
    after = [parameter.grad for parameter in ensemble.parameters() if parameter.grad is not None]
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in after]).norm(dim=0)
    assert norms[1] == pytest.approx(50.0, rel=1e-4)
    assert all(torch.equal(new[[0, 2]], old[[0, 2]]) for new, old in zip(after, before, strict=True))


@pytest.mark.parametrize("checkpoint_epochs", [1, 2])
def test_an_interrupted_stack_goes_on_to_the_same_bits(
    checkpoint_epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, labels = examples()
    options = replace(SGD, epochs=5)

    def run(out_dir: Path) -> StackedEnsemble:
        ensemble = stack()
        train_stacked(
            ensemble, SEEDS, inputs, HardTargets(labels), options, out_dir, checkpoint_epochs=checkpoint_epochs
        )
        return ensemble

    expected = run(tmp_path / "whole")
    original, steps = asrkd.nnet.trainer.run_step, iter(range(1000))

    def dying(*arguments: object) -> Tensor:
        if next(steps) == 37:  # in the fourth epoch of ten steps
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("asrkd.nnet.trainer.run_step", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "torn")
    assert (tmp_path / "torn" / CHECKPOINT_NAME).is_file()
    resumed = run(tmp_path / "torn")
    done = next(steps)
    assert done == 38 + 10 * (5 - (3 if checkpoint_epochs == 1 else 2)), "it went on from the last checkpoint"
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), resumed.parameters(), strict=True))
    assert not (tmp_path / "torn" / CHECKPOINT_NAME).exists()


def test_a_finished_stack_is_loaded_and_other_seeds_train_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = examples()
    first = stack()
    result = train_stacked(first, SEEDS, inputs, HardTargets(labels), SGD, tmp_path)
    loaded = StackedEnsemble.load_stack(result.model_path)
    x = torch.randn(4, 9)
    assert torch.equal(loaded(x), first(x))
    assert loaded.options == SHAPE
    monkeypatch.setattr("asrkd.nnet.trainer.run_epoch", lambda *_: pytest.fail("trained a finished stack"))
    again = stack()
    train_stacked(again, SEEDS, inputs, HardTargets(labels), SGD, tmp_path)
    assert torch.equal(again(x), first(x))
    monkeypatch.undo()
    other = stack()
    train_stacked(other, (3, 11, 5), inputs, HardTargets(labels), SGD, tmp_path)
    assert not torch.equal(other(x), first(x))


def test_a_stack_stays_in_evaluation_as_its_members_are() -> None:
    ensemble = stack().train()
    x = torch.randn(7, 9)
    expected = torch.stack([member.eval()(x) for member in ensemble.members()])
    torch.testing.assert_close(ensemble(x), expected)  # no generators: no dropout, whatever the mode
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    assert not torch.equal(ensemble(x, generators), ensemble(x))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    inputs, labels = examples()
    with pytest.raises(InputError, match="a seed for each of 3 members, found 2"):
        train_stacked(stack(), SEEDS[:2], inputs, HardTargets(labels), SGD, tmp_path)
    mixed = StackedEnsemble([untrained(1), untrained(2, replace(SHAPE, dropout=0.1))])
    with pytest.raises(InputError, match="members of one dropout and max-norm"):
        train_stacked(mixed, SEEDS[:2], inputs, HardTargets(labels), SGD, tmp_path)
    with pytest.raises(InputError, match=r"or \[3, N, 9\], found \[2, 5, 9\]"):
        stack()(torch.zeros(2, 5, 9))
    untrained(1).save(tmp_path / "single.safetensors")
    with pytest.raises(InputError, match="expected an ensemble, found a single model"):
        StackedEnsemble.load_stack(tmp_path / "single.safetensors")
    with pytest.raises(InputError, match="newbob expected development data"):
        train_stacked(stack(), SEEDS, inputs, HardTargets(labels), replace(SGD, schedule="newbob"), tmp_path)


@given(limit=st.floats(0.1, 10.0), scale=st.floats(0.0, 100.0), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_max_norm_projects_each_member_as_it_would_be_alone(limit, scale, seed):
    options = ModelOptions(hidden_dim=4, num_layers=2, max_norm=limit)
    alone = [AcousticDnn(5, 3, options, seed=seed + place).double() for place in range(3)]
    with torch.no_grad():
        for place, model in enumerate(alone):
            for layer in model.layers:
                layer.weight.mul_(scale * (1 + place))
    stack = StackedEnsemble(alone).double()
    stack.apply_max_norm_()
    for member, model in enumerate(alone):
        model.apply_max_norm_()
        for layer, weight in zip(model.layers, stack.weights, strict=True):
            torch.testing.assert_close(weight[member].t(), layer.weight)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_steps_of_a_cuda_graph_learn_what_plain_steps_do(optimizer: str, targets: str, tmp_path: Path) -> None:
    """With everything that a step can have: noise and masks of each member's own, clipping, max-norm, an average."""
    found = {}
    for cuda_graph in (False, True):
        inputs, labels = examples()
        options = replace(SGD, optimizer=optimizer, average_decay=0.8, device="cuda", cuda_graph=cuda_graph)
        objective: Objective = (
            HardTargets(labels.cuda())
            if targets == "hard"
            else soft(labels).subset(torch.arange(len(labels)), torch.device("cuda"))
        )
        ensemble = stack()
        on_gpu = NoisyInputs(inputs.values.cuda())
        result = train_stacked(ensemble, SEEDS, on_gpu, objective, options, tmp_path / f"{cuda_graph}")
        found[cuda_graph] = list(ensemble.parameters()), [epoch["train_loss"] for epoch in result.history]
    assert found[True][1] == pytest.approx(found[False][1], rel=1e-4)
    for replayed, plain in zip(found[True][0], found[False][0], strict=True):
        torch.testing.assert_close(replayed, plain, **TOLERANCE)
