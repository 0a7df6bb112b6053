"""Networks and their training on hard or soft targets. Needs neither k2 nor lhotse.

    model = AcousticDnn(input_dim, num_classes, ModelOptions(hidden_dim=512, num_layers=4))
    dev = DevSet(dev_inputs, dev_labels)
    result = train(model, inputs, HardTargets(labels), TrainOptions(epochs=15), out_dir, dev=dev)

`inputs` is an `InputSource`: ArrayInputs(matrix), or the SplicedFrames of a frame store (asrkd.features.store). The
loss is an `Objective`: HardTargets, or the Distillation of asrkd.distil.loss. With an `Augmentation` the inputs are
distorted or mixed anew in every step. `model` may be any nn.Module from inputs [N, D] to logits [N, S]
(`asrkd.nnet.modules`).
"""

from asrkd.nnet.augment import Augmentation, AugmentOptions
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.ensembles import MixedEnsemble, load_ensemble, make_ensemble
from asrkd.nnet.evaluate import evaluate, iter_logits
from asrkd.nnet.inputs import ArrayInputs, Batch, HardTargets, InputSource, Objective
from asrkd.nnet.layers import ModelShape
from asrkd.nnet.mixing import ExtraExamples
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.models import add_models, build_model, load_model
from asrkd.nnet.modules import ModuleModel, load_state
from asrkd.nnet.options import TrainOptions, learning_rate_at
from asrkd.nnet.result import TrainResult
from asrkd.nnet.stacked import StackedEnsemble
from asrkd.nnet.trainer import train, train_stacked
from asrkd.nnet.training_data import DevSet

__all__ = [
    "AcousticDnn",
    "ArrayInputs",
    "AugmentOptions",
    "Augmentation",
    "Batch",
    "DevSet",
    "ExtraExamples",
    "HardTargets",
    "InputSource",
    "MixedEnsemble",
    "ModelOptions",
    "ModelShape",
    "ModuleModel",
    "Objective",
    "StackedEnsemble",
    "TrainOptions",
    "TrainResult",
    "add_models",
    "build_model",
    "evaluate",
    "iter_logits",
    "learning_rate_at",
    "load_ensemble",
    "load_model",
    "load_state",
    "make_ensemble",
    "train",
    "train_stacked",
]
