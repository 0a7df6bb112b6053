"""Noise and rooms in windows of features: values by hand, levels, and what a training does with them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.online import OnlineTargets
from asrkd.errors import InputError
from asrkd.features.cmvn import ROW_FRAMES
from asrkd.features.joined import JoinedFrames
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.nnet import (
    ArrayInputs,
    Augmentation,
    AugmentOptions,
    DevSet,
    HardTargets,
    StackedEnsemble,
    TrainOptions,
    train,
)
from asrkd.nnet.acoustics import Gaussian, Noise, Reverberation, SpeechStatistics, noisy
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.inputs import Batch
from asrkd.nnet.model_options import ModelOptions

FEATURES = 3
DB = math.log(10.0) / 10.0
NOISE = AugmentOptions(noise=0.5, noise_min_snr_db=5.0, noise_max_snr_db=20.0)
REVERB = AugmentOptions(reverb=0.5)
BOTH = replace(NOISE, reverb=0.5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=generator(seed))


def speech(num_rows: int = 4, rows_of: int = 100, is_normalised: bool = True) -> SpeechStatistics:
    """Of examples of which `rows_of` each share a row."""
    of = Gaussian(3.0 + normal(num_rows, FEATURES, seed=1), 1.0 + normal(num_rows, FEATURES, seed=2).abs())
    if not is_normalised:
        of = Gaussian(torch.zeros(num_rows, FEATURES), torch.ones(num_rows, FEATURES))
    return SpeechStatistics(of, normal(num_rows, seed=3), rows_of * torch.arange(num_rows), is_normalised)


def recordings() -> Noise:
    return Noise.of([normal(length, FEATURES, seed=length) - 2.0 for length in (9, 4, 30)])


def rooms(num_lags: int = 3) -> Reverberation:
    gains = normal(2, num_lags, FEATURES, seed=5).abs() + 0.1
    return Reverberation(gains, normal(2, FEATURES, seed=6), 0.5 + normal(2, FEATURES, seed=7).abs())


def augmentation(options: AugmentOptions, of: SpeechStatistics | None = None) -> Augmentation:
    return Augmentation(options, FEATURES, speech=of or speech(), noise=recordings(), reverberation=rooms())


def batch(num_frames: int, size: int = 60) -> Batch:
    ids = torch.randperm(400, generator=generator(8))[:size]
    return Batch(normal(size, num_frames * FEATURES, seed=9), ids)


def draws(number: int, size: int = 60) -> list[np.ndarray]:
    """The uniform numbers that an augmentation draws, in float64."""
    source = generator()
    return [torch.rand(size, generator=source).double().numpy() for _ in range(number)]


def exact_noisy(mu: float, s: float, nu: float, t: float) -> tuple[float, float]:
    """Mean and deviation of log(exp(x) + exp(n)) on a dense grid of both."""
    z = np.linspace(-8, 8, 801)
    weights = np.exp(-(z[:, None] ** 2 + z[None] ** 2) / 2)
    value = np.logaddexp(mu + s * z[:, None], nu + t * z[None])
    mean = (weights * value).sum() / weights.sum()
    return mean, math.sqrt((weights * (value - mean) ** 2).sum() / weights.sum())


@pytest.mark.parametrize("difference", [-12.0, -3.0, -0.5, 0.0, 1.0, 4.0, 12.0])
@pytest.mark.parametrize(("s", "t"), [(2.0, 0.6), (3.0, 3.0), (0.5, 2.5), (1.0, 0.0)])
def test_statistics_of_noisy_speech(difference: float, s: float, t: float) -> None:
    found = noisy(
        Gaussian(torch.tensor([[5.0]]), torch.tensor([[s]])),
        Gaussian(torch.tensor([[5.0 - difference]]), torch.tensor([[t]])),
    )
    mean, deviation = exact_noisy(5.0, s, 5.0 - difference, t)
    assert float(found.mean) == pytest.approx(mean, abs=0.02)
    assert float(found.deviation) == pytest.approx(deviation, abs=0.02)


def test_noise_by_hand() -> None:
    """Two frames of one feature: log-mel 1 and 3, noise of log-mel -1 and 1 at an SNR of 10 dB."""
    of = SpeechStatistics(
        Gaussian(torch.tensor([[2.0]]), torch.tensor([[1.0]])), torch.tensor([4.0]), torch.tensor([0])
    )
    options = AugmentOptions(noise=1.0, noise_min_snr_db=10.0, noise_max_snr_db=10.0)
    augment = Augmentation(options, 1, speech=of, noise=Noise.of([torch.tensor([[-1.0], [1.0]])]))
    found = augment(Batch(torch.tensor([[-1.0, 1.0]]), torch.tensor([0])), generator()).inputs
    level = 4.0 - 10.0 * DB  # the noise's mean square is a tenth of the speech's, e^4
    heard = np.logaddexp([1.0, 3.0], [-1.0 + level, 1.0 + level])
    mean, deviation = exact_noisy(2.0, 1.0, level, 1.0)
    np.testing.assert_allclose(found.numpy()[0], (heard - mean) / deviation, atol=0.01)


def test_a_room_by_hand() -> None:
    """Three frames and one before them; half of the energy comes a frame later."""
    of = SpeechStatistics(
        Gaussian(torch.tensor([[2.0]]), torch.tensor([[2.0]])), torch.tensor([0.0]), torch.tensor([0])
    )
    room = Reverberation(torch.tensor([[[0.5], [0.25]]]), torch.tensor([[0.3]]), torch.tensor([[0.8]]))
    augment = Augmentation(AugmentOptions(reverb=1.0), 1, speech=of, reverberation=room)
    assert augment.history == 1
    x = np.array([0.5, -1.0, 0.0, 1.0])
    found = augment(Batch(torch.from_numpy(x).float().unsqueeze(0), torch.tensor([0])), generator()).inputs
    energies = np.exp(2.0 * x + 2.0)
    heard = np.log(0.5 * energies[1:] + 0.25 * energies[:-1])
    np.testing.assert_allclose(found.numpy()[0], (heard - 2.3) / 1.6, rtol=1e-5)


def test_noise_and_rooms_against_a_plain_implementation() -> None:
    of, size, history = speech(is_normalised=False), 4, 2
    given = batch(size + history)
    found = augmentation(BOTH, of)(given, generator()).inputs.reshape(60, size, FEATURES)
    in_room, which_room, has_noise, which, where, snr = draws(6)
    noise, room = recordings(), rooms()
    for row in range(60):
        x = given.inputs[row].reshape(-1, FEATURES).double().numpy()
        expected = x[history:]
        if in_room[row] < 0.5:
            gains = room.gains[int(which_room[row] * 2)].double().numpy()
            expected = np.log(sum(gains[k] * np.exp(x[history - k : history - k + size]) for k in range(3)))
        if has_noise[row] < 0.5:
            of_recording = noise.frames.split(noise.lengths.tolist())[int(which[row] * 3)].double().numpy()
            begin = int(where[row] * (len(of_recording) - size + 1))
            level = float(of.log_power[given.ids[row] // 100]) - DB * (5.0 + 15.0 * snr[row])
            expected = np.logaddexp(expected, of_recording[begin : begin + size] + level)
        np.testing.assert_allclose(found[row].numpy(), expected, atol=1e-4)


def test_examples_that_are_not_chosen_keep_their_bits() -> None:
    given = batch(6)
    found = augmentation(BOTH)(given, generator()).inputs
    in_room, _, has_noise, _, _, _ = draws(6)
    is_same = (found == given.inputs[:, 2 * FEATURES :]).all(dim=1)
    assert is_same.tolist() == ((in_room >= 0.5) & (has_noise >= 0.5)).tolist()
    assert 5 < int(is_same.sum()) < 30


def test_the_ratio_of_speech_to_noise_is_uniform_in_its_range() -> None:
    """By what is left of inaudible speech: the noise at its level."""
    size = 4000
    of = replace(speech(1, is_normalised=False), log_power=torch.tensor([3.0]))
    augment = Augmentation(replace(NOISE, noise=1.0), FEATURES, speech=of, noise=Noise.of([torch.zeros(5, FEATURES)]))
    given = Batch(torch.full((size, FEATURES), -60.0), torch.zeros(size, dtype=torch.long))
    ratios = (3.0 - augment(given, generator()).inputs[:, 0]) / DB
    assert 5.0 <= float(ratios.min()) < 5.1 and 19.9 < float(ratios.max()) <= 20.0001
    assert float(ratios.mean()) == pytest.approx(12.5, abs=0.3)  # four standard errors
    assert float(ratios.std()) == pytest.approx(15.0 / math.sqrt(12.0), abs=0.2)


def test_every_run_of_every_recording_is_drawn() -> None:
    noise = recordings()
    which = torch.linspace(0, 0.99999994, 3001)
    for where in (torch.zeros(3001), torch.full((3001,), 0.99999994)):
        runs, of_recording = noise.runs(4, which, where)
        for number, frames in enumerate(noise.frames.split(noise.lengths.tolist())):
            rows = (which * 3).long().clamp(max=2) == number
            expected = frames[:4] if float(where[0]) == 0.0 else frames[-4:]
            assert torch.equal(runs[rows], expected.expand(int(rows.sum()), -1, -1))
            torch.testing.assert_close(of_recording.mean[rows][0], frames.mean(0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_windows_keep_their_type(dtype: torch.dtype) -> None:
    given = batch(6)
    found = augmentation(BOTH)(Batch(given.inputs.to(dtype), given.ids), generator())
    assert found.inputs.dtype == dtype and found.inputs.shape == (60, 4 * FEATURES)
    assert torch.allclose(found.inputs.float(), augmentation(BOTH)(given, generator()).inputs, atol=0.15)
    assert augmentation(BOTH)(batch(6, size=0), generator()).inputs.shape == (0, 4 * FEATURES)


def test_examples_of_a_shard_are_distorted_as_among_all() -> None:
    given = batch(6)
    whole = augmentation(BOTH)
    expected = whole(given, generator()).inputs
    ids = given.ids.flip(0)
    of_shard = whole.subset(ids).to(torch.device("cpu"))
    found = of_shard(Batch(given.inputs, torch.arange(60).flip(0)), generator()).inputs
    assert torch.equal(found, expected)


def test_what_is_added_is_in_the_fingerprint() -> None:
    fingerprints = {
        augmentation(options, of).fingerprint
        for options in (NOISE, REVERB, BOTH, replace(NOISE, noise_max_snr_db=19.0))
        for of in (speech(), replace(speech(), log_power=torch.zeros(4)), replace(speech(), is_normalised=False))
    }
    assert len(fingerprints) == 12
    assert augmentation(NOISE).fingerprint == augmentation(replace(NOISE, noise_from=Path("other"))).fingerprint
    other = Augmentation(NOISE, FEATURES, speech=speech(), noise=Noise.of([torch.zeros(9, FEATURES)]))
    assert other.fingerprint not in fingerprints


def test_what_is_missing_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"augment.noise: expected recordings and statistics .*, found none"):
        Augmentation(NOISE, FEATURES, speech=speech())
    with pytest.raises(InputError, match=r"augment.reverb: expected recordings and statistics"):
        Augmentation(REVERB, FEATURES, reverberation=rooms())
    with pytest.raises(InputError, match="expected statistics of speech of 4 features, found 3"):
        Augmentation(NOISE, 4, speech=speech(), noise=recordings())
    with pytest.raises(InputError, match=r"augment.noise_min_snr_db: expected .*noise_max_snr_db 20, found 30"):
        AugmentOptions(noise_min_snr_db=30.0)
    with pytest.raises(InputError, match="noise: expected recordings"):
        Noise.of([])
    with pytest.raises(InputError, match="above 0 of the direct sound"):
        Reverberation(torch.zeros(1, 2, 3), torch.zeros(1, 3), torch.ones(1, 3))
    with pytest.raises(InputError, match="statistics of speech: expected means"):
        SpeechStatistics(Gaussian(torch.zeros(2, 3), torch.ones(2, 3)), torch.zeros(1), torch.zeros(2))
    inputs, labels = ArrayInputs(normal(100, 5 * FEATURES)), torch.zeros(100, dtype=torch.long)
    with pytest.raises(InputError, match="recordings of at least 5 frames, found 4"):
        train(dnn(5), inputs, HardTargets(labels), OPTIONS, tmp_path, augment=augmentation(NOISE))
    with pytest.raises(InputError, match="training inputs: expected 21 values each, found 15"):
        train(dnn(5), inputs, HardTargets(labels), OPTIONS, tmp_path, augment=augmentation(REVERB))


OPTIONS = TrainOptions(epochs=2, batch_size=20, precision="float32", num_threads=1, show_progress=False)


def dnn(num_frames: int, seed: int = 0) -> AcousticDnn:
    return AcousticDnn(num_frames * FEATURES, 4, ModelOptions(hidden_dim=12, num_layers=2, dropout=0.0), seed=seed)


def frame_store(folder: Path, lengths: tuple[int, ...], seed: int) -> FrameStore:
    utterances = [(f"u{n}", "speaker", "", normal(length, FEATURES, seed=seed + n)) for n, length in enumerate(lengths)]
    return FrameStore.write(folder, utterances, {"frame_shift_ms": 10.0}, f"{folder.name} {seed}")


def test_statistics_of_the_frames_of_stores(tmp_path: Path) -> None:
    """Of parts of two stores, of which one has a row for every ROW_FRAMES frames."""
    first = frame_store(tmp_path / "first", (30, 60, 10), 0)
    second = frame_store(tmp_path / "second", (ROW_FRAMES + 1, 7), 9)
    rows = [frame_store(tmp_path / "a", (1, 1, 1), 20), frame_store(tmp_path / "b", (2, 1), 40)]
    measured = [
        FrameStore.write(
            tmp_path / f"rows{n}",
            [
                (utt_id, "", "", torch.cat([store.utt(utt_id)] * 2 + [store.utt(utt_id)[:, :1]], dim=1))
                for utt_id in store.utt_ids
            ],
            {"frame_shift_ms": 10.0},
            f"rows {n}",
        )
        for n, store in enumerate(rows)
    ]
    joined = JoinedFrames(first.subset(["u1", "u2"]), (("transfer", second),))
    found = SpeechStatistics.of_stores(joined, measured, is_normalised=True)
    assert found.begins.tolist() == [0, 60, 70, 70 + ROW_FRAMES, 70 + ROW_FRAMES + 1]
    ids = torch.tensor([0, 59, 60, 69, 70, 70 + ROW_FRAMES - 1, 70 + ROW_FRAMES, 70 + ROW_FRAMES + 1, len(joined) - 1])
    assert found.rows_of(ids).tolist() == [0, 0, 1, 1, 2, 2, 3, 4, 4]
    expected = torch.cat([rows[0].utt("u1"), rows[0].utt("u2"), rows[1].utt("u0"), rows[1].utt("u1")])
    assert torch.equal(found.of.mean, expected) and torch.equal(found.log_power, expected[:, 0])
    with pytest.raises(InputError, match="u2: expected in frame store"):
        SpeechStatistics.of_stores(first, measured[1:], is_normalised=True)


def train_on_store(folder: Path, shard_frames: int | None, model: torch.nn.Module) -> list[float]:
    store = FrameStore.open(folder / "store")
    of = SpeechStatistics(
        Gaussian(normal(3, FEATURES), torch.ones(3, FEATURES)), torch.zeros(3), store.offsets[:-1], True
    )
    augment = augmentation(BOTH, of)
    inputs = SplicedFrames(store, 2 + augment.history, 1)
    labels = (store.read().sum(dim=1) > 0).long()
    options = replace(OPTIONS, shard_frames=shard_frames, learning_rate=0.01, epochs=6)
    dev = DevSet(SplicedFrames(store, 2, 1), labels)
    out = folder / f"{shard_frames} {type(model).__name__}"
    result = train(model, inputs, HardTargets(labels), options, out, dev=dev, augment=augment)
    return [float(epoch["dev_loss"]) for epoch in result.history]


def test_a_training_reads_more_frames_than_its_model(tmp_path: Path) -> None:
    """Whole or in shards; of the project's networks and of others."""
    frame_store(tmp_path / "store", (90, 120, 60), 3)
    for model in (dnn(4), torch.nn.Sequential(torch.nn.Linear(4 * FEATURES, 4))):
        for shard_frames in (None, 100):
            losses = train_on_store(tmp_path, shard_frames, model)
            assert losses[-1] < losses[0]


def test_teachers_score_what_the_student_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teachers, model, augment = StackedEnsemble([dnn(4, seed) for seed in (7, 8)]), dnn(4), augmentation(BOTH)
    seen: dict[str, list[Tensor]] = {"teachers": [], "student": []}
    teachers.register_forward_pre_hook(lambda _, args: seen["teachers"].append(args[0].clone()))
    model.register_forward_pre_hook(lambda _, args: seen["student"].append(args[0].clone()))
    x = normal(40, 6 * FEATURES)
    objective = Distillation(None, OnlineTargets(teachers), DistilOptions(alpha=1.0, targets="online"))
    train(model, ArrayInputs(x), objective, replace(OPTIONS, epochs=1), tmp_path, augment=augment)
    assert len(seen["student"]) == 2
    for of_teachers, of_student in zip(seen["teachers"], seen["student"], strict=True):
        assert torch.equal(of_teachers, of_student) and of_student.shape == (20, 4 * FEATURES)
        is_plain = torch.isin(of_student, x)
        assert 0.05 < float(is_plain.float().mean()) < 0.6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_steps_of_a_cuda_graph_learn_what_plain_steps_do(tmp_path: Path) -> None:
    store = frame_store(tmp_path / "store", (90, 120, 60), 3)
    labels = (store.read().sum(dim=1) > 0).long()
    of = SpeechStatistics(
        Gaussian(normal(3, FEATURES), torch.ones(3, FEATURES)), torch.zeros(3), store.offsets[:-1], True
    )
    found = {}
    for cuda_graph in (False, True):
        options = replace(OPTIONS, device="cuda", cuda_graph=cuda_graph, epochs=4)
        inputs = SplicedFrames(store, 2 + rooms().history, 1)
        result = train(
            dnn(4), inputs, HardTargets(labels), options, tmp_path / f"{cuda_graph}", augment=augmentation(BOTH, of)
        )
        found[cuda_graph] = [epoch["train_loss"] for epoch in result.history]
    assert found[True] == pytest.approx(found[False], rel=1e-4)
