"""Layers of acoustic models as plain values: shapes, counts, and what a layer computes with weights that it is given.

An architecture is a list of them, the hidden layers and the output layer. `AcousticDnn` runs the list with the weights
of one model, `StackedEnsemble` with those of several. Between two layers the values of an example are one vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.errors import InputError
from asrkd.nnet.model_options import ModelOptions


@dataclass(frozen=True)
class ModelShape:
    """What decides the layers of a model."""

    input_dim: int
    """Values of an input, D."""
    num_outputs: int
    """Classes, S."""
    options: ModelOptions
    frame_dim: int | None = None
    """Values of each frame in an input, which is a window of whole frames in order of time; None: not known."""

    def __post_init__(self) -> None:
        if self.input_dim < 1 or self.num_outputs < 1:
            raise InputError(
                f"model: expected at least 1 input and 1 output, found {self.input_dim} and {self.num_outputs}"
            )
        if self.frame_dim is not None and (self.frame_dim < 1 or self.input_dim % self.frame_dim):
            raise InputError(
                f"model: expected inputs of whole frames of {self.frame_dim} values, found {self.input_dim} values"
            )

    def window(self) -> tuple[int, int]:
        """(frames, values per frame) of an input. InputError where they are not known."""
        if self.frame_dim is None:
            raise InputError(
                f"model: expected frame_dim, the values of each frame of an input, for kind {self.options.kind}, "
                "found none"
            )
        return self.input_dim // self.frame_dim, self.frame_dim


@dataclass(frozen=True)
class Dense:
    """The same affine map of each window of `width` positions, every `step` positions: a 1-d convolution over time.

    With one position it is a fully connected layer. Values of an example are [positions, fan_in] in one vector, and
    become [windows, fan_out] in one vector.
    """

    fan_in: int
    """Values at each position."""
    fan_out: int
    positions: int = 1
    width: int = 1
    step: int = 1

    @property
    def num_windows(self) -> int:
        return (self.positions - self.width) // self.step + 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.fan_out, self.width * self.fan_in)

    @property
    def num_outputs(self) -> int:
        """Values of an example after the layer."""
        return self.num_windows * self.fan_out

    @property
    def num_computed(self) -> int:
        """Values of an example that the layer computes."""
        return self.num_outputs

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations per example."""
        return self.num_windows * math.prod(self.weight_shape)

    @property
    def has_dropout(self) -> bool:
        return True

    def run(self, hidden: Tensor, weight: Tensor, bias: Tensor, norm: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """[N, num_outputs] of values [N, positions * fan_in]; `norm` is the gain and bias [fan_out] of the norm."""
        outputs = F.linear(self._windows(hidden), weight, bias)
        if norm is not None:
            outputs = F.layer_norm(outputs.to(norm[0].dtype), (self.fan_out,), *norm)
        return outputs if self.num_windows == 1 else outputs.flatten(-2)

    def run_stacked(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, norm: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """`run` for M models: values [M, N, -1], weight [M, inputs, fan_out], biases and gains [M, 1, fan_out]."""
        windows = self._windows(hidden)
        if self.num_windows > 1:
            windows = windows.flatten(1, 2)
        outputs = torch.baddbmm(bias, windows, weight)
        if norm is not None:
            normalised = F.layer_norm(outputs.to(norm[0].dtype), (self.fan_out,))
            outputs = torch.addcmul(norm[1], normalised, norm[0])
        return outputs if self.num_windows == 1 else outputs.view(*hidden.shape[:2], self.num_outputs)

    def _windows(self, hidden: Tensor) -> Tensor:
        """[..., num_windows, width * fan_in] of values [..., positions * fan_in]; without the axis of one window."""
        if self.num_windows == 1:
            return hidden
        # A window of whole positions is one run of the vector.
        size, step = self.width * self.fan_in, self.step * self.fan_in
        if torch.jit.is_tracing():  # for ONNX, which has no unfold
            rows = torch.arange(self.num_windows).unsqueeze(1) * step + torch.arange(size)
            return hidden.index_select(-1, rows.flatten()).reshape(*hidden.shape[:-1], self.num_windows, size)
        return hidden.unfold(-1, size, step)


@dataclass(frozen=True)
class Convolution:
    """A 2-d convolution over time and frequency, with max-pooling over frequency.

    Values of an example are [maps, time, frequency] in one vector, before and after.
    """

    maps_in: int
    maps_out: int
    size: tuple[int, int]
    """Time and frequency of the maps before."""
    kernel: tuple[int, int]
    """Time and frequency."""
    time_step: int = 1
    pool: int = 1
    """Neighbouring frequencies, of which the largest value stays."""

    @property
    def convolved(self) -> tuple[int, int]:
        """Time and frequency before pooling."""
        return (self.size[0] - self.kernel[0]) // self.time_step + 1, self.size[1] - self.kernel[1] + 1

    @property
    def pooled(self) -> tuple[int, int]:
        """Time and frequency after the layer."""
        return self.convolved[0], self.convolved[1] // self.pool

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.maps_out, self.maps_in, *self.kernel)

    @property
    def num_outputs(self) -> int:
        """Values of an example after the layer."""
        return self.maps_out * math.prod(self.pooled)

    @property
    def num_computed(self) -> int:
        """Values of an example that the layer computes, pooling apart."""
        return self.maps_out * math.prod(self.convolved)

    @property
    def fan_out(self) -> int:
        return self.maps_out

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations per example."""
        return math.prod(self.convolved) * math.prod(self.weight_shape)

    @property
    def has_dropout(self) -> bool:
        return False

    def run(self, hidden: Tensor, weight: Tensor, bias: Tensor, norm: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """[N, num_outputs] of values [N, maps * time * frequency]; `norm` is gain and bias [maps] of the norm."""
        return self._convolve(hidden, weight, bias, norm, 1).flatten(1)

    def run_stacked(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, norm: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """`run` for M models: values [M, N, -1], weight [M, *weight_shape], biases and gains [M, 1, maps]."""
        models, examples = hidden.shape[:2]
        # The models' maps lie side by side, a group of a grouped convolution for each model.
        maps = hidden.transpose(0, 1).reshape(examples, -1)
        flat = None if norm is None else (norm[0].flatten(), norm[1].flatten())
        outputs = self._convolve(maps, weight.flatten(0, 1), bias.flatten(), flat, models)
        return outputs.reshape(examples, models, self.num_outputs).transpose(0, 1)

    def _convolve(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, norm: tuple[Tensor, Tensor] | None, models: int
    ) -> Tensor:
        maps = hidden.reshape(hidden.shape[0], models * self.maps_in, *self.size)  # not len(): ONNX would fix it
        outputs = F.conv2d(maps, weight, bias, stride=(self.time_step, 1), groups=models)
        if norm is not None:
            outputs = F.group_norm(outputs.to(norm[0].dtype), models, *norm)
        return outputs if self.pool == 1 else F.max_pool2d(outputs, (1, self.pool))


Layer = Dense | Convolution


def fit_width(size: int, width: int, step: int) -> int:
    """The smallest width, at least `width` (or `size`), with which windows every `step` positions cover all of them."""
    width = min(width, size)
    return width + (size - width) % step
