"""MNIST: 60,000 training and 10,000 test digits in the idx format. Every file is checked by the MD5 of its content.

Source: LeCun, Bottou, Bengio and Haffner, *Gradient-based learning applied to document recognition* (1998).
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asrkd.errors import InputError

NUM_CLASSES = 10
SIDE = 28
# MD5 of the uncompressed files.
MNIST_MD5: Mapping[str, str] = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
PREFIXES = {"train": "train", "test": "t10k"}
WHERE = (
    "local/fetch_mnist.sh DIR fetches the files; or give --corpus-dir a folder with the four idx or idx.gz files "
    "of torchvision's mirrors"
)
# The idx header: two zero bytes, the type of the values, the number of axes, and each axis as 32 bits, big-endian.
UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class Digits:
    """Digits and their classes. InputError if the shapes differ or a class is not 0 to 9."""

    images: Tensor
    """uint8 [N, 28, 28], with ink 255."""
    labels: Tensor
    """Classes int64 [N]."""

    def __post_init__(self) -> None:
        if self.images.shape != (len(self.labels), SIDE, SIDE):
            raise InputError(
                f"digits: expected images [{len(self.labels)}, {SIDE}, {SIDE}] for {len(self.labels)} labels, "
                f"found {list(self.images.shape)}"
            )
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < NUM_CLASSES:
            raise InputError(
                f"digits: expected labels of 0 to 9, found {int(self.labels.min())} to {int(self.labels.max())}"
            )


def load_mnist(corpus_dir: Path, checksums: Mapping[str, str] = MNIST_MD5) -> dict[str, Digits]:
    """The digits of `train` and `test`. InputError names a file that is missing, damaged or not MNIST's."""
    contents = {name: verified_content(corpus_dir, name, md5) for name, md5 in checksums.items()}
    splits = {}
    for split, prefix in PREFIXES.items():
        images, labels = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
        splits[split] = Digits(
            parse_idx(contents[images], 3, corpus_dir / images),
            parse_idx(contents[labels], 1, corpus_dir / labels).long(),
        )
    return splits


def verify_mnist(corpus_dir: Path, checksums: Mapping[str, str] = MNIST_MD5) -> dict[str, str]:
    """MD5 of each file's content, after a check. InputError names the first file that is missing or differs."""
    if not corpus_dir.is_dir():
        raise InputError(f"--corpus-dir {corpus_dir}: no such folder; {WHERE}")
    for name, md5 in checksums.items():
        verified_content(corpus_dir, name, md5)
    return dict(checksums)


def verified_content(corpus_dir: Path, name: str, md5: str) -> bytes:
    """The uncompressed content of a file, plain or with .gz. InputError if its MD5 is not `md5`."""
    path = next((p for p in (corpus_dir / name, corpus_dir / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise InputError(f"{corpus_dir / name}: expected this file, or the same with .gz, found neither; {WHERE}")
    content = _content(path)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise InputError(f"{path}: expected content of MD5 {md5}, found {found} ({len(content):,} bytes); {WHERE}")
    return content


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: expected a whole gzip file, found a damaged or truncated one ({error})") from None


def parse_idx(content: bytes, num_axes: int, path: Path | str) -> Tensor:
    """The values of an idx file of unsigned bytes, uint8 with `num_axes` axes. `path` is for messages.

    InputError if the magic number differs, or if the file does not have the size in its header.
    """
    header = 4 + 4 * num_axes
    magic = bytes((0, 0, UNSIGNED_BYTE, num_axes))
    if content[:4] != magic:
        raise InputError(f"{path}: expected the idx magic number {magic.hex()}, found {content[:4].hex() or 'nothing'}")
    if len(content) < header:
        raise InputError(f"{path}: expected an idx header of {header} bytes, found {len(content)} in all")
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    expected = math.prod(shape)
    if len(content) - header != expected:
        raise InputError(f"{path}: expected {expected:,} bytes for {shape}, found {len(content) - header:,}")
    values = np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
    return torch.from_numpy(values.copy())
