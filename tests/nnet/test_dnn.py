"""The acoustic model and the stacked ensemble."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrkd.errors import InputError
from asrkd.files import load_tensors, save_tensors
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.stacked import StackedEnsemble

SMALL = ModelOptions(hidden_dim=16, num_layers=2, dropout=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_forward_is_relu_layers_by_hand():
    model = AcousticDnn(2, 2, ModelOptions(hidden_dim=2, num_layers=1, dropout=0.0))
    with torch.no_grad():
        model.layers[0].weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 0.0]]))
        model.layers[0].bias.copy_(torch.tensor([0.5, 0.0]))
        model.layers[1].weight.copy_(torch.tensor([[1.0, 1.0], [2.0, -1.0]]))
        model.layers[1].bias.copy_(torch.tensor([0.0, 1.0]))
    # hidden: relu(1*3 + 2*1 + 0.5) = 5.5, relu(-3) = 0.
    assert model(torch.tensor([[3.0, 1.0]])).tolist() == [[5.5, 12.0]]


def test_weights_are_a_function_of_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (AcousticDnn(7, 3, SMALL, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)


def test_initial_spread_is_he():
    model = AcousticDnn(500, 400, ModelOptions(hidden_dim=600, num_layers=2))
    assert model.layers[1].weight.std().item() == pytest.approx(math.sqrt(2 / 600), rel=0.02)
    assert model.layers[2].weight.std().item() == pytest.approx(math.sqrt(1 / 600), rel=0.02)
    assert all(not layer.bias.any() for layer in model.layers)
    # Inputs from another seed than the weights, which would otherwise be the same numbers.
    logits = model.eval()(torch.randn(200, 500, generator=generator(1)))
    assert logits.std().item() == pytest.approx(1.0, rel=0.1)


def test_initial_weights_can_be_scaled():
    plain, small = (AcousticDnn(7, 3, replace(SMALL, init_scale=scale), seed=5) for scale in (1.0, 0.25))
    for whole, quarter in zip(plain.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(quarter, whole * 0.25)


def test_counts():
    model = AcousticDnn(10, 4, ModelOptions(hidden_dim=6, num_layers=2))
    assert model.macs_per_frame == 10 * 6 + 6 * 6 + 6 * 4
    assert model.num_parameters == model.macs_per_frame + 6 + 6 + 4


def test_dropout_keeps_the_mean_is_seeded_and_is_off_in_evaluation():
    model = AcousticDnn(8, 5, ModelOptions(hidden_dim=64, num_layers=1, dropout=0.4, input_dropout=0.1))
    x = torch.ones(20000, 8)
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    first, again = model(x, generator(1)), model(x, generator(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, model(x, generator(2)))
    dropped = model._dropout(torch.ones(1000, 1000), 0.4, generator(3))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.002)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.005)


def test_max_norm_shrinks_only_what_is_longer():
    model = AcousticDnn(3, 2, ModelOptions(hidden_dim=2, num_layers=1, max_norm=2.0))
    with torch.no_grad():
        model.layers[0].weight.copy_(torch.tensor([[3.0, 0.0, 4.0], [0.1, 0.2, 0.2]]))
        model.layers[1].weight.fill_(9.0)
    model.apply_max_norm_()
    expected = torch.tensor([[1.2, 0.0, 1.6], [0.1, 0.2, 0.2]])
    torch.testing.assert_close(model.layers[0].weight.detach(), expected)
    assert model.layers[1].weight.eq(9.0).all(), "the softmax layer has no hidden unit's weights"


@given(limit=st.floats(0.1, 10.0), scale=st.floats(0.0, 100.0), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_max_norm_projection_is_the_nearest_point_of_the_ball(limit, scale, seed):
    model = AcousticDnn(5, 2, ModelOptions(hidden_dim=4, num_layers=1, max_norm=limit)).double()
    with torch.no_grad():
        model.layers[0].weight.normal_(generator=generator(seed)).mul_(scale)
    before = model.layers[0].weight.detach().clone()
    model.apply_max_norm_()
    after = model.layers[0].weight.detach()
    norms = after.norm(dim=1)
    assert (norms <= limit * (1 + 1e-9)).all()
    for old, new in zip(before, after, strict=True):
        if old.norm() <= limit:
            torch.testing.assert_close(new, old)
        else:
            torch.testing.assert_close(new, old * (limit / old.norm()))


def test_save_and_load_keep_weights_shape_and_metadata(tmp_path):
    model = AcousticDnn(7, 3, ModelOptions(hidden_dim=5, num_layers=3, max_norm=2.5), seed=4)
    model.save(tmp_path / "m.safetensors", {"note": "x"})
    loaded = AcousticDnn.load(tmp_path / "m.safetensors")
    assert loaded.options == model.options
    x = torch.randn(4, 7, generator=generator())
    assert torch.equal(loaded(x), model.eval()(x))
    assert load_tensors(tmp_path / "m.safetensors")[1]["note"] == "x"


def test_load_refuses_what_is_no_model(tmp_path):
    save_tensors(tmp_path / "t.safetensors", {"a": torch.ones(2)}, {})
    with pytest.raises(InputError, match="expected a model"):
        AcousticDnn.load(tmp_path / "t.safetensors")


def test_bad_options_and_inputs_are_named():
    with pytest.raises(InputError, match="dropout"):
        ModelOptions(dropout=1.0)
    with pytest.raises(InputError, match="max_norm"):
        ModelOptions(max_norm=0.0)
    with pytest.raises(InputError, match=r"\[N, 7\], found \[2, 6\]"):
        AcousticDnn(7, 3, SMALL)(torch.zeros(2, 6))


@pytest.mark.parametrize("num_members", [1, 3])
def test_stacked_ensemble_equals_its_members(num_members, tmp_path):
    members = [AcousticDnn(11, 6, SMALL, seed=seed) for seed in range(num_members)]
    for index, member in enumerate(members):
        torch.nn.init.normal_(member.layers[1].bias)
        member.save(tmp_path / f"{index}.safetensors")
    ensemble = StackedEnsemble.load([tmp_path / f"{index}.safetensors" for index in range(num_members)])
    x = torch.randn(9, 11, generator=generator())
    expected = torch.stack([member.eval()(x) for member in members])
    torch.testing.assert_close(ensemble(x), expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ensemble(x), expected, atol=1e-5, rtol=1e-5)
    assert ensemble.num_parameters == sum(member.num_parameters for member in members)
    assert ensemble.macs_per_frame == sum(member.macs_per_frame for member in members)


def test_stacked_ensemble_refuses_members_of_different_shapes():
    with pytest.raises(InputError, match="member 1"):
        StackedEnsemble([AcousticDnn(4, 3, SMALL), AcousticDnn(4, 3, ModelOptions(hidden_dim=8))])
