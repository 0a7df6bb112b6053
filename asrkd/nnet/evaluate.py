"""What a trained model says of examples it does not learn from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrkd.errors import InputError
from asrkd.nnet.inputs import InputSource

CHUNK = 4096


@contextmanager
def inference(device: torch.device, precision: str = "float32") -> Iterator[None]:
    """Run the block without gradients, its matrix products in `precision` (float32 or bfloat16)."""
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


def iter_logits(
    model: nn.Module,
    inputs: InputSource,
    ids: Tensor | None = None,
    chunk: int = CHUNK,
    precision: str = "float32",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (ids [B], outputs for them) over all examples, or `ids`, `chunk` at a time, without dropout."""
    if ids is None:
        ids = torch.arange(len(inputs))
    device = next(model.parameters()).device
    source_device = device_of(inputs)
    was_training = model.training
    model.eval()
    try:
        for part in ids.split(chunk):
            with inference(device, precision):
                outputs = model(inputs.batch(part.to(source_device)).to(device))
            yield part, outputs
    finally:
        model.train(was_training)


def evaluate(
    model: nn.Module, inputs: InputSource, labels: Tensor, ids: Tensor | None = None, chunk: int = CHUNK
) -> tuple[float, float]:
    """(accuracy, cross-entropy in nats) of a model whose outputs are logits [N, S], by labels [N].

    Examples whose label is negative have none and are left out; `ids` limits the rest. Log-posteriors count
    as logits, so an averaged ensemble is scored by the same call.
    """
    if len(inputs) != len(labels):
        raise InputError(f"evaluation: expected labels for {len(inputs)} inputs, found {len(labels)}")
    ids = torch.arange(len(labels)) if ids is None else ids
    ids = ids[labels[ids] >= 0]
    if len(ids) == 0:
        raise InputError("evaluation: expected at least one labelled example, found none")
    correct = 0
    nats = 0.0
    for part_ids, logits in iter_logits(model, inputs, ids, chunk):
        part = labels[part_ids].to(logits.device)
        correct += int((logits.argmax(dim=1) == part).sum())
        nats += float(F.cross_entropy(logits.float(), part, reduction="sum"))
    return correct / len(ids), nats / len(ids)


def log_posteriors(model: nn.Module, inputs: InputSource, ids: Tensor | None = None, chunk: int = CHUNK) -> Tensor:
    """Log-posteriors [N, S] (float32, CPU) of all examples, or `ids`, by a model whose outputs are logits."""
    outputs = iter_logits(model, inputs, ids, chunk)
    return torch.cat([F.log_softmax(logits.float(), dim=1).cpu() for _, logits in outputs])


def device_of(inputs: InputSource) -> torch.device:
    """The device whose ids a source takes: its `device` attribute, the CPU where it has none."""
    return torch.device(getattr(inputs, "device", "cpu"))
