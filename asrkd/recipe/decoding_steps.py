"""Stages 9 to 12 as steps: graph, decoding, scores, report; lattice targets decode in stage 7 already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from asrkd.recipe import (
    evaluate,
    fit,
    lattice_targets,
    results,
    students,
)
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.data_steps import splits_with_features
from asrkd.recipe.folders import HELD_OUT, SPLITS, TRANSFER
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.step_options import TRAINING_DATA, rescoring_options
from asrkd.workflow.steps import Step


def lattice_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stage 7 with lattice targets: what decodes the training speech, and the targets.

    The graph and the ensemble's development lattices are those of stages 9 and 10, made earlier.
    """
    if options.transfer.targets != "lattice":
        return []
    run = lattice_targets.ensemble_run(options)
    steps = [replace(_graph_step(corpus, options), stage=7)] if lattice_targets.needs_graph(options) else []
    if lattice_targets.tunes_scales(options):
        scales = replace(_tuning_step([run], corpus, options), stage=7, name=lattice_targets.SCALES_STEP)
        steps += [replace(_dev_step(run, options), stage=7), scales]
    decoded = (*run.models, *(step.name for step in steps))
    sources = [(lattice_targets.TARGETS_STEP, "train", (*TRAINING_DATA, "lang/lexicon", *decoded))]
    if options.transfer.has_speech:
        sources.append((lattice_targets.TRANSFER_STEP, TRANSFER, (f"features/{TRANSFER}", "tree", *decoded)))
    for name, split, inputs in sources:
        make = partial(lattice_targets.make_lattice_targets, split, options)
        steps.append(Step(7, name, make, lattice_targets.deciding_options(options, split), inputs, resumable=True))
    return steps


def decoding_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stages 9 and 10: graph, development speakers, scales, test set."""
    chosen = evaluate.runs(options)
    test = [
        _decoding_step(run.step, "test", partial(evaluate.decode_test, run, options), run, options, "decode/tuning")
        for run in chosen
    ]
    return [
        _graph_step(corpus, options),
        *(_dev_step(run, options) for run in chosen),
        _tuning_step(evaluate.tuning_runs(options), corpus, options),
        *test,
    ]


def _graph_step(corpus: Corpus, options: SpeechOptions) -> Step:
    return Step(
        9,
        "graph",
        partial(evaluate.make_graph, options),
        {"graph": options.graph, **rescoring_options(corpus, options)},
        ("manifests/train", "lang/lm", "tree"),
    )


def _dev_step(run: evaluate.Run, options: SpeechOptions) -> Step:
    return _decoding_step(run.dev_step, "dev", partial(evaluate.decode_dev, run, options), run, options)


def _tuning_step(chosen: list[evaluate.Run], corpus: Corpus, options: SpeechOptions) -> Step:
    return Step(
        10,
        "decode/tuning",
        partial(evaluate.tune_scales, chosen, corpus.scoring, options),
        {"tune": options.tune, "decode.lm_scale": options.decode.lm_scale, "scoring": corpus.scoring.rules},
        ("manifests/dev", "features/dev", "losses/dev", *(run.dev_step for run in chosen)),
        content=evaluate.tuned_content,
    )


def _decoding_step(
    name: str, split: str, decode: Callable[[Path], None], run: evaluate.Run, options: SpeechOptions, *more_inputs: str
) -> Step:
    mean = {"posteriors.mean": options.posteriors.mean} if len(run.models) > 1 else {}
    search = options.decode if split == "test" else replace(options.decode, test_lattices=False)
    return Step(
        10,
        name,
        decode,
        {"decode": search, **mean},
        (f"features/{split}", "tree", f"labels/{split}", "graph", *more_inputs, *run.models),
        resumable=True,
    )


def result_steps(corpus: Corpus, options: SpeechOptions, command: str, steps: list[Step]) -> list[Step]:
    """Stages 11 and 12. The students of a sweep are compared by their development figures alone."""
    chosen = evaluate.runs(options)
    models = dict.fromkeys(step for run in chosen for step in run.models)
    swept = [student.step for student in students.students(options) if student.is_sweep]
    choices = [sweep.step for sweep in students.sweeps(options) if sweep.chooses]
    splits = [f"{kind}/{split}" for kind in ("manifests", "features") for split in splits_with_features(options)]
    measured = [fit.fit_step(student) for student in fit.measured_students(options)]
    aligned = ["align"] if options.labels_from is None else []
    labelled = [*(f"labels/{split}" for split in HELD_OUT), *(f"losses/{split}" for split in SPLITS)]
    return [
        Step(
            11,
            "score",
            partial(results.score, corpus, command, steps, options),
            {"config": results.config_sha(options), "command": command, "scoring": corpus.scoring.rules},
            (
                *(*splits, "lang/lexicon", "lang/lm", "lang/coverage", *aligned, "tree", *labelled, "posteriors"),
                *(
                    *models,
                    *swept,
                    *choices,
                    *measured,
                    *(run.dev_step for run in chosen),
                    "decode/tuning",
                    *(run.step for run in chosen),
                ),
            ),
        ),
        Step(
            12,
            "report",
            partial(results.report, options),
            None,
            (*(f"manifests/{split}" for split in SPLITS), "features/test", "tree", "labels/test", "score"),
        ),
    ]
