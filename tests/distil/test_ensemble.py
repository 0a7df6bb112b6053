"""Means of teachers, and how much they disagree."""

import math

import pytest
import torch
from torch import Tensor

from asrkd.distil.ensemble import AveragedEnsemble, combine, disagreement, measure_disagreement
from asrkd.errors import InputError
from asrkd.nnet import ArrayInputs, evaluate
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.stacked import StackedEnsemble

SHAPE = ModelOptions(hidden_dim=8, num_layers=2, dropout=0.0)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_means_by_hand():
    # Two teachers, odds 1:1 and 1:9.
    logits = torch.tensor([[[0.0, 0.0]], [[0.0, math.log(9)]]], dtype=torch.float64)
    assert combine(logits).exp()[0].tolist() == pytest.approx([0.3, 0.7])
    # Geometric: sqrt(0.5 * 0.1) to sqrt(0.5 * 0.9), normalised: odds 1:3.
    assert combine(logits, mean="geometric").exp()[0].tolist() == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 7.0])
def test_means_are_of_tempered_softmaxes(temperature):
    logits = randn(3, 5, 7) * 3
    members = torch.softmax(logits / temperature, dim=2)
    torch.testing.assert_close(combine(logits, temperature, "arithmetic").exp(), members.mean(dim=0))
    geometric = members.log().mean(dim=0).exp()
    torch.testing.assert_close(
        combine(logits, temperature, "geometric").exp(), geometric / geometric.sum(dim=1, keepdim=True)
    )


def test_tempering_a_mean_of_probabilities_is_not_a_mean_of_tempered_softmaxes():
    """Why an arithmetic-mean store holds one temperature only."""
    logits = randn(3, 5, 7) * 3
    retempered = torch.softmax(combine(logits, 1.0, "arithmetic") / 4.0, dim=1)
    assert (retempered - combine(logits, 4.0, "arithmetic").exp()).abs().max() > 0.01
    geometric = torch.softmax(combine(logits, 1.0, "geometric") / 4.0, dim=1)
    torch.testing.assert_close(geometric, combine(logits, 4.0, "geometric").exp())


def test_one_member_is_its_own_mean():
    logits = randn(1, 5, 7)
    expected = torch.log_softmax(logits[0] / 2.0, dim=1)
    torch.testing.assert_close(combine(logits, 2.0, "arithmetic"), expected)
    torch.testing.assert_close(combine(logits, 2.0, "geometric"), expected)


def test_bad_calls_are_named():
    with pytest.raises(InputError, match=r"\[M, N, S\]"):
        combine(randn(3, 4))
    with pytest.raises(InputError, match="arithmetic or geometric"):
        combine(randn(1, 3, 4), mean="harmonic")


def test_disagreement_by_hand():
    # Members agree on frame 0, differ on frame 1; label of frame 1 is member 1's.
    probs = torch.tensor([[[0.9, 0.1], [0.8, 0.2]], [[0.9, 0.1], [0.4, 0.6]]], dtype=torch.float64)
    found = disagreement(probs.log(), torch.tensor([0, 1]))
    assert found.pairwise == [[0.0, 0.5], [0.5, 0.0]]
    assert found.accuracy == [0.5, 1.0]
    assert found.ensemble_accuracy == 0.5
    kl = 0.8 * math.log(0.8 / 0.6) + 0.2 * math.log(0.2 / 0.4)
    assert found.mean_kl[0] == pytest.approx(kl / 2, rel=1e-5)
    assert found.num_frames == 2


def test_equal_members_do_not_disagree():
    found = disagreement(randn(1, 6, 4).expand(3, -1, -1))
    assert found.pairwise == [[0.0] * 3] * 3
    assert found.mean_kl == pytest.approx([0.0] * 3, abs=1e-6)
    assert found.accuracy is None


def test_measuring_in_chunks_is_measuring_whole():
    ensemble = StackedEnsemble([AcousticDnn(5, 4, SHAPE, seed=seed) for seed in range(3)])
    x, labels = randn(50, 5).float(), torch.arange(50) % 4
    whole = disagreement(ensemble(x).detach(), labels)
    pooled = measure_disagreement(ensemble, ArrayInputs(x), labels, chunk=7)
    assert pooled.num_frames == 50
    assert pooled.mean_kl == pytest.approx(whole.mean_kl, rel=1e-5)
    assert pooled.accuracy == pytest.approx(whole.accuracy)
    assert pooled.ensemble_accuracy == pytest.approx(whole.ensemble_accuracy)
    for found, expected in zip(pooled.pairwise, whole.pairwise, strict=True):
        assert found == pytest.approx(expected)


def test_averaged_ensemble_is_scored_like_a_model():
    ensemble = StackedEnsemble([AcousticDnn(5, 4, SHAPE, seed=seed) for seed in range(3)])
    x, labels = randn(50, 5).float(), torch.arange(50) % 4
    for mean in ("arithmetic", "geometric"):
        log_probs = combine(ensemble(x).detach(), mean=mean)
        accuracy, nats = evaluate(AveragedEnsemble(ensemble, mean), ArrayInputs(x), labels)
        assert accuracy == pytest.approx((log_probs.argmax(dim=1) == labels).float().mean().item())
        assert nats == pytest.approx(-log_probs[torch.arange(50), labels].mean().item(), rel=1e-5)
