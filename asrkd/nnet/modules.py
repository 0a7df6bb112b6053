"""Any `nn.Module` as an acoustic model.

The protocol: a module is called with inputs [N, D], floats, and returns logits [N, S]. It draws dropout masks and the
like from torch's global generator. Its tensors are those of its `state_dict()`. An attribute `macs_per_frame` is
optional: without it multiply-accumulate operations are counted layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asrkd.errors import InputError
from asrkd.files import load_tensors, save_tensors
from asrkd.nnet.dnn import architecture_metadata, load_weights
from asrkd.nnet.layers import ModelShape
from asrkd.nnet.model_options import ModelOptions

TRIAL_EXAMPLES = 2
_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class ModuleModel(nn.Module):
    """A module of another architecture, with the attributes that training, scoring and reports need.

    It is the module itself, not a copy: training it trains the module. InputError, in one line, for a module that does
    not follow the protocol.
    """

    def __init__(self, module: nn.Module, shape: ModelShape) -> None:
        super().__init__()
        self.name = shape.options.kind
        self.shape = shape
        self.options = shape.options
        self.input_dim = shape.input_dim
        self.num_outputs = shape.num_outputs
        _require_module(module, self.name)
        self.module = module
        found = trial_outputs(module, shape.input_dim, self.name)
        if found != shape.num_outputs:
            raise InputError(
                f"model {self.name}: expected logits [N, {shape.num_outputs}] for inputs [N, {shape.input_dim}], "
                f"found [N, {found}]"
            )

    @classmethod
    def of(cls, module: nn.Module, input_dim: int) -> ModuleModel:
        """The model of a module alone: its name is that of its class, its number of classes that of its outputs."""
        name = type(module).__name__
        _require_module(module, name)
        outputs = trial_outputs(module, input_dim, name)
        return cls(module, ModelShape(input_dim, outputs, ModelOptions(kind=name)))

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def macs_per_frame(self) -> int:
        """Multiply-accumulate operations of a forward pass, per frame: the module's own `macs_per_frame`, or counted.

        Linear, convolutional and recurrent layers are counted at each position where they are computed; every other
        parameter counts once.
        """
        own = getattr(self.module, "macs_per_frame", None)
        return count_macs(self.module, self.input_dim) if own is None else int(own)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits [N, S] for inputs [N, D]. The module does not use `generator` (see `seed_global`)."""
        if x.dim() != 2 or x.shape[1] != self.input_dim:
            raise InputError(f"model {self.name}: expected inputs [N, {self.input_dim}], found {list(x.shape)}")
        logits: Tensor = self.module(x)
        return logits

    def apply_max_norm_(self) -> None:
        """Nothing: which weights lead into a hidden unit is not known."""

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """The module's own names. Tensors that share memory are copies, because safetensors refuses shared memory."""
        tensors = self.module.state_dict(*arguments, **options)
        seen: set[int] = set()
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise InputError(f"model {self.name}: expected tensors in its state_dict, found {name} {type(tensor)}")
            if tensor.numel() and tensor.data_ptr() in seen:
                tensors[name] = tensor.clone()
            seen.add(tensor.data_ptr())
        return tensors

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any:
        """Into the module, by the names of its own `state_dict`."""
        return self.module.load_state_dict(dict(state_dict), strict)

    def save(self, path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
        """Write the module's tensors, name and shape, and `metadata`, as one safetensors file."""
        save_tensors(path, self.state_dict(), {**(metadata or {}), **architecture_metadata(self.shape)})


def load_state(module: nn.Module, path: Path | str) -> None:
    """Load into a module what `train` saved of it. InputError if the file is missing or damaged, or does not fit."""
    load_weights(module, load_tensors(path)[0], path)
    module.eval()


def trial_outputs(module: nn.Module, input_dim: int, name: str) -> int:
    """The number of classes S of a module that makes logits [N, S] of inputs [N, D]; InputError if it does not."""
    with _evaluating(module):
        parameter = next(module.parameters())
        x = torch.zeros(TRIAL_EXAMPLES, input_dim, device=parameter.device, dtype=parameter.dtype)
        try:
            logits = module(x)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"model {name}: expected logits [N, S] for inputs [N, {input_dim}], found {type(error).__name__}: "
                f"{reason:.200}"
            ) from error
    if not isinstance(logits, Tensor):
        raise InputError(f"model {name}: expected a tensor of logits [N, S], found {type(logits).__name__}")
    if logits.dim() != 2 or len(logits) != TRIAL_EXAMPLES or not logits.is_floating_point():
        raise InputError(
            f"model {name}: expected floats [{TRIAL_EXAMPLES}, S] for inputs {list(x.shape)}, "
            f"found {str(logits.dtype).removeprefix('torch.')} {list(logits.shape)}"
        )
    if any(one.requires_grad for one in module.parameters()) and not logits.requires_grad:
        raise InputError(f"model {name}: expected logits with gradients for its parameters, found none (detached?)")
    return logits.shape[1]


def seed_global(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of `device`, from which modules draw dropout masks."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def count_macs(module: nn.Module, input_dim: int) -> int:
    """Multiply-accumulate operations of one example: see `ModuleModel.macs_per_frame`."""
    total, counted = 0, set[int]()

    def count(layer: nn.Module, _: Any, outputs: Any) -> None:
        nonlocal total
        output = (outputs[0] if isinstance(outputs, tuple) else outputs).data
        positions = output.numel() // _num_channels(layer, output)
        weights = [weight for name, weight in layer.named_parameters(recurse=False) if "bias" not in name]
        total += positions * sum(weight.numel() for weight in weights)
        counted.update(id(parameter) for parameter in layer.parameters(recurse=False))

    layers = [one for one in module.modules() if isinstance(one, (nn.Linear, *_CONVOLUTIONS, *_RECURRENT))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with _evaluating(module), torch.no_grad():
            parameter = next(module.parameters())
            module(torch.zeros(1, input_dim, device=parameter.device, dtype=parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return total + sum(parameter.numel() for parameter in module.parameters() if id(parameter) not in counted)


def _num_channels(layer: nn.Module, output: Tensor) -> int:
    """Values that a layer computes at each position."""
    if isinstance(layer, _CONVOLUTIONS):
        return layer.out_channels
    return output.shape[-1]


def _require_module(module: Any, name: str) -> None:
    if not isinstance(module, nn.Module):
        raise InputError(f"model {name}: expected an nn.Module, found {type(module).__name__}")
    if next(module.parameters(), None) is None:
        raise InputError(f"model {name}: expected a module with parameters, found none")


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode, and without a trace in the global generator."""
    training = {one: one.training for one in module.modules()}
    with torch.random.fork_rng(devices=[]):
        module.eval()
        try:
            yield
        finally:
            for one, was_training in training.items():
                one.training = was_training
