"""A training step as a CUDA graph.

Launching a kernel takes the CPU some microseconds, running a small network's takes the GPU no longer: step by step,
Python is what one waits for. The kernels of a captured step are launched together, by one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.nnet.evaluate import device_of
from asrkd.nnet.inputs import InputSource, Objective
from asrkd.nnet.options import TrainOptions
from asrkd.nnet.shards import ShardableInputs
from asrkd.workflow.distributed import ProcessGroup

# Steps before the capture, in which libraries and the optimiser set up what they keep.
WARM_UP_STEPS = 3


def can_use_cuda_graph(
    inputs: InputSource, objective: Objective, options: TrainOptions, ranks: ProcessGroup, device: torch.device
) -> bool:
    """Whether all of a step runs on the GPU, and on the same memory in every step."""
    if device.type != "cuda" or ranks.size > 1 or not options.capture:
        return False
    if options.compile or options.shard_frames is not None:
        return False
    # Frames of a store are brought to the GPU, with their targets.
    there = isinstance(inputs, ShardableInputs) or _same({device_of(inputs), objective.device, device})
    # The numbers drawn by generators of one's own: torch 2.4 or later.
    return there and hasattr(torch.cuda.CUDAGraph, "register_generator_state")


def _same(devices: set[torch.device]) -> bool:
    """Whether they are one GPU; that without a number is the current one."""
    if {one.type for one in devices} != {"cuda"}:
        return False
    return len({torch.cuda.current_device() if one.index is None else one.index for one in devices}) == 1


Step = Callable[[Sequence[Tensor]], Tensor]
"""A function of the ids [b] of each model."""


class CudaGraphStep:
    """A step on ids, as many at every call: by a graph, once it is warm.

    What it reads and writes besides keeps its place in memory: weights, the optimiser's state, inputs and targets. Its
    random numbers come from `generators`, which may be seeded anew between two calls.
    """

    def __init__(self, generators: Sequence[torch.Generator], device: torch.device) -> None:
        self._generators = generators
        self._device = device
        self._steps_to_warm_up = WARM_UP_STEPS
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, step: Step, ids: Sequence[Tensor]) -> Tensor:
        """The result of `step`, the same at every call; the next call overwrites it.

        InputError if it does what cannot be captured: wait for the GPU, say.
        """
        with torch.cuda.device(self._device):
            if self._steps_to_warm_up:
                self._steps_to_warm_up -= 1
                return self._warm_up(step, ids)
            if self._graph is None:
                self._graph = self._record(step, ids)
            torch._foreach_copy_(self._ids, list(ids))  # type: ignore[attr-defined]
            self._graph.replay()
            return self._result

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream()

    def _warm_up(self, step: Step, ids: Sequence[Tensor]) -> Tensor:
        """A step as it is, on the stream it will be captured on."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = step(ids)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _record(self, step: Step, ids: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        """A step, recorded and not run."""
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)  # type: ignore[attr-defined]
        self._ids = [mine.clone() for mine in ids]
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                self._result = step(self._ids)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"training: a step cannot be captured ({reason}): set train.capture to false") from error
        return graph
