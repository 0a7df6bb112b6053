"""Convolutional and time-delay networks: against direct implementations, by finite differences, and in stacks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import load_tensors
from asrkd.nnet import ArrayInputs, HardTargets, TrainOptions, train, train_stacked
from asrkd.nnet.dnn import AcousticDnn, num_weights
from asrkd.nnet.ensembles import MixedEnsemble, load_ensemble, make_ensemble
from asrkd.nnet.layers import Convolution, Dense
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.models import load_model
from asrkd.nnet.modules import count_macs
from asrkd.nnet.stacked import StackedEnsemble

FRAMES, FEATURES, CLASSES = 13, 11, 5
SIZE = ModelOptions(hidden_dim=7, num_layers=3, dropout=0.0, filters=3)
KINDS = ("dnn", "cnn", "tdnn")


def model_of(kind: str, seed: int = 0, **changes: object) -> AcousticDnn:
    options = replace(SIZE, kind=kind, **changes)  # type: ignore[arg-type]
    return AcousticDnn(FRAMES * FEATURES, CLASSES, options, seed, FEATURES)


def windows(number: int = 6) -> Tensor:
    return torch.randn(number, FRAMES * FEATURES, generator=torch.Generator().manual_seed(9))


def randomise(model: AcousticDnn) -> AcousticDnn:
    """Biases and gains that are not those of the start, so that a wrong one shows."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return model


def normalised(values: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Layer normalisation of a vector, without torch's."""
    centred = values - values.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * gain + bias


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_a_tdnn_is_its_windows_one_by_one(norm: str) -> None:
    model = randomise(model_of("tdnn", norm=norm).double())
    x = windows(2).double()
    expected = []
    for example in x:
        values = example.view(FRAMES, FEATURES)  # [positions, channels]
        for index, (spec, layer) in enumerate(zip(model.specs, model.layers, strict=True)):
            rows = []
            for start in range(0, len(values) - spec.width + 1, spec.step):
                row = layer.weight @ torch.cat(list(values[start : start + spec.width])) + layer.bias
                if index < len(model.specs) - 1:
                    if norm == "layer":
                        row = normalised(row, model.norms[index].weight, model.norms[index].bias)
                    row = row.clamp(min=0)
                rows.append(row)
            values = torch.stack(rows)
        expected.append(values[0])
    torch.testing.assert_close(model(x), torch.stack(expected))


def test_a_tdnn_is_a_chain_of_one_dimensional_convolutions() -> None:
    model = model_of("tdnn", norm="none").double()
    x = windows().double()
    hidden = x.view(-1, FRAMES, FEATURES).transpose(1, 2)
    for index, (spec, layer) in enumerate(zip(model.specs, model.layers, strict=True)):
        kernel = layer.weight.view(spec.fan_out, spec.width, spec.fan_in).transpose(1, 2)
        hidden = F.conv1d(hidden, kernel, layer.bias, stride=spec.step)
        if index < len(model.specs) - 1:
            hidden = hidden.relu()
    torch.testing.assert_close(model(x), hidden.squeeze(2))


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_a_cnn_is_its_sums_one_by_one(norm: str) -> None:
    model = randomise(model_of("cnn", norm=norm).double())
    x = windows(1).double()
    maps = x.view(1, FRAMES, FEATURES)
    for index, spec in enumerate(model.specs[:2]):
        assert isinstance(spec, Convolution)
        weight, bias = model.layers[index].weight, model.layers[index].bias
        out = torch.zeros(spec.maps_out, *spec.convolved, dtype=torch.float64)
        for channel in range(spec.maps_out):
            for time in range(spec.convolved[0]):
                for frequency in range(spec.convolved[1]):
                    start = time * spec.time_step
                    patch = maps[:, start : start + spec.kernel[0], frequency : frequency + spec.kernel[1]]
                    out[channel, time, frequency] = (patch * weight[channel]).sum() + bias[channel]
        if norm == "layer":  # over all values of an example, gain and bias by map
            gains, biases = (one.view(-1, 1, 1).expand_as(out).flatten() for one in model.norms[index].parameters())
            out = normalised(out.flatten(), gains, biases).view_as(out)
        out = out.clamp(min=0)
        width = spec.pooled[1] * spec.pool
        maps = out[:, :, :width].reshape(spec.maps_out, spec.pooled[0], spec.pooled[1], spec.pool).amax(dim=3)
    hidden = maps.flatten()
    for index in range(2, len(model.layers) - 1):
        hidden = model.layers[index].weight @ hidden + model.layers[index].bias
        if norm == "layer":
            hidden = normalised(hidden, model.norms[index].weight, model.norms[index].bias)
        hidden = hidden.clamp(min=0)
    expected = model.layers[-1].weight @ hidden + model.layers[-1].bias
    torch.testing.assert_close(model(x)[0], expected)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str, norm: str) -> None:
    model = randomise(model_of(kind, norm=norm, hidden_dim=4, filters=2).double())
    x = windows(2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *tensors: model(tensors[0]), (x, *model.parameters()))


@given(frames=st.integers(1, 40), features=st.integers(1, 45), layers=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_windows_of_any_size_are_read_whole(frames: int, features: int, layers: int) -> None:
    for kind in ("cnn", "tdnn"):
        options = ModelOptions(hidden_dim=3, num_layers=layers, dropout=0.0, filters=2, kind=kind, norm="none")
        model = AcousticDnn(frames * features, 2, options, frame_dim=features)
        read = torch.zeros(frames, features, dtype=torch.bool)
        spec = model.specs[0]
        steps = range(0, frames, spec.step if isinstance(spec, Dense) else spec.time_step)
        width = spec.width if isinstance(spec, Dense) else spec.kernel[0]
        for start in steps:
            if start + width <= frames:
                read[start : start + width] = True
        assert bool(read.all())
        assert sum(isinstance(one, Dense) for one in model.specs) == layers + 1
        assert model(torch.randn(3, frames * features)).shape == (3, 2)


def test_the_paper_s_window_becomes_the_documented_sizes() -> None:
    shape = 26 * 40, 300
    tdnn = AcousticDnn(*shape, ModelOptions(512, 4, kind="tdnn"), frame_dim=40)
    assert [spec.num_windows for spec in tdnn.specs if isinstance(spec, Dense)] == [8, 4, 2, 1, 1]
    cnn = AcousticDnn(*shape, ModelOptions(512, 4, kind="cnn"), frame_dim=40)
    assert [spec.pooled for spec in cnn.specs if isinstance(spec, Convolution)] == [(11, 11), (9, 8)]


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_the_module(kind: str, norm: str) -> None:
    model = model_of(kind, norm=norm)
    assert num_weights(model.specs, model.options) == model.num_parameters
    # The layers as torch's own modules: they are counted where they run.
    plain = torch.nn.Sequential(*(_counted(spec) for spec in model.specs))
    assert model.macs_per_frame == count_macs(plain, model.input_dim)


class _Reshaped(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module, spec: Dense | Convolution) -> None:
        super().__init__()
        self.inner, self.spec = inner, spec

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.spec, Convolution):
            maps = self.inner(x.view(len(x), self.spec.maps_in, *self.spec.size))
            return F.max_pool2d(maps, (1, self.spec.pool)).flatten(1)
        rows = x.unfold(1, self.spec.width * self.spec.fan_in, self.spec.step * self.spec.fan_in)
        return self.inner(rows).flatten(1)


def _counted(spec: Dense | Convolution) -> torch.nn.Module:
    if isinstance(spec, Convolution):
        return _Reshaped(torch.nn.Conv2d(spec.maps_in, spec.maps_out, spec.kernel, stride=(spec.time_step, 1)), spec)
    return _Reshaped(torch.nn.Linear(spec.weight_shape[1], spec.fan_out), spec)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_s_members_equal_models_trained_alone(kind: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (160,), generator=generator)
    centres = torch.randn(CLASSES, FRAMES * FEATURES, generator=generator)
    inputs = ArrayInputs(centres[labels] + torch.randn(160, FRAMES * FEATURES, generator=generator))
    changes = {"norm": "layer", "dropout": 0.3, "input_dropout": 0.1, "max_norm": 1.1}
    options = TrainOptions(
        epochs=2, batch_size=32, optimizer="sgd", learning_rate=0.05, weight_decay=0.01, clip_norm=0.5,
        precision="float32", num_threads=1, show_progress=False,
    )  # fmt: skip
    seeds = (3, 11)
    ensemble = StackedEnsemble([model_of(kind, seed, **changes) for seed in seeds])
    train_stacked(ensemble, seeds, inputs, HardTargets(labels), options, tmp_path / "together")
    for seed, member in zip(seeds, ensemble.members(), strict=True):
        alone = model_of(kind, seed, **changes)
        train(alone, inputs, HardTargets(labels), replace(options, seed=seed), tmp_path / f"alone{seed}")
        for found, expected in zip(member.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-4)
    loaded = StackedEnsemble.load_stack(tmp_path / "together" / "model.safetensors")
    assert torch.equal(loaded(windows()), ensemble(windows()))
    shared = ensemble(windows())
    for logits, member in zip(shared, ensemble.members(), strict=True):
        torch.testing.assert_close(logits, member(windows()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_has_its_kind(kind: str, tmp_path: Path) -> None:
    model = randomise(model_of(kind, norm="layer")).eval()
    model.save(tmp_path / "model.safetensors")
    for loaded in (AcousticDnn.load(tmp_path / "model.safetensors"), load_model(tmp_path / "model.safetensors")):
        assert loaded.options.json_values() == model.options.json_values()
        assert torch.equal(loaded(windows()), model(windows()))


def test_the_file_of_a_feed_forward_network_is_that_of_earlier_versions(tmp_path: Path) -> None:
    model = AcousticDnn(4, 3, ModelOptions(hidden_dim=2, num_layers=1), frame_dim=2)
    model.save(tmp_path / "model.safetensors")
    tensors, metadata = load_tensors(tmp_path / "model.safetensors")
    assert list(tensors) == ["layers.0.bias", "layers.0.weight", "layers.1.bias", "layers.1.weight"]
    assert metadata == {
        "architecture": '{"input_dim": 4, "num_outputs": 3, "options": {"hidden_dim": 2, "num_layers": 1, '
        '"dropout": 0.2, "input_dropout": 0.0, "max_norm": null, "init_scale": 1.0}}'
    }


def test_options_are_written_where_they_decide_something() -> None:
    assert not {"kind", "norm", "filters"} & ModelOptions().json_values().keys()
    assert ModelOptions(kind="tdnn", filters=9).json_values().keys() - ModelOptions().json_values().keys() == {"kind"}
    assert ModelOptions(kind="cnn", norm="none").json_values()["norm"] == "none"
    assert ModelOptions(kind="cnn", filters=9).json_values()["filters"] == 9


def test_an_ensemble_of_several_kinds_has_its_members_in_order(tmp_path: Path) -> None:
    models = [randomise(model_of(kind, seed)).eval() for seed, kind in enumerate(("cnn", "dnn", "cnn", "tdnn", "dnn"))]
    paths = []
    for index, model in enumerate(models):
        paths.append(tmp_path / f"{index}.safetensors")
        model.save(paths[-1])
    ensemble = load_ensemble(paths)
    assert isinstance(ensemble, MixedEnsemble)
    assert [type(part).__name__ for part in ensemble.parts] == ["StackedEnsemble"] * 3
    expected = torch.stack([model(windows()) for model in models])
    torch.testing.assert_close(ensemble(windows()), expected, atol=1e-5, rtol=1e-4)
    own = torch.stack([windows().roll(index, dims=0) for index in range(len(models))])
    expected = torch.stack([model(x) for model, x in zip(models, own, strict=True)])
    torch.testing.assert_close(ensemble(own), expected, atol=1e-5, rtol=1e-4)
    assert ensemble.num_parameters == sum(model.num_parameters for model in models)
    assert ensemble.macs_per_frame == sum(model.macs_per_frame for model in models)
    assert isinstance(load_ensemble([paths[0], paths[2]]), StackedEnsemble)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected frame_dim, the values of each frame of an input, for kind cnn"):
        AcousticDnn(26, 3, ModelOptions(kind="cnn"))
    with pytest.raises(InputError, match="expected inputs of whole frames of 4 values, found 26 values"):
        AcousticDnn(26, 3, ModelOptions(kind="tdnn"), frame_dim=4)
    with pytest.raises(InputError, match=r"model.kind: expected one of dnn, cnn, tdnn, found lstm"):
        AcousticDnn(26, 3, ModelOptions(kind="lstm"))
    with pytest.raises(InputError, match=r"expected members of one shape, found layers tdnn .* and dnn"):
        StackedEnsemble([model_of("dnn"), model_of("tdnn")])
    with pytest.raises(InputError, match="expected num_outputs 5 in member 1, found 4"):
        make_ensemble([model_of("dnn"), AcousticDnn(FRAMES * FEATURES, 4, SIZE)])
    with pytest.raises(InputError, match="expected at least one model, found none"):
        make_ensemble([])


def test_a_file_that_claims_a_larger_network_is_refused_before_it_is_built(tmp_path: Path) -> None:
    from asrkd.files import save_tensors

    model = model_of("cnn")
    model.save(tmp_path / "model.safetensors")
    tensors, metadata = load_tensors(tmp_path / "model.safetensors")
    architecture = json.loads(metadata["architecture"])
    for name, value in (("filters", 90), ("hidden_dim", 900), ("filters", 1.5)):
        larger = {**architecture, "options": {**architecture["options"], name: value}}
        save_tensors(tmp_path / "other.safetensors", tensors, {"architecture": json.dumps(larger)})
        with pytest.raises(InputError, match="expected a model, found something else"):
            load_model(tmp_path / "other.safetensors")
