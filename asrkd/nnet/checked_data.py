"""What a training is given, checked against its model and its options."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import fingerprint, tensor_digest
from asrkd.nnet.inputs import InputSource, Objective
from asrkd.nnet.models import Model
from asrkd.nnet.options import TrainOptions


@dataclass(frozen=True)
class DevSet:
    """Held-out examples by which the best epoch is told."""

    inputs: InputSource
    labels: Tensor
    ids: Tensor | None

    @property
    def fingerprint(self) -> str:
        """Tells what is judged from other labels and frames."""
        return fingerprint([tensor_digest(self.labels), None if self.ids is None else tensor_digest(self.ids)])


def dev_set(inputs: InputSource | None, labels: Tensor | None, ids: Tensor | None) -> DevSet | None:
    """The development set, if there is one. InputError for half of one."""
    if inputs is None and labels is None:
        return None
    if inputs is None or labels is None:
        raise InputError("training: expected development inputs and labels together, found only one of them")
    return DevSet(inputs, labels, ids)


def check_data(
    model: Model,
    inputs: InputSource,
    objective: Objective,
    dev: DevSet | None,
    frame_ids: Tensor,
    options: TrainOptions,
) -> None:
    """InputError unless inputs, labels, frame ids and schedule can work together."""
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
    labels: Tensor | None = getattr(objective, "labels", None)
    if labels is not None:
        least, most = (int(value) for value in labels[frame_ids.to(labels.device)].aminmax())
        if least < 0 or most >= model.num_outputs:
            raise InputError(f"labels: expected 0 to {model.num_outputs - 1}, found {least} to {most}")
