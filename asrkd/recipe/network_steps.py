"""Stages 6 to 8 as steps: teachers, their posteriors, students."""

from __future__ import annotations

from functools import partial
from typing import Any

from asrkd.distil.store import FORMAT, PosteriorStore
from asrkd.recipe import (
    augment_steps,
    choice,
    external_teacher,
    fit,
    lattice_targets,
    networks,
    students,
    transfer_steps,
)
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.step_options import DEV_DATA, TRAINING_DATA, model_options, network_options
from asrkd.workflow.steps import Step


def teaching_steps(options: SpeechOptions) -> list[Step]:
    """Stages 6 and 7: teachers and their posteriors; posteriors alone where another system teaches."""
    source = options.posteriors_from
    if source is not None:
        decides = {"posteriors": options.posteriors, "posteriors_from": PosteriorStore.open(source).fingerprint}
        copy = partial(external_teacher.copy_posteriors, source, options)
        return [Step(7, "posteriors", copy, decides, ("features/train", "tree", "losses/train"))]
    teachers = networks.teachers(options)
    steps = [
        Step(
            6,
            name,
            partial(networks.train_teacher, member, options),
            {
                "member": member,
                **model_options("teacher", networks.teacher_model(member, options)),
                **network_options(options),
            },
            TRAINING_DATA,
            content=networks.model_content,
            resumable=True,
            trains=True,
            networks_only=True,
            torchrun=True,
        )
        for member, name in enumerate(teachers)
    ]
    if options.distil.targets == "online" or options.transfer.targets == "lattice":
        measure = partial(networks.measure_teachers, options)
        return [*steps, Step(7, "posteriors", measure, {"targets": "online"}, (*TRAINING_DATA, *teachers))]
    steps.append(
        Step(
            7,
            "posteriors",
            partial(networks.make_posteriors, options),
            {"posteriors": options.posteriors, "format": FORMAT},
            (*TRAINING_DATA, *teachers),
            resumable=True,
            networks_only=options.executor == "processes",  # a cluster's workers have this environment
        )
    )
    if options.transfer.has_speech:
        steps.append(transfer_steps.posteriors_step(options))
    return steps


def student_steps(options: SpeechOptions) -> list[Step]:
    """Stage 8: the sweeps, what the development speakers choose of them, baselines and distilled students."""
    chosen = students.students(options)
    return [
        *(_training_step(student, options) for student in chosen if student.is_sweep),
        *(_choice_step(sweep, options) for sweep in students.sweeps(options) if sweep.chooses),
        *(
            _taking_step(student, options) if student.is_taken else _training_step(student, options)
            for student in chosen
            if not student.is_sweep
        ),
        *(_fit_step(student, options) for student in fit.measured_students(options)),
    ]


def _training_step(student: students.Student, options: SpeechOptions) -> Step:
    training = students.student_training(student, options)
    return Step(
        8,
        student.step,
        partial(networks.train_student, student, options),
        {
            **model_options("student", student.model),
            "student_seed": student.seed,
            "distil": _distil_options(student, options),
            **({"augment": student.augment.active} if student.augment.changes_inputs else {}),
            **({"transfer": options.transfer.share} if student.uses_transfer else {}),
            **_subset_options(student, options),
            **network_options(options, training),
        },
        (
            *TRAINING_DATA,
            *_teaching_inputs(student, options),
            *augment_steps.student_inputs(student.augment, student.uses_transfer),
            *([student.choice] if student.choice else ()),
        ),
        content=networks.model_content,
        resumable=True,
        trains=True,
        networks_only=True,
        torchrun=True,
        work=_work(student, training.epochs),
    )


def _work(student: students.Student, epochs: int) -> float:
    """About how much a student's training computes: weights of its hidden layers times passes; targets that are made
    in the step cost as much again."""
    weights = student.model.num_layers * student.model.hidden_dim**2
    is_online = student.distil is not None and student.distil.targets == "online"
    return float(weights * epochs * (2 if is_online else 1))


def _subset_options(student: students.Student, options: SpeechOptions) -> dict[str, Any]:
    """What decides the utterances of a student that does not learn from all of them."""
    chosen = options.students
    return {"subset": [chosen.subset, chosen.subset_seed]} if student.speech == "subset" else {}


def _fit_step(student: students.Student, options: SpeechOptions) -> Step:
    """Figures of a student on the frames that it has learned from."""
    return Step(
        8,
        fit.fit_step(student),
        partial(fit.measure_fit, student, options),
        {"context": options.context, **_subset_options(student, options)},
        ("features/train", "tree", "losses/train", student.step),
        networks_only=True,
    )


def _choice_step(sweep: students.Sweep, options: SpeechOptions) -> Step:
    """Its output decides the system's other seeds and sizes, and is read as long as it stays the same."""
    names = [candidate.name for candidate in sweep.candidates]
    return Step(
        8,
        sweep.step,
        partial(choice.choose, sweep, options),
        {"measure": choice.MEASURE, "candidates": names},
        (*DEV_DATA, *(candidate.step for candidate in sweep.candidates)),
        content=choice.choice_content,
    )


def _taking_step(student: students.Student, options: SpeechOptions) -> Step:
    """The chosen student of a sweep under the system's name."""
    sweep = next(sweep for sweep in students.sweeps(options) if sweep.step == student.choice)
    return Step(
        8,
        student.step,
        partial(choice.take, student, options),
        None,
        (*DEV_DATA, sweep.step, *(candidate.step for candidate in sweep.candidates)),
        content=networks.model_content,
    )


def _distil_options(student: students.Student, options: SpeechOptions) -> dict[str, Any] | None:
    """Options of a student's objective. Stage 7 averages stored posteriors, the student's step online ones.

    What a choice decides is an input.
    """
    if student.distil is None:
        return None
    values = {} if student.choice else student.distil.loss_values
    if student.distil.targets == "stored":
        return values
    all_score = student.distil.online_teachers == "all"
    mean = {"posteriors.mean": options.posteriors.mean} if all_score else {"online_teachers": "one"}
    return {**values, "targets": "online", **mean}


def _teaching_inputs(student: students.Student, options: SpeechOptions) -> tuple[str, ...]:
    """The steps that a student's targets come from, labels apart."""
    if student.distil is None:
        return ()
    targets: tuple[str, ...] = ("posteriors",)
    if student.distil.targets == "online":
        targets = tuple(networks.teachers(options))
    elif options.transfer.targets == "lattice":
        targets = (lattice_targets.TARGETS_STEP,)
    return (*targets, *(transfer_steps.student_inputs(student, options) if student.uses_transfer else ()))
