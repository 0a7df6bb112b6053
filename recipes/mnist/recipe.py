"""MNIST: section 3 of Hinton, Vinyals and Dean (2015). local/fetch_mnist.sh fetches the digits."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from asrkd.nnet import TrainOptions
from asrkd.nnet.model_options import ModelOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout: its recipes are not installed

from recipes.mnist.options import ComparedOptions, DigitsOptions, StudentOptions, TeacherOptions
from recipes.mnist.pipeline import main

# The plain student: stochastic gradient descent with momentum, a rate that falls to zero, no weight decay.
_HARD = TrainOptions(
    optimizer="sgd", momentum=0.9, weight_decay=0.0, schedule="linear", warmup_fraction=0.0, batch_size=256,
    learning_rate=0.1,
)  # fmt: skip
# In as many epochs, teachers and soft targets reach fewer errors with AdamW at a rate above its usual one and with a
# faster second moment (LOG.md).
_ADAM = replace(_HARD, optimizer="adamw", beta2=0.99, schedule="cosine", warmup_fraction=0.05)
# For teachers trained with AdamW, soft targets of the digit itself are better than their mean over its shifts (LOG.md).
_TEACHER = TeacherOptions(
    translations=False,
    model=ModelOptions(1200, 2, dropout=0.3, input_dropout=0.1, max_norm=3.5),
    train=replace(_ADAM, learning_rate=2e-3, batch_size=512),
)
_SOFT = replace(_ADAM, learning_rate=3e-3)
_STUDENT = ModelOptions(800, 2, dropout=0.0)

# Sized for minutes on a GPU, or for four hours on two cores.
FULL = DigitsOptions(
    profile="full",
    exp_dir=Path("exp/mnist"),
    # With more than ten times the quick profile's epochs, teachers need more dropout.
    teacher=replace(
        _TEACHER,
        size=10,
        model=replace(_TEACHER.model, dropout=0.4),
        train=replace(_TEACHER.train, epochs=220),
    ),
    student=StudentOptions(
        seeds=5,
        model=_STUDENT,
        hard=replace(_HARD, epochs=20),
        # After 100 epochs the student fits the soft targets of all training digits. Weight decay then makes it agree
        # with its teachers on other digits too. In a tenth of the epochs it does harm (LOG.md).
        soft=replace(_SOFT, epochs=100, weight_decay=0.1),
    ),
    # Short trainings of one length for three dozen students.
    compared=ComparedOptions(train=replace(_SOFT, epochs=10)),
)

# Sized for five minutes on two cores: three seeds, two teachers, short trainings.
QUICK = DigitsOptions(
    profile="quick",
    exp_dir=Path("exp/mnist_quick"),
    experiments=(1, 3, 4),
    teacher=replace(_TEACHER, size=2, train=replace(_TEACHER.train, epochs=12)),
    student=StudentOptions(seeds=3, model=_STUDENT, hard=replace(_HARD, epochs=6), soft=replace(_SOFT, epochs=10)),
    compared=ComparedOptions(train=replace(_SOFT, epochs=2), teachers=(1, 2)),
)

if __name__ == "__main__":
    main({"quick": QUICK, "full": FULL})
