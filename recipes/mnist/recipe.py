"""MNIST: section 3 of Hinton, Vinyals and Dean (2015), its figures beside ours; fetched by local/fetch_mnist.sh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asrkd.digits.options import ComparedOptions, DigitsOptions, StudentOptions, TeacherOptions
from asrkd.digits.plan import main
from asrkd.train import TrainOptions

# Stochastic gradient descent with momentum, as in the paper's time: no decay of weights, a rate that falls to zero.
_SGD = TrainOptions(
    optimizer="sgd", momentum=0.9, weight_decay=0.0, schedule="linear", warmup_fraction=0.0, batch_size=256
)
# Trials at T=20 without clipping diverged at rates of 0.1: T^2, and targets far apart, make the first steps long.
_SOFT = replace(_SGD, learning_rate=0.05, warmup_fraction=0.02, clip_norm=5.0, batch_size=128)

FULL = DigitsOptions(
    profile="full",
    exp_dir=Path("exp/mnist"),
    checkpoint_epochs=25,
    teacher=TeacherOptions(size=10, train=replace(_SGD, epochs=600, learning_rate=0.1)),
    student=StudentOptions(
        seeds=5,
        hard=replace(_SGD, epochs=60, learning_rate=0.1),
        soft=replace(_SOFT, epochs=300),
    ),
    # Three dozen students: short, and alike among themselves.
    compared=ComparedOptions(train=replace(_SOFT, epochs=30, batch_size=256)),
)

# Sized for five minutes on two cores: two seeds, a sixtieth of the teachers' epochs, no averaging over translations.
QUICK = DigitsOptions(
    profile="quick",
    exp_dir=Path("exp/mnist_quick"),
    experiments=(1, 3, 4),
    teacher=TeacherOptions(size=2, translations=False, train=replace(_SGD, epochs=10, learning_rate=0.1)),
    student=StudentOptions(
        seeds=2,
        hard=replace(_SGD, epochs=5, learning_rate=0.1),
        soft=replace(_SOFT, epochs=8, batch_size=256),
    ),
    compared=ComparedOptions(train=replace(_SOFT, epochs=2, batch_size=256), teachers=(1, 2)),
)

if __name__ == "__main__":
    main({"quick": QUICK, "full": FULL})
