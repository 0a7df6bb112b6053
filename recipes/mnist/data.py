"""Stage 0: the digits, and their division into training, held-out and evaluation digits."""

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
    """Stage 0: the verified digits as one safetensors file. InputError names a file that is missing or damaged."""
    tensors = {}
    for split, digits in load_mnist(corpus_dir, checksums).items():
        tensors[f"{split}_images"], tensors[f"{split}_labels"] = digits.images, digits.labels
        print(f"   {split}: {len(digits.labels)} digits", flush=True)
    save_tensors(out_dir / DIGITS_FILE, tensors, dict(checksums))


@dataclass(frozen=True)
class DigitData:
    """The digits of a run and their division.

    Evaluation digits are the test digits, and held-out digits are the last training digits. In a trial (`eval_set`
    held-out), evaluation digits are the last training digits, and held-out digits are the ones before them. No network
    learns the evaluation digits. Biases are tuned on the held-out digits, and students with tuned biases do not learn
    them.
    """

    train: Digits
    """All training digits."""
    eval_set: Digits
    eval_set_name: str
    num_train: int
    """Training digits that networks may learn: the first so many."""
    num_held_out: int
    """Held-out digits: the last so many of them."""

    @classmethod
    def open(cls, corpus: Path, options: DigitsOptions) -> DigitData:
        """The digits of stage 0, divided as the options ask. InputError if more than a third are held out."""
        tensors, _ = load_tensors(corpus / DIGITS_FILE)
        train, test = (Digits(tensors[f"{split}_images"], tensors[f"{split}_labels"]) for split in ("train", "test"))
        size, num_digits = options.held_out, len(train.labels)
        if 3 * size > num_digits:
            raise InputError(f"--held-out: expected at most a third of {num_digits} training digits, found {size}")
        if options.evaluates_test:
            return cls(train, test, "test", num_digits, size)
        eval_set = Digits(train.images[-size:], train.labels[-size:])
        return cls(train, eval_set, "held-out training", num_digits - size, size)

    @property
    def held_out(self) -> Digits:
        """Training digits on which biases are tuned."""
        part = slice(self.num_train - self.num_held_out, self.num_train)
        return Digits(self.train.images[part], self.train.labels[part])

    @property
    def class_prior(self) -> Tensor:
        """Share of each class among the training digits without the held-out ones, [10]."""
        labels = self.train.labels[: self.num_train - self.num_held_out]
        return torch.bincount(labels, minlength=len(ALL_CLASSES)) / len(labels)

    def train_ids(self, variant: Variant, run_seed: int) -> Tensor:
        """Indices of the training digits that a variant learns, int64 [N], sorted. InputError if there is none."""
        ids = torch.arange(self.num_train - (self.num_held_out if variant.excludes_held_out else 0))
        if variant.fraction < 1.0:
            shuffled = torch.randperm(len(ids), generator=torch.Generator().manual_seed(run_seed))
            ids = ids[shuffled[: round(variant.fraction * len(ids))]].sort().values
        if variant.classes != ALL_CLASSES:
            ids = ids[torch.isin(self.train.labels[ids], torch.tensor(variant.classes))]
        if len(ids) == 0:
            part = f"a fraction of {variant.fraction:g} of {self.num_train:,}"
            raise InputError(f"{variant.name}: expected training digits of {variant.classes} in {part}, found none")
        return ids
