"""Train a model on hard or soft targets; evaluate it. Needs neither k2 nor lhotse."""

from asrkd.nnet.evaluate import evaluate, iter_logits, log_posteriors
from asrkd.nnet.inputs import ArrayInputs, HardTargets, InputSource, Objective
from asrkd.nnet.options import TrainOptions, learning_rate_at
from asrkd.nnet.result import TrainResult
from asrkd.nnet.trainer import train, train_stacked

__all__ = [
    "ArrayInputs",
    "HardTargets",
    "InputSource",
    "Objective",
    "TrainOptions",
    "TrainResult",
    "evaluate",
    "iter_logits",
    "learning_rate_at",
    "log_posteriors",
    "train",
    "train_stacked",
]
