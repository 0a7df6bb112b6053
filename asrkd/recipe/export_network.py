"""A trained network as an ONNX graph that needs nothing around it (`asrkd.runtime.acoustic` says what it computes).

The whole graph is a torch module, exported by `torch.onnx`: so any network goes through, whatever its layers, and what
is exported can be run by torch, too. Written layer by layer it would be as small, and know one kind of network.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrkd.errors import InputError
from asrkd.features.cmvn import MIN_DEVIATION
from asrkd.features.splicing import LEFT_CONTEXT_FRAMES, RIGHT_CONTEXT_FRAMES

OPSET = 17  # onnxruntime 1.13 reads it
INPUTS = ("feats", "sums", "count", "running", "context")
OUTPUT = "scores"
TOLERANCE = 1e-3  # nats, of scores in float32
SCORED_AT_LEAST = 5
_NO_LENGTH = (
    "{}: expected a graph for any number of frames, found one that fails for {}: {} (a network of your own must not "
    "use len(x) or int(x.shape[0]) for its shapes, but x.shape[0] or -1)"
)


class ScoresOfFrames(nn.Module):
    """Log-mel frames -> log-posteriors minus log-priors."""

    def __init__(
        self,
        network: nn.Module,
        log_prior: Tensor,
        left: int = LEFT_CONTEXT_FRAMES,
        right: int = RIGHT_CONTEXT_FRAMES,
        normalises: bool = True,
    ) -> None:
        """`network`: inputs [N, (left + 1 + right) · F] -> logits [N, C]; log_prior [C]."""
        super().__init__()
        self.network = network
        self.left, self.right = left, right
        self.normalises = normalises
        self.register_buffer("log_prior", log_prior.clone())
        self.register_buffer("offsets", torch.arange(-left, right + 1))

    def forward(self, feats: Tensor, sums: Tensor, count: Tensor, running: Tensor, context: Tensor) -> Tensor:
        """As `asrkd.runtime.acoustic` describes."""
        frames = self._normalised(feats, sums, count, running) if self.normalises else feats
        last = frames.shape[0] - 1
        rows = torch.arange(frames.shape[0], device=feats.device)
        rows = rows[(rows >= context[0]) & (rows <= last - context[1])]
        spliced = frames[(rows.unsqueeze(1) + self.offsets).clamp(min=0, max=last)]
        logits = self.network(spliced.flatten(1))
        return F.log_softmax(logits, dim=1) - self.log_prior

    def _normalised(self, feats: Tensor, sums: Tensor, count: Tensor, running: Tensor) -> Tensor:
        frames = feats.double()
        sums_so_far = torch.cat([sums.reshape(1, -1), torch.cat([frames, frames * frames], dim=1)]).cumsum(0)
        taken = torch.arange(1, frames.shape[0] + 1, device=feats.device) * running
        mean, square = (sums_so_far[taken] / (count + taken).unsqueeze(1)).chunk(2, dim=1)
        deviation = (square - mean * mean).clamp(min=0.0).sqrt().clamp(min=MIN_DEVIATION)
        return ((frames - mean) / deviation).float()


def write_onnx(scores: ScoresOfFrames, num_features: int, path: Path) -> None:
    """Write the graph in float32, with any number of frames. InputError where torch cannot export the network."""
    # The exporter removes inputs that nothing reads; every graph has the same.
    exported = scores if scores.normalises else _WithUnusedInputs(scores)
    arguments: dict[str, Any] = {
        "input_names": list(INPUTS),
        "output_names": [OUTPUT],
        "dynamic_axes": {"feats": {0: "frames"}, OUTPUT: {0: "scored"}},
        "opset_version": OPSET,
    }
    if "dynamo" in torch.onnx.export.__code__.co_varnames:  # torch 2.5: the newer exporter needs another package
        arguments["dynamo"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of checks in Python, which are right for every length
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            torch.onnx.export(exported.eval(), _example(60, num_features), str(path), **arguments)
        except (RuntimeError, ValueError, TypeError) as error:
            message = " ".join(str(error).split())
            raise InputError(
                f"{path}: expected a network that torch.onnx exports, found none ({message:.200})"
            ) from None


def require_any_length(scores: ScoresOfFrames, num_features: int, path: Path) -> None:
    """InputError unless the graph gives what torch gives for other numbers of frames than the exporter saw."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for num_frames in (1, 33, 200):
        example = _example(num_frames, num_features)
        with torch.no_grad():
            expected = scores(*example).numpy()
        values = {name: tensor.numpy() for name, tensor in zip(INPUTS, example, strict=True)}
        try:
            found = session.run([OUTPUT], values)[0]
        except Exception as error:  # noqa: BLE001 - onnxruntime's have no class in common but this
            reason = " ".join(str(error).split())[-160:]
            raise InputError(_NO_LENGTH.format(path.name, num_frames, reason)) from None
        if found.shape != expected.shape or not np.allclose(found, expected, atol=TOLERANCE):
            raise InputError(_NO_LENGTH.format(path.name, num_frames, "other scores than torch's"))


def _example(num_frames: int, num_features: int) -> tuple[Tensor, ...]:
    """Inputs of the graph: some frames, with running statistics; all of them are scored but, of many, a few."""
    generator = torch.Generator().manual_seed(num_frames)
    moments = torch.stack([torch.zeros(num_features), torch.ones(num_features)]).double()
    context = torch.tensor([2, 3] if num_frames > SCORED_AT_LEAST else [0, 0])
    feats = torch.randn(num_frames, num_features, generator=generator)
    return feats, moments * 100, torch.tensor([100.0]).double(), torch.tensor([1]), context


class _WithUnusedInputs(nn.Module):
    """Scores that do not depend on the statistics, and name them."""

    def __init__(self, scores: ScoresOfFrames) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, feats: Tensor, sums: Tensor, count: Tensor, running: Tensor, context: Tensor) -> Tensor:
        unused = (sums.sum() + count.sum() + running.sum()) * 0.0
        return self.scores(feats, sums, count, running, context) + unused.float()


def write_int8(source: Path, path: Path) -> None:
    """The same graph with the weights of matrix products in 8 bits, and their inputs quantised as they come.

    Weights are unsigned: products with signed ones saturate on processors without VNNI, and scores would depend on the
    processor. A weight has the scale of its output.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Weights of several networks in one product have three axes, for which onnxruntime knows no scale per output.
    stacked = any(len(weight.dims) > 2 for weight in onnx.load(source).graph.initializer)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises another step first, which changes nothing here
    try:
        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=not stacked,
            weight_type=QuantType.QUInt8,
        )
    finally:
        root.setLevel(level)
