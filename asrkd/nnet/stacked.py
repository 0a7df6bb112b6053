"""Several acoustic models of one shape, run as one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrkd.errors import InputError
from asrkd.files import reading, save_tensors
from asrkd.nnet.dnn import AcousticDnn, ModelOptions, architecture_metadata, dropout, load_model_file, load_weights

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
        shapes = [[tuple(layer.weight.shape) for layer in model.layers] for model in models]
        for index, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise InputError(
                    f"ensemble: expected members of one shape, found layers {shape} in member {index} "
                    f"and {shapes[0]} in member 0"
                )
        self.num_members = len(models)
        self.options = models[0].options
        self.same_options = all(model.options == self.options for model in models)
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
        """Multiply-accumulate operations of a forward pass through every member, per frame."""
        return sum(weight.numel() for weight in self.weights)

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
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if index < last:
                hidden = self._dropout(F.relu_(hidden), self.options.dropout, generators)
        return hidden

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
        for weight in self.weights[:-1]:
            # On a CPU member by member: their squares then stay in the cache, which takes two fifths of the time.
            for part in weight.split(1) if weight.device.type == "cpu" else [weight]:
                norms = part.square().sum(dim=1, keepdim=True).sqrt_()
                part.mul_((limit / norms).clamp_(max=1.0))

    @torch.no_grad()
    def clip_gradients_(self, limit: float) -> None:
        """Scale each member's gradient, over all its weights, down to the norm `limit` (as clip_grad_norm_ does)."""
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
        shape = self.input_dim, self.num_outputs, self.options
        architecture = architecture_metadata(shape, num_members=self.num_members)
        save_tensors(path, self.state_dict(), {**(metadata or {}), **architecture})

    @classmethod
    def load_stack(cls, path: Path | str) -> StackedEnsemble:
        """The ensemble that `save` wrote. InputError if the file is missing, damaged or no ensemble."""
        tensors, architecture = load_model_file(path)
        if "num_members" not in architecture:
            raise InputError(f"{path}: expected an ensemble, found a single model")
        with reading(path, "an ensemble"):
            options = ModelOptions(**architecture["options"])
            shape = architecture["input_dim"], architecture["num_outputs"], options
            ensemble = cls([AcousticDnn(*shape) for _ in range(architecture["num_members"])])
        load_weights(ensemble, tensors, path)
        return ensemble.eval()


Model = AcousticDnn | StackedEnsemble
