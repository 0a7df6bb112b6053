"""Any nn.Module as a model: training, saving by name, counts, and what does not follow the protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import asrkd.nnet.trainer
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.online import OnlineTargets
from asrkd.errors import InputError
from asrkd.nnet import (
    AcousticDnn,
    ArrayInputs,
    DevSet,
    HardTargets,
    ModelOptions,
    ModelShape,
    ModuleModel,
    TrainOptions,
    add_models,
    build_model,
    evaluate,
    load_model,
    load_state,
    make_ensemble,
    train,
)
from asrkd.nnet import models as kinds

DIM, CLASSES, FRAME = 12, 4, 3
OPTIONS = TrainOptions(epochs=3, batch_size=32, learning_rate=0.01, precision="float32", num_threads=1)
OPTIONS = replace(OPTIONS, show_progress=False)


class Net(nn.Module):
    """Batch normalisation, dropout, and two names for one weight."""

    def __init__(self, input_dim: int = DIM, num_outputs: int = CLASSES) -> None:
        super().__init__()
        self.first = nn.Linear(input_dim, 16)
        self.norm = nn.BatchNorm1d(16)
        self.second = nn.Linear(16, 16)
        self.tied = self.second
        self.third = nn.Linear(16, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.dropout(self.norm(self.first(x)).relu(), 0.3, self.training)
        return self.third(self.tied(self.second(hidden)))


def net(shape: ModelShape) -> nn.Module:
    return Net(shape.input_dim, shape.num_outputs)


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_builders", {})
    add_models({"net": net})


def shape_of(kind: str = "net") -> ModelShape:
    return ModelShape(DIM, CLASSES, ModelOptions(kind=kind), FRAME)


def examples() -> tuple[ArrayInputs, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (200,), generator=generator)
    centres = torch.randn(CLASSES, DIM, generator=generator)
    return ArrayInputs(centres[labels] + 0.5 * torch.randn(200, DIM, generator=generator)), labels


def tensors_of(model: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def test_a_plain_module_is_trained_in_place_and_loaded_again(tmp_path: Path) -> None:
    inputs, labels = examples()
    module, options = Net(), replace(OPTIONS, epochs=9)
    result = train(module, inputs, HardTargets(labels), options, tmp_path, dev=DevSet(inputs, labels))
    assert not module.training
    assert evaluate(module, inputs, labels)[0] > 0.9
    other = Net()
    load_state(other, result.model_path)
    assert torch.equal(other(inputs.values), module(inputs.values))
    with pytest.raises(InputError, match=r"found one of kind Net: add it first \(asrkd.nnet.add_models\)"):
        load_model(result.model_path)
    with pytest.raises(InputError, match="weights do not fit"):
        load_state(nn.Linear(2, 2), result.model_path)


def test_a_built_model_depends_on_its_seed_alone_and_is_saved_with_its_name(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    first, again, other = (build_model(shape_of(), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(first), tensors_of(again), strict=True))
    assert not torch.equal(first.module.first.weight, other.module.first.weight)  # type: ignore[union-attr]
    first.save(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert isinstance(loaded, ModuleModel) and loaded.options.kind == "net"
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(first), tensors_of(loaded), strict=True))


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = examples()
    options = replace(OPTIONS, average_decay=0.5)

    def run(folder: str) -> nn.Module:
        model = build_model(shape_of(), 3)
        train(model, inputs, HardTargets(labels), options, tmp_path / folder)
        return model

    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = run("whole")
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers"
    original, steps = asrkd.nnet.trainer.run_step, iter(range(1000))

    def dying(*arguments: object) -> Tensor:
        if next(steps) == 8:  # in the second epoch
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("asrkd.nnet.trainer.run_step", dying)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    torch.manual_seed(2)
    resumed = run("killed")
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(whole), tensors_of(resumed), strict=True))
    assert float(whole.module.norm.running_mean.abs().sum()) > 0.0  # type: ignore[union-attr, operator, arg-type]


def test_an_ensemble_of_a_module_and_stacked_networks_teaches_online(tmp_path: Path) -> None:
    inputs, _ = examples()
    dnns = [AcousticDnn(DIM, CLASSES, ModelOptions(hidden_dim=8, num_layers=1), seed).eval() for seed in (1, 2)]
    module = build_model(shape_of()).eval()
    ensemble = make_ensemble([dnns[0], module, dnns[1]])
    logits = ensemble(inputs.values)
    torch.testing.assert_close(logits, torch.stack([one(inputs.values) for one in (dnns[0], module, dnns[1])]))
    assert ensemble.macs_per_frame == 2 * dnns[0].macs_per_frame + module.macs_per_frame
    targets = OnlineTargets(ensemble)
    objective = Distillation(None, targets, DistilOptions(alpha=1.0, temperature=2.0, targets="online"))
    history = train(Net(), inputs, objective, replace(OPTIONS, epochs=6), tmp_path).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    probs = targets.of_inputs(inputs.values, 2.0).probs
    torch.testing.assert_close(probs, torch.softmax(logits.detach().mean(dim=0) / 2.0, dim=1))


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(FRAME))
        self.conv = nn.Conv1d(FRAME, 5, 2)
        self.gru = nn.GRU(5, 6, batch_first=True)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        frames = self.conv((x.view(len(x), -1, FRAME) * self.scale).transpose(1, 2))  # 4 frames -> 3
        return self.out(self.gru(frames.transpose(1, 2))[0][:, -1])


def test_operations_are_counted_where_layers_run() -> None:
    conv, gru, out = 3 * (5 * FRAME * 2), 3 * (3 * 6 * 5 + 3 * 6 * 6), 6 * CLASSES
    module = Counted()
    assert ModuleModel.of(module, DIM).macs_per_frame == conv + gru + out + FRAME
    module.macs_per_frame = 77  # type: ignore[assignment]
    model = ModuleModel.of(module, DIM)
    assert model.macs_per_frame == 77
    assert model.num_parameters == sum(one.numel() for one in module.parameters())


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(DIM, CLASSES), function

    def forward(self, x: Tensor) -> object:
        return self.function(self.linear(x))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: nn.ReLU(), "model ReLU: expected a module with parameters, found none"),
        (lambda: torch.relu, "model builtin.*: expected an nn.Module, found builtin_function"),
        (lambda: nn.Linear(5, 2), r"model Linear: expected logits \[N, S\] for inputs \[N, 12\], found RuntimeError: "),
        (lambda: Lambda(lambda y: (y, y)), r"expected a tensor of logits \[N, S\], found tuple"),
        (lambda: Lambda(lambda y: y[0]), r"expected floats \[2, S\] for inputs \[2, 12\], found float32 \[4\]"),
        (lambda: Lambda(lambda y: y.argmax(dim=1, keepdim=True)), r"found int64 \[2, 1\]"),
        (lambda: Lambda(lambda y: y.detach()), "expected logits with gradients for its parameters, found none"),
        (lambda: Lambda(lambda y: y.nowhere), "found AttributeError: 'Tensor' object has no attribute 'nowhere'"),
    ],
)
def test_what_does_not_follow_the_protocol_is_refused_in_one_line(
    make: Callable[[], nn.Module], found: str, tmp_path: Path
) -> None:
    inputs, labels = examples()
    with pytest.raises(InputError, match=found) as refused:
        train(make(), inputs, HardTargets(labels), OPTIONS, tmp_path)
    assert "\n" not in str(refused.value)


def test_builders_that_cannot_work_are_refused_in_one_line() -> None:
    add_models({"breaks": lambda shape: shape.width, "none": lambda shape: None, "wide": lambda shape: Net(DIM, 9)})
    for kind, found in (
        ("breaks", "model breaks: expected its builder to make an nn.Module for 12 inputs .* found AttributeError"),
        ("none", "model none: expected an nn.Module, found NoneType"),
        ("wide", r"model wide: expected logits \[N, 4\] for inputs \[N, 12\], found \[N, 9\]"),
        ("nett", r"model.kind: expected dnn, cnn, .*, found nett \(did you mean net\?\)"),
    ):
        with pytest.raises(InputError, match=found):
            build_model(shape_of(kind))
    for name in ("cnn", "two words", ""):
        with pytest.raises(InputError, match="models: expected names of letters"):
            add_models({name: net})
    with pytest.raises(InputError, match=r"models: expected for mine a function of a ModelShape .* found int"):
        add_models({"mine": 3})  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"model net: expected inputs \[N, 12\], found \[5, 3\]"):
        build_model(shape_of())(torch.zeros(5, 3))
