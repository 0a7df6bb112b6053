"""The data of a training, and the checks of them against the model and the options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.files import fingerprint, tensor_digest
from asrkd.nnet.augment import Augmentation
from asrkd.nnet.inputs import BatchObjective, InputSource, Objective
from asrkd.nnet.mixing import ExtraExamples
from asrkd.nnet.options import TrainOptions
from asrkd.nnet.stacked import Model
from asrkd.workflow.memory import SHARD_FRAMES, new_tensor


@dataclass(frozen=True)
class DevSet:
    """Held-out examples: their accuracy or cross-entropy selects the best epoch."""

    inputs: InputSource
    labels: Tensor
    """Class [N] of each example of `inputs`; a negative label means that it has none and is not evaluated."""
    ids: Tensor | None = None
    """Ids [n] of the examples to evaluate; None for all of them."""

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise InputError(f"development set: expected {len(self.inputs)} labels, found {len(self.labels)}")

    @property
    def fingerprint(self) -> str:
        """A hash of labels and ids; a training with another development set is another training."""
        return fingerprint([tensor_digest(self.labels), None if self.ids is None else tensor_digest(self.ids)])


@dataclass(frozen=True)
class TrainingData:
    """Inputs, objective and development set of one training."""

    inputs: InputSource
    objective: Objective
    frame_ids: Tensor
    """Ids [n] of the examples that are trained on, int64 on the CPU."""
    dev: DevSet | None = None
    augment: Augmentation | None = None
    """Random distortions of the inputs; none: they are as they are."""
    folder: Path | None = None
    """Where lists of all examples are on the disk; None: in memory."""
    extra: ExtraExamples | None = None
    """Examples beyond the training set, which may have negative labels, that is none; None: there are none."""

    @classmethod
    def create(
        cls,
        inputs: InputSource,
        objective: Objective,
        frame_ids: Tensor | None,
        dev: DevSet | None = None,
        augment: Augmentation | None = None,
        folder: Path | None = None,
        extra: ExtraExamples | None = None,
    ) -> TrainingData:
        """Training data of the examples `frame_ids`, of all of `inputs` where that is None."""
        if frame_ids is not None:
            return cls(inputs, objective, frame_ids.long().cpu(), dev, augment, folder, extra)
        ids = new_tensor((len(inputs),), torch.long, folder)
        torch.arange(len(inputs), out=ids)
        return cls(inputs, objective, ids, dev, augment, folder, extra)

    @property
    def input_dim(self) -> int:
        """Values of an input as the model reads it."""
        return self.inputs.dim - self._history_dim

    @property
    def _history_dim(self) -> int:
        """Values in front of a window that the augmentation alone reads."""
        return 0 if self.augment is None else self.augment.history * self.augment.num_features

    def check(self, model: Model, options: TrainOptions) -> None:
        """InputError unless inputs, labels and frame ids fit the model, and the schedule has the data it needs."""
        sources = [("training", self.inputs, self._history_dim)]
        if self.dev is not None:
            sources.append(("development", self.dev.inputs, 0))
        for name, source, history in sources:
            if source.dim != model.input_dim + history:
                raise InputError(f"{name} inputs: expected {model.input_dim + history} values each, found {source.dim}")
        if options.schedule == "newbob" and self.dev is None:
            raise InputError("train.schedule: newbob expected development data, found none")
        self._check_frame_ids()
        self._check_augment()
        self._check_labels(model)

    def _check_labels(self, model: Model) -> None:
        labels: Tensor | None = getattr(self.objective, "labels", None)
        if labels is None:
            return
        chunks = self.frame_ids.split(SHARD_FRAMES)
        limits = [self._with_needed(labels[ids.to(labels.device)], ids).aminmax() for ids in chunks]
        smallest, largest = int(min(low for low, _ in limits)), int(max(high for _, high in limits))
        if smallest < 0 or largest >= model.num_outputs:
            raise InputError(f"labels: expected 0 to {model.num_outputs - 1}, found {smallest} to {largest}")

    def _with_needed(self, labels: Tensor, ids: Tensor) -> Tensor:
        """The labels of ids [n], 0 for an extra example that has none."""
        if self.extra is None:
            return labels
        may_be_missing = ids.to(labels.device) >= self.extra.first_id
        return torch.where(may_be_missing, labels.clamp(min=0), labels)

    def _check_augment(self) -> None:
        if self.augment is None:
            return
        if self.inputs.dim % self.augment.num_features:
            raise InputError(
                f"augment: expected inputs of whole frames of {self.augment.num_features} features, "
                f"found {self.inputs.dim} values"
            )
        if self.augment.rooms is not None:
            self.augment.rooms.require_fit(self.inputs.dim // self.augment.num_features)
        mixes_targets = isinstance(self.objective, BatchObjective) and self.objective.mixes_targets
        if self.augment.mixes and not mixes_targets:
            raise InputError(
                "augment.mix: expected targets that can be mixed (hard labels, or online targets: "
                f"distil.targets online), found those of {type(self.objective).__name__}"
            )

    def _check_frame_ids(self) -> None:
        if len(self.frame_ids) == 0:
            raise InputError("training: expected at least one frame, found none")
        smallest, largest = int(self.frame_ids.min()), int(self.frame_ids.max())
        if smallest < 0 or largest >= len(self.inputs):
            raise InputError(f"frame ids: expected 0 to {len(self.inputs) - 1}, found {smallest} to {largest}")
