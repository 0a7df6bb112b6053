"""Rows of another system's posteriors as rows of a run's frames: of other lengths, and at other frame shifts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from asrkd.errors import InputError

Ends = Literal["at the end", "at both ends", "at the start"]
Upsampling = Literal["interpolate", "repeat"]
MAX_FACTOR = 8


@dataclass(frozen=True)
class FrameTiming:
    """How the rows of a file become those of the run's frames."""

    factor: int = 1
    """Frames of the run from one row to the next."""
    upsampling: Upsampling = "interpolate"
    """Whether frames between two rows get values between theirs, or those of the nearest row."""
    ends: Ends = "at the end"
    """Where frames are repeated or removed, with a row for each frame."""
    offset: int = 0
    """The frame of the first row, with more frames than rows."""

    @classmethod
    def of(cls, row_shift_ms: float | None, frame_shift_ms: float, upsampling: Upsampling) -> FrameTiming:
        """For rows that are so many milliseconds apart. InputError unless a whole number of frames lies between."""
        ratio = 1.0 if row_shift_ms is None else row_shift_ms / frame_shift_ms
        factor = round(ratio) if math.isfinite(ratio) else 0
        if not (abs(ratio - factor) < 1e-6 and 1 <= factor <= MAX_FACTOR):
            raise InputError(
                f"--frame-shift-ms: expected 1 to {MAX_FACTOR} times the run's {frame_shift_ms:g} ms, found "
                f"{row_shift_ms:g}"
            )
        return cls(factor, upsampling)

    def num_rows(self, num_frames: int) -> int:
        """Rows of an utterance of so many frames."""
        return -(-num_frames // self.factor)

    def candidates(self) -> list[FrameTiming]:
        """Every way in which the rows may lie; the labels of the frames choose one."""
        if self.factor == 1:
            return [replace(self, ends=ends) for ends in get_args(Ends)]
        return [replace(self, offset=offset) for offset in range(self.factor)]

    @property
    def middle(self) -> FrameTiming:
        """The candidate that lies between the others."""
        return replace(self, ends="at both ends", offset=(self.factor - 1) // 2)

    def fitted(self, rows: Tensor, num_frames: int) -> Tensor:
        """Values [T, S] for each frame, of rows [R, S]."""
        if self.factor == 1 or self.upsampling == "repeat":
            return self.nearest(rows, num_frames)
        at = (torch.arange(num_frames) - self.offset) / self.factor
        before = at.floor()
        weight = (at - before)[:, None].to(rows.dtype)
        low, high = (index.long().clamp(0, len(rows) - 1) for index in (before, before + 1))
        return torch.lerp(rows[low], rows[high], weight)

    def nearest(self, rows: Tensor, num_frames: int) -> Tensor:
        """Values [T, ...] for each frame: those of the nearest of the rows [R, ...].

        Where frames are missing or too many at both ends, half of them are at each, and an odd one is at the end.
        """
        frames = torch.arange(num_frames)
        if self.factor > 1:
            index = torch.div(2 * (frames - self.offset) + self.factor, 2 * self.factor, rounding_mode="floor")
            return rows[index.clamp(0, len(rows) - 1)]
        too_many = len(rows) - num_frames
        if not too_many:
            return rows
        at_start = {"at the end": 0, "at both ends": int(too_many / 2), "at the start": too_many}  # int: towards zero
        return rows[(frames + at_start[self.ends]).clamp(0, len(rows) - 1)]

    @property
    def note(self) -> str:
        """What was done with the rows, for a person."""
        verb = "interpolated" if self.upsampling == "interpolate" else "repeated"
        return f"a row for every {self.factor} frames, the first at frame {self.offset}: {verb} for those between"
