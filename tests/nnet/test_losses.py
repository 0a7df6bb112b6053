"""Cross-entropy of labels and of top-k targets, against torch's own and in bfloat16 (test_loss.py has its formula)."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.nnet import losses
from asrkd.nnet.losses import label_cross_entropy, top_k_cross_entropy

ROWS, CLASSES, K = 37, 50, 4


def randn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype) * 3


def loss_and_gradient(function, logits: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = function(leaf)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def targets() -> tuple[Tensor, Tensor, Tensor]:
    probs = torch.softmax(randn(ROWS, CLASSES, seed=2), dim=1)
    top = probs.topk(K, dim=1)
    return top.indices, top.values, 1.0 - top.values.sum(dim=1)


def labels() -> Tensor:
    return torch.arange(ROWS) % CLASSES


def test_labels_as_torch_has_them():
    logits = randn(ROWS, CLASSES, seed=1)
    found = loss_and_gradient(lambda z: label_cross_entropy(z, labels()), logits)
    torch.testing.assert_close(found, loss_and_gradient(lambda z: F.cross_entropy(z, labels()), logits))


def test_labels_of_one_class_and_of_certainty():
    assert float(label_cross_entropy(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))) == 0.0
    loss, gradient = loss_and_gradient(
        lambda z: label_cross_entropy(z, torch.tensor([0])), torch.tensor([[300.0, 0.0]])
    )
    assert loss == 0.0
    assert torch.equal(gradient, torch.zeros(1, 2))


@pytest.mark.parametrize("rows_a_chunk", [1, 10, ROWS])
def test_chunks_are_nothing_but_rows(rows_a_chunk, monkeypatch):
    logits = randn(ROWS, CLASSES, seed=1)
    whole = loss_and_gradient(lambda z: top_k_cross_entropy(z, *targets(), 2.0), logits)
    monkeypatch.setitem(losses.CHUNK_VALUES, "cpu", rows_a_chunk * CLASSES)
    torch.testing.assert_close(loss_and_gradient(lambda z: top_k_cross_entropy(z, *targets(), 2.0), logits), whole)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_bfloat16_logits_lose_nothing_but_the_rounding_of_the_gradient(temperature):
    logits = randn(ROWS, CLASSES, seed=1, dtype=torch.bfloat16)
    loss, gradient = loss_and_gradient(lambda z: top_k_cross_entropy(z, *targets(), temperature), logits)
    exact, exact_gradient = loss_and_gradient(
        lambda z: top_k_cross_entropy(z, *targets(), temperature), logits.double()
    )
    assert loss.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    assert float(loss) == pytest.approx(float(exact), rel=1e-6)
    # Half a unit in the last of 8 bits; what is a difference of nearly equal numbers is exact to float32's.
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=2.0**-8, atol=1e-8)


def test_a_weight_of_the_loss_is_a_weight_of_the_gradient_before_it_is_rounded():
    """A stack gives each member's loss the weight M: its gradient must be that of the member alone."""
    logits = randn(ROWS, CLASSES, seed=1, dtype=torch.bfloat16)
    _, alone = loss_and_gradient(lambda z: label_cross_entropy(z, labels()), logits)
    thrice = logits.repeat(3, 1).requires_grad_()
    loss = label_cross_entropy(thrice, labels().repeat(3))
    (found,) = torch.autograd.grad(loss, thrice, torch.full_like(loss, 3.0))
    assert torch.equal(found[:ROWS], alone)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("way", ["at once", "compiled", "some rows at a time"])
def test_a_gpu_has_the_same_at_one_temperature_after_another(way, monkeypatch):
    if way == "compiled":
        monkeypatch.setattr(losses, "MIN_COMPILED_VALUES", 0)
    elif way == "some rows at a time":
        monkeypatch.setitem(losses.CHUNK_VALUES, "cuda", 4 * CLASSES)
    logits = randn(ROWS, CLASSES, seed=1, dtype=torch.bfloat16)
    there = [part.cuda() for part in targets()]
    for temperature in (2.0, 1.0, 2.0, 10.0):
        loss, gradient = loss_and_gradient(lambda z, t=temperature: top_k_cross_entropy(z, *there, t), logits.cuda())
        here, expected = loss_and_gradient(lambda z, t=temperature: top_k_cross_entropy(z, *targets(), t), logits)
        torch.testing.assert_close(loss.cpu(), here, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient.cpu(), expected, rtol=2.0**-7, atol=1e-7)
