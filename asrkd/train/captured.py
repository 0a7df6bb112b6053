"""A training step as a CUDA graph.

Launching a kernel takes the CPU some microseconds, running a small network's takes the GPU no longer: step by step,
Python is what one waits for. The kernels of a captured step are launched together, by one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from asrkd.ranks import Ranks
from asrkd.train.evaluate import device_of
from asrkd.train.inputs import InputSource, Objective
from asrkd.train.options import TrainOptions
from asrkd.train.shards import PartedInputs

# Steps before the capture, in which libraries and the optimiser set up what they keep.
WARM_UP_STEPS = 3


def can_capture(
    inputs: InputSource, objective: Objective, options: TrainOptions, ranks: Ranks, device: torch.device
) -> bool:
    """Whether all of a step runs on the GPU, and on the same memory in every step."""
    if device.type != "cuda" or ranks.size > 1 or not options.capture:
        return False
    if options.compile or options.shard_frames is not None:
        return False
    # Frames of a store are brought to the GPU, with their targets.
    there = isinstance(inputs, PartedInputs) or {device_of(inputs).type, objective.device.type} == {"cuda"}
    # The numbers drawn by generators of one's own: torch 2.4 or later.
    return there and hasattr(torch.cuda.CUDAGraph, "register_generator_state")


class CapturedStep:
    """A function of the ids [b] of each model, as many at every call: by a graph, once it is warm.

    What it reads and writes besides keeps its place in memory: weights, the optimiser's state, inputs and targets. Its
    random numbers come from `generators`, which may be seeded anew between two calls.
    """

    def __init__(self, step: Callable[[Sequence[Tensor]], Tensor], generators: Sequence[torch.Generator]) -> None:
        self._step = step
        self._generators = generators
        self._stream = torch.cuda.Stream()
        self._steps_to_warm_up = WARM_UP_STEPS
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, ids: Sequence[Tensor]) -> Tensor:
        """The step's result; the next call overwrites it."""
        if self._steps_to_warm_up:
            self._steps_to_warm_up -= 1
            return self._aside(ids)
        if self._graph is None:
            self._capture(ids)
            assert self._graph is not None
        torch._foreach_copy_(self._ids, list(ids))  # type: ignore[attr-defined]
        self._graph.replay()
        return self._result

    def _aside(self, ids: Sequence[Tensor]) -> Tensor:
        """A step as it is, on the stream it will be captured on."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self._step(ids)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _capture(self, ids: Sequence[Tensor]) -> None:
        """Record a step, which is not run."""
        self._graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            self._graph.register_generator_state(generator)  # type: ignore[attr-defined]
        self._ids = [mine.clone() for mine in ids]
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._result = self._step(self._ids)
