"""Parts of MNIST's results.json that are computed by hand here, and the committed results."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_digits import SMALL

from asrkd.data.corpora.mnist import NUM_CLASSES, SIDE, Digits
from asrkd.files import read_json
from asrkd.nnet.model_options import ModelOptions
from asrkd.recipe.network_cost import Network
from recipes.mnist.data import DigitData
from recipes.mnist.estimate import MeasuredRun, MeasuredTraining, TrainingKind, extrapolate, training_flop
from recipes.mnist.examples import dark_knowledge, remaining_errors
from recipes.mnist.markdown import results_markdown
from recipes.mnist.score import Scored
from recipes.mnist.variants import teacher

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "mnist"


def figures_by_row(markdown: str) -> list[list[str]]:
    """The numbers in each table row, in order."""
    return [re.findall(r"\d[\d,.]*", line) for line in markdown.splitlines() if line.startswith("|")]


def test_committed_results_have_the_figures_of_results_json() -> None:
    """The rendered words may differ from those of the committed page: they are the words of its time."""
    committed = (RECIPE / "RESULTS.md").read_text(encoding="utf-8")
    rendered = results_markdown(read_json(RECIPE / "results.json"))
    assert figures_by_row(rendered) == figures_by_row(committed)
    assert len(figures_by_row(committed)) > 100


def test_remaining_errors_are_ranked_by_their_number_of_seeds() -> None:
    labels = torch.tensor([4, 5, 6, 7])
    predictions = torch.tensor([[4, 0, 6, 1], [4, 0, 6, 7], [4, 2, 6, 1]])
    assert remaining_errors(Scored(teacher(SMALL), predictions, labels)) == {
        "by_some_seed": 2,
        "by_every_seed": 1,
        "digits": [
            {"digit": 1, "label": 5, "predicted": [0, 0, 2]},
            {"digit": 3, "label": 7, "predicted": [1, 7, 1]},
        ],
    }


def test_dark_knowledge_is_the_digit_with_targets_far_from_its_class() -> None:
    """Digit 1 is also a 5, digit 2 is not surely a 0, digit 3 is like most, digit 4 is not for training."""
    labels = torch.tensor([0, 0, 0, 0, 1])
    logits = torch.full((2, 5, 10), -10.0)
    logits[:, :4, 0] = 9.0
    logits[:, 1, 5] = 4.0
    logits[:, 2, 6] = 8.5
    digits = Digits(torch.zeros(5, 28, 28, dtype=torch.uint8), labels)
    (row,) = dark_knowledge(logits, DigitData(digits, digits, "synthetic", 4, 1), temperature=20.0)
    assert (row["digit"], row["label"]) == (1, 0)
    assert row["probs"][0] == pytest.approx(1 / (1 + np.exp(-5.0)), abs=1e-4)
    assert sum(row["softened"]) == pytest.approx(1.0)
    softened = torch.softmax(logits[0, :4] / 20, dim=1)
    kl = (softened[1] * (softened[1] / softened.mean(dim=0)).log()).sum()
    assert row["kl_to_class_mean"] == pytest.approx(float(kl)) and row["kl_to_class_mean"] > 0


def test_the_full_profile_is_extrapolated_at_the_rate_of_the_nearest_network(data_of) -> None:
    data = data_of(SMALL)
    full = replace(SMALL, experiments=(1,), teacher=replace(SMALL.teacher, size=2))
    short = replace(full, teacher=replace(full.teacher, translations=False))
    macs = {"teacher": 784 * 40 + 40 * 40 + 400, "student": 784 * 24 + 24 * 24 + 240}
    trainings = [
        MeasuredTraining(macs["teacher"], flop=1e6, seconds=2.0, kind=TrainingKind(True, "sgd", False)),
        MeasuredTraining(macs["student"], flop=1e6, seconds=1.0, kind=TrainingKind(False, "sgd", False)),
        MeasuredTraining(macs["student"], flop=1e6, seconds=3.0, kind=TrainingKind(False, "sgd", True)),
        MeasuredTraining(macs["student"] * 9, flop=1e6, seconds=50.0, kind=TrainingKind(False, "sgd", True)),
        MeasuredTraining(macs["student"], flop=1e6, seconds=70.0, kind=TrainingKind(False, "adamw", True)),
    ]
    estimate = extrapolate(full, data, MeasuredRun(short, trainings, posteriors_seconds=3.0))
    epochs = SMALL.student.hard.epochs
    networks = {width: Network(SIDE * SIDE, NUM_CLASSES, ModelOptions(width, 2)) for width in (40, 24)}
    large, small = training_flop(networks[40], 600, epochs, 2), training_flop(networks[24], 600, epochs, 3)
    assert large == 6 * macs["teacher"] * 600 * epochs * 2
    assert estimate["training_flop"] == large + 2 * small
    assert estimate["training_seconds"] == pytest.approx((2 * large + small + 3 * small) / 1e6)
    assert estimate["posteriors_seconds"] == 3.0 * 9
    assert estimate["seconds"] == estimate["training_seconds"] + 27.0
