"""Stages 6 to 8: teachers, their logits for every training digit, students."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from asrkd.data.corpora.mnist import NUM_CLASSES, Digits
from asrkd.files import load_tensors, read_json, save_tensors, write_json
from asrkd.nnet import InputSource, train_stacked
from asrkd.nnet.devices import resolve_device
from asrkd.nnet.models import AcousticDnn, StackedEnsemble
from asrkd.workflow import provenance
from recipes.mnist.data import DigitData
from recipes.mnist.images import JitteredImages, mean_logits
from recipes.mnist.options import DigitsOptions
from recipes.mnist.variants import Variant

MODEL_FILE = "model.safetensors"
SUMMARY_FILE = "summary.json"
LOGITS_FILE = "logits.safetensors"


def train_variant(
    variant: Variant, corpus: Path, posteriors: Path | None, options: DigitsOptions, out_dir: Path
) -> None:
    """Stages 6 and 8: the stack of a variant's seeds, and a summary of how it was trained."""
    data = DigitData.open(corpus, options)
    device = resolve_device(options.device)
    logits = None if posteriors is None else load_tensors(posteriors / LOGITS_FILE)[0]["logits"].to(device)
    inputs = JitteredImages(data.train.images.to(device), variant.jitter)
    objective = variant.targets.objective(data.train.labels.to(device), logits)
    ids = data.ids_for(variant, options.seed)
    seeds = variant.member_seeds(options.seed)
    stack = StackedEnsemble([AcousticDnn(inputs.dim, NUM_CLASSES, variant.model, seed) for seed in seeds])
    result = train_stacked(
        stack,
        seeds,
        inputs,
        objective,
        replace(variant.train, device=options.device),
        out_dir,
        ids,
        variant.name,
        options.checkpoint_epochs,
    )
    seconds = sum(epoch["seconds"] for epoch in result.history)
    seen = sum(epoch["seconds"] * epoch["frames_per_sec"] for epoch in result.history)
    write_json(
        out_dir / SUMMARY_FILE,
        {
            "seeds": seeds,
            "digits": len(ids),
            "epochs": len(result.history),
            "parameters": stack.num_parameters // len(seeds),
            "macs_per_digit": stack.macs_per_frame // len(seeds),
            "precision": result.precision,
            "device": provenance.device_name(str(device)),
            "seconds": seconds,
            "digits_per_sec": seen / seconds,
            "train_loss": result.history[-1]["train_loss"],
        },
    )
    print(f"   {variant.name}: loss {result.history[-1]['train_loss']:.4f}, {seen / seconds:.0f} digits/s", flush=True)


def make_posteriors(corpus: Path, teachers: Path, options: DigitsOptions, out_dir: Path) -> None:
    """Stage 7: every teacher's logits for every training digit, as they serve all temperatures and sizes, and for
    the judged digits, which tell how good the soft targets are."""
    data = DigitData.open(corpus, options)
    device = resolve_device(options.device)
    ensemble = load_stack(teachers, device)
    # In the arithmetic that the teachers were trained in, as for speech.
    precision = read_json(teachers / SUMMARY_FILE)["precision"]
    learnt, eval_set = (_views(digits, options, device) for digits in (data.train, data.eval_set))
    save_tensors(
        out_dir / LOGITS_FILE,
        {"logits": mean_logits(ensemble, learnt, precision), "judged": mean_logits(ensemble, eval_set, precision)},
        {"views": str(len(learnt))},
    )


def _views(digits: Digits, options: DigitsOptions, device: torch.device) -> list[InputSource]:
    """The digits as teachers see them: as they are, or under every shift that training may draw."""
    images = JitteredImages(digits.images.to(device), options.teacher.jitter)
    return images.translations() if options.teacher.translations else [images]


def load_stack(folder: Path, device: torch.device) -> StackedEnsemble:
    """The trained networks of a step."""
    return StackedEnsemble.load_stack(folder / MODEL_FILE).to(device)
