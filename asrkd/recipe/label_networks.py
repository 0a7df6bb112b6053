"""The networks that label the frames, stages 4 and 5: trained here or in the interpreter of `--train.python`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from asrkd.align.labels import NO_LABEL
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.files import load_tensors, save_tensors, write_json
from asrkd.nnet import HardTargets, TrainOptions, train
from asrkd.nnet.dnn import AcousticDnn
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.training_python import training_interpreter
from asrkd.workflow.interpreter import Interpreter

PRECISION_FILE = "precision.json"
_LABELS_FILE = "labels.safetensors"


def train_label_network(
    inputs: SplicedFrames, labels: Tensor, num_pdfs: int, options: SpeechOptions, folder: Path, features: Path
) -> None:
    """Train a network on the labels [T] of a store's frames (NO_LABEL: none), into a folder that has its name.

    `features` is the folder of the store that `inputs` reads: another interpreter reads it itself. The folder gets
    the network, and its precision.
    """
    python = training_interpreter(options)
    if python is None:
        _train(inputs, labels, num_pdfs, options, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / _LABELS_FILE, {"labels": labels}, {})
    with Interpreter(python) as other:
        other.run(partial(_train_stored, features, num_pdfs, options, folder), trains=True)
    (folder / _LABELS_FILE).unlink()


def _train_stored(features: Path, num_pdfs: int, options: SpeechOptions, folder: Path) -> None:
    inputs = SplicedFrames(FrameStore.open(features), options.context.left, options.context.right)
    labels = load_tensors(folder / _LABELS_FILE)[0]["labels"]
    _train(inputs, labels, num_pdfs, options, folder)


def _train(inputs: SplicedFrames, labels: Tensor, num_pdfs: int, options: SpeechOptions, folder: Path) -> None:
    model = AcousticDnn(inputs.dim, num_pdfs, options.teacher, seed=options.seed)
    result = train(
        model,
        inputs,
        HardTargets(labels.clamp(min=0)),
        label_training(options),
        folder,
        frame_ids=(labels != NO_LABEL).nonzero().squeeze(1),
        description=folder.name,
        precision_file=RunFolders(options.exp_dir).precision_choices,
    )
    write_json(folder / PRECISION_FILE, {"precision": result.precision})


def label_training(options: SpeechOptions) -> TrainOptions:
    """How the rounds' networks train: without development data, and so without the options that need it."""
    schedule = "cosine" if options.train.schedule == "newbob" else options.train.schedule
    return replace(
        options.train,
        epochs=options.labels.epochs,
        schedule=schedule,
        patience=None,
        select_by="accuracy",
        seed=options.seed,
        device=options.device,
    )
