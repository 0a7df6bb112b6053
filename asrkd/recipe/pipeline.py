"""The ordered steps of a speech recipe, and the command that runs them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping

from asrkd import config
from asrkd.errors import one_line_errors
from asrkd.nnet import add_models
from asrkd.nnet.models import Builder, require_kind
from asrkd.recipe import (
    folds,
)
from asrkd.recipe.added_models import require_executor, with_models
from asrkd.recipe.command_line import run_recipe, stages_text
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.data_steps import corpus_step, label_steps, lang_steps, split_steps
from asrkd.recipe.decoding_steps import decoding_steps, lattice_steps, result_steps
from asrkd.recipe.network_steps import student_steps, teaching_steps
from asrkd.recipe.options import COMMON_OPTIONS, SpeechOptions
from asrkd.recipe.run_options import with_absolute_paths
from asrkd.recipe.training_python import training_interpreter, with_training_python
from asrkd.report import print_table
from asrkd.terminal import require_utf8_mode
from asrkd.workflow.provenance import command_of_all
from asrkd.workflow.steps import STAGE_NAMES, Step


def build_steps(corpus: Corpus, options: SpeechOptions, command: str) -> list[Step]:
    """Every step of the recipe in order. InputError if the corpus folder or a named file is missing."""
    _require_kinds(options)
    first = corpus_step(corpus, options)
    if options.folds is not None:
        return folds.build_steps(first, _run_steps, corpus, options, command)
    return _run_steps(first, corpus, options, command)


def _run_steps(first: Step, corpus: Corpus, options: SpeechOptions, command: str) -> list[Step]:
    """Every step of one run, whose stage 0 is `first`."""
    steps = [
        first,
        *split_steps(corpus, options),
        *lang_steps(corpus, options),
        *label_steps(corpus, options),
        *teaching_steps(options),
        *lattice_steps(corpus, options),
        *student_steps(options),
    ]
    names = {step.name for step in steps}
    steps += [step for step in decoding_steps(corpus, options) if step.name not in names]
    return with_models([*steps, *result_steps(corpus, options, command, steps)])


def _require_kinds(options: SpeechOptions) -> None:
    """InputError for an architecture that nobody has, or that the executor's workers do not have."""
    kinds = {"--teacher.kind": [options.teacher.kind], "--student.kind": [options.student.kind]}
    kinds["--ensemble.kinds"] = list(options.ensemble.kinds)
    for option, given in kinds.items():
        for kind in given:
            require_kind(kind, option)
    require_executor(options, [kind for given in kinds.values() for kind in given])


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
        run_recipe(steps, options, print_table, training_interpreter(run), folds.save_configs, options.network_jobs)


def _description(corpus: Corpus) -> str:
    return (
        f"The {corpus.name} recipe: from a corpus to a table that compares baseline, teachers, ensemble and distilled "
        f"student.\n\n{stages_text(range(len(STAGE_NAMES)))}"
    )


def _examples(corpus: Corpus, default: SpeechOptions) -> tuple[str, ...]:
    program = shlex.quote(corpus.program)
    run = program if default.corpus_dir else f"{program} --corpus-dir DIR"
    return (run, f"{run} --exp-dir exp/{corpus.name}_t5 --ensemble.size 10 --distil.temperature 5")
