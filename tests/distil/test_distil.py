"""Distillation whole: teachers, their posteriors in a store, a student, against the same student on hard labels."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from asrkd.distil.compression import StoreOptions
from asrkd.distil.ensemble import AveragedEnsemble
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.store import EnsemblePosteriors, write_store
from asrkd.nnet import ArrayInputs, HardTargets, Objective, TrainOptions, evaluate, train
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.stacked import StackedEnsemble

NUM_CLASSES = 10
DIM = 12


@dataclass
class Frames:
    """One utterance that holds every frame."""

    num_frames: int
    utt_ids: tuple[str, ...] = ("all",)
    fingerprint: str = "clouds"

    @property
    def offsets(self) -> Tensor:
        return torch.tensor([0, self.num_frames])


def clouds(num_examples: int, seed: int) -> tuple[ArrayInputs, Tensor]:
    """Overlapping Gaussian clouds, so that no classifier is sure, and the cloud of each point."""
    centres = torch.randn(NUM_CLASSES, DIM, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (num_examples,), generator=generator)
    return ArrayInputs(centres[labels] + 1.5 * torch.randn(num_examples, DIM, generator=generator)), labels


@pytest.mark.parametrize("top_k", [3, NUM_CLASSES])
def test_student_beats_the_same_student_on_hard_labels(tmp_path, top_k):
    inputs, labels = clouds(400, 1)
    test_inputs, test_labels = clouds(3000, 2)
    options = TrainOptions(
        epochs=20, batch_size=50, learning_rate=5e-3, precision="float32", show_progress=False, num_threads=1
    )

    def fit(name: str, dropout: float, seed: int, objective: Objective) -> AcousticDnn:
        shape = ModelOptions(hidden_dim=64, num_layers=2, dropout=dropout)
        model = AcousticDnn(DIM, NUM_CLASSES, shape, seed=seed)
        train(model, inputs, objective, options, tmp_path / name)
        return model

    hard = HardTargets(labels)
    ensemble = StackedEnsemble([fit(f"teacher{seed}", 0.3, seed, hard) for seed in range(3)])
    task = EnsemblePosteriors(ensemble, inputs, StoreOptions(top_k))
    store = write_store(tmp_path / "store", task.describe(Frames(400), "classes"), task, show_progress=False)
    objective = Distillation(labels, store, DistilOptions(alpha=0.9, temperature=2.0))
    scores = {
        "ensemble": evaluate(AveragedEnsemble(ensemble), test_inputs, test_labels),
        "distilled": evaluate(fit("distilled", 0.0, 9, objective), test_inputs, test_labels),
        "baseline": evaluate(fit("baseline", 0.0, 9, hard), test_inputs, test_labels),
    }
    accuracy, nats = ({name: score[i] for name, score in scores.items()} for i in (0, 1))
    assert nats["ensemble"] < nats["distilled"] < 0.9 * nats["baseline"]
    assert accuracy["distilled"] > accuracy["baseline"]
