"""The distillation objective, in float64: hand values, gradients, limits."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asrkd.distil.ensemble import combine
from asrkd.distil.loss import (
    DenseTargets,
    Distillation,
    DistilOptions,
    LogitMatching,
    SoftTargets,
    soft_cross_entropy,
)
from asrkd.errors import InputError

ALL = slice(None)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense(probs: Tensor) -> SoftTargets:
    return SoftTargets(None, probs, None)


def top_k(probs: Tensor, k: int) -> SoftTargets:
    top = probs.topk(k, dim=1)
    rest = probs.scatter(1, top.indices, 0.0).sum(dim=1)
    return SoftTargets(top.indices, top.values, rest)


def plain(logits: Tensor, targets: SoftTargets, temperature: float) -> Tensor:
    """The formula of the docstring, by autograd and without care for speed."""
    log_q = torch.log_softmax(logits / temperature, dim=1)
    loss = -(targets.probs * log_q.gather(1, targets.pdf_ids)).sum(dim=1)
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, targets.pdf_ids, False)
    if others.any():
        log_q_tail = torch.logsumexp(log_q.masked_fill(~others, -math.inf), dim=1)
        loss = loss - targets.tail * log_q_tail
    return loss.mean()


def gradient_of(function, logits: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


def test_tempered_softmax_by_hand():
    # Logits 0 and 2 ln 3 at temperature 2: odds of 3.
    logits = torch.tensor([[0.0, 2 * math.log(3)]], dtype=torch.float64)
    loss = soft_cross_entropy(logits, dense(torch.tensor([[0.5, 0.5]], dtype=torch.float64)), 2.0)
    assert loss.item() == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2)


def test_top_k_by_hand():
    # Student 0.5, 0.25, 0.125, 0.125; teacher 0.6 on class 0, 0.3 on class 1, 0.1 somewhere else.
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64).log()
    targets = SoftTargets(torch.tensor([[0, 1]]), torch.tensor([[0.6, 0.3]]), torch.tensor([0.1]))
    expected = -(0.6 * math.log(0.5) + 0.3 * math.log(0.25) + 0.1 * math.log(0.25))
    assert soft_cross_entropy(logits, targets, 1.0).item() == pytest.approx(expected, rel=1e-6)
    gradient = gradient_of(lambda z: soft_cross_entropy(z, targets, 1.0), logits)
    expected_gradient = torch.tensor([[-0.1, -0.05, 0.075, 0.075]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-7, rtol=0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 20.0])
def test_gradient_is_student_minus_teacher_over_temperature(temperature):
    logits, teacher = randn(6, 9, seed=1) * 3, randn(6, 9, seed=2) * 3
    p, q = (torch.softmax(z / temperature, dim=1) for z in (teacher, logits))
    expected = (q - p) / (temperature * 6)
    for targets in (dense(p), top_k(p, 9)):
        found = gradient_of(lambda z, t=targets: soft_cross_entropy(z, t, temperature), logits)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("k", [1, 3, 8, 9])
def test_fused_equals_plain(k):
    logits = randn(5, 9, seed=3) * 4
    targets = top_k(torch.softmax(randn(5, 9, seed=4) * 2, dim=1), k)
    for temperature in (1.0, 2.5):
        fused = soft_cross_entropy(logits, targets, temperature)
        torch.testing.assert_close(fused, plain(logits, targets, temperature))
        torch.testing.assert_close(
            gradient_of(lambda z, t=temperature: soft_cross_entropy(z, targets, t), logits),
            gradient_of(lambda z, t=temperature: plain(z, targets, t), logits),
        )


@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 12),
    temperature=st.floats(0.3, 50.0),
    spread=st.floats(0.0, 30.0),
)
@settings(max_examples=60, deadline=None)
def test_top_k_properties(seed, k, temperature, spread):
    """Against dense: never a greater divergence; and a gradient that sums to zero."""
    logits, teacher = randn(4, 12, seed=seed) * spread, randn(4, 12, seed=seed + 1) * spread
    p = torch.softmax(teacher / temperature, dim=1)
    targets = top_k(p, k)
    lumped = torch.cat([targets.probs, targets.tail.unsqueeze(1)], dim=1)
    entropy = torch.special.entr(lumped).sum(dim=1).mean()
    dense_kl = soft_cross_entropy(logits, dense(p), temperature) - torch.special.entr(p).sum(dim=1).mean()
    kl = soft_cross_entropy(logits, targets, temperature) - entropy
    assert -1e-9 <= kl <= dense_kl + 1e-9
    gradient = gradient_of(lambda z: soft_cross_entropy(z, targets, temperature), logits)
    torch.testing.assert_close(gradient.sum(dim=1), torch.zeros(4, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("k", [1, 4, 7])
def test_gradcheck(k):
    logits = (randn(3, 7, seed=5) * 2).requires_grad_()
    targets = top_k(torch.softmax(randn(3, 7, seed=6), dim=1), k)
    assert torch.autograd.gradcheck(lambda z: soft_cross_entropy(z, targets, 1.7), logits)
    assert torch.autograd.gradcheck(lambda z: 3.0 * soft_cross_entropy(z, targets, 1.7), logits)


@pytest.mark.parametrize("k", [2, 5])
def test_the_teacher_itself_is_a_minimum(k):
    teacher = randn(4, 8, seed=7) * 3
    targets = top_k(torch.softmax(teacher / 2.0, dim=1), k)
    gradient = gradient_of(lambda z: soft_cross_entropy(z, targets, 2.0), teacher + 5.0)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_a_tail_that_the_student_has_lost_stays_finite():
    logits = torch.tensor([[200.0, 0.0, 0.0]], dtype=torch.float32)
    targets = SoftTargets(torch.tensor([[0]]), torch.tensor([[0.7]]), torch.tensor([0.3]))
    loss = soft_cross_entropy(logits, targets, 1.0)
    gradient = gradient_of(lambda z: soft_cross_entropy(z, targets, 1.0), logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert gradient[0, 0] == pytest.approx(0.3)


def test_high_temperature_is_logit_matching():
    """dC/dz_i tends to (z_i - v_i)/(N T^2) for logits of zero mean (equation 4 of the paper)."""
    z, v = randn(1, 10, seed=8), randn(1, 10, seed=9)
    z, v = z - z.mean(), v - v.mean()
    errors = []
    for temperature in (10.0, 100.0, 1000.0):
        p = torch.softmax(v / temperature, dim=1)
        scaled = gradient_of(lambda x, t=temperature, p=p: soft_cross_entropy(x, dense(p), t), z) * temperature**2
        errors.append((scaled - (z - v) / 10).abs().max().item())
    assert errors[1] < errors[0] / 8
    assert errors[2] < errors[1] / 8
    assert errors[2] < 1e-3


def test_logit_matching_by_hand():
    # Less their means: (1, -1) and (3, -3); differences of 2 and 2.
    matching = LogitMatching(torch.tensor([[9.0, 9.0], [7.0, 1.0]], dtype=torch.float64))
    loss = matching(torch.tensor([[2.0, 0.0]], dtype=torch.float64), torch.tensor([1]))
    assert loss.item() == pytest.approx(0.5 * (2**2 + 2**2) / 2)


def test_logit_matching_is_what_a_growing_temperature_tends_to():
    """The gradient of T^2 times the soft loss, for logits of any mean, against that of the squared differences."""
    z, v = randn(4, 10, seed=8) * 3 + 7, randn(4, 10, seed=9) * 3 - 2
    matching = LogitMatching(v)
    expected = gradient_of(lambda x: matching(x, torch.arange(4)), z)
    centred = (z - z.mean(dim=1, keepdim=True)) - (v - v.mean(dim=1, keepdim=True))
    torch.testing.assert_close(expected, centred / (10 * 4))
    errors = []
    for temperature in (10.0, 100.0, 1000.0):
        soft = objective(None, v.unsqueeze(0), alpha=1.0, temperature=temperature)
        errors.append((gradient_of(lambda x, f=soft: f(x, torch.arange(4)), z) - expected).abs().max().item())
    assert errors[1] < errors[0] / 8
    assert errors[2] < errors[1] / 8
    assert errors[2] < 1e-3


def test_logit_matching_tells_its_targets_apart_and_refuses_what_is_no_matrix():
    v = randn(3, 4)
    torch.testing.assert_close(LogitMatching(v).logits, LogitMatching(v + 5.0).logits)
    assert LogitMatching(v).fingerprint != LogitMatching(v * 1.1).fingerprint
    with pytest.raises(InputError, match=r"expected logits \[N, S\], found \[2, 3, 4\]"):
        LogitMatching(randn(2, 3, 4))


def objective(labels, teacher, **options) -> Distillation:
    made = DistilOptions(**options)
    return Distillation(labels, DenseTargets.from_logits(teacher, made.temperature), made)


def test_alpha_mixes_soft_and_hard():
    logits, teacher, labels = randn(5, 6, seed=1), randn(2, 5, 6, seed=2), torch.tensor([0, 1, 2, 3, 4])
    ids = torch.arange(5)
    hard = F.cross_entropy(logits, labels)
    p = combine(teacher, 3.0, "geometric").exp()
    soft = -(p * torch.log_softmax(logits / 3.0, dim=1)).sum(dim=1).mean()

    def at(alpha, t_squared=True):
        return objective(labels, teacher, alpha=alpha, temperature=3.0, t_squared=t_squared)(logits, ids)

    torch.testing.assert_close(at(0.0), hard)
    torch.testing.assert_close(at(1.0), 9.0 * soft)
    torch.testing.assert_close(at(0.25), 0.25 * 9.0 * soft + 0.75 * hard)
    torch.testing.assert_close(at(0.25, t_squared=False), 0.25 * soft + 0.75 * hard)


def test_t_squared_keeps_the_size_of_the_gradient():
    """Between T = 20 and T = 80 the soft gradient falls by 16; with T^2 it keeps within a few percent."""
    logits, teacher = randn(5, 6, seed=1), randn(1, 5, 6, seed=2)

    def size(temperature, t_squared):
        loss = objective(None, teacher, alpha=1.0, temperature=temperature, t_squared=t_squared)
        return gradient_of(lambda z: loss(z, torch.arange(5)), logits).norm().item()

    assert size(20.0, False) / size(80.0, False) == pytest.approx(16.0, rel=0.1)
    assert size(20.0, True) / size(80.0, True) == pytest.approx(1.0, rel=0.1)


def test_rows_are_taken_by_example_number():
    logits, teacher, labels = randn(7, 6, seed=1), randn(1, 7, 6, seed=2), torch.arange(7) % 6
    ids = torch.tensor([6, 0, 3])
    whole = objective(labels, teacher, alpha=0.5, temperature=2.0)
    part = objective(labels[ids], teacher[:, ids], alpha=0.5, temperature=2.0)
    torch.testing.assert_close(whole(logits[ids], ids), part(logits[ids], torch.arange(3)))


def test_mean_of_the_teachers_losses_has_the_gradient_of_the_mean_teacher():
    """Cross-entropy is linear in the target, so an arithmetic-mean ensemble needs one set of targets."""
    logits, teachers = randn(5, 6, seed=1), randn(3, 5, 6, seed=2)
    members = [torch.softmax(teacher / 2.0, dim=1) for teacher in teachers]
    mean = combine(teachers, 2.0, "arithmetic").exp()
    torch.testing.assert_close(
        gradient_of(lambda z: sum(soft_cross_entropy(z, dense(p), 2.0) for p in members) / 3, logits),
        gradient_of(lambda z: soft_cross_entropy(z, dense(mean), 2.0), logits),
    )


def test_objectives_are_told_apart():
    teacher, labels = randn(1, 5, 6, seed=2), torch.arange(5)
    base = objective(labels, teacher, alpha=0.5, temperature=2.0).fingerprint
    assert base == objective(labels, teacher, alpha=0.5, temperature=2.0).fingerprint
    assert base != objective(labels, teacher, alpha=0.6, temperature=2.0).fingerprint
    assert base != objective(labels.flip(0), teacher, alpha=0.5, temperature=2.0).fingerprint
    assert base != objective(labels, teacher + 1e-3 * randn(5, 6), alpha=0.5, temperature=2.0).fingerprint


def test_bad_options_and_targets_are_named():
    with pytest.raises(InputError, match="alpha"):
        DistilOptions(alpha=1.5)
    with pytest.raises(InputError, match="temperature"):
        DistilOptions(temperature=0.0)
    with pytest.raises(InputError, match="without hard labels"):
        objective(None, randn(1, 5, 6), alpha=0.5)
    with pytest.raises(InputError, match="sum to one"):
        DenseTargets(torch.full((3, 4), 0.3), 1.0)
    with pytest.raises(InputError, match=r"expected temperature 2.0, found 3.0"):
        DenseTargets(torch.full((3, 4), 0.25), 2.0).targets(torch.tensor([0]), 3.0)
