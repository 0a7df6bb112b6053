"""Stage 2 of noise and rooms: what the distortions of a training's inputs need of speech, noise and impulse responses.

All three are frame stores. `asrkd.nnet.acoustics` has what is computed with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lhotse import Recording
from torch import Tensor

from asrkd.data.audio import AudioError, read_samples
from asrkd.data.resample import resample
from asrkd.data.splits import CorpusSplit
from asrkd.errors import InputError
from asrkd.features.cmvn import ROW_FRAMES, Moments, statistics
from asrkd.features.fbank import ExtractTask, extractions, write_frames
from asrkd.features.impulse_responses import energy_gains, measure_effects, trimmed
from asrkd.features.options import FeatureOptions
from asrkd.features.store import FrameStore, Utterance
from asrkd.files import fingerprint
from asrkd.workflow.executor import SERIAL, Executor
from asrkd.workflow.task import one_thread


def write_speech_statistics(
    split: CorpusSplit,
    options: FeatureOptions,
    out_dir: Path | str,
    executor: Executor = SERIAL,
    prior: Moments | None = None,
) -> FrameStore:
    """Rows [R, 2F + 1] of each utterance of a split: the mean and deviation that `compute_features` normalises by, and
    the log of the mean square of its samples. The audio is read again.

    InputError as `compute_features`.
    """

    def rows(speaker: list[Tensor]) -> list[Tensor]:
        of_features = statistics([one[:, :-1] for one in speaker], options.cmvn, prior)
        return [
            torch.cat([part, one[:1, -1:].expand(len(part), 1)], dim=1)
            for one, part in zip(speaker, of_features, strict=True)
        ]

    decided_by = {"statistics": ROW_FRAMES, **({} if prior is None else {"prior": prior})}
    return write_frames(
        extractions(split, options), ExtractTask(options, with_level=True), rows, decided_by, out_dir, executor
    )


def write_noise(
    split: CorpusSplit, options: FeatureOptions, out_dir: Path | str, executor: Executor = SERIAL
) -> FrameStore:
    """Log-mel energies [T, F] of recordings of noise, each as if the mean square of its samples were 1.

    InputError as `compute_features`.
    """

    def at_level_one(of_speaker: list[Tensor]) -> list[Tensor]:
        return [one[:, :-1] - one[:, -1:] for one in of_speaker]

    task = ExtractTask(options.plain, with_level=True)
    return write_frames(extractions(split, task.options), task, at_level_one, {"noise": True}, out_dir, executor)


def write_impulse_responses(
    recordings: Sequence[Recording], speech: Sequence[Tensor], options: FeatureOptions, out_dir: Path | str
) -> FrameStore:
    """Rows [2 + L, F] of each impulse response: what it does to the mean and to the deviation of log energies of
    `speech` (a sample of utterances [T, F], not normalised), then its gains of energy by frames behind its peak.

    InputError, by id, for audio that cannot be read.
    """
    gains = trimmed([energy_gains(read_response(one, options.sampling_rate), options) for one in recordings])
    with one_thread():
        shifts, ratios = measure_effects(speech, torch.stack(gains))
    described = {
        "responses": [one.id for one in recordings],
        "options": options,
        "gains": [float(one.sum()) for one in gains],
    }

    def rows(num_done: int) -> Iterator[Utterance]:
        for number, one in islice(enumerate(recordings), num_done, None):
            yield one.id, one.id, "", torch.cat([shifts[number, None], ratios[number, None], gains[number]])

    metadata = {"frame_shift_ms": options.frame_shift_ms, "options": options}
    return FrameStore.resume_write(out_dir, rows, metadata, fingerprint(described))


def read_response(recording: Recording, sampling_rate: int) -> np.ndarray:
    """Samples [num_samples] of an impulse response's first channel at this rate. InputError, by id, for bad audio."""
    try:
        samples = read_samples(recording)
    except AudioError as error:
        raise InputError(f"{recording.id}: {error}") from None
    response: np.ndarray = resample(samples[:1], recording.sampling_rate, sampling_rate)[0]
    return response
