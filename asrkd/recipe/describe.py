"""What each system of a run is, in a few words for its results."""

from __future__ import annotations

from collections.abc import Mapping

from asrkd.distil.loss import DistilOptions
from asrkd.nnet.model_options import ModelOptions
from asrkd.recipe.evaluate import Run
from asrkd.recipe.networks import teacher_model
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.students import Student, student_training


def describe(run: Run, options: SpeechOptions, student_of: Mapping[str, Student]) -> str:
    """A system in a few words: its network, what it learns, from what, and how."""
    if run.system == "ensemble":
        kinds = f" of kinds {', '.join(options.ensemble.kinds)}" if options.ensemble.kinds else ""
        return f"{len(run.models)} teachers{kinds}, {options.posteriors.mean} mean"
    student = student_of.get(run.name)
    if student is None:
        member = int(run.models[0].rpartition("/")[2])
        return f"{_shape(teacher_model(member, options))}, hard labels"
    inputs = "".join(f", {name} {value:g}" for name, value in student.augment.active.items())
    if student.distil is None:
        return f"{_shape(student.model)}, hard labels{inputs}{_speech(student, options)}"
    targets = _online_targets(student.distil) if student.distil.targets == "online" else _lattice_targets(options)
    soft = f"T={student.distil.temperature:g}, α={student.distil.alpha:g}{targets}"
    transfer = f", {options.transfer.share:.0%} of frames untranscribed" if student.uses_transfer else ""
    return f"{_shape(student.model)}, {soft}{inputs}{transfer}{_speech(student, options)}"


def _speech(student: Student, options: SpeechOptions) -> str:
    """What a student learns from, where that is not all that there is."""
    if student.speech == "all":
        return ""
    percent = 100 * (options.students.subset or 0.0)
    speech = "transcribed speech alone" if student.speech == "transcribed" else f"{percent:g}% of the utterances"
    return f", {speech}, {student_training(student, options).epochs} epochs"


def _online_targets(distil: DistilOptions) -> str:
    return ", online targets" + (" of one teacher a frame" if distil.online_teachers == "one" else "")


def _lattice_targets(options: SpeechOptions) -> str:
    transfer = options.transfer
    if transfer.targets != "lattice":
        return ""
    return f", lattice targets of the {transfer.lattices}, weight {transfer.lattice_weight:g}"


def _shape(model: ModelOptions) -> str:
    dropout = f"dropout {model.dropout:g}" if model.dropout else "no dropout"
    kind = "" if model.kind == "dnn" else f"{model.kind} "
    norm = ", layer norm" if model.normalises and model.norm == "layer" else ""
    return f"{kind}{model.num_layers}×{model.hidden_dim}, {dropout}{norm}"
