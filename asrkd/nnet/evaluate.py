"""A model's outputs, accuracy and cross-entropy on examples, without training."""

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
    """Yield (ids [B], outputs for them), `chunk` examples at a time, without dropout; over all examples or `ids` [n].

    The outputs are those of `model`: logits [B, S] of an AcousticDnn, [M, B, S] of a StackedEnsemble. Matrix products
    are in `precision`.
    """
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
    """(accuracy, cross-entropy in nats per example) of a model with outputs logits [N, S], against labels [N].

    Only examples with a label that is not negative are evaluated, and only `ids` where given. The outputs can also be
    log-posteriors, so the same call evaluates an averaged ensemble. InputError if there is no labelled example.
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


def device_of(inputs: InputSource) -> torch.device:
    """The device of a source's ids and inputs: its `device` attribute, or the CPU if it has none."""
    return torch.device(getattr(inputs, "device", "cpu"))
