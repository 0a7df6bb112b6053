"""Models by their kind: those of this package, and those that a recipe or a program adds by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from asrkd.errors import InputError
from asrkd.files import reading
from asrkd.nnet.dnn import AcousticDnn, load_model_file, load_weights, shape_of
from asrkd.nnet.layers import ModelShape
from asrkd.nnet.model_options import KINDS
from asrkd.nnet.modules import ModuleModel

Builder = Callable[[ModelShape], nn.Module]
"""Makes a module for this shape: inputs [N, input_dim] -> logits [N, num_outputs]. `shape.frame_dim` is the number of
features of each frame in an input, `shape.options` the ModelOptions, such as hidden_dim, that it may follow."""
SingleModel = AcousticDnn | ModuleModel

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
# Of this process, and of those that are forked from it. Files name the kind of their model, no file names code.
_builders: dict[str, Builder] = {}


def add_models(builders: Mapping[str, Builder]) -> None:
    """Make models known by name: `kind` of ModelOptions, and of saved models.

    InputError for a name that is taken or cannot be typed as an option's value, or for what cannot be called.
    """
    for name, builder in builders.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in KINDS:
            raise InputError(
                f"models: expected names of letters, digits, - and _, none of {', '.join(KINDS)}, found {name!r}"
            )
        if not callable(builder):
            raise InputError(
                f"models: expected for {name} a function of a ModelShape that makes an nn.Module, "
                f"found {type(builder).__name__}"
            )
        _builders[name] = builder


def added_models() -> Mapping[str, Builder]:
    """The models that were added, by name."""
    return dict(_builders)


def require_kind(kind: str, option: str) -> None:
    """InputError for a kind that is neither of this package nor added."""
    known = [*KINDS, *_builders]
    if kind not in known:
        nearest = difflib.get_close_matches(kind, known, n=1)
        raise InputError(
            f"{option}: expected {', '.join(known)}, or a model that the recipe adds (models=), found {kind}"
            + (f" (did you mean {nearest[0]}?)" if nearest else "")
        )


def build_model(shape: ModelShape, seed: int = 0) -> SingleModel:
    """A model of `shape.options.kind`, whose initial weights depend on `seed` alone.

    InputError for an unknown kind, or for a module that does not follow the protocol (`asrkd.nnet.modules`).
    """
    kind = shape.options.kind
    if kind in KINDS:
        return AcousticDnn(shape.input_dim, shape.num_outputs, shape.options, seed, shape.frame_dim)
    require_kind(kind, "model.kind")
    # The builder draws weights from the global generator, whose state stays as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            module = _builders[kind](shape)
        except InputError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"model {kind}: expected its builder to make an nn.Module for {shape.input_dim} inputs and "
                f"{shape.num_outputs} outputs, found {type(error).__name__}: {reason:.200}"
            ) from error
    return ModuleModel(module, shape)


def load_model(path: Path | str) -> SingleModel:
    """The model that was saved at `path`, of whatever kind.

    InputError if the file is missing, damaged, or of a kind that was not added in this process.
    """
    tensors, architecture = load_model_file(path)
    with reading(path, "a model"):
        shape = shape_of(architecture)
    if shape.options.kind in KINDS:
        return AcousticDnn.load(path)
    if shape.options.kind not in _builders:
        raise InputError(
            f"{path}: expected a model of {', '.join([*KINDS, *_builders])}, found one of kind "
            f"{shape.options.kind}: add it first (asrkd.nnet.add_models)"
        )
    model = build_model(shape)
    load_weights(model, tensors, path)
    return model.eval()
