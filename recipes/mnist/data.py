"""Stage 0: the digits, and which of them learn, tune and judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asrkd.data.corpora.mnist import Digits, load_mnist
from asrkd.errors import InputError
from asrkd.files import load_tensors, save_tensors
from recipes.mnist.options import DigitsOptions
from recipes.mnist.variants import ALL_CLASSES, Variant

DIGITS_FILE = "digits.safetensors"


def make_corpus(corpus_dir: Path, checksums: Mapping[str, str], out_dir: Path) -> None:
    """Stage 0: the verified digits as one safetensors file."""
    tensors = {}
    for split, digits in load_mnist(corpus_dir, checksums).items():
        tensors[f"{split}_images"], tensors[f"{split}_labels"] = digits.images, digits.labels
        print(f"   {split}: {len(digits.labels)} digits", flush=True)
    save_tensors(out_dir / DIGITS_FILE, tensors, dict(checksums))


@dataclass(frozen=True)
class DigitData:
    """The digits of a run, and the parts of the training digits.

    Judged are the test digits and tuning are the last training digits; in a trial (`eval_set` held-out) the last
    training digits are judged and those before them tune. What is judged is never learnt; what tunes is learnt by all
    but those whose biases it tunes.
    """

    train: Digits
    eval_set: Digits
    eval_set_name: str
    num_learnt: int
    """Training digits that may be learnt: the first so many."""
    num_held_out: int
    """How many of them, the last, tune biases."""

    @classmethod
    def open(cls, corpus: Path, options: DigitsOptions) -> DigitData:
        tensors, _ = load_tensors(corpus / DIGITS_FILE)
        found = {split: Digits(tensors[f"{split}_images"], tensors[f"{split}_labels"]) for split in ("train", "test")}
        train, size = found["train"], options.held_out
        num_train = len(train.labels)
        if 3 * size > num_train:
            raise InputError(f"--held-out: expected at most a third of {num_train} training digits, found {size}")
        if options.eval_set == "test":
            return cls(train, found["test"], "test", num_train, size)
        eval_set = Digits(train.images[-size:], train.labels[-size:])
        return cls(train, eval_set, "held-out training", num_train - size, size)

    @property
    def tuning(self) -> Digits:
        """Training digits by which biases are tuned."""
        part = slice(self.num_learnt - self.num_held_out, self.num_learnt)
        return Digits(self.train.images[part], self.train.labels[part])

    @property
    def class_prior(self) -> Tensor:
        """Share of each class among the digits that may be learnt, less those that tune: [10]."""
        labels = self.train.labels[: self.num_learnt - self.num_held_out]
        return torch.bincount(labels, minlength=len(ALL_CLASSES)) / len(labels)

    def ids_for(self, variant: Variant, run_seed: int) -> Tensor:
        """Training digits that a variant learns. InputError if there is none."""
        ids = torch.arange(self.num_learnt - (self.num_held_out if variant.excludes_held_out else 0))
        if variant.fraction < 1.0:
            shuffled = torch.randperm(len(ids), generator=torch.Generator().manual_seed(run_seed))
            ids = ids[shuffled[: round(variant.fraction * len(ids))]].sort().values
        if variant.classes != ALL_CLASSES:
            ids = ids[torch.isin(self.train.labels[ids], torch.tensor(variant.classes))]
        if len(ids) == 0:
            part = f"a part of {variant.fraction:g} of {self.num_learnt:,}"
            raise InputError(f"{variant.name}: expected training digits of {variant.classes} in {part}, found none")
        return ids
