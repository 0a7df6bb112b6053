"""Cepstral mean and variance normalisation, of log-mel energies: mean 0 and variance 1 in each feature.

`online` is what a stream can do (Kaldi's online CMVN has the idea): frame t is normalised with the frames of its
utterance up to t, added to moments of training speech that count as PRIOR_FRAMES frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from asrkd.features.options import Cmvn
from asrkd.files import read_object, write_json

MIN_DEVIATION = 1e-2  # of log energies, some 2 in speech: a dead mel band must not grow into noise
PRIOR_FRAMES = 300.0  # three seconds; 50 to 1,000 frames were alike on the prompts (docs/how_to/export.md)
SIGNIFICANT_DIGITS = 7
# Frames that share a row of statistics where each frame has its own (`online`): within a quarter of a second these move
# by a fraction of a deviation.
ROW_FRAMES = 25


@dataclass(frozen=True)
class Moments:
    """Of each feature, over speech that is not normalised."""

    mean: tuple[float, ...]
    mean_square: tuple[float, ...]

    @classmethod
    def of(cls, utterances: Iterable[Tensor]) -> Moments:
        """The moments of frames [T, F] together, in double, rounded to seven digits. ValueError for no frame at all."""
        total: Tensor | None = None
        count = 0
        for frames in utterances:
            sums = _with_squares(frames).sum(0)
            total = sums if total is None else total + sums
            count += len(frames)
        if total is None or not count:
            raise ValueError("expected one frame at least, found none")
        mean, square = (total / count).chunk(2)
        return cls(_rounded(mean), _rounded(square))

    @classmethod
    def read(cls, path: Path) -> Moments:
        """InputError for another file than `write` made."""
        values = read_object(path, mean=list, mean_square=list)
        return cls(tuple(map(float, values["mean"])), tuple(map(float, values["mean_square"])))

    def write(self, path: Path) -> None:
        """As JSON."""
        write_json(path, asdict(self))


def normalise(utterances: list[Tensor], cmvn: Cmvn, prior: Moments | None = None) -> list[Tensor]:
    """A speaker's utterances [T, F] with mean 0 and variance 1 in each feature, over all of them, or each alone.

    `prior`: of training speech, for `online`.
    """
    if cmvn == "none":
        return utterances
    if cmvn == "utterance":
        return [normalise([frames], "speaker")[0] for frames in utterances]
    if cmvn == "online":
        if prior is None:
            raise ValueError("expected a prior for normalisation online, found none")
        return [_normalise_online(frames, prior) for frames in utterances]
    mean, deviation = _of_speaker(utterances)
    return [((frames.double() - mean) / deviation).float() for frames in utterances]


def statistics(utterances: list[Tensor], cmvn: Cmvn, prior: Moments | None = None) -> list[Tensor]:
    """What `normalise` subtracts and divides by: rows [R, 2F] of means and deviations for each utterance [T, F].

    One row, but for `online`: there is one for every ROW_FRAMES frames, that of the middle one. With `none` means are 0
    and deviations 1, which leave features as they are.
    """
    if cmvn == "none":
        return [torch.cat([torch.zeros(1, one.shape[1]), torch.ones(1, one.shape[1])], dim=1) for one in utterances]
    if cmvn == "utterance":
        return [statistics([frames], "speaker")[0] for frames in utterances]
    if cmvn == "online":
        if prior is None:
            raise ValueError("expected a prior for normalisation online, found none")
        return [torch.cat(_online(one, prior), dim=1)[_middles(len(one))].float() for one in utterances]
    row = torch.cat(_of_speaker(utterances)).float().unsqueeze(0)
    return [row for _ in utterances]


def _middles(num_frames: int) -> Tensor:
    return (torch.arange(0, num_frames, ROW_FRAMES) + ROW_FRAMES // 2).clamp(max=num_frames - 1)


def _of_speaker(utterances: list[Tensor]) -> tuple[Tensor, Tensor]:
    together = torch.cat(utterances).double()
    return together.mean(0), together.std(0, unbiased=False).clamp_min(MIN_DEVIATION)


def _normalise_online(frames: Tensor, prior: Moments) -> Tensor:
    mean, deviation = _online(frames, prior)
    return ((frames.double() - mean) / deviation).float()


def _online(frames: Tensor, prior: Moments) -> tuple[Tensor, Tensor]:
    """Means and deviations [T, F] of the frames up to each one."""
    before = PRIOR_FRAMES * torch.tensor([*prior.mean, *prior.mean_square], dtype=torch.float64)
    sums = torch.cat([before.unsqueeze(0), _with_squares(frames)]).cumsum(0)[1:]
    counts = PRIOR_FRAMES + torch.arange(1, len(frames) + 1, dtype=torch.float64)
    mean, square = (sums / counts.unsqueeze(1)).chunk(2, dim=1)
    return mean, (square - mean * mean).clamp_min(0.0).sqrt().clamp_min(MIN_DEVIATION)


def _with_squares(frames: Tensor) -> Tensor:
    """[T, 2F] in double: frames [T, F], and their squares."""
    values = frames.double()
    return torch.cat([values, values * values], dim=1)


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values.tolist())
