"""Stages 6 to 8: teachers, their logits for every training digit, students."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkd.data.corpora.mnist import NUM_CLASSES, Digits
from asrkd.distil.online import OnlineTargets
from asrkd.files import load_tensors, save_tensors, write_json
from asrkd.nnet import Augmentation, AugmentOptions, InputSource, Objective, train_stacked
from asrkd.nnet.devices import resolve_device
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.precision import PRECISION_FILE
from asrkd.nnet.result import MODEL_NAME, TrainResult
from asrkd.nnet.stacked import StackedEnsemble
from asrkd.recipe.trained import DEVICE_KEY, PRECISION_KEY, SUMMARY_FILE, trained_precision
from asrkd.workflow import provenance
from recipes.mnist.data import DigitData
from recipes.mnist.images import JitteredImages, mean_logits
from recipes.mnist.options import DigitsOptions
from recipes.mnist.variants import OnlineSoftLabels, Variant

LOGITS_FILE = "logits.safetensors"
TRAIN_LOGITS, EVAL_LOGITS = "train", "eval"


def train_variant(
    variant: Variant, corpus: Path, taught_by: Path | None, options: DigitsOptions, out_dir: Path
) -> None:
    """Stages 6 and 8: the networks of a variant as one stack, and a summary of their training.

    `taught_by` is the folder of the step that its targets come from (`Variant.taught_by`), None for hard labels.
    InputError: as `train_stacked`.
    """
    data = DigitData.open(corpus, options)
    device = resolve_device(options.device)
    inputs = JitteredImages(data.train.images.to(device), variant.jitter)
    ids = data.train_ids(variant, options.seed)
    seeds = variant.member_seeds(options.seed)
    stack = StackedEnsemble([AcousticDnn(inputs.dim, NUM_CLASSES, variant.model, seed) for seed in seeds])
    result = train_stacked(
        stack,
        seeds,
        inputs,
        _objective(variant, data.train.labels.to(device), taught_by),
        replace(variant.train, device=options.device),
        out_dir,
        frame_ids=ids,
        description=variant.name,
        precision_file=options.exp_dir / PRECISION_FILE,
        checkpoint_epochs=options.checkpoint_epochs,
        augment=Augmentation(AugmentOptions(mix=variant.mix), inputs.dim) if variant.mix else None,
    )
    training = _training_summary(result)
    summary = {
        "seeds": seeds,
        "digits": len(ids),
        "parameters": stack.num_parameters // len(seeds),
        "macs_per_digit": stack.macs_per_frame // len(seeds),
        DEVICE_KEY: provenance.device_name(str(device)),
        PRECISION_KEY: result.precision,
        **training,
    }
    write_json(out_dir / SUMMARY_FILE, summary)
    loss, rate = training["train_loss"], training["digits_per_sec"]
    print(f"   {variant.name}: loss {loss:.4f}, {rate:.0f} digits/s", flush=True)


def _objective(variant: Variant, labels: Tensor, taught_by: Path | None) -> Objective:
    """The loss of a variant, with its targets on the device of the labels [N]."""
    if isinstance(variant.targets, OnlineSoftLabels):
        assert taught_by is not None
        ensemble = load_stack(taught_by, labels.device)
        precision, teachers = trained_precision([taught_by]), variant.targets.distil.online_teachers
        return variant.targets.objective(labels, OnlineTargets(ensemble, precision=precision, teachers=teachers))
    logits = None if taught_by is None else load_tensors(taught_by / LOGITS_FILE)[0][TRAIN_LOGITS].to(labels.device)
    return variant.targets.objective(labels, logits)


def _training_summary(result: TrainResult) -> dict[str, Any]:
    """Epochs, seconds and digits per second of a training, and the loss at its end."""
    seconds = sum(epoch["seconds"] for epoch in result.history)
    digits = sum(epoch["seconds"] * epoch["frames_per_sec"] for epoch in result.history)
    return {
        "epochs": len(result.history),
        "seconds": seconds,
        "digits_per_sec": digits / seconds,
        "train_loss": result.history[-1]["train_loss"],
    }


def make_posteriors(corpus: Path, teachers: Path, options: DigitsOptions, out_dir: Path) -> None:
    """Stage 7: every teacher's logits [M, N, 10].

    Logits of the training digits serve every temperature and every number of teachers. Logits of the evaluation digits
    show the errors of the soft targets.
    """
    data = DigitData.open(corpus, options)
    device = resolve_device(options.device)
    ensemble = load_stack(teachers, device)
    precision = trained_precision([teachers])
    train, eval_set = (_shifted(digits, options, device) for digits in (data.train, data.eval_set))
    save_tensors(
        out_dir / LOGITS_FILE,
        {
            TRAIN_LOGITS: mean_logits(ensemble, train, precision),
            EVAL_LOGITS: mean_logits(ensemble, eval_set, precision),
        },
        {"shifts": str(len(train))},
    )


def _shifted(digits: Digits, options: DigitsOptions, device: torch.device) -> list[InputSource]:
    """The digits as teachers see them: unshifted, or with every shift that training may draw."""
    images = JitteredImages(digits.images.to(device), options.teacher.jitter)
    return images.translations() if options.teacher.translations else [images]


def load_stack(step_dir: Path, device: torch.device) -> StackedEnsemble:
    """The trained networks of a step. InputError if its file is missing or damaged."""
    return StackedEnsemble.load_stack(step_dir / MODEL_NAME).to(device)
