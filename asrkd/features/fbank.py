"""Log-mel features through Lhotse, normalised per speaker, into a frame store.

Windows are centred (`snip_edges` false): frame t is centred at (t + ½)·shift and stands for the time from t·shift to
(t+1)·shift. An utterance of n samples has n / shift frames, rounded. The edges are mirrored. Audio of another sampling
rate is resampled first, so that n is then ceil(n · rate of the features / rate of the audio).
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class _Extraction:
    """One utterance at one speed."""

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
    extractions = _extractions(split, options)
    described = {
        "options": options,
        "lhotse": lhotse.__version__,
        "utterances": [_describe(one, options.sampling_rate) for one in extractions],
        **({} if prior is None else {"prior": prior}),
    }
    metadata: dict[str, Any] = {"frame_shift_ms": options.frame_shift_ms, "options": options}
    return FrameStore.resume_write(
        out_dir,
        lambda num_done: _normalised_from(extractions, num_done, options, executor, prior),
        metadata,
        fingerprint(described),
    )


def _describe(one: _Extraction, sampling_rate: int) -> list[Any]:
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


def _extractions(split: CorpusSplit, options: FeatureOptions) -> list[_Extraction]:
    recordings = {recording.id: recording for recording in split.recordings}

    def extraction(supervision: SupervisionSegment, speed_factor: float) -> _Extraction:
        if supervision.recording_id not in recordings:
            raise InputError(f"{supervision.id}: expected audio for its transcript, found none")
        recording = recordings[supervision.recording_id]
        if not can_resample(recording.sampling_rate, options.sampling_rate):
            raise InputError(
                f"{supervision.id}: expected a sampling rate that can be resampled to {options.sampling_rate} Hz, "
                f"found {recording.sampling_rate} Hz"
            )
        return _Extraction(
            utt_id=speed_id(supervision.id, speed_factor),
            speaker=speed_id(str(supervision.speaker), speed_factor),
            text=supervision.text or "",
            recording=recording,
            speed_factor=speed_factor,
        )

    by_speaker = sorted(split.supervisions, key=lambda s: (str(s.speaker), s.id))
    return [extraction(supervision, factor) for factor in options.speed_factors for supervision in by_speaker]


@dataclass(frozen=True)
class _ExtractTask:
    """Log-mel energies of shards of utterances. One utterance takes milliseconds, too few for a message of its own."""

    options: FeatureOptions

    def open(self) -> Callable[[Sequence[_Extraction]], list[np.ndarray]]:
        fbank = make_fbank(self.options)
        return lambda shard: [_extract(one, fbank) for one in shard]


def _normalised_from(
    extractions: list[_Extraction],
    num_done: int,
    options: FeatureOptions,
    executor: Executor,
    prior: Moments | None,
) -> Iterator[Utterance]:
    """The utterances from number `num_done` on. All of that utterance's speaker are extracted, to normalise over."""
    first = num_done
    while 0 < first < len(extractions) and extractions[first].speaker == extractions[first - 1].speaker:
        first -= 1
    pairs = zip(extractions[first:], _extracted(extractions[first:], options, executor), strict=True)
    progress = tqdm(pairs, initial=first, total=len(extractions), desc="features", unit="utt")
    return islice(_normalised(progress, options, prior), num_done - first, None)


def _normalised(
    pairs: Iterable[tuple[_Extraction, np.ndarray]], options: FeatureOptions, prior: Moments | None
) -> Iterator[Utterance]:
    """Utterances, all of one speaker after the other. One speaker's frames are in memory at a time."""
    for _, of_speaker in groupby(pairs, key=lambda pair: pair[0].speaker):
        group = list(of_speaker)
        with one_thread():
            feats = normalise([torch.from_numpy(frames) for _, frames in group], options.cmvn, prior)
        for (one, _), frames in zip(group, feats, strict=True):
            yield one.utt_id, one.speaker, one.text, frames


def measure_prior(split: CorpusSplit, options: FeatureOptions, executor: Executor = SERIAL) -> Moments:
    """Moments of the split's log-mel energies, at the speed they were recorded: of 300 utterances from all over it.

    InputError, by utt_id, for audio that cannot be read, and for a split without a frame.
    """
    utterances = _extractions(split, replace(options, speed_factors=(1.0,)))
    chosen = utterances[:: max(len(utterances) // PRIOR_UTTERANCES, 1)]
    try:
        return Moments.of(torch.from_numpy(frames) for frames in _extracted(chosen, options, executor))
    except ValueError as error:
        raise InputError(f"training speech: {error}") from None


def _extracted(todo: list[_Extraction], options: FeatureOptions, executor: Executor) -> Iterator[np.ndarray]:
    """Log-mel energies [T, F] of each utterance, in order."""
    shards = [todo[n : n + SHARD_UTTERANCES] for n in range(0, len(todo), SHARD_UTTERANCES)]
    return chain.from_iterable(in_order(executor.map(_ExtractTask(options), shards)))


def _extract(one: _Extraction, fbank: Fbank) -> np.ndarray:
    """Log-mel energies [T, F] of one utterance."""
    try:
        samples = read_samples(one.recording)
    except AudioError as error:
        raise InputError(f"{one.utt_id}: {error}") from None
    sampling_rate = fbank.config.sampling_rate
    samples = resample(samples, one.recording.sampling_rate, sampling_rate)
    if one.speed_factor != 1.0:
        samples = Speed(one.speed_factor)(samples, sampling_rate)
    feats: np.ndarray = fbank.extract(samples, sampling_rate)
    # Here, because one bad utterance would spoil all of its speaker's when they are normalised.
    if not np.isfinite(feats).all():
        raise InputError(f"{one.utt_id}: expected finite features, found NaN or infinity")
    return feats
