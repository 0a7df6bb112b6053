"""The acoustic model: a feed-forward ReLU network from spliced frames to senone logits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asrkd.errors import InputError
from asrkd.files import load_tensors, reading, save_tensors

ARCHITECTURE_KEY = "architecture"


@dataclass(frozen=True)
class ModelOptions:
    """Shape and regularisation of an acoustic model."""

    hidden_dim: int = 512
    """Units in each hidden layer."""
    num_layers: int = 4
    """Number of hidden layers."""
    dropout: float = 0.2
    """Dropout probability of a hidden unit."""
    input_dropout: float = 0.0
    """Dropout probability of an input value."""
    max_norm: float | None = None
    """Largest Euclidean norm of a hidden unit's incoming weights; None for no limit."""
    init_scale: float = 1.0
    """Factor on the random initial weights. Below 1, they matter less compared with what is learnt."""

    def __post_init__(self) -> None:
        if self.hidden_dim < 1 or self.num_layers < 1:
            raise InputError(
                f"model: expected hidden_dim and num_layers of at least 1, "
                f"found {self.hidden_dim} and {self.num_layers}"
            )
        for name in ("dropout", "input_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"model.{name}: expected a probability in [0, 1), found {getattr(self, name)}")
        if self.max_norm is not None and self.max_norm <= 0:
            raise InputError(f"model.max_norm: expected a positive norm or none, found {self.max_norm}")
        if self.init_scale <= 0:
            raise InputError(f"model.init_scale: expected a positive factor, found {self.init_scale}")


class AcousticDnn(nn.Module):
    """Feed-forward ReLU network from an input vector to class logits (Hinton et al. 2015, section 5).

    Initial weights follow He et al. (2015): N(0, 2/fan_in), and N(0, 1/fan_in) before the softmax, times
    `init_scale`. Initial biases are zero. The initial weights depend on `seed` alone.
    """

    def __init__(self, input_dim: int, num_outputs: int, options: ModelOptions, seed: int = 0) -> None:
        super().__init__()
        if input_dim < 1 or num_outputs < 1:
            raise InputError(f"model: expected at least 1 input and 1 output, found {input_dim} and {num_outputs}")
        self.input_dim = input_dim
        self.num_outputs = num_outputs
        self.options = options
        dims = [input_dim] + [options.hidden_dim] * options.num_layers + [num_outputs]
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, fan_in, fan_out) for fan_in, fan_out in pairwise(dims)
        )
        generator = torch.Generator().manual_seed(seed)
        for layer, gain in zip(self.layers, [2.0] * options.num_layers + [1.0], strict=True):
            fan_in = layer.weight.shape[1]
            nn.init.zeros_(layer.bias)
            with torch.no_grad():
                layer.weight.normal_(0.0, options.init_scale * math.sqrt(gain / fan_in), generator=generator)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def macs_per_frame(self) -> int:
        """Multiply-accumulate operations of a forward pass, per frame."""
        return sum(layer.weight.numel() for layer in self.layers)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits [N, S] for inputs [N, D]; `generator`, on the device of x, draws the dropout masks."""
        if x.dim() != 2 or x.shape[1] != self.input_dim:
            raise InputError(f"model: expected inputs [N, {self.input_dim}], found {list(x.shape)}")
        hidden = self._dropout(x, self.options.input_dropout, generator)
        for layer in self.layers[:-1]:
            hidden = self._dropout(torch.relu_(layer(hidden)), self.options.dropout, generator)
        return self.layers[-1](hidden)

    def _dropout(self, hidden: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
        if not self.training or probability == 0.0:
            return hidden
        return dropout(hidden, probability, [generator])

    @torch.no_grad()
    def apply_max_norm_(self) -> None:
        """Scale the weights into each hidden unit down to `max_norm` (Hinton et al. 2012, arXiv:1207.0580)."""
        limit = self.options.max_norm
        if limit is None:
            return
        for layer in self.layers[:-1]:
            norms = layer.weight.norm(dim=1, keepdim=True)
            layer.weight.mul_((limit / norms).clamp_(max=1.0))

    def save(self, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
        """Write weights, shape and `metadata` as one safetensors file."""
        architecture = architecture_metadata((self.input_dim, self.num_outputs, self.options))
        save_tensors(path, self.state_dict(), {**(metadata or {}), **architecture})

    @classmethod
    def load(cls, path: Path | str) -> AcousticDnn:
        """The model that `save` wrote. InputError if the file is missing, damaged or not a model."""
        tensors, architecture = load_model_file(path)
        with reading(path, "a model"):
            options = ModelOptions(**architecture["options"])
            model = cls(architecture["input_dim"], architecture["num_outputs"], options)
        load_weights(model, tensors, path)
        return model.eval()


def dropout(hidden: Tensor, probability: float, generators: Sequence[torch.Generator | None]) -> Tensor:
    """Inverted dropout: zero values of `hidden` with `probability` and scale the others by 1 / (1 - probability).

    Each generator draws the masks of an equal part of `hidden`, in order: a stack has one generator per member.
    """
    keep = _keep_mask(hidden, 1.0 - probability, generators).to(hidden.dtype)
    return hidden * keep.mul_(1.0 / (1.0 - probability))


def _keep_mask(hidden: Tensor, probability: float, generators: Sequence[torch.Generator | None]) -> Tensor:
    """A mask of hidden's shape, true with `probability` (rounded to a multiple of 1/65,536).

    Each 64-bit draw gives four 16-bit numbers. A CPU draws numbers one by one, so this takes a seventh of the time of
    `bernoulli_`, which took as long as the network's forward pass.
    """
    size = hidden.numel() // len(generators)
    draws = torch.empty(len(generators), (size + 3) // 4, dtype=torch.int64, device=hidden.device)
    for row, generator in zip(draws, generators, strict=True):
        row.random_(-(2**63), None, generator=generator)
    numbers = draws.view(torch.int16)[:, :size].reshape(hidden.shape)
    # A dropout probability is below 1 (ModelOptions), so the threshold fits 16 bits.
    return numbers < min(round(probability * 2**16), 2**16 - 1) - 2**15


def architecture_metadata(model_shape: tuple[int, int, ModelOptions], **extra: int) -> dict[str, str]:
    """Metadata of a model's file, from which `load` rebuilds the module: (inputs, outputs, options) as JSON."""
    input_dim, num_outputs, options = model_shape
    architecture = {"input_dim": input_dim, "num_outputs": num_outputs, "options": asdict(options)}
    return {ARCHITECTURE_KEY: json.dumps({**architecture, **extra})}


def load_model_file(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and architecture of a model's file. InputError if the file is not a model's."""
    tensors, metadata = load_tensors(path)
    if ARCHITECTURE_KEY not in metadata:
        raise InputError(f"{path}: expected a model, found tensors without {ARCHITECTURE_KEY!r}")
    with reading(path, "a model"):
        architecture = json.loads(metadata[ARCHITECTURE_KEY])
        _require_size(architecture, sum(tensor.numel() for tensor in tensors.values()))
    return tensors, architecture


def _require_size(architecture: Mapping[str, Any], num_weights: int) -> None:
    """ValueError for a network larger than its file: its memory is allocated before the weights are compared."""
    shape = {**architecture, **architecture["options"], "num_members": architecture.get("num_members", 1)}
    names = ("input_dim", "num_outputs", "hidden_dim", "num_layers", "num_members")
    inputs, outputs, hidden, layers, members = (shape[name] for name in names)
    for name in names:
        if type(shape[name]) is not int or not 1 <= shape[name] <= num_weights:
            raise ValueError(f"{name} {shape[name]!r:.40}")
    if members * hidden * (inputs + outputs + hidden * (layers - 1)) > num_weights:
        raise ValueError(f"a network of more than the file's {num_weights} weights")


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Copy the weights read from `path` into `model`. InputError if they do not fit."""
    try:
        model.load_state_dict(dict(tensors))
    except (RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: weights do not fit the model's shape ({error})") from None
