"""What a training is given, checked against its model and its options."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from asrkd.errors import InputError
from asrkd.train.inputs import InputSource
from asrkd.train.options import TrainOptions
from asrkd.train.result import Model


@dataclass(frozen=True)
class DevSet:
    """Held-out examples by which the best epoch is told."""

    inputs: InputSource
    labels: Tensor
    ids: Tensor | None


def dev_set(inputs: InputSource | None, labels: Tensor | None, ids: Tensor | None) -> DevSet | None:
    """The development set, if there is one. InputError for half of one."""
    if inputs is None and labels is None:
        return None
    if inputs is None or labels is None:
        raise InputError("training: expected development inputs and labels together, found only one of them")
    return DevSet(inputs, labels, ids)


def check_data(
    model: Model, inputs: InputSource, dev: DevSet | None, frame_ids: Tensor, options: TrainOptions
) -> None:
    """InputError unless inputs, frame ids and schedule can work together."""
    for name, source in (("training", inputs), ("development", None if dev is None else dev.inputs)):
        if source is not None and source.dim != model.input_dim:
            raise InputError(f"{name} inputs: expected {model.input_dim} values each, found {source.dim}")
    if options.schedule == "newbob" and dev is None:
        raise InputError("train.schedule: newbob expected development data, found none")
    if len(frame_ids) == 0:
        raise InputError("training: expected at least one frame, found none")
    if int(frame_ids.min()) < 0 or int(frame_ids.max()) >= len(inputs):
        found = f"{int(frame_ids.min())} to {int(frame_ids.max())}"
        raise InputError(f"frame ids: expected 0 to {len(inputs) - 1}, found {found}")
