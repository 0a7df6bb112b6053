"""The ordered steps of the MNIST recipe, and its command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from typing import get_args

from asrkd import config
from asrkd.data.corpora.mnist import MNIST_MD5, verify_mnist
from asrkd.errors import one_line_errors
from asrkd.recipe.command_line import run_recipe, stages_text
from asrkd.recipe.run_options import with_absolute_paths
from asrkd.terminal import require_utf8_mode
from asrkd.workflow.provenance import command_of_all
from asrkd.workflow.steps import Step
from recipes.mnist import networks, results
from recipes.mnist.data import make_corpus
from recipes.mnist.markdown import terminal_text
from recipes.mnist.options import COMMON_OPTIONS, EXPERIMENTS, DigitsOptions, DigitsRun, Profile, Profiles
from recipes.mnist.report import report
from recipes.mnist.results import step_name
from recipes.mnist.tables import HEADLINE
from recipes.mnist.variants import Variant, students, teacher

PROGRAM = "recipes/mnist/run.sh"
EXAMPLES = (f"{PROGRAM} --profile=quick", f"{PROGRAM} --exp-dir exp/mnist_one --experiments 1 --student.seeds 1")
STAGES = (0, 6, 7, 8, 11, 12)


def build_steps(run: DigitsRun, checksums: Mapping[str, str] = MNIST_MD5) -> list[Step]:
    """The steps of a run in order. InputError if a file of the corpus is missing or has another checksum."""
    options = run.options
    verified = verify_mnist(options.corpus_dir, checksums)
    steps = [
        Step(0, "corpus", partial(make_corpus, options.corpus_dir, checksums), verified),
        _training_step(6, teacher(options), options),
        _posteriors_step(options),
        *(_training_step(8, student, options) for student in students(options)),
    ]
    return [*steps, *_last_steps(run, steps)]


def _digits_options(options: DigitsOptions) -> dict[str, object]:
    """Options that divide the digits and seed the networks, which every network depends on."""
    return {"eval_set": options.eval_set, "held_out": options.held_out, "seed": options.seed}


def _training_step(stage: int, variant: Variant, options: DigitsOptions) -> Step:
    exp = options.exp_dir
    taught_by = variant.taught_by
    return Step(
        stage,
        step_name(variant.name),
        partial(networks.train_variant, variant, exp / "corpus", exp / taught_by if taught_by else None, options),
        {**variant.stamp_options, **_digits_options(options)},
        ("corpus", taught_by) if taught_by else ("corpus",),
        resumable=True,
        trains=True,
    )


def _posteriors_step(options: DigitsOptions) -> Step:
    exp, large = options.exp_dir, options.teacher
    return Step(
        7,
        "posteriors",
        partial(networks.make_posteriors, exp / "corpus", exp / "teachers", options),
        {"teacher.jitter": large.jitter, "teacher.translations": large.translations, **_digits_options(options)},
        ("corpus", "teachers"),
    )


def _last_steps(run: DigitsRun, steps: list[Step]) -> list[Step]:
    profiles = {name: results.config_sha(options) for name, options in run.profiles.items()}
    return [
        Step(
            11,
            "score",
            partial(results.score, run, steps),
            {"config": results.config_sha(run.options), "command": run.command, "profiles": profiles},
            tuple(step.name for step in steps),
        ),
        Step(12, "report", partial(report, run.options), None, ("corpus", *map(step_name, HEADLINE), "score")),
    ]


def main(profiles: Profiles, argv: list[str] | None = None, checksums: Mapping[str, str] = MNIST_MD5) -> None:
    """Run the stages that the command line asks for. An error that a user can mend is one line and exit code 2."""
    arguments = sys.argv[1:] if argv is None else argv
    if argv is None:
        require_utf8_mode()
    with one_line_errors(PROGRAM):
        default = profiles[chosen_profile(arguments)]
        options = config.parse(default, arguments, PROGRAM, _description(), COMMON_OPTIONS, EXAMPLES)
        run = DigitsRun(with_absolute_paths(options), profiles, command_of_all(PROGRAM, arguments))
        run_recipe(build_steps(run, checksums), options, terminal_text)


def chosen_profile(arguments: list[str]) -> Profile:
    """The profile that the arguments name, which gives the defaults. `config.parse` refuses an unknown one."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", nargs="?", default="full")
    named = parser.parse_known_args(arguments)[0].profile
    return named if named in get_args(Profile) else "full"


def _description() -> str:
    experiments = "; ".join(f"{number} {what}" for number, what in EXPERIMENTS.items())
    return (
        "The mnist recipe: the experiments of section 3 of Hinton, Vinyals and Dean (2015).\n\n"
        f"{stages_text(STAGES)}\n\nExperiments: {experiments}.\n\n"
        "--profile=quick and --profile=full have different defaults; --help shows those of the profile given."
    )
