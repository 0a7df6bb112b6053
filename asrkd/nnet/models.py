"""The acoustic model: a feed-forward ReLU network, and several of them run as one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrkd.errors import InputError
from asrkd.files import load_tensors, save_tensors

ARCHITECTURE_KEY = "architecture"
CLIP_EPSILON = 1e-6  # torch's clip_grad_norm_ adds as much to the norm


@dataclass(frozen=True)
class ModelOptions:
    """Shape and regularisation of an acoustic model."""

    hidden_dim: int = 512
    """Units in each hidden layer."""
    num_layers: int = 4
    """Number of hidden layers."""
    dropout: float = 0.2
    """Chance that a hidden unit is dropped for one example, in training only."""
    input_dropout: float = 0.0
    """Chance that an input is dropped for one example, in training only."""
    max_norm: float | None = None
    """Longest allowed vector of weights into a hidden unit (Euclidean norm); None for no limit."""
    init_scale: float = 1.0
    """Factor on the weights that training starts from: below 1 what is drawn weighs less beside what is learnt."""

    def __post_init__(self) -> None:
        if self.hidden_dim < 1 or self.num_layers < 1:
            raise InputError(
                f"model: expected hidden_dim and num_layers of at least 1, "
                f"found {self.hidden_dim} and {self.num_layers}"
            )
        for name in ("dropout", "input_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"model.{name}: expected a chance in [0, 1), found {getattr(self, name)}")
        if self.max_norm is not None and self.max_norm <= 0:
            raise InputError(f"model.max_norm: expected a positive norm or none, found {self.max_norm}")
        if self.init_scale <= 0:
            raise InputError(f"model.init_scale: expected a positive factor, found {self.init_scale}")


class AcousticDnn(nn.Module):
    """Feed-forward ReLU network from an input vector to class logits (Hinton et al. 2015, section 5).

    Weights start as in He et al. (2015), N(0, 2/fan_in), but N(0, 1/fan_in) before the softmax, all times
    `init_scale`; biases start at zero. They are a function of `seed` alone.
    """

    def __init__(self, input_dim: int, num_outputs: int, options: ModelOptions, seed: int = 0) -> None:
        super().__init__()
        if input_dim < 1 or num_outputs < 1:
            raise InputError(f"model: expected inputs and outputs, found {input_dim} and {num_outputs} of them")
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
        """Multiply-adds of one forward pass of one frame."""
        return sum(layer.weight.numel() for layer in self.layers)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits [N, S] for inputs [N, D]; `generator` (on x's device) draws the dropout masks."""
        if x.dim() != 2 or x.shape[1] != self.input_dim:
            raise InputError(f"model: expected inputs [N, {self.input_dim}], found {list(x.shape)}")
        hidden = self._drop(x, self.options.input_dropout, generator)
        for layer in self.layers[:-1]:
            hidden = self._drop(torch.relu_(layer(hidden)), self.options.dropout, generator)
        return self.layers[-1](hidden)

    def _drop(self, hidden: Tensor, chance: float, generator: torch.Generator | None) -> Tensor:
        if not self.training or chance == 0.0:
            return hidden
        return _dropped(hidden, chance, [generator])

    @torch.no_grad()
    def project_(self) -> None:
        """Shrink the weights into each hidden unit to `max_norm` (Hinton et al. 2012, arXiv:1207.0580)."""
        limit = self.options.max_norm
        if limit is None:
            return
        for layer in self.layers[:-1]:
            norms = layer.weight.norm(dim=1, keepdim=True)
            layer.weight.mul_((limit / norms).clamp_(max=1.0))

    def save(self, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
        """Write weights, shape and `metadata` as one safetensors file."""
        save_tensors(path, self.state_dict(), {**(metadata or {}), **_architecture(self)})

    @classmethod
    def load(cls, path: Path | str) -> AcousticDnn:
        """The model that `save` wrote. InputError if the file is missing, damaged or not a model."""
        tensors, architecture = _load(path)
        options = ModelOptions(**architecture["options"])
        model = cls(architecture["input_dim"], architecture["num_outputs"], options)
        _take_weights(model, tensors, path)
        return model.eval()


def _dropped(hidden: Tensor, chance: float, generators: Sequence[torch.Generator | None]) -> Tensor:
    """`hidden` with values dropped by `chance` and the rest scaled up, so that their mean stays (inverted dropout)."""
    kept = _kept(hidden, 1.0 - chance, generators).to(hidden.dtype)
    return hidden * kept.mul_(1.0 / (1.0 - chance))


def _kept(hidden: Tensor, chance: float, generators: Sequence[torch.Generator | None]) -> Tensor:
    """A mask of hidden's shape, true with `chance`, known to 1 part in 65,536; each generator draws an even part.

    Four 16-bit numbers are cut from each 64-bit draw: on a CPU, where numbers are drawn one by one, that takes a
    seventh of the time of `bernoulli_`, which took as long as the network's forward pass.
    """
    size = hidden.numel() // len(generators)
    draws = torch.empty(len(generators), (size + 3) // 4, dtype=torch.int64, device=hidden.device)
    for row, generator in zip(draws, generators, strict=True):
        row.random_(-(2**63), None, generator=generator)
    numbers = draws.view(torch.int16)[:, :size].reshape(hidden.shape)
    # chance is below 1 (ModelOptions): the threshold fits 16 bits.
    return numbers < min(round(chance * 2**16), 2**16 - 1) - 2**15


class StackedEnsemble(nn.Module):
    """M acoustic models of one shape as one program: a batched matrix product a layer.

    They stay independent: trained together (`asrkd.nnet.train_stacked`) each comes out as it would alone. Dropout
    needs a generator a member, and is off without them whatever the mode.
    """

    def __init__(self, models: Sequence[AcousticDnn]) -> None:
        super().__init__()
        if not models:
            raise InputError("ensemble: expected at least one model, found none")
        shapes = [[tuple(layer.weight.shape) for layer in model.layers] for model in models]
        for index, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise InputError(
                    f"ensemble: expected members of one shape, found layers {shape} in member {index} "
                    f"and {shapes[0]} in member 0"
                )
        self.num_members = len(models)
        self.options = models[0].options
        self.alike = all(model.options == self.options for model in models)
        self.input_dim = models[0].input_dim
        self.num_outputs = models[0].num_outputs
        # [M, in, out], so that a layer is baddbmm(bias, hidden, weight) without a transpose at run time.
        self.weights = nn.ParameterList(
            nn.Parameter(torch.stack([layer.weight.detach().t() for layer in layers]))
            for layers in zip(*(model.layers for model in models), strict=True)
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]).unsqueeze(1))
            for layers in zip(*(model.layers for model in models), strict=True)
        )

    @classmethod
    def load(cls, paths: Sequence[Path | str]) -> StackedEnsemble:
        """The ensemble of the models saved at `paths`, in that order."""
        return cls([AcousticDnn.load(path) for path in paths])

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def macs_per_frame(self) -> int:
        """Multiply-adds of one forward pass of one frame through every member."""
        return sum(weight.numel() for weight in self.weights)

    def forward(self, x: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Logits [M, N, S] for inputs [N, D] that every member sees, or [M, N, D]; generators draw dropout masks."""
        if x.dim() == 2:
            x = x.unsqueeze(0).expand(self.num_members, -1, -1)
        if x.dim() != 3 or x.shape[0] != self.num_members or x.shape[2] != self.input_dim:
            raise InputError(
                f"ensemble: expected inputs [N, {self.input_dim}] or [{self.num_members}, N, {self.input_dim}], "
                f"found {list(x.shape)}"
            )
        hidden = self._drop(x, self.options.input_dropout, generators)
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if index < last:
                hidden = self._drop(F.relu_(hidden), self.options.dropout, generators)
        return hidden

    def _drop(self, hidden: Tensor, chance: float, generators: Sequence[torch.Generator] | None) -> Tensor:
        if not self.training or not generators or chance == 0.0:
            return hidden
        return _dropped(hidden, chance, generators)

    @torch.no_grad()
    def project_(self) -> None:
        """Shrink the weights into each hidden unit of each member to `max_norm`, as AcousticDnn does."""
        limit = self.options.max_norm
        if limit is None:
            return
        for weight in self.weights[:-1]:
            # On a CPU member by member, whose squares then stay in the cache: two fifths of the time.
            for part in weight.split(1) if weight.device.type == "cpu" else [weight]:
                norms = part.square().sum(dim=1, keepdim=True).sqrt_()
                part.mul_((limit / norms).clamp_(max=1.0))

    @torch.no_grad()
    def clip_gradients_(self, limit: float) -> None:
        """Shrink each member's gradient, over all its weights, to the norm `limit` (as clip_grad_norm_ does)."""
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        scale = (limit / (norms + CLIP_EPSILON)).clamp_(max=1.0).view(-1, 1, 1)
        for gradient in gradients:
            gradient.mul_(scale)

    @torch.no_grad()
    def members(self) -> list[AcousticDnn]:
        """The models one by one, with copies of their weights."""
        models = []
        for index in range(self.num_members):
            model = AcousticDnn(self.input_dim, self.num_outputs, self.options)
            for layer, weight, bias in zip(model.layers, self.weights, self.biases, strict=True):
                layer.weight.copy_(weight[index].t())
                layer.bias.copy_(bias[index, 0])
            models.append(model.train(self.training))
        return models

    def save(self, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
        """Write all members' weights, their shape and `metadata` as one safetensors file."""
        save_tensors(path, self.state_dict(), {**(metadata or {}), **_architecture(self, self.num_members)})

    @classmethod
    def load_stack(cls, path: Path | str) -> StackedEnsemble:
        """The ensemble that `save` wrote. InputError if the file is missing, damaged or no ensemble."""
        tensors, architecture = _load(path)
        if "num_members" not in architecture:
            raise InputError(f"{path}: expected an ensemble, found a single model")
        options = ModelOptions(**architecture["options"])
        shape = architecture["input_dim"], architecture["num_outputs"], options
        ensemble = cls([AcousticDnn(*shape) for _ in range(architecture["num_members"])])
        _take_weights(ensemble, tensors, path)
        return ensemble.eval()


def _architecture(model: AcousticDnn | StackedEnsemble, num_members: int | None = None) -> dict[str, str]:
    """What a model's file says of its shape."""
    shape = {
        "input_dim": model.input_dim,
        "num_outputs": model.num_outputs,
        "options": asdict(model.options),
    }
    return {ARCHITECTURE_KEY: json.dumps(shape if num_members is None else {**shape, "num_members": num_members})}


def _load(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, metadata = load_tensors(path)
    if ARCHITECTURE_KEY not in metadata:
        raise InputError(f"{path}: expected a model, found tensors without {ARCHITECTURE_KEY!r}")
    return tensors, json.loads(metadata[ARCHITECTURE_KEY])


def _take_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise InputError(f"{path}: weights do not fit the model's shape ({error})") from None


Model = AcousticDnn | StackedEnsemble
