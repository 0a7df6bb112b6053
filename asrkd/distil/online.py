"""Soft targets that the teachers compute in the student's own step, for the very inputs that the student sees.

Nothing is stored, so inputs may be distorted anew in every step: "A good teacher is patient and consistent" (Beyer et
al. 2022, arXiv:2106.05237).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from asrkd.distil.ensemble import Mean, combine
from asrkd.distil.loss import SoftTargets
from asrkd.files import fingerprint, tensor_digest
from asrkd.nnet.ensembles import Ensemble
from asrkd.nnet.losses import accumulation_dtype


class OnlineTargets:
    """The mean of an ensemble's tempered posteriors of given inputs, over all classes and at any temperature.

    With `teachers` "one" a batch is divided among the M members, and each example has the posteriors of one of them,
    of another one the next time it is seen. That takes an M-th of the time. The gradient of the soft loss is linear in
    the targets, so that on average it is that of the members' arithmetic mean, whatever `mean` is.

    The ensemble is taken over: its weights get no gradients, and are converted to `precision`, that of its matrix
    products ("bfloat16"; "float32" leaves them as they are).
    """

    def __init__(
        self,
        ensemble: Ensemble,
        mean: Mean = "geometric",
        precision: str = "float32",
        teachers: Literal["all", "one"] = "all",
    ) -> None:
        weights = [tensor_digest(tensor) for tensor in (*ensemble.parameters(), *ensemble.buffers())]
        decided_by = [mean] if teachers == "all" else [teachers]
        self.fingerprint = fingerprint(["online", *decided_by, precision, weights])
        self.mean: Mean = mean
        self.teachers = teachers
        self._ensemble = ensemble.eval().requires_grad_(False)
        if precision == "bfloat16":
            self._ensemble.to(torch.bfloat16)

    @property
    def device(self) -> torch.device:
        """The device of the teachers."""
        return next(self._ensemble.parameters()).device

    def of_inputs(self, inputs: Tensor, temperature: float) -> SoftTargets:
        """Probabilities [B, S] of inputs [B, D] at `temperature`, on their device, to which the teachers move."""
        if inputs.device != self.device:
            self._ensemble.to(inputs.device)
        dtype = next(self._ensemble.parameters()).dtype
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            logits = self._logits(inputs.to(dtype))
            log_probs = combine(logits.to(accumulation_dtype(logits)), temperature, self.mean)
            return SoftTargets(None, log_probs.exp(), None)

    def _logits(self, inputs: Tensor) -> Tensor:
        """Logits of inputs [B, D]: [M, B, S] of all members, or [1, B, S] of one for each example."""
        members = self._ensemble.num_members
        if self.teachers == "all" or members == 1:
            return self._ensemble(inputs)
        # Member m has the m-th part of the batch. Examples come in a new order in each epoch.
        missing = -len(inputs) % members
        parts = torch.cat([inputs, inputs[:1].expand(missing, -1)]).view(members, -1, inputs.shape[1])
        return self._ensemble(parts).flatten(0, 1)[: len(inputs)].unsqueeze(0)

    def subset(self, ids: Tensor, device: torch.device) -> OnlineTargets:
        """These targets, with the teachers on `device`; they need no ids."""
        self._ensemble.to(device)
        return self
