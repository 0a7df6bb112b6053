"""The optimiser: AdamW in blocks against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from asrkd.nnet.optimizer import BLOCK_SIZE, BlockwiseAdamW

SHAPES = [(3,), (BLOCK_SIZE,), (BLOCK_SIZE + 1,), (700, 1100)]


def networks() -> tuple[nn.ParameterList, nn.ParameterList]:
    """Twice the same weights, some of which get no gradient or one that is not contiguous."""
    generator = torch.Generator().manual_seed(0)
    one = nn.ParameterList([nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES])
    one.append(nn.Parameter(torch.randn(30, 20, generator=generator).t()))
    one.append(nn.Parameter(torch.ones(5)))
    return one, copy.deepcopy(one)


def set_gradients(both: tuple[nn.ParameterList, nn.ParameterList], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for weights in zip(*both, strict=True):
        if weights[0].shape == (5,):
            continue
        gradient = torch.randn(weights[0].shape[::-1], generator=generator).permute(*reversed(range(weights[0].dim())))
        for one in weights:
            one.grad = gradient.clone(memory_format=torch.preserve_format)


def test_blocks_are_updated_as_the_whole_is_to_the_bit() -> None:
    both = networks()
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
    whole = torch.optim.AdamW(both[0].parameters(), foreach=False, **settings)
    blockwise = BlockwiseAdamW(both[1].parameters(), **settings)
    for step in range(4):
        set_gradients(both, step)
        whole.step()
        blockwise.step()
        if step == 1:  # each goes on from the other's state, as a training that is resumed elsewhere
            states = copy.deepcopy((whole.state_dict(), blockwise.state_dict()))
            whole.load_state_dict(states[1])
            blockwise.load_state_dict(states[0])
    for expected, found in zip(*both, strict=True):
        assert torch.equal(expected, found)
    for expected, found in zip(whole.state.values(), blockwise.state.values(), strict=True):
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_weights_without_a_gradient_stay() -> None:
    weights = nn.Parameter(torch.ones(3))
    optimizer = BlockwiseAdamW([weights], lr=0.1)
    optimizer.step()
    assert torch.equal(weights, torch.ones(3)) and not optimizer.state
    weights.grad = torch.ones(3)
    optimizer.step()
    # The first step of Adam is the learning rate, after a decay by learning rate times 0.01.
    assert weights.tolist() == pytest.approx([1.0 - 0.001 - 0.1] * 3)
