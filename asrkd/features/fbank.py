"""Log-mel features through Lhotse, normalised per speaker, into a frame store.

Windows are centred (`snip_edges` false): frame t is centred at (t + ½)·shift and stands for the time from t·shift to
(t+1)·shift. An utterance of n samples has n / shift frames, rounded. The edges are mirrored. Audio of another sampling
rate is resampled first, so that n is then ceil(n · rate of the features / rate of the audio).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

import lhotse
import numpy as np
import torch
from lhotse import Fbank, FbankConfig, Recording, SupervisionSegment
from lhotse.augmentation import Speed
from torch import Tensor
from tqdm import tqdm

from asrkd.data.audio import AudioError, read_samples
from asrkd.data.resample import can_resample, resample
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError
from asrkd.features.cmvn import Moments, normalise
from asrkd.features.options import FeatureOptions
from asrkd.features.speeds import speed_id
from asrkd.features.store import FrameStore, Utterance
from asrkd.files import fingerprint
from asrkd.workflow.executor import SERIAL, Executor
from asrkd.workflow.task import in_order, one_thread

MS_PER_SEC = 1000.0
SHARD_UTTERANCES = 16
PRIOR_UTTERANCES = 300
MIN_POWER = 1e-20  # of silence, whose logarithm would be none


@dataclass(frozen=True)
class Extraction:
    """One utterance at one speed: what features are made of."""

    utt_id: str
    speaker: str
    text: str
    recording: Recording
    speed_factor: float


def compute_features(
    split: CorpusSplit,
    options: FeatureOptions,
    out_dir: Path | str,
    executor: Executor = SERIAL,
    prior: Moments | None = None,
) -> FrameStore:
    """Write the features of a validated split to a frame store in `out_dir`, whole or not at all.

    A writing that was killed is resumed. A store of the same split and options is returned as it is.

    `prior`: moments of training speech, for `cmvn` online.

    Utterances are in the order of speed, speaker and utt_id. A copy at another speed is `sp0.9-<utt_id>` by the
    speaker `sp0.9-<speaker>`: its spectrum is moved, so the speaker's own mean and variance would not fit it.

    Raises:
        InputError: by utt_id, for audio that cannot be read or resampled, and for features that are not finite.
    """
    return write_frames(
        extractions(split, options),
        ExtractTask(options),
        lambda feats: normalise(feats, options.cmvn, prior),
        {} if prior is None else {"prior": prior},
        out_dir,
        executor,
    )


def write_frames(
    utterances: list[Extraction],
    task: ExtractTask,
    convert: Callable[[list[Tensor]], list[Tensor]],
    decided_by: dict[str, Any],
    out_dir: Path | str,
    executor: Executor,
) -> FrameStore:
    """Write what `convert` makes of a speaker's extracted arrays. `decided_by`: what decides it besides the task's
    options and the utterances."""
    options = task.options
    described = {
        "options": options,
        "lhotse": lhotse.__version__,
        "utterances": [describe(one, options.sampling_rate) for one in utterances],
        **decided_by,
    }
    return FrameStore.resume_write(
        out_dir,
        lambda num_done: by_speaker(utterances, num_done, task, executor, convert),
        {"frame_shift_ms": options.frame_shift_ms, "options": options},
        fingerprint(described),
    )


def describe(one: Extraction, sampling_rate: int) -> list[Any]:
    """What decides an utterance's features, its samples apart."""
    described = [one.utt_id, one.speaker, one.text, one.recording.num_samples]
    rate = one.recording.sampling_rate
    return described if rate == sampling_rate else [*described, rate]


def make_fbank(options: FeatureOptions) -> Fbank:
    """Lhotse's filter bank for these options: no dither, so that features are the same each time."""
    return Fbank(
        FbankConfig(
            sampling_rate=options.sampling_rate,
            frame_length=options.frame_length_ms / MS_PER_SEC,
            frame_shift=options.frame_shift_ms / MS_PER_SEC,
            num_filters=options.num_mel_bins,
            low_freq=options.low_freq_hz,
            high_freq=options.high_freq_hz,
            dither=0.0,
            snip_edges=False,
        )
    )


def extractions(split: CorpusSplit, options: FeatureOptions) -> list[Extraction]:
    """The utterances of a split at every speed, one speaker after the other. InputError, by utt_id, as they are bad."""
    recordings = {recording.id: recording for recording in split.recordings}

    def extraction(supervision: SupervisionSegment, speed_factor: float) -> Extraction:
        if supervision.recording_id not in recordings:
            raise InputError(f"{supervision.id}: expected audio for its transcript, found none")
        recording = recordings[supervision.recording_id]
        if not can_resample(recording.sampling_rate, options.sampling_rate):
            raise InputError(
                f"{supervision.id}: expected a sampling rate that can be resampled to {options.sampling_rate} Hz, "
                f"found {recording.sampling_rate} Hz"
            )
        return Extraction(
            utt_id=speed_id(supervision.id, speed_factor),
            speaker=speed_id(str(supervision.speaker), speed_factor),
            text=supervision.text or "",
            recording=recording,
            speed_factor=speed_factor,
        )

    by_speaker = sorted(split.supervisions, key=lambda s: (str(s.speaker), s.id))
    return [extraction(supervision, factor) for factor in options.speed_factors for supervision in by_speaker]


@dataclass(frozen=True)
class ExtractTask:
    """An array of each utterance, of shards of them: one takes milliseconds, too few for a message of its own."""

    options: FeatureOptions
    with_level: bool = False
    """Whether frames [T, F + 1] have the log of the mean square of the samples as their last value."""

    def open(self) -> Callable[[Sequence[Extraction]], list[np.ndarray]]:
        fbank = make_fbank(self.options)
        extract = log_mel_and_level if self.with_level else log_mel
        return lambda shard: [extract(one, fbank) for one in shard]


def by_speaker(
    utterances: list[Extraction],
    num_done: int,
    task: ExtractTask,
    executor: Executor,
    convert: Callable[[list[Tensor]], list[Tensor]],
) -> Iterator[Utterance]:
    """The utterances from number `num_done` on, converted speaker by speaker. One speaker's are in memory at a time.

    All of the first utterance's speaker are extracted, to convert them together.
    """
    first = num_done
    while 0 < first < len(utterances) and utterances[first].speaker == utterances[first - 1].speaker:
        first -= 1
    pairs = zip(utterances[first:], _extracted(utterances[first:], task, executor), strict=True)
    progress = tqdm(pairs, initial=first, total=len(utterances), desc="features", unit="utt")
    return islice(_converted(progress, convert), num_done - first, None)


def _converted(
    pairs: Iterable[tuple[Extraction, np.ndarray]], convert: Callable[[list[Tensor]], list[Tensor]]
) -> Iterator[Utterance]:
    """Utterances, all of one speaker after the other."""
    for _, of_speaker in groupby(pairs, key=lambda pair: pair[0].speaker):
        group = list(of_speaker)
        with one_thread():
            feats = convert([torch.from_numpy(frames) for _, frames in group])
        for (one, _), frames in zip(group, feats, strict=True):
            yield one.utt_id, one.speaker, one.text, frames


def measure_prior(split: CorpusSplit, options: FeatureOptions, executor: Executor = SERIAL) -> Moments:
    """Moments of the split's log-mel energies, at the speed they were recorded: of 300 utterances from all over it.

    InputError, by utt_id, for audio that cannot be read, and for a split without a frame.
    """
    try:
        return Moments.of(sample_energies(split, options, PRIOR_UTTERANCES, executor))
    except ValueError as error:
        raise InputError(f"training speech: {error}") from None


def sample_energies(
    split: CorpusSplit, options: FeatureOptions, number: int, executor: Executor = SERIAL
) -> Iterator[Tensor]:
    """Log-mel energies [T, F] of about so many utterances from all over the split, at the speed they were recorded."""
    utterances = extractions(split, replace(options, speed_factors=(1.0,)))
    chosen = utterances[:: max(len(utterances) // number, 1)]
    return map(torch.from_numpy, _extracted(chosen, ExtractTask(options), executor))


def _extracted(todo: list[Extraction], task: ExtractTask, executor: Executor) -> Iterator[np.ndarray]:
    """The array of each utterance, in order."""
    shards = [todo[n : n + SHARD_UTTERANCES] for n in range(0, len(todo), SHARD_UTTERANCES)]
    return chain.from_iterable(in_order(executor.map(task, shards)))


def log_mel(one: Extraction, fbank: Fbank) -> np.ndarray:
    """Log-mel energies [T, F] of one utterance. InputError, by utt_id, if they are not finite."""
    return _energies(one, _samples(one, fbank.config.sampling_rate), fbank)


def log_mel_and_level(one: Extraction, fbank: Fbank) -> np.ndarray:
    """The same, and the log of the mean square of the samples about their mean in every frame, [T, F + 1]."""
    samples = _samples(one, fbank.config.sampling_rate)
    energies = _energies(one, samples, fbank)
    level = math.log(max(float(samples.var(dtype=np.float64)), MIN_POWER))
    return np.concatenate([energies, np.full((len(energies), 1), level, energies.dtype)], axis=1)


def _samples(one: Extraction, sampling_rate: int) -> np.ndarray:
    """Samples [channels, num_samples] of one utterance at the features' rate, and at its speed."""
    try:
        samples = read_samples(one.recording)
    except AudioError as error:
        raise InputError(f"{one.utt_id}: {error}") from None
    samples = resample(samples, one.recording.sampling_rate, sampling_rate)
    if one.speed_factor != 1.0:
        samples = Speed(one.speed_factor)(samples, sampling_rate)
    return np.asarray(samples)


def _energies(one: Extraction, samples: np.ndarray, fbank: Fbank) -> np.ndarray:
    feats: np.ndarray = fbank.extract(samples, fbank.config.sampling_rate)
    # Here, because one bad utterance would spoil all of its speaker's when they are normalised.
    if not np.isfinite(feats).all():
        raise InputError(f"{one.utt_id}: expected finite features, found NaN or infinity")
    return feats
