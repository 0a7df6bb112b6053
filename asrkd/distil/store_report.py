"""What a posterior store costs and loses, for several numbers of classes and temperatures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from asrkd.distil.compression import Compressed, StoreOptions, bytes_of_row, combined_logits, compress, expand
from asrkd.distil.loss import SoftTargets
from asrkd.nnet.ensembles import Ensemble
from asrkd.nnet.evaluate import CHUNK, iter_logits
from asrkd.nnet.inputs import InputSource


def store_report(
    ensemble: Ensemble,
    inputs: InputSource,
    options: StoreOptions,
    top_ks: Sequence[int] = (7, 14, 28, 56),
    ids: Tensor | None = None,
    chunk: int = CHUNK,
) -> list[dict[str, Any]]:
    """A row for each k, the options' own among them, and each temperature.

    kl_to_dense is KL(dense || stored) in nats per frame, with the stored tail spread evenly over the other classes.
    kl_lumped counts the tail as one class, as the objective does: the loss by rounding. tail is its mean mass.
    """
    sums: dict[tuple[int, float], Tensor] = {}
    count = 0
    for part_ids, logits in iter_logits(ensemble, inputs, ids, chunk):
        combined = combined_logits(logits.float(), options)
        count += len(part_ids)
        for top_k, rows in _each_top_k(combined, options, top_ks):
            for column, temperature in enumerate(options.temperatures):
                dense = torch.log_softmax(combined.double() / temperature, dim=1)
                losses = _losses(dense, expand(rows, column, temperature))
                key = (top_k, temperature)
                sums[key] = sums.get(key, torch.zeros(3, dtype=torch.float64)) + losses
    names = ("kl_to_dense", "kl_lumped", "tail")
    return [
        {
            "top_k": top_k,
            "temperature": temperature,
            "bytes_per_frame": bytes_of_row(top_k, len(options.temperatures)),
            **dict(zip(names, (total / count).tolist(), strict=True)),
            "chosen": top_k == min(options.top_k, ensemble.num_outputs),
        }
        for (top_k, temperature), total in sums.items()
    ]


def _each_top_k(combined: Tensor, options: StoreOptions, top_ks: Sequence[int]) -> Iterator[tuple[int, Compressed]]:
    for top_k in sorted({min(k, combined.shape[1]) for k in (*top_ks, options.top_k)}):
        yield top_k, compress(combined, replace(options, top_k=top_k))


def _losses(dense: Tensor, stored: SoftTargets) -> Tensor:
    """Sums over frames of (KL to the tail spread evenly, KL with the tail as one class, tail mass)."""
    assert stored.pdf_ids is not None
    assert stored.tail is not None
    tiny = torch.finfo(torch.float32).tiny
    num_others = max(1, dense.shape[1] - stored.pdf_ids.shape[1])
    log_tail = stored.tail.double().clamp(min=tiny).log()
    log_probs = stored.probs.double().clamp(min=tiny).log()
    spread = (log_tail - math.log(num_others)).unsqueeze(1).expand_as(dense).scatter(1, stored.pdf_ids, log_probs)
    kl_spread = (dense.exp() * (dense - spread)).sum()
    top = dense.gather(1, stored.pdf_ids)
    dense_tail = dense.exp().scatter(1, stored.pdf_ids, 0.0).sum(dim=1)
    kl_top = (top.exp() * (top - log_probs)).sum()
    kl_tail = (dense_tail * (dense_tail.clamp(min=tiny).log() - log_tail)).sum()
    return torch.stack([kl_spread, kl_top + kl_tail, stored.tail.double().sum()]).cpu()
