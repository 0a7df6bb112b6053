"""An ensemble of models: one stack where all have one shape, otherwise a stack per shape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from asrkd.errors import InputError
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.models import SingleModel, load_model
from asrkd.nnet.stacked import StackedEnsemble


class MixedEnsemble(nn.Module):
    """Models of several architectures as one module: those of one shape are stacked, stacks run one after another.

    Members stay in their order. It scores; each member is trained alone.
    """

    def __init__(self, models: Sequence[SingleModel]) -> None:
        super().__init__()
        for index, model in enumerate(models):
            for what in ("input_dim", "num_outputs"):
                expected, found = getattr(models[0], what), getattr(model, what)
                if expected != found:
                    raise InputError(f"ensemble: expected {what} {expected} in member {index}, found {found}")
        self.num_members = len(models)
        self.input_dim = models[0].input_dim
        self.num_outputs = models[0].num_outputs
        self.groups = _groups(models)
        self.parts = nn.ModuleList(_part([models[index] for index in group]) for group in self.groups)
        order = [index for group in self.groups for index in group]
        self.rows = [order.index(index) for index in range(len(models))]

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def macs_per_frame(self) -> int:
        """Multiply-accumulate operations of a forward pass through every member, per frame."""
        return sum(part.macs_per_frame for part in self.parts)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [M, N, S]. Inputs are [N, D], the same for every member, or [M, N, D]."""
        outputs = [part(_members_inputs(x, group)) for part, group in zip(self.parts, self.groups, strict=True)]
        members = [logits for one in outputs for logits in (one if one.dim() == 3 else [one])]
        return torch.stack([members[row] for row in self.rows])


Ensemble = StackedEnsemble | MixedEnsemble


def make_ensemble(models: Sequence[SingleModel]) -> Ensemble:
    """The models as one module with outputs [M, N, S]. InputError for none, or for other inputs or outputs."""
    stackable = [model for model in models if isinstance(model, AcousticDnn)]
    if len(stackable) == len(models) and len(_groups(models)) <= 1:
        return StackedEnsemble(stackable)
    return MixedEnsemble(models)


def load_ensemble(paths: Sequence[Path | str]) -> Ensemble:
    """The ensemble of the models saved at `paths`, of whatever kinds, in that order."""
    return make_ensemble([load_model(path) for path in paths])


def _groups(models: Sequence[SingleModel]) -> list[list[int]]:
    """Indices of the members that can be stacked, for each stack; other modules are alone."""
    groups: list[list[int]] = []
    for index, model in enumerate(models):
        for group in groups:
            if _can_stack(models[group[0]], model):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def _members_inputs(x: Tensor, group: Sequence[int]) -> Tensor:
    """What the part of these members is called with, of inputs [N, D] or [M, N, D]."""
    if x.dim() == 2:
        return x
    return x[group[0]] if len(group) == 1 else x[list(group)]


def _can_stack(first: SingleModel, second: SingleModel) -> bool:
    if not isinstance(first, AcousticDnn) or not isinstance(second, AcousticDnn):
        return False
    return first.specs == second.specs and first.options.normalises == second.options.normalises


def _part(models: Sequence[SingleModel]) -> nn.Module:
    stackable = [model for model in models if isinstance(model, AcousticDnn)]
    return StackedEnsemble(stackable) if stackable else models[0]
