"""The networks that label the frames, stages 4 and 5: trained here or in the interpreter of `--train.python`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.files import map_tensors, save_tensors, write_json
from asrkd.nnet import HardTargets, TrainOptions, train
from asrkd.nnet.devices import resolve_device
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.training_python import training_interpreter
from asrkd.workflow.interpreter import Interpreter

PRECISION_FILE = "precision.json"
_LABELS_FILE = "labels.safetensors"


def train_label_network(
    inputs: SplicedFrames,
    labels: Tensor,
    frame_ids: Tensor,
    num_pdfs: int,
    options: SpeechOptions,
    folder: Path,
    features: Path,
) -> None:
    """Train a network on the labels [T] of those frames of a store that have one, into a folder that has its name.

    `features` is the folder of the store that `inputs` reads: another interpreter reads it itself. The folder gets
    the network, and its precision.
    """
    python = training_interpreter(options)
    if python is None:
        _train(inputs, labels, frame_ids, num_pdfs, options, folder)
        return
    save_tensors(folder / _LABELS_FILE, {"labels": labels, "frame_ids": frame_ids}, {})
    with Interpreter(python) as other:
        other.run(partial(_train_stored, features, num_pdfs, options, folder), trains=True)
    (folder / _LABELS_FILE).unlink()


def copies_frames(options: SpeechOptions) -> bool:
    """Whether a training copies its frames from their store, in shards or to a GPU; else they are in memory before."""
    return options.train.shard_frames is not None or resolve_device(options.device).type == "cuda"


def _train_stored(features: Path, num_pdfs: int, options: SpeechOptions, folder: Path) -> None:
    in_memory = () if copies_frames(options) else None
    store = FrameStore.open(features)
    inputs = SplicedFrames(store, options.context.left, options.context.right, utt_ids=in_memory)
    tensors, _ = map_tensors(folder / _LABELS_FILE)
    _train(inputs, tensors["labels"], tensors["frame_ids"], num_pdfs, options, folder)


def _train(
    inputs: SplicedFrames, labels: Tensor, frame_ids: Tensor, num_pdfs: int, options: SpeechOptions, folder: Path
) -> None:
    model = AcousticDnn(inputs.dim, num_pdfs, label_model(options.teacher), seed=options.seed)
    result = train(
        model,
        inputs,
        HardTargets(labels),
        label_training(options),
        folder,
        frame_ids=frame_ids,
        description=folder.name,
        precision_file=RunFolders(options.exp_dir).precision_choices,
    )
    write_json(folder / PRECISION_FILE, {"precision": result.precision})


def label_model(teacher: ModelOptions) -> ModelOptions:
    """The rounds' networks: feed-forward, of the teachers' size, so that teachers of all kinds have one labelling."""
    return replace(teacher, kind="dnn", norm="auto")


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
