"""Several acoustic models of one shape, run as one module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrkd.errors import InputError
from asrkd.files import reading, save_tensors
from asrkd.nnet.dnn import (
    AcousticDnn,
    architecture_metadata,
    dropout,
    load_model_file,
    load_weights,
    shape_of,
)
from asrkd.nnet.layers import Convolution, Dense, Layer
from asrkd.nnet.modules import ModuleModel

CLIP_EPSILON = 1e-6  # torch's clip_grad_norm_ adds the same to the norm


class StackedEnsemble(nn.Module):
    """M acoustic models of one shape as one module, with a batched matrix product per layer.

    The members stay independent: `asrkd.nnet.train_stacked` trains each as `train` would train it alone. Dropout
    needs one generator per member; without generators there is no dropout, in training mode too.
    """

    def __init__(self, models: Sequence[AcousticDnn]) -> None:
        super().__init__()
        if not models:
            raise InputError("ensemble: expected at least one model, found none")
        self.specs = models[0].specs
        for index, model in enumerate(models):
            if model.specs != self.specs or model.options.normalises != models[0].options.normalises:
                raise InputError(
                    f"ensemble: expected members of one shape, found layers {_layers_text(model)} in member {index} "
                    f"and {_layers_text(models[0])} in member 0"
                )
        self.num_members = len(models)
        self.shape = models[0].shape
        self.options = models[0].options
        self.same_options = all(model.options == self.options for model in models)
        self.input_dim = models[0].input_dim
        self.num_outputs = models[0].num_outputs
        self.weights = nn.ParameterList(
            nn.Parameter(torch.stack([_stackable(spec, layer.weight.detach()) for layer in layers]))
            for spec, layers in zip(self.specs, _by_layer([model.layers for model in models]), strict=True)
        )
        self.biases = _rows([[layer.bias for layer in layers] for layers in _by_layer([m.layers for m in models])])
        norms = list(_by_layer([model.norms for model in models]))
        self.norm_gains = _rows([[norm.weight for norm in layer] for layer in norms])
        self.norm_biases = _rows([[norm.bias for norm in layer] for layer in norms])

    @classmethod
    def load(cls, paths: Sequence[Path | str]) -> StackedEnsemble:
        """The ensemble of the models saved at `paths`, in that order."""
        return cls([AcousticDnn.load(path) for path in paths])

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def macs_per_frame(self) -> int:
        """Multiply-accumulate operations of a forward pass through every member, per frame."""
        return self.num_members * sum(spec.macs for spec in self.specs)

    def forward(self, x: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Logits [M, N, S]. Inputs are [N, D], the same for every member, or [M, N, D].

        `generators`, one per member on the device of x, draw the dropout masks.
        """
        if x.dim() == 2:
            x = x.unsqueeze(0).expand(self.num_members, -1, -1)
        if x.dim() != 3 or x.shape[0] != self.num_members or x.shape[2] != self.input_dim:
            raise InputError(
                f"ensemble: expected inputs [N, {self.input_dim}] or [{self.num_members}, N, {self.input_dim}], "
                f"found {list(x.shape)}"
            )
        hidden = self._dropout(x, self.options.input_dropout, generators)
        last = len(self.specs) - 1
        for index, (spec, weight, bias) in enumerate(zip(self.specs, self.weights, self.biases, strict=True)):
            if index == last:
                return spec.run_stacked(hidden, weight, bias)
            norm = (self.norm_gains[index], self.norm_biases[index]) if len(self.norm_gains) else None
            hidden = F.relu_(spec.run_stacked(hidden, weight, bias, norm))
            if spec.has_dropout:
                hidden = self._dropout(hidden, self.options.dropout, generators)
        raise AssertionError("a network has layers")

    def _dropout(self, hidden: Tensor, probability: float, generators: Sequence[torch.Generator] | None) -> Tensor:
        if not self.training or not generators or probability == 0.0:
            return hidden
        return dropout(hidden, probability, generators)

    @torch.no_grad()
    def apply_max_norm_(self) -> None:
        """Scale the weights into each hidden unit of each member down to `max_norm`, as AcousticDnn does."""
        limit = self.options.max_norm
        if limit is None:
            return
        for spec, weight in zip(self.specs[:-1], self.weights, strict=False):
            inputs = (2, 3, 4) if isinstance(spec, Convolution) else (1,)
            # On a CPU member by member: their squares then stay in the cache, which takes two fifths of the time.
            for part in weight.split(1) if weight.device.type == "cpu" else [weight]:
                norms = part.square().sum(dim=inputs, keepdim=True).sqrt_()
                part.mul_((limit / norms).clamp_(max=1.0))

    @torch.no_grad()
    def clip_gradients_(self, limit: float) -> None:
        """Scale each member's gradient, over all its weights, down to the norm `limit` (as clip_grad_norm_ does)."""
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        scale = (limit / (norms + CLIP_EPSILON)).clamp_(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))

    @torch.no_grad()
    def members(self) -> list[AcousticDnn]:
        """The models one by one, with copies of their weights."""
        models = []
        for index in range(self.num_members):
            model = AcousticDnn(self.input_dim, self.num_outputs, self.options, frame_dim=self.shape.frame_dim)
            for spec, layer, weight, bias in zip(self.specs, model.layers, self.weights, self.biases, strict=True):
                layer.weight.copy_(_stackable(spec, weight[index]))
                layer.bias.copy_(bias[index, 0])
            for norm, gain, bias in zip(model.norms, self.norm_gains, self.norm_biases, strict=True):
                norm.weight.copy_(gain[index, 0])
                norm.bias.copy_(bias[index, 0])
            models.append(model.train(self.training))
        return models

    def save(self, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
        """Write all members' weights, their shape and `metadata` as one safetensors file."""
        architecture = architecture_metadata(self.shape, num_members=self.num_members)
        save_tensors(path, self.state_dict(), {**(metadata or {}), **architecture})

    @classmethod
    def load_stack(cls, path: Path | str) -> StackedEnsemble:
        """The ensemble that `save` wrote. InputError if the file is missing, damaged or no ensemble."""
        tensors, architecture = load_model_file(path)
        if "num_members" not in architecture:
            raise InputError(f"{path}: expected an ensemble, found a single model")
        with reading(path, "an ensemble"):
            shape = shape_of(architecture)
            arguments = shape.input_dim, shape.num_outputs, shape.options, 0, shape.frame_dim
            ensemble = cls([AcousticDnn(*arguments) for _ in range(architecture["num_members"])])
        load_weights(ensemble, tensors, path)
        return ensemble.eval()


def _stackable(spec: Layer, weight: Tensor) -> Tensor:
    """A dense weight [out, in] as [in, out] and back; that of a convolution as it is.

    A dense layer is then baddbmm(bias, hidden, weight), without a transpose at run time.
    """
    return weight.t() if isinstance(spec, Dense) else weight


def _by_layer(modules: Sequence[nn.ModuleList]) -> Iterator[tuple[Any, ...]]:
    return zip(*modules, strict=True)


def _rows(vectors: Sequence[Sequence[Tensor]]) -> nn.ParameterList:
    """For each layer the members' vectors [F] as one parameter [M, 1, F]."""
    return nn.ParameterList(
        nn.Parameter(torch.stack([vector.detach() for vector in layer]).unsqueeze(1)) for layer in vectors
    )


def _layers_text(model: AcousticDnn) -> str:
    return f"{model.options.kind} {[tuple(layer.weight.shape) for layer in model.layers]}"


Model = AcousticDnn | ModuleModel | StackedEnsemble
