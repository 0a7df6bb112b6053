"""What the command line of every recipe does: save the options, run the steps, publish the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from asrkd.errors import InputError
from asrkd.files import read_object, require_utf8, write_json
from asrkd.nnet.devices import require_compile, require_device, resolve_device
from asrkd.recipe.run_options import RunOptions, save_config, trainings
from asrkd.workflow.child_process import call_in_subprocess
from asrkd.workflow.distributed import ProcessGroup
from asrkd.workflow.interpreter import Interpreter
from asrkd.workflow.stages import StageRange, list_steps, run_steps
from asrkd.workflow.steps import STAGE_NAMES, Stamps, Step

RESULTS_FILE = "results.json"
# Stages that compute on the device, whichever recipe.
_USE_DEVICE = ("posteriors", "score")
RESULTS_MD, REPORT_HTML = "RESULTS.md", "report.html"


def run_recipe(
    steps: Sequence[Step],
    options: RunOptions,
    terminal_text: Callable[[Mapping[str, Any]], str],
    python: Path | None = None,
    save: Callable[[Any], None] = save_config,
    network_jobs: int = 1,
) -> None:
    """Save the options, run the steps that they ask for, and publish the results in exp_dir, or only list the steps.

    `terminal_text` makes the text that ends a run from results.json. A run of one step publishes nothing, because it is
    one of several. `python` is another interpreter, for the steps that need networks alone. `save` writes the options
    into exp_dir. So many networks as `network_jobs` train side by side on the CPU. InputError and OSError: as
    `run_steps`.
    """
    stages = StageRange(options.stage, options.stop_stage, options.only)
    exp_dir = options.exp_dir.absolute()
    require_utf8(str(exp_dir))
    if exp_dir.exists() and not exp_dir.is_dir():
        raise InputError(f"--exp-dir {exp_dir}: expected a folder, found a file")
    if options.list_steps or options.dry_run:
        print("\n".join(list_steps(steps, exp_dir, stages, stale_only=options.dry_run, python=python)))
        return
    with nullcontext() if python is None else Interpreter(python) as interpreter:
        device = _required_device(steps, options, stages, interpreter)
        exp_dir.mkdir(parents=True, exist_ok=True)
        # The options are saved before the first step, so that they describe the output of a run that fails.
        run_steps(steps, exp_dir, stages, partial(save, options), interpreter, network_jobs if device == "cpu" else 1)
    if options.only is None and options.stop_stage >= STAGE_NAMES.index("report"):
        _publish(options, terminal_text)


def _required_device(
    steps: Sequence[Step], options: RunOptions, stages: StageRange, interpreter: Interpreter | None
) -> str | None:
    """The kind of device that networks will use, "cpu" or "cuda"; None where no step of the run needs one.

    InputError if it does not exist, or if torch lacks a compiler that is needed. Other steps run without it: on a
    machine of a cluster that has no GPU, for one. The devices are those of the interpreter that trains; it prints its
    versions here, before the steps.
    """
    stamps = Stamps(steps, options.exp_dir.absolute())
    for step in steps:
        is_chosen = stages.includes(step)
        needs = step.networks_only or (interpreter is None and (step.trains or STAGE_NAMES[step.stage] in _USE_DEVICE))
        if is_chosen and needs and stamps.stale(step.name) is not None:
            compiles = step.trains and any(train.compile for train in trainings(options))
            check = partial(_require_here, options.device, compiles)
            if interpreter is None:
                return call_in_subprocess(check)  # CUDA that has started here would not work in the steps' processes
            device: str = interpreter.run(check)
            if ProcessGroup.from_environment().is_main:
                print(f"networks: {interpreter.description}", flush=True)
            return device
    return None


def _require_here(device: str, compiles: bool) -> str:
    require_device(device)
    if compiles:
        require_compile()
    return resolve_device(device).type


def _publish(options: RunOptions, terminal_text: Callable[[Mapping[str, Any]], str]) -> None:
    """Copy results.json into exp_dir, print the results and the paths of the reports."""
    exp_dir = options.exp_dir
    results = read_object(exp_dir / "score" / RESULTS_FILE)
    write_json(exp_dir / RESULTS_FILE, results)
    print(terminal_text(results))
    print(f"results: {exp_dir / RESULTS_FILE}, {exp_dir / 'report' / RESULTS_MD}")
    print(f"report:  {exp_dir / 'report' / REPORT_HTML}")


def stages_text(stages: Iterable[int]) -> str:
    """Sentences for a recipe's help: the numbers and names of its stages, and which of them are skipped."""
    names = ", ".join(f"{number} {STAGE_NAMES[number]}" for number in stages)
    return f"Stages: {names}. A stage is skipped if its options and inputs did not change."
