"""Teachers that score the inputs of the student's step: the same targets as stored ones, and those of mixtures."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toy_posteriors import DIM, NUM_CLASSES, make_ensemble, make_inputs, write

from asrkd.distil.compression import StoreOptions
from asrkd.distil.ensemble import Mean, combine
from asrkd.distil.loss import DenseTargets, Distillation, DistilOptions, InputTargets, soft_cross_entropy
from asrkd.distil.online import OnlineTargets
from asrkd.errors import InputError
from asrkd.nnet import Augmentation, AugmentOptions, TrainOptions, train, train_stacked
from asrkd.nnet.acoustics import Gaussian, Noise, Reverberation, SpeechStatistics
from asrkd.nnet.augment import MelAxis
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.inputs import ArrayInputs, Batch, BatchObjective
from asrkd.nnet.losses import mixed_label_cross_entropy
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.stacked import StackedEnsemble

IDS = torch.tensor([3, 1, 4, 15, 92, 65])
LABELS = torch.arange(100) % NUM_CLASSES


def student(dtype: torch.dtype = torch.float64) -> AcousticDnn:
    return AcousticDnn(DIM, NUM_CLASSES, ModelOptions(hidden_dim=12, num_layers=2, dropout=0.0), seed=9).to(dtype)


def gradients(model: AcousticDnn, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
@pytest.mark.parametrize("temperature", [1.0, 3.7])
@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_online_and_stored_targets_give_the_same_gradients(mean: Mean, temperature: float, alpha: float) -> None:
    """On inputs that are not distorted, in float64, over all classes."""
    ensemble, inputs = make_ensemble().double(), ArrayInputs(make_inputs().values.double())
    with torch.no_grad():
        logits = ensemble(inputs.values)
    options = DistilOptions(alpha=alpha, temperature=temperature)
    stored = Distillation(LABELS, DenseTargets.from_logits(logits, temperature, mean), options)
    online = Distillation(LABELS, OnlineTargets(ensemble, mean), replace(options, targets="online"))
    model = student()
    x = inputs.batch(IDS)
    expected = stored(model(x), IDS)
    found = online.batch_loss(model(x), Batch(x, IDS))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for one, other in zip(gradients(model, found), gradients(model, expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_a_store_of_all_classes_agrees_as_far_as_its_bytes_allow(tmp_path: Path) -> None:
    store = write(tmp_path, StoreOptions(top_k=NUM_CLASSES, temperatures=(2.0,)))
    options = DistilOptions(alpha=1.0)
    model, x = student(torch.float32), make_inputs().batch(IDS)
    expected = Distillation(None, store, options)(model(x), IDS)
    online = Distillation(None, OnlineTargets(make_ensemble()), replace(options, targets="online"))
    torch.testing.assert_close(online.batch_loss(model(x), Batch(x, IDS)), expected, rtol=1e-3, atol=0)


def test_the_targets_of_mixtures_are_the_ensembles_answer_to_the_mixtures() -> None:
    ensemble = make_ensemble()
    inputs = make_inputs()
    augment = Augmentation(AugmentOptions(mix=0.7), DIM)
    batch = augment(Batch(inputs.batch(IDS), IDS), torch.Generator().manual_seed(0))
    weights = batch.weights.unsqueeze(1)
    mixture = weights * inputs.values[IDS] + (1 - weights) * inputs.values[IDS.roll(1)]
    assert not torch.equal(mixture, inputs.values[IDS])
    with torch.no_grad():
        expected = combine(ensemble(mixture), 2.0, "geometric").exp()
    targets = OnlineTargets(ensemble).of_inputs(batch.inputs, 2.0)
    torch.testing.assert_close(targets.probs, expected)
    # The loss uses these, and labels in the proportion of the inputs.
    options = DistilOptions(alpha=0.6, targets="online")
    logits = student(torch.float32)(batch.inputs)
    hard = mixed_label_cross_entropy(logits, LABELS[IDS], LABELS[IDS.roll(1)], batch.weights)
    expected_loss = 0.6 * 4.0 * soft_cross_entropy(logits, targets, 2.0) + 0.4 * hard
    found = Distillation(LABELS, OnlineTargets(ensemble), options).batch_loss(logits, batch)
    torch.testing.assert_close(found, expected_loss)


def test_one_teacher_an_example_is_the_arithmetic_mean_over_epochs() -> None:
    """A batch is divided among the members; where each example has been each member's, gradients add up to the mean."""
    ensemble = make_ensemble().double()
    members, batch = ensemble.num_members, 7  # not divisible: the last part is smaller
    values = make_inputs().values.double()[:batch]
    one = OnlineTargets(copy.deepcopy(ensemble), teachers="one")
    with torch.no_grad():
        each = (ensemble(values) / 2.0).softmax(dim=2)
    part = -(-batch // members)
    found = one.of_inputs(values, 2.0).probs
    for index in range(batch):
        torch.testing.assert_close(found[index], each[index // part, index])

    model, options = student(), DistilOptions(alpha=1.0, targets="online", online_teachers="one")
    ids = torch.arange(members)
    objective = Distillation(None, one, options)
    rolled = [gradients(model, objective.batch_loss(model(x), Batch(x, ids))) for x in _rolls(values[:members])]
    exact = Distillation(None, OnlineTargets(copy.deepcopy(ensemble), "arithmetic"), options)
    expected = gradients(model, exact.batch_loss(model(values[:members]), Batch(values[:members], ids)))
    for mean, *parts in zip(expected, *rolled, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(dim=0), mean, rtol=1e-10, atol=1e-14)


def _rolls(values: Tensor) -> list[Tensor]:
    """The rows in every cyclic order."""
    return [values.roll(shift, dims=0) for shift in range(len(values))]


def test_teachers_get_no_gradients_and_any_temperature_works() -> None:
    ensemble = make_ensemble()
    targets = OnlineTargets(ensemble)
    assert isinstance(targets, InputTargets)
    x = make_inputs().batch(IDS).requires_grad_()
    for temperature in (0.3, 1.7, 50.0):
        probs = targets.of_inputs(x, temperature).probs
        assert not probs.requires_grad and torch.allclose(probs.sum(dim=1), torch.ones(len(IDS)))
    assert not any(parameter.requires_grad for parameter in ensemble.parameters())


def test_teachers_score_in_their_own_precision() -> None:
    x = make_inputs().batch(IDS)
    exact = OnlineTargets(make_ensemble()).of_inputs(x, 2.0).probs
    rough = OnlineTargets(make_ensemble(), precision="bfloat16").of_inputs(x, 2.0).probs
    assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        as_stored = combine(make_ensemble()(x).float(), 2.0, "geometric").exp()
    torch.testing.assert_close(rough, as_stored)
    # Inputs in the student's precision do not change that of the teachers.
    of_rough_inputs = OnlineTargets(make_ensemble()).of_inputs(x.bfloat16(), 2.0).probs
    assert torch.equal(of_rough_inputs, OnlineTargets(make_ensemble()).of_inputs(x.bfloat16().float(), 2.0).probs)


def test_a_loss_without_inputs_is_refused() -> None:
    objective = Distillation(LABELS, OnlineTargets(make_ensemble()), DistilOptions(targets="online"))
    assert isinstance(objective, BatchObjective) and objective.reads_inputs and objective.mixes_targets
    with pytest.raises(InputError, match=r"distil.targets: expected stored targets, found online ones"):
        objective(torch.zeros(6, NUM_CLASSES), IDS)


def test_members_of_a_stack_learn_what_they_would_learn_alone(tmp_path: Path) -> None:
    options = TrainOptions(epochs=2, batch_size=20, precision="float32", num_threads=1, show_progress=False)
    augment = Augmentation(AugmentOptions(mix=0.5), DIM)

    def new(seed: int) -> AcousticDnn:
        return AcousticDnn(DIM, NUM_CLASSES, ModelOptions(hidden_dim=8, num_layers=1, dropout=0.0), seed=seed)

    def objective() -> Distillation:
        return Distillation(LABELS, OnlineTargets(make_ensemble()), DistilOptions(targets="online"))

    stack = StackedEnsemble([new(3), new(4)])
    train_stacked(stack, [3, 4], make_inputs(), objective(), options, tmp_path / "stack", augment=augment)
    for seed, member in zip((3, 4), stack.members(), strict=True):
        alone = new(seed)
        train(alone, make_inputs(), objective(), replace(options, seed=seed), tmp_path / f"{seed}", augment=augment)
        for one, other in zip(member.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_shard_has_the_same_teachers_and_its_own_labels() -> None:
    objective = Distillation(LABELS, OnlineTargets(make_ensemble()), DistilOptions(targets="online"))
    x = make_inputs().batch(IDS)
    logits = student(torch.float32)(x)
    shard = objective.subset(IDS, torch.device("cpu"))
    of_shard = shard.batch_loss(logits, Batch(x, torch.arange(len(IDS))))
    assert torch.equal(of_shard, objective.batch_loss(logits, Batch(x, IDS)))
    assert shard.device == torch.device("cpu")


class Operations(TorchDispatchMode):
    """The names of all operations of a block."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


# Their result, or its size, is read from the GPU's memory, for which a CUDA graph cannot wait.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "randperm")


def test_a_step_does_not_wait_for_a_gpu_and_draws_from_its_generator_alone() -> None:
    every = AugmentOptions(mix=0.5, warp=0.5, reverb=0.5, noise=0.5, mask=0.5, mask_features=2, mask_frames=1, gain=0.5)
    row = torch.ones(1, DIM)
    augment = Augmentation(
        every,
        DIM,
        MelAxis(DIM, 20.0, -400.0, 16000),
        speech=SpeechStatistics(Gaussian(row, row), row[0, :1], torch.tensor([0])),
        noise=Noise.of([row]),
        reverberation=Reverberation(torch.ones(1, 2, DIM), row, row),
    )
    objective = Distillation(LABELS, OnlineTargets(make_ensemble()), DistilOptions(alpha=0.5, targets="online"))
    model = student(torch.float32)
    x = make_inputs().batch(IDS).repeat(1, 2)  # the frame before, and the frame
    generator = torch.Generator().manual_seed(0)
    before = torch.get_rng_state()
    with Operations() as operations:
        batch = augment(Batch(x, IDS), generator)
        objective.batch_loss(model(batch.inputs), batch).backward()
    assert any("rand" in name for name in operations.names)
    assert not [name for name in operations.names if name.split(".")[1] in WAITING], operations.names
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_of_a_cuda_graph_learn_what_plain_steps_do(precision: str, tmp_path: Path) -> None:
    found = {}
    every = AugmentOptions(mix=0.5, warp=0.5, mask=0.5, mask_features=2, mask_frames=1, gain=0.5)
    augment = Augmentation(every, DIM, MelAxis(DIM, 20.0, -400.0, 16000))
    for cuda_graph in (False, True):
        options = TrainOptions(
            epochs=4, batch_size=20, precision="float32", device="cuda", cuda_graph=cuda_graph, show_progress=False
        )
        teachers = OnlineTargets(make_ensemble().cuda(), precision=precision)
        objective = Distillation(LABELS.cuda(), teachers, DistilOptions(alpha=0.7, targets="online"))
        model = student(torch.float32)
        inputs = ArrayInputs(make_inputs().values.cuda())
        result = train(model, inputs, objective, options, tmp_path / f"{cuda_graph}", augment=augment)
        found[cuda_graph] = [epoch["train_loss"] for epoch in result.history]
    assert found[True] == pytest.approx(found[False], rel=1e-4)


def test_fingerprints_follow_the_teachers() -> None:
    fingerprints = {
        OnlineTargets(make_ensemble(seed), mean, precision).fingerprint
        for seed, mean, precision in (
            (0, "geometric", "float32"),
            (7, "geometric", "float32"),
            (0, "arithmetic", "float32"),
            (0, "geometric", "bfloat16"),
        )
    }
    assert len(fingerprints) == 4
    assert OnlineTargets(make_ensemble()).fingerprint in fingerprints
    assert OnlineTargets(make_ensemble(), teachers="one").fingerprint not in fingerprints


def test_stored_targets_are_those_of_single_examples(tmp_path: Path) -> None:
    objective = Distillation(LABELS, write(tmp_path / "store"), DistilOptions(alpha=0.5))
    augment = Augmentation(AugmentOptions(mix=0.5), DIM)
    options = TrainOptions(epochs=1, batch_size=20, precision="float32", show_progress=False)
    with pytest.raises(InputError, match=r"augment.mix: expected targets that can be mixed .* distil.targets online"):
        train(student(torch.float32), make_inputs(), objective, options, tmp_path, augment=augment)


def kl(model: AcousticDnn, ensemble: StackedEnsemble, inputs: ArrayInputs) -> float:
    with torch.no_grad():
        log_p = combine(ensemble(inputs.values), 1.0, "geometric")
        log_q = torch.log_softmax(model(inputs.values), dim=1)
    return float((log_p.exp() * (log_p - log_q)).sum(dim=1).mean())


def test_a_student_of_mixtures_agrees_better_with_the_teachers_on_other_inputs(tmp_path: Path) -> None:
    """What the mixtures are for: the transfer set is small."""
    ensemble = make_ensemble(gain=8.0)
    others = ArrayInputs(torch.randn(2000, DIM, generator=torch.Generator().manual_seed(5)))
    options = TrainOptions(
        epochs=150, batch_size=20, learning_rate=1e-2, precision="float32", num_threads=1, show_progress=False
    )
    found = {}
    for mix in (0.0, 0.5):
        model = AcousticDnn(DIM, NUM_CLASSES, ModelOptions(hidden_dim=32, num_layers=2, dropout=0.0), seed=1)
        objective = Distillation(
            None, OnlineTargets(copy.deepcopy(ensemble)), DistilOptions(alpha=1.0, targets="online")
        )
        augment = Augmentation(AugmentOptions(mix=mix), DIM)
        train(model, make_inputs(), objective, options, tmp_path / f"{mix}", augment=augment)
        found[mix] = kl(model, ensemble, others)
    assert found[0.5] < 0.9 * found[0.0], found
