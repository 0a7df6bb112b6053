"""Digits as inputs: shifts that never wrap, and logits averaged over shifts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asrkd.errors import InputError
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.stacked import StackedEnsemble
from recipes.mnist.images import JitteredImages, mean_logits, member_logits


@given(
    seed=st.integers(0, 10_000),
    max_shift=st.integers(0, 3),
    height=st.integers(4, 9),
    width=st.integers(4, 9),
)
@settings(max_examples=80, deadline=None)
def test_jitter_shifts_with_zeros_and_never_wraps(seed: int, max_shift: int, height: int, width: int) -> None:
    """Every image of a batch is the original moved by one shift of the range, the uncovered rest zero."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, (5, height, width), generator=generator).to(torch.uint8)
    inputs = JitteredImages(images, max_shift)
    moved = inputs.batch(torch.arange(5), generator).view(5, height, width)
    for image, found in zip(images, moved, strict=True):
        shifts = range(-max_shift, max_shift + 1)
        candidates = [shifted(image, down, right) for down in shifts for right in shifts]
        assert any(torch.equal(found, candidate) for candidate in candidates)
    assert torch.equal(inputs.batch(torch.arange(5)), images.flatten(1) / 255)


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """The image moved by so many pixels, pixel by pixel."""
    height, width = image.shape
    found = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                found[row, column] = image[row - down, column - right] / 255
    return found


def test_translations_are_named_by_direction() -> None:
    image = torch.zeros(1, 5, 5, dtype=torch.uint8)
    image[0, 2, 2] = 255
    inputs = JitteredImages(image, 2)
    assert inputs.translated(torch.tensor([0]), 1, -2).view(5, 5)[3, 0] == 1.0
    assert inputs.dim == 25 and len(inputs) == 1
    assert len(inputs.translations()) == 25


def test_every_shift_of_the_range_is_equally_frequent() -> None:
    image = torch.zeros(1, 5, 5, dtype=torch.uint8)
    image[0, 2, 2] = 255
    drawn = JitteredImages(image, 2).batch(torch.zeros(25_000, dtype=torch.long), torch.Generator().manual_seed(1))
    counts = drawn.sum(dim=0)
    assert counts.sum() == 25_000  # two pixels from the border: no shift loses the dot
    assert counts.min() > 850 and counts.max() < 1150  # 1,000 each, within five standard deviations


def linear_stack(weights: list[list[float]]) -> StackedEnsemble:
    """Members that pass 4 inputs through one hidden layer unchanged (they are positive) to weighted sums."""
    members = []
    for row in weights:
        model = AcousticDnn(4, 2, ModelOptions(hidden_dim=4, num_layers=1, dropout=0.0))
        with torch.no_grad():
            model.layers[0].weight.copy_(torch.eye(4))
            model.layers[1].weight.copy_(torch.tensor([row, [0.0] * 4]))
        members.append(model)
    return StackedEnsemble(members)


def test_logits_averaged_over_translations_by_hand() -> None:
    """A 2x2 image with one lit pixel under 9 shifts."""
    images = torch.tensor([[[255, 0], [0, 0]]], dtype=torch.uint8)
    inputs = JitteredImages(images, 1)
    stack = linear_stack([[1.0, 10.0, 100.0, 1000.0], [0.0, 0.0, 0.0, 9.0]])
    assert member_logits(stack, inputs)[:, 0, 0].tolist() == [1.0, 0.0]
    # One shift each puts the lit pixel at each of the four positions. The other five shifts lose it.
    averaged = mean_logits(stack, inputs.translations())
    assert averaged.shape == (2, 1, 2)
    assert averaged[:, 0, 0].tolist() == pytest.approx([1111.0 / 9, 1.0])


def test_bad_images_are_named() -> None:
    with pytest.raises(InputError, match=r"expected bytes \[N, H, W\], found torch.float32"):
        JitteredImages(torch.zeros(2, 3, 3))
    with pytest.raises(InputError, match="at least 0 pixels, found -1"):
        JitteredImages(torch.zeros(2, 3, 3, dtype=torch.uint8), -1)
