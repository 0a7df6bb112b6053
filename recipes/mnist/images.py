"""Digits as network inputs: pixels from 0 to 1, with random or given shifts."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from asrkd.errors import InputError
from asrkd.nnet import InputSource, iter_logits
from asrkd.nnet.stacked import StackedEnsemble

MAX_PIXEL = 255.0


class JitteredImages:
    """Images uint8 [N, H, W] as rows of H W values in [0, 1] (an `InputSource`).

    In training each image is shifted by up to `max_shift` pixels, in every epoch anew. Pixels that are shifted in are
    zero, and pixels that are shifted out are lost: nothing wraps around.
    """

    def __init__(self, images: Tensor, max_shift: int = 2) -> None:
        """InputError for images of another type or shape, or a negative shift."""
        if images.dim() != 3 or images.dtype != torch.uint8:
            raise InputError(f"images: expected bytes [N, H, W], found {images.dtype} {list(images.shape)}")
        if max_shift < 0:
            raise InputError(f"jitter: expected at least 0 pixels, found {max_shift}")
        self.max_shift = max_shift
        self.device = images.device
        self.height, self.width = images.shape[1:]
        padded = F.pad(images, (max_shift,) * 4)
        # [N, 2 max_shift + 1, 2 max_shift + 1, H, W]: every shift, as a view of the padded images.
        self._windows = padded.unfold(1, self.height, 1).unfold(2, self.width, 1)

    @property
    def dim(self) -> int:
        """Pixels of an image."""
        return self.height * self.width

    def __len__(self) -> int:
        return self._windows.shape[0]

    def batch(self, ids: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Inputs [B, dim] of images `ids` [B]. `generator` draws each image's shift. Without it there are no shifts."""
        if generator is None or self.max_shift == 0:
            return self.translated(ids, 0, 0)
        choices = 2 * self.max_shift + 1
        rows, columns = torch.randint(choices, (2, len(ids)), generator=generator, device=self.device)
        return _scaled(self._windows[ids, rows, columns])

    def translated(self, ids: Tensor, down: int, right: int) -> Tensor:
        """Inputs [B, dim] of images `ids` [B], shifted by `down` and `right` pixels, at most `max_shift`."""
        return _scaled(self._windows[ids, self.max_shift - down, self.max_shift - right])

    def translations(self) -> list[InputSource]:
        """The images with every shift that `batch` may draw: (2 max_shift + 1)^2 sources."""
        shifts = range(-self.max_shift, self.max_shift + 1)
        return [_Translated(self, down, right) for down, right in itertools.product(shifts, shifts)]


class _Translated:
    """All images with one shift."""

    def __init__(self, images: JitteredImages, down: int, right: int) -> None:
        self.images, self.down, self.right = images, down, right
        self.device = images.device

    @property
    def dim(self) -> int:
        return self.images.dim

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, ids: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.images.translated(ids, self.down, self.right)


def _scaled(images: Tensor) -> Tensor:
    return images.flatten(1).float().div_(MAX_PIXEL)


def member_logits(ensemble: StackedEnsemble, inputs: InputSource, precision: str = "float32") -> Tensor:
    """Logits [M, N, S] (CPU) of every member for every example, computed in `precision`."""
    return torch.cat([logits.float().cpu() for _, logits in iter_logits(ensemble, inputs, precision=precision)], dim=1)


def mean_logits(ensemble: StackedEnsemble, shifted: list[InputSource], precision: str = "float32") -> Tensor:
    """Logits [M, N, S] (CPU) of every member, averaged over several shifts of the same examples.

    The softmax of mean logits is the geometric mean of the softmaxes, whatever the temperature.
    """
    total = member_logits(ensemble, shifted[0], precision)
    for inputs in tqdm(shifted[1:], "shifts", initial=1, total=len(shifted)):
        total += member_logits(ensemble, inputs, precision)
    return total / len(shifted)
