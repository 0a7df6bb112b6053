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
from asrkd.recipe import data, evaluate, external_teacher, labels, networks, results
from asrkd.recipe.data import Corpus
from asrkd.recipe.options import SpeechOptions, corpus_options
from asrkd.report import print_table
from asrkd.workflow.provenance import command_of_all
from asrkd.workflow.stages import STAGE_NAMES, Step, run_steps


def build_steps(corpus: Corpus, options: SpeechOptions, command: str) -> list[Step]:
    """Every step of the recipe in order. InputError if the corpus folder or a named file is missing."""
    exp = options.exp_dir
    features, lang, align = (exp / name for name in ("features", "lang", "align"))
    listing = _listing(corpus, options)
    lang_options = _lang_options(corpus, options)
    steps = [
        Step(0, "corpus", lambda out: write_json(out / "files.json", listing), listing),
        Step(
            1,
            "manifests",
            partial(data.make_manifests, corpus, options),
            _manifest_options(options),
            ("corpus",),
            place=_place(corpus, options),
        ),
        Step(
            2,
            "features",
            partial(data.make_features, exp / "manifests", options),
            options.features,
            ("manifests",),
            resumable=True,
        ),
        Step(3, "lang", partial(data.make_lang, corpus, features, options), lang_options, ("features",)),
        Step(
            4,
            "align",
            partial(labels.make_alignment, features, lang, options),
            [options.align, *_label_options(options)],
            ("features", "lang"),
            resumable=True,
        ),
        Step(
            5,
            "tree",
            partial(labels.make_tree, features, lang, align, options),
            [options.tree, *_label_options(options)],
            ("features", "lang", "align"),
            resumable=True,
        ),
    ]
    steps += _network_steps(options)
    return steps + _evaluation_steps(corpus, options, command, [step.name for step in steps])


def _teaching_steps(options: SpeechOptions) -> list[Step]:
    """Teachers and their posteriors; the posteriors alone where another system teaches."""
    exp = options.exp_dir
    features, tree = exp / "features", exp / "tree"
    source = options.posteriors_from
    if source is not None:
        decides = [options.posteriors, PosteriorStore.open(source).fingerprint]
        take = partial(external_teacher.take_posteriors, source, features, tree, options)
        return [Step(7, "posteriors", take, decides, ("features", "tree"))]
    teachers = networks.teachers(options)
    steps = [
        Step(
            6,
            name,
            partial(networks.train_teacher, member, features, tree, options),
            [member, options.teacher, *_network_options(options)],
            ("features", "tree"),
            resumable=True,
            trains=True,
            shared=True,
        )
        for member, name in enumerate(teachers)
    ]
    steps.append(
        Step(
            7,
            "posteriors",
            partial(networks.make_posteriors, features, tree, [exp / name for name in teachers], options),
            [options.posteriors, {"format": FORMAT}],
            ("features", "tree", *teachers),
            resumable=True,
        )
    )
    return steps


def _network_steps(options: SpeechOptions) -> list[Step]:
    exp = options.exp_dir
    features, tree = exp / "features", exp / "tree"
    steps = _teaching_steps(options)
    for student in networks.students(options):
        training = networks.student_training(student, options)
        inputs = ("features", "tree", "posteriors") if student.distil else ("features", "tree")
        steps.append(
            Step(
                8,
                f"students/{student.name}",
                partial(networks.train_student, student, features, tree, exp / "posteriors", options),
                [student.model, student.seed, student.distil, *_network_options(options, training)],
                inputs,
                resumable=True,
                trains=True,
                shared=True,
            )
        )
    return steps


def _evaluation_steps(corpus: Corpus, options: SpeechOptions, command: str, before: list[str]) -> list[Step]:
    exp = options.exp_dir
    chosen = evaluate.runs(options)
    models = tuple(dict.fromkeys(step for run in chosen for step in run.models))
    steps = [
        Step(
            9,
            "graph",
            partial(evaluate.make_graph, exp / "lang", exp / "tree", options),
            [options.graph, _file_stamp(options.lang.arpa), *_rescoring_stamp(corpus, options)],
            ("features", "lang", "tree"),
        ),
        *(_decoding_step(run.dev_step, evaluate.decode_dev, run, options) for run in chosen),
        Step(
            10,
            "decode/tuning",
            partial(evaluate.tune_scales, chosen, corpus.scoring, exp, options),
            options.tune,
            ("manifests", "features", *(run.dev_step for run in chosen)),
        ),
        *(_decoding_step(run.step, evaluate.decode_test, run, options, "decode/tuning") for run in chosen),
    ]
    sweeps = tuple(f"students/{student.name}" for student in networks.students(options) if student.is_sweep)
    names = [*before, *(step.name for step in steps)]
    steps.append(
        Step(
            11,
            "score",
            partial(results.score, corpus, command, names, exp, options),
            [results.config_sha(options), command],
            (
                *("manifests", "features", "lang", "align", "tree", "posteriors"),
                *(*models, *sweeps, "decode/tuning", *(run.step for run in chosen)),
            ),
        )
    )
    steps.append(
        Step(12, "report", partial(results.report, exp, options), None, ("manifests", "features", "tree", "score"))
    )
    return steps


def _decoding_step(
    name: str,
    decode: Callable[[evaluate.Run, Path, SpeechOptions, Path], None],
    run: evaluate.Run,
    options: SpeechOptions,
    *more_inputs: str,
) -> Step:
    return Step(
        10,
        name,
        partial(decode, run, options.exp_dir, options),
        [options.decode, options.posteriors.mean],
        ("features", "tree", "graph", *more_inputs, *run.models),
        resumable=True,
    )


def _network_options(options: SpeechOptions, training: TrainOptions | None = None) -> list[Any]:
    """What decides a trained network besides its shape and its data. Where it runs and how it is shown do not."""
    return [options.context, replace((training or options.train).without_runtime_options(), seed=0), options.seed]


def _label_options(options: SpeechOptions) -> list[Any]:
    """What decides the networks that make the labels."""
    network = _network_options(options, labels.label_training(options))
    return [options.realign, options.labels, options.teacher, *network]


def _listing(corpus: Corpus, options: SpeechOptions) -> dict[str, Any]:
    if corpus.files is not None:
        return data.list_files(corpus.files(*corpus_options(options)))
    return data.list_corpus(corpus, options)


def _place(corpus: Corpus, options: SpeechOptions) -> str:
    """Where the audio is: the manifests have its full paths."""
    files = corpus.files(*corpus_options(options)) if corpus.files is not None else [options.corpus_dir or Path()]
    return str(files[0].absolute())


def _manifest_options(options: SpeechOptions) -> Any:
    plain = {"max_bad": options.max_bad, "sampling_rate": options.features.sampling_rate}
    return [plain, *corpus_options(options)] if corpus_options(options) else plain


def _lang_options(corpus: Corpus, options: SpeechOptions) -> list[Any]:
    # What rescores has no say here.
    lang = replace(options.lang, rescore_arpa=None)
    return [lang, _file_stamp(lang.lexicon), _file_stamp(lang.arpa, corpus.where_model)]


def _rescoring_stamp(corpus: Corpus, options: SpeechOptions) -> list[str | None]:
    return [_file_stamp(options.lang.rescore_arpa, corpus.where_model)] if options.lang.rescore_arpa else []


def _file_stamp(path: str | None, where: str = "") -> str | None:
    """Fingerprint of a file named in an option, so that a change of its contents is seen."""
    if path is None or path == "cmudict":
        return None
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file{'; ' + where if where else ''}")
    return file_fingerprint(path)


def main(corpus: Corpus, default: SpeechOptions, argv: list[str] | None = None) -> None:
    """Run a recipe's stages as its command line says; one line and exit code 2 for what a user can mend."""
    arguments = sys.argv[1:] if argv is None else argv
    with one_line_errors(corpus.program):
        typed = config.parse(default, arguments, corpus.program, _description(corpus))
        options = with_absolute_paths(typed)
        steps = build_steps(corpus, options, command_of_all(corpus.program, arguments))
        options.exp_dir.mkdir(parents=True, exist_ok=True)
        run_steps(steps, options.exp_dir, options.stage, options.stop_stage, options.only)
        if options.only is not None:
            return  # one of several jobs: what stands beside the results is the whole run's to write
        config.save(typed, options.exp_dir / "config.json")
        if options.stop_stage >= STAGE_NAMES.index("report"):
            _finish(typed.exp_dir)


def with_absolute_paths(options: SpeechOptions) -> SpeechOptions:
    """The options with the folders that workers of a cluster read, who start elsewhere, by their full paths.

    None of these is in a stamp. `corpora`, which is, stays as it is written: what it names becomes full where it is
    found (`asrkd.data.corpora.user`).
    """
    corpus_dir = options.corpus_dir and options.corpus_dir.absolute()
    return replace(options, corpus_dir=corpus_dir, exp_dir=options.exp_dir.absolute())


def _finish(exp_dir: Path) -> None:
    """Put the results where people look for them, and say so."""
    found = read_json(exp_dir / "score" / results.RESULTS_FILE)
    write_json(exp_dir / results.RESULTS_FILE, found)
    print(print_table(found))
    print(f"results: {exp_dir / results.RESULTS_FILE}, {exp_dir / 'report' / 'RESULTS.md'}")
    print(f"report:  {exp_dir / 'report' / 'report.html'}")


def _description(corpus: Corpus) -> str:
    stages = ", ".join(f"{number} {name}" for number, name in enumerate(STAGE_NAMES))
    return (
        f"The {corpus.name} recipe: from a corpus to a table that compares baseline, teachers, ensemble and distilled "
        f"student. Stages: {stages}. A stage whose options and inputs did not change is skipped."
    )
