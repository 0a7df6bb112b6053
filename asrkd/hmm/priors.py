"""Log-priors of senones. Log-posteriors minus log-priors are scaled log-likelihoods."""

from __future__ import annotations

import torch
from torch import Tensor

PRIOR_FLOOR = 1e-5  # probability: without it a senone that was hardly ever seen would dominate the search


def log_priors(pdf_ids: Tensor, num_pdfs: int, floor: float = PRIOR_FLOOR) -> Tensor:
    """Natural-log relative frequency of each senone in the training labels.

    log p(x|s) = log p(s|x) - log p(s) + const (Bourlard and Morgan 1994). pdf_ids: [T] integers -> [S] float32, with
    exponentials that sum to one. Frequencies below `floor` are raised to it before normalising. ValueError for no
    labels or labels out of range.
    """
    if pdf_ids.numel() == 0:
        raise ValueError("priors: expected at least one label, found none")
    if int(pdf_ids.min()) < 0 or int(pdf_ids.max()) >= num_pdfs:
        raise ValueError(
            f"priors: expected labels in [0, {num_pdfs}), found {int(pdf_ids.min())}..{int(pdf_ids.max())}"
        )
    counts = torch.bincount(pdf_ids.long().flatten(), minlength=num_pdfs).double()
    probs = (counts / counts.sum()).clamp_min(floor)
    return (probs / probs.sum()).log().float()
