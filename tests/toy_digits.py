"""A few hundred synthetic digits as MNIST's four files, and a small MNIST recipe on them.

`python toy_digits.py CORPUS_DIR OPTION...` runs it, as recipes/mnist/recipe.py runs on MNIST.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from asrkd.data.corpora.mnist import MNIST_MD5
from asrkd.nnet import TrainOptions
from asrkd.nnet.model_options import ModelOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout: its recipes are not installed

from recipes.mnist.options import ComparedOptions, DigitsOptions, StudentOptions, TeacherOptions
from recipes.mnist.pipeline import main
from recipes.mnist.variants import Variant, students

NUM_TRAIN, NUM_TEST = 600, 200


def idx_bytes(values: np.ndarray) -> bytes:
    """Unsigned bytes in the idx format."""
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


def make_digits(num_digits: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 28, 28] and labels [N]: ten scribbles, shifted and with noise, the same ones for every `seed`."""
    scribbles = np.random.default_rng(0).random((10, 7, 7)) > 0.55
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, num_digits)
    images = np.zeros((num_digits, 28, 28))
    for image, label in zip(images, labels, strict=True):
        down, right = rng.integers(2, 6, 2)
        image[down : down + 21, right : right + 21] = np.kron(scribbles[label], np.ones((3, 3)))
    noisy = 160 * images + rng.normal(0, 70, images.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), labels.astype(np.uint8)


def write_corpus(folder: Path) -> dict[str, str]:
    """The four files in `folder`, and the MD5 of each."""
    folder.mkdir(parents=True, exist_ok=True)
    checksums = {}
    for prefix, num_digits, seed in (("train", NUM_TRAIN, 1), ("t10k", NUM_TEST, 2)):
        images, labels = make_digits(num_digits, seed)
        for name, values in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            (folder / name).write_bytes(idx_bytes(values))
            checksums[name] = hashlib.md5(idx_bytes(values), usedforsecurity=False).hexdigest()
    assert set(checksums) == set(MNIST_MD5)
    return checksums


_TRAIN = TrainOptions(
    epochs=6, batch_size=32, optimizer="sgd", learning_rate=0.05, weight_decay=0.0, clip_norm=5.0,
    schedule="linear", precision="float32", num_threads=1, show_progress=False,
)  # fmt: skip
SMALL = DigitsOptions(
    profile="full",
    held_out=100,
    device="cpu",
    checkpoint_epochs=2,
    teacher=TeacherOptions(
        size=3, jitter=1, model=ModelOptions(40, 2, dropout=0.2, input_dropout=0.1, max_norm=3.5), train=_TRAIN
    ),
    student=StudentOptions(seeds=3, model=ModelOptions(24, 2, dropout=0.0), hard=_TRAIN, soft=_TRAIN),
    compared=ComparedOptions(
        train=replace(_TRAIN, epochs=2), widths=(8, 24), temperatures=(1.0, 3.0, 8.0, 20.0), teachers=(1, 2, 3),
        matching_temperatures=(2.0, 8.0, 40.0), alphas=(0.0, 1.0), fraction=0.3,
    ),
)  # fmt: skip
PROFILES = {"full": SMALL, "quick": replace(SMALL, profile="quick", experiments=(1, 3, 4))}


def students_by_name(options: DigitsOptions) -> dict[str, Variant]:
    """Every student of a run by its name."""
    return {variant.name: variant for variant in students(options)}


if __name__ == "__main__":
    corpus_dir = Path(sys.argv[1])
    main(PROFILES, [f"--corpus-dir={corpus_dir}", *sys.argv[2:]], write_corpus(corpus_dir))  # type: ignore[arg-type]
