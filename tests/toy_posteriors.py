"""Three random teachers of a hundred frames, and the store of their posteriors."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from asrkd.distil.compression import StoreOptions
from asrkd.distil.store import EnsemblePosteriors, PosteriorStore, chunks, write_store
from asrkd.nnet import ArrayInputs
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.evaluate import CHUNK
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.stacked import StackedEnsemble

NUM_CLASSES = 30
DIM = 6


@dataclass
class Frames:
    utt_ids: tuple[str, ...] = ("a-1", "b-2", "c-3")
    offsets: Tensor = field(default_factory=lambda: torch.tensor([0, 40, 41, 100]))
    fingerprint: str = "frames0"


def make_ensemble(seed: int = 0, gain: float = 4.0) -> StackedEnsemble:
    """Three random teachers, their logits spread like a trained net's."""
    shape = ModelOptions(hidden_dim=16, num_layers=2, dropout=0.0)
    members = [AcousticDnn(DIM, NUM_CLASSES, shape, seed=seed + member) for member in range(3)]
    for member in members:
        with torch.no_grad():
            member.layers[-1].weight.mul_(gain)
    return StackedEnsemble(members)


def make_inputs(num_frames: int = 100) -> ArrayInputs:
    return ArrayInputs(torch.randn(num_frames, DIM, generator=torch.Generator().manual_seed(1)))


def write(path, options=StoreOptions(), ensemble=None, inputs=None, precision="float32", chunk=CHUNK) -> PosteriorStore:  # noqa: B008
    task = EnsemblePosteriors(ensemble or make_ensemble(), inputs or make_inputs(), options, precision)
    return write_store(path, task.describe(Frames(), "tree0"), task, chunks(100, chunk), show_progress=False)
