"""Soft targets that the teachers compute in the student's own step, for the very inputs that the student sees.

Nothing is stored, so inputs may be distorted anew in every step: "A good teacher is patient and consistent" (Beyer et
al. 2022, arXiv:2106.05237).
"""

from __future__ import annotations

import torch
from torch import Tensor

from asrkd.distil.ensemble import Mean, combine
from asrkd.distil.loss import SoftTargets
from asrkd.files import fingerprint, tensor_digest
from asrkd.nnet.ensembles import Ensemble
from asrkd.nnet.losses import accumulation_dtype


class OnlineTargets:
    """The mean of an ensemble's tempered posteriors of given inputs, over all classes and at any temperature.

    The ensemble is taken over: its weights get no gradients, and are converted to `precision`, that of its matrix
    products ("bfloat16"; "float32" leaves them as they are).
    """

    def __init__(self, ensemble: Ensemble, mean: Mean = "geometric", precision: str = "float32") -> None:
        weights = [tensor_digest(tensor) for tensor in (*ensemble.parameters(), *ensemble.buffers())]
        self.fingerprint = fingerprint(["online", mean, precision, weights])
        self.mean: Mean = mean
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
            logits = self._ensemble(inputs.to(dtype))
            log_probs = combine(logits.to(accumulation_dtype(logits)), temperature, self.mean)
            return SoftTargets(None, log_probs.exp(), None)

    def subset(self, ids: Tensor, device: torch.device) -> OnlineTargets:
        """These targets, with the teachers on `device`; they need no ids."""
        self._ensemble.to(device)
        return self
