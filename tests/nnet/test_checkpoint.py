"""A checkpoint holds any optimiser's state_dict, and leaves the settings of the optimiser that loads it alone."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from asrkd.nnet.checkpoint import _flatten, _load_optimizer, _unflatten


def through_a_file(state: object) -> object:
    """The state as it comes back from tensors and JSON."""
    tensors: dict[str, Tensor] = {}
    written = json.dumps(_flatten(state, "optimizer", tensors))
    return _unflatten(json.loads(written), {name: tensor.clone() for name, tensor in tensors.items()})


def test_a_nested_state_comes_back() -> None:
    state = {
        0: {"step": torch.tensor(3.0), "momentum_buffer": None, "exp_avg": torch.arange(4.0)},
        7: {
            "history": [torch.ones(2), torch.zeros(2, 3)],
            "beta": 0.1,
            "count": 5,
            "name": "x",
            "on": True,
        },
        8: {},
    }
    found = through_a_file(state)
    assert isinstance(found, dict)
    assert list(found) == [0, 7, 8] and found[8] == {}
    assert torch.equal(found[0]["step"], state[0]["step"]) and torch.equal(found[0]["exp_avg"], state[0]["exp_avg"])
    assert found[0]["momentum_buffer"] is None
    assert [torch.equal(a, b) for a, b in zip(found[7]["history"], state[7]["history"], strict=True)] == [True, True]
    assert [found[7][key] for key in ("beta", "count", "name", "on")] == [0.1, 5, "x", True]


def stepped(optimizer: torch.optim.Optimizer, weight: nn.Parameter, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize(
    "make",
    [
        lambda weight: torch.optim.SGD([weight], lr=0.1, momentum=0.0),
        lambda weight: torch.optim.SGD([weight], lr=0.1, momentum=0.9),
        lambda weight: torch.optim.AdamW([weight], lr=0.1),
        lambda weight: torch.optim.Adam([weight], lr=0.1, amsgrad=True),
        lambda weight: torch.optim.Adagrad([weight], lr=0.1),
        lambda weight: torch.optim.RMSprop([weight], lr=0.1, momentum=0.5, centered=True),
    ],
    ids=["sgd", "momentum", "adamw", "amsgrad", "adagrad", "rmsprop"],
)
def test_any_optimizer_continues_to_the_same_bits(make) -> None:
    whole = nn.Parameter(torch.ones(5))
    optimizer = make(whole)
    stepped(optimizer, whole, 3, seed=1)
    resumed = nn.Parameter(whole.detach().clone())
    loaded = make(resumed)
    _load_optimizer(loaded, through_a_file(optimizer.state_dict()["state"]))
    stepped(optimizer, whole, 3, seed=2)
    stepped(loaded, resumed, 3, seed=2)
    assert torch.equal(whole, resumed)


def test_the_settings_are_those_of_the_training_that_resumes() -> None:
    """On a GPU the learning rate is a tensor and the kernel another one than on a CPU."""
    weight = nn.Parameter(torch.ones(5))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    stepped(optimizer, weight, 2, seed=1)
    loaded = torch.optim.AdamW([weight], lr=0.3, foreach=False, eps=1e-6)
    _load_optimizer(loaded, through_a_file(optimizer.state_dict()["state"]))
    (group,) = loaded.param_groups
    assert (group["lr"], group["foreach"], group["eps"]) == (0.3, False, 1e-6)
    assert int(loaded.state[weight]["step"]) == 2
