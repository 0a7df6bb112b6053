"""A training step as a CUDA graph.

A small network's kernels take less time on the GPU than Python takes to launch them. A CUDA graph records the kernels
of one step and launches them all with one call (docs/adr/0007).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from asrkd.errors import InputError
from asrkd.nnet.evaluate import device_of
from asrkd.nnet.options import TrainOptions
from asrkd.nnet.sharded_data import ShardableInputs
from asrkd.nnet.training_data import TrainingData
from asrkd.workflow.distributed import ProcessGroup

# Steps before the recording, in which libraries and the optimiser allocate their state.
WARM_UP_STEPS = 3


def can_use_cuda_graph(data: TrainingData, options: TrainOptions, ranks: ProcessGroup, device: torch.device) -> bool:
    """Whether a step runs on the GPU as a whole, and on the same memory every time."""
    if device.type != "cuda" or ranks.size > 1 or not options.cuda_graph:
        return False
    if options.compile or options.shard_frames is not None:
        return False
    # Frames of a store are copied to the GPU, together with their targets.
    on_gpu = isinstance(data.inputs, ShardableInputs) or _same_gpu(
        {device_of(data.inputs), data.objective.device, device}
    )
    # Graphs that draw from generators other than the global one: torch 2.4 or later.
    return on_gpu and hasattr(torch.cuda.CUDAGraph, "register_generator_state")


def _same_gpu(devices: set[torch.device]) -> bool:
    """Whether all are the same GPU; a CUDA device without a number is the current one."""
    if {one.type for one in devices} != {"cuda"}:
        return False
    return len({torch.cuda.current_device() if one.index is None else one.index for one in devices}) == 1


Step = Callable[[Sequence[Tensor]], Tensor]
"""A function of the ids [b] of each model's batch."""


class CudaGraphStep:
    """Calls a step a few times as it is, then records it as a CUDA graph and replays that.

    The batch size must not change. All other memory that the step reads and writes must stay where it is: weights,
    the optimiser's state, inputs and targets. Random numbers come from `generators`, which may be seeded anew between
    two calls.
    """

    def __init__(self, generators: Sequence[torch.Generator], device: torch.device) -> None:
        self._generators = generators
        self._device = device
        self._steps_to_warm_up = WARM_UP_STEPS
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, step: Step, ids: Sequence[Tensor]) -> Tensor:
        """The result of `step(ids)`; the next call overwrites it. `step` must be the same at every call.

        InputError if the step does what a graph cannot contain, such as waiting for the GPU.
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
        """Run the step without a graph, on the stream that will record it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = step(ids)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _record(self, step: Step, ids: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        """Record a step without running it."""
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)  # type: ignore[attr-defined]
        self._ids = [batch.clone() for batch in ids]
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                self._result = step(self._ids)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"training: a step cannot be recorded as a CUDA graph ({reason}): give --train.no-cuda-graph"
            ) from error
        return graph
