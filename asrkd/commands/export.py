"""`asrkd export`: a system of a finished run as a model that stands alone."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from asrkd.commands.command import Command
from asrkd.errors import InputError
from asrkd.terminal import tidy_end

if TYPE_CHECKING:
    from asrkd.recipe.export_options import ExportOptions

_NEEDED = ("torch", "lhotse", "onnx", "onnxruntime", "kaldi_native_fbank", "kaldi_decoder", "kaldifst")


def _options() -> Any:
    from asrkd.recipe.export_options import ExportOptions

    return ExportOptions


def run(options: ExportOptions) -> int:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"export: expected the packages of asrkd[train,decode,runtime,export], found no {', '.join(missing)}: "
            "run `make setup`, or pip install these extras"
        )
    from asrkd.recipe.export import export

    with tidy_end():
        export(options)
    return 0


COMMAND = Command(
    name="export",
    summary="Export a system of a finished run as a model that needs neither torch nor k2.",
    description="""
The model is a folder, or the same files as one .tar.gz: the network as ONNX, in float32 and with 8-bit weights;
normalisation, neighbouring frames and log-priors are in its graph; the decoding graph with the scales that the run
tuned; words, phones and pronunciations; a model card. model.json has the options, and the SHA-256 of every file.

Then the model decodes the run's test set as `asrkd transcribe` does. A table compares it with the run: word error
rate, frame accuracy, scores and time. If 8-bit weights lose more than --max-wer-loss, the model has float32 alone.""",
    examples=(
        "asrkd export exp/an4 --out model",
        "asrkd export exp/an4 --system ensemble --out ensemble.tar.gz --license CC-BY-4.0",
        "asrkd export exp/libri --out model --check-utterances 200     # check on a part of a large test set",
    ),
    options=_options,
    run=run,
)
