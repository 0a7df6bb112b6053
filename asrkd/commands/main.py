"""`asrkd`: one entry point, a subcommand a verb.

A verb is a function here: its name is the subcommand, its docstring the help, its parameters the options and
its value the exit code. It imports what it needs itself, so that `asrkd doctor` answers where torch breaks.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import asrkd
from asrkd.errors import InputError, boxed_sections, one_line_errors

DESCRIPTION = """Distil acoustic models: an ensemble's senone posteriors taught to one network.

The work itself is done by recipes: `recipes/prompts/run.sh`, `recipes/an4/run.sh` and those of librispeech and timit go
from a corpus to a table of word error rates, `recipes/mnist/run.sh` to the paper's figures on digits; `--help` after
them lists every option. The subcommands look after what they need, and `asrkd init` makes a recipe for a corpus of
your own.

Exit codes: 0 done, 2 something that you can mend (one line says what); for `asrkd doctor` see its --help."""


def doctor() -> int:
    """Say what is installed, whether it fits together, and what to do when it does not.

    Exit code 0: everything from audio to words works. 1: training and distilling work, decoding does not (as
    meant in the environment of `make test-train`). 2: not even training works.
    """
    from asrkd.commands import doctor as checks

    return checks.run()


def results(runs: tuple[Path, ...], out: Path) -> int:
    """Write one RESULTS.md of several finished runs, say of phones and of subword units.

    Args:
        runs: results.json files, or the folders of runs that hold one; the first run's command opens the page.
        out: the Markdown file to write.
    """
    from asrkd.files import read_json
    from asrkd.report import write_results_md

    if not runs:
        raise InputError("--runs: expected at least one results.json or folder that holds one, found none")
    write_results_md([read_json(run / "results.json" if run.is_dir() else run) for run in runs], out)
    print(f"wrote {out}")
    return 0


def plan(
    hours: float = 100.0,
    copies: int = 1,
    senones: int = 2000,
    teachers: int = 10,
    teacher_layers: int = 5,
    teacher_width: int = 1024,
    student_layers: int = 4,
    student_width: int = 512,
    epochs: int = 10,
    batch_size: int = 1024,
    top_k: int = 28,
    device: str = "auto",
    devices: int = 1,
    flops: float | None = None,
    run: Path | None = None,
) -> int:
    """Say what an ensemble and its student will cost before anything runs: arithmetic, time, disk, memory.

    Counts follow from the numbers below; rates are measured on this device by a few seconds of training the very
    networks, unless --flops gives them.

    Args:
        hours: hours of speech to train on.
        copies: copies of it at other speeds, itself among them.
        senones: classes.
        teachers: size of the ensemble.
        teacher_layers: hidden layers of a teacher.
        teacher_width: units in each of them.
        student_layers: hidden layers of the student.
        student_width: units in each of them.
        epochs: passes over the frames, of teachers and student.
        batch_size: frames a step.
        top_k: classes kept of each frame's posteriors.
        device: where the networks train and are measured: cpu, cuda, or auto.
        devices: devices that work side by side.
        flops: floating-point operations a second that a device keeps up; none: measured here.
        run: folder of a finished run: plan that one instead, and say beside it what happened.
    """
    from asrkd.distil.store import StoreOptions
    from asrkd.nnet import TrainOptions
    from asrkd.nnet.models import ModelOptions
    from asrkd.recipe import cost_estimate

    if run is not None:
        print(cost_estimate.page_of_run(run, device, flops))
        return 0
    options = cost_estimate.PlanOptions(
        hours=hours,
        copies=copies,
        senones=senones,
        teachers=teachers,
        teacher=ModelOptions(teacher_width, teacher_layers, dropout=0.1),
        student=ModelOptions(student_width, student_layers, dropout=0.0),
        store=StoreOptions(top_k=top_k),
        train=TrainOptions(epochs=epochs, batch_size=batch_size),
        device=device,
        devices=devices,
        flops=flops,
    )
    print(cost_estimate.page(options))
    return 0


def posteriors() -> int:
    """Posteriors of another system, as a teacher: `asrkd posteriors import --help`."""
    return dispatch(["posteriors"])


def import_posteriors(
    exp_dir: Path,
    teachers: tuple[Path, ...],
    out: Path,
    kind: Literal["log-posteriors", "logits"] = "log-posteriors",
    mean: Literal["arithmetic", "geometric"] | None = None,
    top_k: int | None = None,
    temperatures: tuple[float, ...] | None = None,
) -> int:
    """Make a posterior store of what other systems say of a run's training frames, for its students to learn from.

    Each dump holds a matrix [frames, senones] of every training utterance, rows and columns in the run's order. It is
    a folder of <utt_id>.npy, one .npz, or the .scp of Kaldi archives. All is checked before anything is written:
    utterances, frames, classes, finite values, sums, and that the classes are these senones at all.

    Args:
        exp_dir: a run that has its features and senones (stages 0 to 5), and its config.json.
        teachers: dumps of posteriors, one or several, which are averaged.
        out: folder of the store, for `--posteriors-from` of the same run: a new one, or an imported store to replace.
        kind: log-posteriors (natural log, each frame's sum to one) or logits, as they come before the softmax.
        mean: how several teachers are averaged; as the run's --posteriors.mean if not given.
        top_k: classes kept for each frame; as the run's --posteriors.top-k if not given.
        temperatures: temperatures students can learn at; as the run's --posteriors.temperatures if not given.
    """
    from dataclasses import replace

    from asrkd import config
    from asrkd.distil import external_teacher
    from asrkd.distil.store import StoreOptions
    from asrkd.recipe.external_teacher import frames_to_import

    given = {"mean": mean, "top_k": top_k, "temperatures": temperatures}
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options = replace(config.load(StoreOptions, exp_dir / "config.json", "posteriors"), **wanted)
    store, accuracies = external_teacher.import_posteriors(teachers, kind, frames_to_import(exp_dir), options, out)
    for teacher, accuracy in zip(teachers, accuracies, strict=True):
        print(f"{teacher}: {100 * accuracy:.2f}% of the training frames agree with their labels")
    again = "".join(f" --posteriors.{name.replace('_', '-')} {_written(value)}" for name, value in wanted.items())
    print(f"wrote {out}: {len(store.utt_ids)} utterances, {len(store)} frames")
    print(f"go on with --posteriors-from {out}{again}")
    return 0


def _written(value: object) -> str:
    """A value as an option takes it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def init(
    name: str,
    recordings: Path,
    supervisions: Path | None = None,
    lexicon: str | None = None,
    dev_recordings: Path | None = None,
    dev_supervisions: Path | None = None,
    test_recordings: Path | None = None,
    test_supervisions: Path | None = None,
    num_dev_speakers: int = 0,
    num_test_speakers: int = 0,
    max_bad: float = 0.01,
    out: Path | None = None,
) -> int:
    """Make a recipe for a corpus of your own from Lhotse manifests or a Kaldi data directory.

    Args:
        name: of the recipe, letters, digits, - and _; `asrkd init NAME` will do.
        recordings: Lhotse manifest of recordings, or a Kaldi data directory (wav.scp, text, utt2spk, segments).
        supervisions: Lhotse manifest of supervisions; none with a Kaldi data directory.
        lexicon: pronunciations (Kaldi's lexicon.txt or the CMU format), or "cmudict"; none: subword units.
        dev_recordings: the same of the speech to tune scales on; none: speakers are held out.
        dev_supervisions: its supervisions.
        test_recordings: the same of the speech to decode and report; none: speakers are held out.
        test_supervisions: its supervisions.
        num_dev_speakers: speakers to hold out for tuning, by a fixed rule; 0: a tenth, at least one.
        num_test_speakers: speakers to hold out for the test, by a fixed rule; 0: a tenth, at least one.
        max_bad: fraction of the utterances that may be bad, here and in the recipe's runs.
        out: folder to write, which must not be there yet; none: recipes/NAME.
    """
    from asrkd.data.corpora.user import UserCorpusOptions
    from asrkd.recipe.new_recipe import write_recipe

    corpora = UserCorpusOptions(
        *(recordings, supervisions, dev_recordings, dev_supervisions, test_recordings, test_supervisions),
        num_dev_speakers=num_dev_speakers,
        num_test_speakers=num_test_speakers,
    )
    folder = write_recipe(name, corpora, lexicon, out, max_bad)
    print(f"wrote {folder / 'recipe.py'}; run {folder / 'run.sh'} (--help lists every option)")
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "doctor": doctor,
    "init": init,
    "plan": plan,
    "posteriors": posteriors,
    "results": results,
}
# Verbs that are two words.
GROUPS: dict[str, dict[str, Callable[..., int]]] = {"posteriors": {"import": import_posteriors}}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit code. Bad input: one line on stderr, exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        print(f"asrkd {asrkd.__version__}")
        return 0
    if arguments[:1] == ["init"] and arguments[1:2] and not arguments[1].startswith("-"):
        arguments.insert(1, "--name")
    with one_line_errors("asrkd"):
        return dispatch(arguments)


def dispatch(arguments: list[str]) -> int:
    """Run the verb that `arguments` name. InputError where they cannot be read."""
    try:
        import tyro
    except ImportError as error:
        advice = "run `make setup`, or `python -m asrkd.commands.doctor`"
        raise InputError(f"{error.name} is not installed: {advice}") from None
    commands, program, description = COMMANDS, "asrkd", DESCRIPTION
    if arguments and arguments[0] in GROUPS:
        commands, program, description = (
            GROUPS[arguments[0]],
            f"asrkd {arguments[0]}",
            str(COMMANDS[arguments[0]].__doc__),
        )
        arguments = arguments[1:]
    complaint = io.StringIO()
    try:
        # tyro calls the verb as it reads the options; deferred, so that tyro's own complaint alone is caught.
        with contextlib.redirect_stderr(complaint):
            chosen = tyro.extras.subcommand_cli_from_dict(
                {command: _deferred(function) for command, function in commands.items()},
                prog=program,
                description=description,
                args=arguments or ["--help"],
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        raise InputError(one_line(complaint.getvalue())) from None
    return chosen()


def _deferred(command: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """`command` with the same parameters and help, giving back the call to make instead of making it."""

    @functools.wraps(command)
    def bind(*args: Any, **options: Any) -> Callable[[], int]:
        return functools.partial(command, *args, **options)

    return bind


def one_line(boxed: str) -> str:
    """The message inside the box that tyro draws around a complaint, with the first thing it suggests."""
    told = [" ".join(section[:2]) for section in boxed_sections(boxed)]
    return "; ".join(text for text in told if not text.startswith("For full help")) or boxed.strip()


if __name__ == "__main__":
    sys.exit(main())
