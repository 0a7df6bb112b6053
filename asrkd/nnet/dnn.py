"""The acoustic model: a deep network from spliced frames to senone logits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asrkd.errors import InputError
from asrkd.files import canonical, load_tensors, reading, save_tensors
from asrkd.nnet.cnn import cnn_layers
from asrkd.nnet.layers import Convolution, Dense, Layer, ModelShape
from asrkd.nnet.model_options import KINDS, ModelOptions
from asrkd.nnet.tdnn import tdnn_layers

ARCHITECTURE_KEY = "architecture"
# Inputs are never larger: a file that says so is damaged.
LARGEST_INPUT = 1 << 20


def layers_of(shape: ModelShape) -> list[Layer]:
    """The hidden layers and the output layer of an architecture. InputError for a kind that is none of KINDS."""
    options = shape.options
    if options.kind == "cnn":
        return cnn_layers(shape)
    if options.kind == "tdnn":
        return tdnn_layers(shape)
    if options.kind != "dnn":
        raise InputError(f"model.kind: expected one of {', '.join(KINDS)}, found {options.kind}")
    dims = [shape.input_dim] + [options.hidden_dim] * options.num_layers + [shape.num_outputs]
    return [Dense(fan_in, fan_out) for fan_in, fan_out in pairwise(dims)]


def num_weights(layers: Sequence[Layer], options: ModelOptions) -> int:
    """Weights and biases of these layers, those of layer normalisation included."""
    of_layers = sum(math.prod(layer.weight_shape) + layer.fan_out for layer in layers)
    return of_layers + (2 * sum(layer.fan_out for layer in layers[:-1]) if options.normalises else 0)


class AcousticDnn(nn.Module):
    """Deep ReLU network from an input vector to class logits (Hinton et al. 2015, section 5).

    `options.kind` is its architecture: feed-forward, or one that reads the input as frames of `frame_dim` values
    (`asrkd.nnet.cnn`, `asrkd.nnet.tdnn`).

    Initial weights follow He et al. (2015): N(0, 2/fan_in), and N(0, 1/fan_in) before the softmax, times
    `init_scale`. Initial biases are zero. The initial weights depend on `seed` alone.
    """

    def __init__(
        self, input_dim: int, num_outputs: int, options: ModelOptions, seed: int = 0, frame_dim: int | None = None
    ) -> None:
        super().__init__()
        self.shape = ModelShape(input_dim, num_outputs, options, frame_dim)
        self.input_dim = input_dim
        self.num_outputs = num_outputs
        self.options = options
        self.specs = layers_of(self.shape)
        self.layers = nn.ModuleList(_uninitialised(spec) for spec in self.specs)
        self.norms = nn.ModuleList(
            nn.LayerNorm(spec.fan_out) for spec in (self.specs[:-1] if options.normalises else ())
        )
        generator = torch.Generator().manual_seed(seed)
        for layer, gain in zip(self.layers, [2.0] * (len(self.layers) - 1) + [1.0], strict=True):
            fan_in = layer.weight[0].numel()
            nn.init.zeros_(layer.bias)
            with torch.no_grad():
                layer.weight.normal_(0.0, options.init_scale * math.sqrt(gain / fan_in), generator=generator)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def macs_per_frame(self) -> int:
        """Multiply-accumulate operations of a forward pass, per frame; those of layer normalisation do not count."""
        return sum(spec.macs for spec in self.specs)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits [N, S] for inputs [N, D]; `generator`, on the device of x, draws the dropout masks."""
        if x.dim() != 2 or x.shape[1] != self.input_dim:
            raise InputError(f"model: expected inputs [N, {self.input_dim}], found {list(x.shape)}")
        hidden = self._dropout(x, self.options.input_dropout, generator)
        for index, spec in enumerate(self.specs[:-1]):
            layer = self.layers[index]
            norm = (self.norms[index].weight, self.norms[index].bias) if self.norms else None
            hidden = torch.relu_(spec.run(hidden, layer.weight, layer.bias, norm))
            if spec.has_dropout:
                hidden = self._dropout(hidden, self.options.dropout, generator)
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
            weight = layer.weight.flatten(1)
            weight.mul_((limit / weight.norm(dim=1, keepdim=True)).clamp_(max=1.0))

    def save(self, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
        """Write weights, shape and `metadata` as one safetensors file."""
        save_tensors(path, self.state_dict(), {**(metadata or {}), **architecture_metadata(self.shape)})

    @classmethod
    def load(cls, path: Path | str) -> AcousticDnn:
        """The model that `save` wrote. InputError if the file is missing, damaged or not a model of KINDS."""
        tensors, architecture = load_model_file(path)
        with reading(path, "a model"):
            shape = shape_of(architecture)
            model = cls(shape.input_dim, shape.num_outputs, shape.options, frame_dim=shape.frame_dim)
        load_weights(model, tensors, path)
        return model.eval()


def _uninitialised(spec: Layer) -> nn.Module:
    """The weights of a layer."""
    if isinstance(spec, Convolution):
        return nn.utils.skip_init(nn.Conv2d, spec.maps_in, spec.maps_out, spec.kernel)  # type: ignore[arg-type]
    return nn.utils.skip_init(nn.Linear, spec.weight_shape[1], spec.fan_out)  # type: ignore[arg-type]


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


def architecture_metadata(shape: ModelShape, **extra: int) -> dict[str, str]:
    """Metadata of a model's file, from which `load` rebuilds the module, as JSON."""
    architecture = {
        "input_dim": shape.input_dim,
        "num_outputs": shape.num_outputs,
        "options": canonical(shape.options),
        **({} if shape.frame_dim is None or shape.options.kind == "dnn" else {"frame_dim": shape.frame_dim}),
    }
    return {ARCHITECTURE_KEY: json.dumps({**architecture, **extra})}


def shape_of(architecture: Mapping[str, Any]) -> ModelShape:
    """The shape in a model's file. InputError, LookupError or TypeError for one that is none."""
    options = ModelOptions(**architecture["options"])
    return ModelShape(architecture["input_dim"], architecture["num_outputs"], options, architecture.get("frame_dim"))


def load_model_file(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and architecture of a model's file. InputError if the file is not a model's."""
    tensors, metadata = load_tensors(path)
    if ARCHITECTURE_KEY not in metadata:
        raise InputError(f"{path}: expected a model, found tensors without {ARCHITECTURE_KEY!r}")
    with reading(path, "a model"):
        architecture = json.loads(metadata[ARCHITECTURE_KEY])
        _require_size(architecture, sum(tensor.numel() for tensor in tensors.values()))
    return tensors, architecture


def _require_size(architecture: Mapping[str, Any], found: int) -> None:
    """ValueError for a network larger than its file: its memory is allocated before the weights are compared."""
    shape = {**architecture, **architecture["options"], "num_members": architecture.get("num_members", 1)}
    names = ("input_dim", "num_outputs", "hidden_dim", "num_layers", "num_members", "filters", "frame_dim")
    of_package = shape.get("kind", "dnn") in KINDS
    for name in (one for one in names if one in shape):
        # The inputs of a cnn can be more than its weights, which it uses at many positions.
        limit = found if of_package and name != "input_dim" else max(found, LARGEST_INPUT)
        if type(shape[name]) is not int or not 1 <= shape[name] <= limit:
            raise ValueError(f"{name} {shape[name]!r:.40}")
    if not of_package:
        return
    parsed = shape_of(architecture)
    if shape["num_members"] * num_weights(layers_of(parsed), parsed.options) > found:
        raise ValueError(f"a network of more than the file's {found} weights")


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Copy the weights read from `path` into `model`. InputError if they do not fit."""
    try:
        model.load_state_dict(dict(tensors))
    except (RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: weights do not fit the model's shape ({error})") from None
