"""The ordered steps of the digits recipe, and the command that runs them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from typing import get_args

from asrkd import config
from asrkd.data.corpora.mnist import MNIST_MD5, verify_mnist
from asrkd.errors import one_line_errors
from asrkd.files import read_json, write_json
from asrkd.workflow.provenance import command_of_all
from asrkd.workflow.stages import StageRange, run_steps
from asrkd.workflow.steps import STAGE_NAMES, Step
from recipes.mnist import networks, results
from recipes.mnist.data import make_corpus
from recipes.mnist.options import COMMON_OPTIONS, EXPERIMENTS, DigitsOptions, Profile, Profiles
from recipes.mnist.report import RESULTS_MD, report, terminal_text
from recipes.mnist.results import RESULTS_FILE, step_name
from recipes.mnist.tables import HEADLINE
from recipes.mnist.variants import students, teacher

PROGRAM = "recipes/mnist/run.sh"
EXAMPLES = (f"{PROGRAM} --profile=quick", f"{PROGRAM} --exp-dir exp/mnist_one --experiments 1 --student.seeds 1")


def build_steps(
    options: DigitsOptions, profiles: Profiles, command: str, checksums: Mapping[str, str] = MNIST_MD5
) -> list[Step]:
    """Every step in order. InputError if a file of the corpus is missing or not the one expected."""
    exp = options.exp_dir
    parts = {"judge": options.eval_set, "held_out": options.held_out, "seed": options.seed}
    found = verify_mnist(options.corpus_dir, checksums)
    large, translations = teacher(options), options.teacher.translations
    steps = [
        Step(0, "corpus", partial(make_corpus, options.corpus_dir, checksums), found),
        Step(
            6,
            "teachers",
            partial(networks.train_variant, large, exp / "corpus", None, options),
            [large.identity, parts],
            ("corpus",),
            resumable=True,
            trains=True,
        ),
        Step(
            7,
            "posteriors",
            partial(networks.make_posteriors, exp / "corpus", exp / "teachers", options),
            [{"jitter": options.teacher.jitter, "translations": translations}, parts],
            ("corpus", "teachers"),
        ),
    ]
    for student in students(options):
        posteriors = exp / "posteriors" if student.needs_teachers else None
        steps.append(
            Step(
                8,
                step_name(student.name),
                partial(networks.train_variant, student, exp / "corpus", posteriors, options),
                [student.identity, parts],
                ("corpus", "posteriors") if student.needs_teachers else ("corpus",),
                resumable=True,
                trains=True,
            )
        )
    return [*steps, *_last_steps(options, profiles, command, steps)]


def _last_steps(options: DigitsOptions, profiles: Profiles, command: str, before: list[Step]) -> list[Step]:
    exp = options.exp_dir
    return [
        Step(
            11,
            "score",
            partial(results.score, command, before, exp, options, profiles),
            [results.config_sha(options), command, {name: results.config_sha(one) for name, one in profiles.items()}],
            tuple(step.name for step in before),
        ),
        Step(12, "report", partial(report, exp, options), None, ("corpus", *map(step_name, HEADLINE), "score")),
    ]


def main(profiles: Profiles, argv: list[str] | None = None, checksums: Mapping[str, str] = MNIST_MD5) -> None:
    """Run the stages as the command line says; one line and exit code 2 for what a user can mend."""
    arguments = sys.argv[1:] if argv is None else argv
    with one_line_errors(PROGRAM):
        default = profiles[chosen_profile(arguments)]
        options = config.parse(default, arguments, PROGRAM, _description(), COMMON_OPTIONS, EXAMPLES)
        steps = build_steps(options, profiles, command_of_all(PROGRAM, arguments), checksums)
        options.exp_dir.mkdir(parents=True, exist_ok=True)
        stages = StageRange(options.stage, options.stop_stage)
        save = partial(config.save, options, options.exp_dir / "config.json")
        run_steps(steps, options.exp_dir, stages, on_start=save)
        if options.stop_stage >= STAGE_NAMES.index("report"):
            _finish(options)


def chosen_profile(arguments: list[str]) -> Profile:
    """The profile whose values are the defaults; a value that is none is left for `config.parse` to refuse."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", nargs="?", default="full")
    named = parser.parse_known_args(arguments)[0].profile
    return named if named in get_args(Profile) else "full"


def _finish(options: DigitsOptions) -> None:
    """Put the results where people look for them, and say so."""
    exp = options.exp_dir
    found = read_json(exp / "score" / RESULTS_FILE)
    write_json(exp / RESULTS_FILE, found)
    print(terminal_text(found))
    print(f"results: {exp / RESULTS_FILE}, {exp / 'report' / RESULTS_MD}")
    print(f"report:  {exp / 'report' / 'report.html'}")


def _description() -> str:
    stages = ", ".join(f"{number} {STAGE_NAMES[number]}" for number in (0, 6, 7, 8, 11, 12))
    experiments = "; ".join(f"{number} {what}" for number, what in EXPERIMENTS.items())
    return (
        "The mnist recipe: the experiments of section 3 of Hinton, Vinyals and Dean (2015).\n\n"
        f"Stages: {stages}. A stage is skipped when its options and inputs did not change.\n\n"
        f"Experiments: {experiments}.\n\n"
        "--profile=quick has other defaults than --profile=full; --help shows those of the profile given."
    )
