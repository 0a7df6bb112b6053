"""Noise and rooms: what stage 2 writes, by hand, and how far the features are from those of distorted audio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import RecordingSet, SupervisionSet
from real_speech import Utterance
from torch import Tensor

from asrkd.data.audio import make_supervision, probe
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError
from asrkd.features.cmvn import MIN_DEVIATION, ROW_FRAMES, Moments
from asrkd.features.distortions import write_impulse_responses, write_noise, write_speech_statistics
from asrkd.features.fbank import FeatureOptions, compute_features, make_fbank, measure_prior
from asrkd.features.impulse_responses import (
    energy_gains,
    measure_effects,
    mel_weights,
    reverberate,
    trimmed,
)
from asrkd.features.options import Cmvn
from asrkd.nnet import Augmentation, AugmentOptions, Batch
from asrkd.nnet.acoustics import Noise, Reverberation, SpeechStatistics

RATE, SHIFT = 16000, 160
RAW = FeatureOptions(cmvn="none")


def coloured(num_samples: int, seed: int, level: float = 0.1) -> np.ndarray:
    """Noise of a level that changes slowly, and whose spectrum falls."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.normal(size=num_samples)) / np.sqrt(np.maximum(np.arange(num_samples // 2 + 1), 20))
    samples = np.fft.irfft(spectrum, num_samples) * (1.2 + np.sin(np.arange(num_samples) / 5000 + seed))
    return (samples * level / samples.std()).astype(np.float32)


def split_of(folder: Path, audio: dict[str, tuple[str, np.ndarray]]) -> CorpusSplit:
    """utt_id -> (speaker, samples)."""
    recordings = []
    folder.mkdir(exist_ok=True)
    for utt_id, (_, samples) in audio.items():
        soundfile.write(folder / f"{utt_id}.wav", samples, RATE, subtype="FLOAT")
        recordings.append(probe(folder / f"{utt_id}.wav", utt_id))
    return CorpusSplit(
        RecordingSet.from_recordings(recordings),
        SupervisionSet.from_segments(make_supervision(one, audio[one.id][0], "A") for one in recordings),
    )


def log_mel(samples: np.ndarray) -> Tensor:
    return torch.from_numpy(make_fbank(RAW).extract(samples.astype(np.float32), RATE))


SPEAKERS = {"u1": "bob", "u2": "ann", "u3": "bob"}


@pytest.fixture
def split(tmp_path: Path) -> CorpusSplit:
    audio = {one: (who, coloured(9000 + 4000 * n, n, 0.05 * 2**n)) for n, (one, who) in enumerate(SPEAKERS.items())}
    return split_of(tmp_path / "speech", audio)


@pytest.mark.parametrize(("cmvn", "tolerance"), [("speaker", 1e-4), ("utterance", 1e-4), ("online", 0.6), ("none", 0)])
def test_the_statistics_undo_the_normalisation(
    cmvn: Cmvn, tolerance: float, split: CorpusSplit, tmp_path: Path
) -> None:
    """Online for the middle frame of each row, and roughly for those around it."""
    options = FeatureOptions(cmvn=cmvn, speed_factors=(1.0, 0.9))
    prior = measure_prior(split, options) if cmvn == "online" else None
    store = compute_features(split, options, tmp_path / "store", prior=prior)
    rows = write_speech_statistics(split, options, tmp_path / "rows", prior=prior)
    energies = compute_features(split, FeatureOptions(cmvn="none", speed_factors=(1.0, 0.9)), tmp_path / "raw")
    assert rows.utt_ids == store.utt_ids and rows.num_features == 81
    speech = SpeechStatistics.of_stores(store, [rows], is_normalised=True)
    which = speech.rows_of(torch.arange(len(store)))
    found = store.read() * speech.of.deviation[which] + speech.of.mean[which]
    assert float((found - energies.read()).abs().max()) <= tolerance
    assert float((found - energies.read()).abs().mean()) <= tolerance / 10
    if cmvn == "online":
        middle = store.span("u1")[0] + ROW_FRAMES // 2
        torch.testing.assert_close(found[middle], energies.read()[middle], atol=1e-4, rtol=0)
    for utt_id, level in (("u1", 0.05), ("u2", 0.1), ("u3", 0.2), ("sp0.9-u3", 0.2)):
        assert float(rows.utt(utt_id)[0, -1]) == pytest.approx(2 * np.log(level), abs=0.05)


def test_a_killed_writing_of_statistics_is_resumed_to_the_same_bytes(split: CorpusSplit, tmp_path: Path) -> None:
    options = FeatureOptions()
    write_speech_statistics(split, options, tmp_path / "whole")
    broken = CorpusSplit(split.recordings, split.supervisions)
    hidden = Path(broken.recordings["u3"].sources[0].source)
    hidden.rename(hidden.with_suffix(".away"))
    with pytest.raises(InputError, match="u3: missing audio"):
        write_speech_statistics(split, options, tmp_path / "killed")
    hidden.with_suffix(".away").rename(hidden)
    write_speech_statistics(split, options, tmp_path / "killed")
    for file in ("feats.safetensors", "frames.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_noise_is_stored_as_if_its_mean_square_were_one(tmp_path: Path) -> None:
    samples = coloured(16000, 0, 0.02)
    store = write_noise(split_of(tmp_path / "noise", {"n": ("", samples)}), FeatureOptions(), tmp_path / "store")
    torch.testing.assert_close(store.read(), log_mel(samples / samples.std()), atol=1e-3, rtol=0)


def test_gains_of_an_impulse_and_of_an_echo() -> None:
    impulse = np.zeros(4000)
    impulse[700] = -0.3
    (found,) = trimmed([energy_gains(impulse, RAW)])
    torch.testing.assert_close(found, torch.ones(1, 40))
    # Two and a half frames behind the peak, half as loud: its energy is shared by frames 2 and 3.
    impulse[700 + 5 * SHIFT // 2] = 0.15
    (echo,) = trimmed([energy_gains(impulse, RAW)])
    expected = torch.tensor([1.0, 0.0, 0.125, 0.125]) / 1.25
    torch.testing.assert_close(echo, expected.unsqueeze(1).expand(4, 40), atol=1e-4, rtol=0)
    # What comes before the peak counts as no delay, and all of it counts.
    impulse[690] = 0.2
    gains = energy_gains(impulse, RAW)
    assert float(gains.sum(0).mean()) == pytest.approx(1.0)
    assert float(gains[0].mean()) == pytest.approx((1 + 4 / 9) / (1.25 + 4 / 9), rel=0.1)


def test_a_dull_room_has_less_gain_in_the_upper_bands() -> None:
    tail = coloured(8000, 1) * np.exp(-np.arange(8000) / 1500)
    gains = energy_gains(np.concatenate([[1.0], tail]), RAW)
    behind = gains[1:].sum(0)
    assert float(behind[:10].mean()) > 3 * float(behind[-10:].mean()) > 0


@pytest.mark.parametrize("size", [64, 512, 4096])
def test_mel_weights(size: int) -> None:
    weights = mel_weights(RAW, size)
    assert weights.shape == (40, size // 2 + 1) and np.allclose(weights.sum(1), 1.0) and (weights >= 0).all()
    centres = weights @ (np.arange(size // 2 + 1) * RATE / size)
    assert (np.diff(centres) >= 0).all() and centres[-1] < 7600


def test_delayed_energies_by_hand() -> None:
    energies = torch.tensor([[1.0], [2.0], [4.0]]).log()
    gains = torch.tensor([[0.5], [0.25], [0.125]])
    expected = torch.tensor([[0.875], [1.375], [2.625]]).log()  # the first frame is also those before it
    torch.testing.assert_close(reverberate(energies, gains), expected)
    none = torch.tensor([[1.0], [0.0], [0.0]])
    shift, ratio = measure_effects([energies, energies], torch.stack([gains, none] * 40))
    torch.testing.assert_close(shift[78], (expected - energies).mean(0))
    torch.testing.assert_close(ratio[78], expected.std(0) / energies.std(0))
    torch.testing.assert_close(shift[79], torch.zeros(1))
    torch.testing.assert_close(ratio[79], torch.ones(1))


def test_the_written_responses(tmp_path: Path) -> None:
    speech = [log_mel(coloured(16000, 3))]
    audio = {"a": np.eye(1, 900)[0], "b": np.exp(-np.arange(4000) / 400) * coloured(4000, 2)}
    recordings = split_of(tmp_path / "rooms", {name: ("", samples) for name, samples in audio.items()}).recordings
    rooms = Reverberation.of_store(write_impulse_responses(list(recordings), speech, RAW, tmp_path / "store"))
    assert rooms.gains.shape[0] == 2 and rooms.gains.shape[2] == 40 and 3 < rooms.history <= 50
    torch.testing.assert_close(rooms.shift[0], torch.zeros(40), atol=1e-5, rtol=0)
    torch.testing.assert_close(rooms.ratio[0], torch.ones(40), atol=1e-5, rtol=0)
    heard, *_ = rooms(torch.cat([speech[0][:1].expand(rooms.history, -1), speech[0]]).unsqueeze(0), torch.tensor([0.9]))
    torch.testing.assert_close(heard[0], reverberate(speech[0], rooms.gains[1]), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def speakers(utterances: list[Utterance]) -> dict[str, list[np.ndarray]]:
    """Some real speech of three speakers, of equal power, so that one SNR is one level of noise for a speaker."""
    found: dict[str, list[np.ndarray]] = {}
    for one in utterances:
        of_speaker = found.setdefault(one.speaker, [])
        samples, rate = soundfile.read(one.path, dtype="float32")
        if rate == RATE and len(of_speaker) < 12 and (len(found) <= 3 or of_speaker):
            of_speaker.append(0.05 * samples / samples.std())
    chosen = {speaker: audio for speaker, audio in list(found.items())[:3] if len(audio) == 12}
    if not chosen:
        pytest.skip(f"expected speakers with 12 utterances of {RATE} Hz, found none")
    return chosen


def normalised(utterances: list[Tensor]) -> Tensor:
    together = torch.cat(utterances).double()
    return (together - together.mean(0)) / together.std(0, unbiased=False).clamp_min(MIN_DEVIATION)


def in_a_step(
    folder: Path, audio: dict[str, list[np.ndarray]], augment_of: Callable[[SpeechStatistics, int], Augmentation]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Features of each speaker, plain and distorted as in a training step, each utterance as one window.

    `augment_of` makes the distortion of an utterance, by its number.
    """
    named = {f"{who}-{n:02}": (who, one) for who, of_speaker in audio.items() for n, one in enumerate(of_speaker)}
    split = split_of(folder / "speech", named)
    store = compute_features(split, FeatureOptions(), folder / "store")
    rows = write_speech_statistics(split, FeatureOptions(), folder / "rows")
    speech = SpeechStatistics.of_stores(store, [rows], is_normalised=True)
    plain, found = {}, {}
    for who, of_speaker in audio.items():
        names = [f"{who}-{n:02}" for n in range(len(of_speaker))]
        distorted = []
        for number, name in enumerate(names):
            augment, frames = augment_of(speech, list(named).index(name)), store.utt(name)
            window = torch.cat([frames[:1].expand(augment.history, -1), frames]).reshape(1, -1)
            given = Batch(window, torch.tensor(store.span(name)[:1]))
            distorted.append(augment(given, torch.Generator().manual_seed(number)).inputs.reshape(-1, 40))
        plain[who], found[who] = torch.cat([store.utt(name) for name in names]), torch.cat(distorted)
    return plain, found


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().mean())


@pytest.mark.parametrize("snr_db", [20.0, 5.0])
@pytest.mark.parametrize("colour", ["white", "falling"])
def test_noise_in_a_step_is_that_of_mixed_audio(
    snr_db: float, colour: str, speakers: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    """Through the whole way, normalised, the same noise in both."""
    audio = [one for of_speaker in speakers.values() for one in of_speaker]
    rng = np.random.default_rng(5)
    noises = [
        rng.normal(size=len(one)).astype(np.float32) if colour == "white" else coloured(len(one), n)
        for n, one in enumerate(audio)
    ]
    options = AugmentOptions(noise=1.0, noise_min_snr_db=snr_db, noise_max_snr_db=snr_db)

    def augment_of(speech: SpeechStatistics, number: int) -> Augmentation:
        noise = noises[number]
        return Augmentation(options, 40, speech=speech, noise=Noise.of([log_mel(noise / noise.std())]))

    plain, found = in_a_step(tmp_path, speakers, augment_of)
    mixed = iter(
        one + noise * one.std() * 10 ** (-snr_db / 20) / noise.std() for one, noise in zip(audio, noises, strict=True)
    )
    for who, of_speaker in speakers.items():
        expected = normalised([log_mel(next(mixed)) for _ in of_speaker])
        assert difference(found[who], expected) < 0.3
        assert difference(found[who], expected) < 0.5 * difference(plain[who], expected)


def test_added_energies_are_those_of_mixed_audio(speakers: dict[str, list[np.ndarray]]) -> None:
    """The same noise in both, at 20 to 0 dB: docs/how_to/online_targets.md has the mean absolute difference."""
    errors = []
    for number, one in enumerate(of_speaker[0] for of_speaker in speakers.values()):
        for snr_db in (20.0, 10.0, 0.0):
            noise = coloured(len(one), number)
            noise *= one.std() * 10 ** (-snr_db / 20) / noise.std()
            added = torch.logaddexp(log_mel(one), log_mel(noise))
            errors.append(difference(added, log_mel(one + noise)))
    assert max(errors) < 0.25 and np.mean(errors) < 0.2, errors


def room(seconds_to_60_db: float, seed: int) -> np.ndarray:
    """A direct sound, and behind it as much energy of noise that decays."""
    time = np.arange(int(RATE * seconds_to_60_db)) / RATE
    tail = np.random.default_rng(seed).normal(size=len(time)) * 10 ** (-3 * time / seconds_to_60_db)
    tail[: RATE // 400] = 0.0
    tail *= 1.0 / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return tail


@pytest.mark.parametrize("seconds_to_60_db", [0.3, 0.6])
def test_rooms_are_those_of_convolved_audio(
    seconds_to_60_db: float, speakers: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    """Through the whole way: nearer to the truth than dry frames are, by far."""
    response = room(seconds_to_60_db, 1)
    sample = [log_mel(one) for of_speaker in speakers.values() for one in of_speaker[:4]]
    recordings = list(split_of(tmp_path / "rooms", {"r": ("", response * 0.5)}).recordings)
    rooms = Reverberation.of_store(write_impulse_responses(recordings, sample, RAW, tmp_path / "rooms_store"))
    options = AugmentOptions(reverb=1.0)
    plain, found = in_a_step(
        tmp_path, speakers, lambda speech, _: Augmentation(options, 40, speech=speech, reverberation=rooms)
    )
    for who, of_speaker in speakers.items():
        size = 1 << (max(map(len, of_speaker)) + len(response)).bit_length()
        wet = [
            np.fft.irfft(np.fft.rfft(one, size) * np.fft.rfft(response, size), size)[: len(one)] for one in of_speaker
        ]
        expected = normalised([log_mel(one) for one in wet])
        assert difference(found[who], expected) < 0.25
        assert difference(found[who], expected) < 0.6 * difference(plain[who], expected)


def test_a_prior_is_needed_online(split: CorpusSplit, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a prior"):
        write_speech_statistics(split, FeatureOptions(cmvn="online"), tmp_path / "rows")
    assert isinstance(measure_prior(split, FeatureOptions(cmvn="online")), Moments)
