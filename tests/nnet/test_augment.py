"""Distortions of inputs against plain numpy implementations, and trainings on distorted inputs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.distil.loss import LogitMatching
from asrkd.errors import InputError
from asrkd.nnet import ArrayInputs, Augmentation, AugmentOptions, HardTargets, TrainOptions, train, train_stacked
from asrkd.nnet.augment import MelAxis, interpolate, level, mixed
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.inputs import Batch
from asrkd.nnet.losses import mixed_label_cross_entropy
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.stacked import StackedEnsemble

FRAMES, FEATURES, SIZE = 7, 40, 50
AXIS = MelAxis(FEATURES, 20.0, -400.0, 16000)
EVERYTHING = AugmentOptions(mix=0.5, warp=0.5, mask=0.5, gain=0.5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows(size: int = SIZE) -> Batch:
    return Batch(torch.randn(size, FRAMES * FEATURES, generator=generator(9)), torch.randperm(size) + 100)


def augmented(options: AugmentOptions, batch: Batch, seed: int = 0) -> Batch:
    return Augmentation(options, FEATURES, AXIS)(batch, generator(seed))


def draws(number: int, seed: int = 0, size: int = SIZE) -> list[np.ndarray]:
    """The uniform numbers that an augmentation draws, in float64."""
    source = generator(seed)
    return [torch.rand(size, generator=source).double().numpy() for _ in range(number)]


def mel(hz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log(1.0 + hz / 700.0)


def vtlp(hz: float, factor: float, half: float) -> float:
    """Jaitly and Hinton (2013), section 2, with the bend at 0.6 of half the sampling rate."""
    bend = 0.6 * half * min(factor, 1.0)
    if hz <= bend / factor:
        return hz * factor
    return half - (half - bend) / (half - bend / factor) * (half - hz)


def test_warp_takes_the_spectrum_at_the_warped_frequencies() -> None:
    batch = windows()
    found = augmented(AugmentOptions(warp=0.5), batch).inputs.reshape(SIZE, FRAMES, FEATURES)
    chosen, uniform = draws(2)
    edges = np.linspace(mel(np.array(20.0)), mel(np.array(7600.0)), FEATURES + 2)
    centres_hz = 700.0 * (np.exp(edges[1:-1] / 1127.0) - 1.0)
    for row in range(SIZE):
        factor = 1.0 + 0.1 * (2.0 * uniform[row] - 1.0) * (chosen[row] < 0.5)
        at = mel(np.array([vtlp(hz, factor, 8000.0) for hz in centres_hz]))
        for frame, values in enumerate(batch.inputs[row].reshape(FRAMES, FEATURES).double().numpy()):
            expected = np.interp(at, edges[1:-1], values)
            np.testing.assert_allclose(found[row, frame].numpy(), expected, atol=2e-4)


def test_a_warp_leaves_the_examples_that_are_not_chosen() -> None:
    batch = windows()
    found = augmented(AugmentOptions(warp=0.5), batch).inputs
    is_same = torch.isclose(found, batch.inputs, atol=1e-4).all(dim=1)
    assert is_same.tolist() == (draws(1)[0] >= 0.5).tolist()
    ends = AXIS.positions(torch.tensor([1.0, 0.7, 1.3]))
    assert torch.allclose(ends[0], torch.arange(FEATURES).float(), atol=1e-4)
    assert (ends.diff(dim=1) >= 0).all() and ends.min() >= 0 and ends.max() <= FEATURES - 1


def test_gain_and_tilt() -> None:
    batch = windows()
    found = augmented(AugmentOptions(gain=0.5, gain_range=0.3, tilt_range=0.7), batch).inputs
    chosen, gains, tilts = draws(3)
    for row in range(SIZE):
        is_chosen = chosen[row] < 0.5
        added = is_chosen * (0.3 * (2 * gains[row] - 1) + 0.7 * (2 * tilts[row] - 1) * np.linspace(-1, 1, FEATURES))
        expected = batch.inputs[row].reshape(FRAMES, FEATURES).numpy() + added
        np.testing.assert_allclose(found[row].reshape(FRAMES, FEATURES).numpy(), expected, atol=1e-5)
    assert level(torch.ones(1), torch.ones(1), 1).tolist() == [[0.0]]


@pytest.mark.parametrize(("width", "length"), [(8, 5), (0, 3), (100, 0), (100, 100)])
def test_masks(width: int, length: int) -> None:
    batch = windows()
    found = augmented(AugmentOptions(mask=0.7, mask_features=width, mask_frames=length), batch).inputs
    chosen, widths, first_features, lengths, first_frames = draws(5)
    for row in range(SIZE):
        expected = batch.inputs[row].reshape(FRAMES, FEATURES).numpy().copy()
        if chosen[row] < 0.7:
            num_features = math.floor(widths[row] * (min(width, FEATURES) + 1))
            begin = math.floor(first_features[row] * (FEATURES - num_features + 1))
            expected[:, begin : begin + num_features] = 0.0
            num_frames = math.floor(lengths[row] * (min(length, FRAMES) + 1))
            begin = math.floor(first_frames[row] * (FRAMES - num_frames + 1))
            expected[begin : begin + num_frames] = 0.0
        np.testing.assert_array_equal(found[row].reshape(FRAMES, FEATURES).numpy(), expected)


def test_mixtures() -> None:
    batch = windows()
    found = augmented(AugmentOptions(mix=0.5), batch)
    chosen, uniform = draws(2)
    weights = np.where(chosen < 0.5, uniform, 1.0)
    assert 0.3 < np.mean(weights < 1.0) < 0.7
    np.testing.assert_allclose(found.weights.numpy(), weights)
    x = batch.inputs.numpy()
    for row in range(SIZE):
        expected = weights[row] * x[row] + (1.0 - weights[row]) * x[row - 1]
        np.testing.assert_allclose(found.inputs[row].numpy(), expected, atol=1e-6)
        assert found.mixed_ids[row] == batch.ids[row - 1] and found.ids[row] == batch.ids[row]
    unmixed = weights == 1.0
    assert torch.equal(found.inputs[unmixed], batch.inputs[unmixed])


def test_distortions_follow_each_other_and_leave_what_they_were_given() -> None:
    batch = windows()
    before = batch.inputs.clone()
    found = augmented(EVERYTHING, batch)
    assert torch.equal(batch.inputs, before) and found.inputs.shape == before.shape
    again = augmented(EVERYTHING, batch)
    assert torch.equal(found.inputs, again.inputs) and torch.equal(found.weights, again.weights)
    assert not torch.equal(found.inputs, augmented(EVERYTHING, batch, seed=1).inputs)
    # Masks come after gain and tilt, mixtures last.
    unmixed = augmented(replace(EVERYTHING, mix=0.0), batch)
    assert torch.equal(found.inputs, mixed(unmixed, found.weights).inputs)
    assert unmixed.mixed_ids is None and (unmixed.inputs == 0.0).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_inputs_keep_their_type(dtype: torch.dtype) -> None:
    batch = windows()
    found = augmented(EVERYTHING, Batch(batch.inputs.to(dtype), batch.ids))
    assert found.inputs.dtype == dtype
    assert torch.allclose(found.inputs.float(), augmented(EVERYTHING, batch).inputs, atol=0.1)


def test_a_batch_without_examples_and_one_with_a_single_one() -> None:
    for size in (0, 1):
        found = augmented(EVERYTHING, windows(size))
        assert found.inputs.shape == (size, FRAMES * FEATURES) and len(found.mixed_ids) == size
    assert interpolate(torch.ones(2, 3, 1), torch.zeros(2, 1)).tolist() == [[[1.0]] * 3] * 2


def test_wrong_options_are_refused() -> None:
    for name in ("mix", "warp", "mask", "gain"):
        with pytest.raises(InputError, match=rf"augment.{name}: expected a fraction in \[0, 1\], found 1.5"):
            AugmentOptions(**{name: 1.5})
    with pytest.raises(InputError, match=r"augment.warp_range: .* at most 0.3, found 0.4"):
        AugmentOptions(warp_range=0.4)
    with pytest.raises(InputError, match=r"augment.mask_frames: expected at least 0, found -1"):
        AugmentOptions(mask_frames=-1)
    with pytest.raises(InputError, match=r"augment.warp: expected features with frequencies"):
        Augmentation(AugmentOptions(warp=0.5), FEATURES)
    with pytest.raises(InputError, match="expected 30 frequencies, found 40"):
        Augmentation(AugmentOptions(), 30, AXIS)


def test_only_the_options_of_distortions_that_are_on_decide() -> None:
    assert AugmentOptions().active == {} and not AugmentOptions(warp_range=0.2).changes_inputs
    assert AugmentOptions(warp=0.5).active == {"warp": 0.5, "warp_range": 0.1}
    assert len(EVERYTHING.active) == 9
    fingerprints = {
        Augmentation(options, FEATURES, AXIS).fingerprint
        for options in (
            AugmentOptions(mix=0.5),
            AugmentOptions(mix=0.5, warp_range=0.2),
            AugmentOptions(mix=0.4),
            AugmentOptions(warp=0.5, warp_range=0.2),
            AugmentOptions(warp=0.5),
        )
    }
    assert len(fingerprints) == 4


def test_mixed_labels_by_dense_targets() -> None:
    logits = torch.randn(6, 5, dtype=torch.float64, generator=generator())
    labels, others = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([0, 2, 2, 1, 0, 4])
    weights = torch.tensor([0.3, 0.0, 1.0, 0.5, 0.9, 0.1])
    one_hot = [F.one_hot(one, 5).double() for one in (labels, others)]
    dense = weights.double().unsqueeze(1) * one_hot[0] + (1 - weights.double()).unsqueeze(1) * one_hot[1]
    assert torch.allclose(mixed_label_cross_entropy(logits, labels, others, weights), F.cross_entropy(logits, dense))
    smoothed = mixed_label_cross_entropy(logits, labels, others, weights, 0.1)
    assert torch.allclose(smoothed, F.cross_entropy(logits, 0.9 * dense + 0.02))
    batch = Batch(torch.zeros(6, 1), torch.arange(6), torch.arange(6).roll(1), weights)
    hard = HardTargets(labels, 0.1)
    expected = mixed_label_cross_entropy(logits, labels, labels.roll(1), weights, 0.1)
    assert torch.equal(hard.batch_loss(logits, batch), expected)
    assert torch.equal(hard.batch_loss(logits, Batch(batch.inputs, batch.ids)), hard(logits, batch.ids))


SHAPE = ModelOptions(hidden_dim=16, num_layers=2, dropout=0.1)
OPTIONS = TrainOptions(epochs=2, batch_size=20, precision="float32", num_threads=1, show_progress=False)


def clouds() -> tuple[ArrayInputs, Tensor]:
    labels = torch.randint(4, (100,), generator=generator(1))
    centres = torch.randn(4, FEATURES, generator=generator(2))
    return ArrayInputs(centres[labels] + torch.randn(100, FEATURES, generator=generator(3))), labels


def weights_of(model: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_training_without_augmentation_is_the_same_to_the_bit(tmp_path) -> None:
    inputs, labels = clouds()
    trained = []
    for number, augment in enumerate((None, Augmentation(AugmentOptions(), FEATURES))):
        model = AcousticDnn(FEATURES, 4, SHAPE)
        train(model, inputs, HardTargets(labels), OPTIONS, tmp_path / str(number), augment=augment)
        trained.append(weights_of(model))
    assert torch.equal(*trained)


def test_members_of_a_stack_draw_their_own_distortions(tmp_path) -> None:
    """Each member of a stack trains on distorted inputs as it would alone."""
    inputs, labels = clouds()
    augment = Augmentation(EVERYTHING, FEATURES, AXIS)
    alone = []
    for seed in (3, 4):
        model = AcousticDnn(FEATURES, 4, SHAPE, seed=seed)
        options = replace(OPTIONS, seed=seed)
        train(model, inputs, HardTargets(labels), options, tmp_path / str(seed), augment=augment)
        alone.append(weights_of(model))
    stack = StackedEnsemble([AcousticDnn(FEATURES, 4, SHAPE, seed=seed) for seed in (3, 4)])
    train_stacked(stack, [3, 4], inputs, HardTargets(labels), OPTIONS, tmp_path / "stack", augment=augment)
    for member, expected in zip(stack.members(), alone, strict=True):
        torch.testing.assert_close(weights_of(member), expected, atol=1e-5, rtol=1e-4)


def test_another_augmentation_is_another_training(tmp_path) -> None:
    inputs, labels = clouds()
    trained = []
    for mix in (0.5, 0.4, 0.0):
        model = AcousticDnn(FEATURES, 4, SHAPE)
        augment = Augmentation(AugmentOptions(mix=mix), FEATURES)
        result = train(model, inputs, HardTargets(labels), OPTIONS, tmp_path, augment=augment)
        trained.append((weights_of(model), result.history[-1]["train_loss"]))
    assert len({loss for _, loss in trained}) == 3


def test_inputs_and_objectives_that_cannot_be_augmented_are_refused(tmp_path) -> None:
    inputs, labels = clouds()
    model = AcousticDnn(FEATURES, 4, SHAPE)
    with pytest.raises(InputError, match="whole frames of 7 features, found 40 values"):
        train(model, inputs, HardTargets(labels), OPTIONS, tmp_path, augment=Augmentation(AugmentOptions(mix=0.5), 7))
    matching = LogitMatching(torch.zeros(100, 4))
    with pytest.raises(InputError, match=r"augment.mix: expected targets that can be mixed .* LogitMatching"):
        train(model, inputs, matching, OPTIONS, tmp_path, augment=Augmentation(AugmentOptions(mix=0.5), FEATURES))
    train(model, inputs, matching, OPTIONS, tmp_path, augment=Augmentation(AugmentOptions(gain=0.5), FEATURES))
