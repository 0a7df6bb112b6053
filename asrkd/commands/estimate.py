"""`asrkd estimate`: what an ensemble and its student cost, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asrkd.commands.command import Command

if TYPE_CHECKING:
    from asrkd.recipe.cost_estimate import CostOptions


def _options() -> Any:
    from asrkd.recipe.cost_estimate import CostOptions

    return CostOptions()


def run(options: CostOptions) -> int:
    from asrkd.recipe.cost_page import page, page_of_run

    print(page(options) if options.run is None else page_of_run(options.run, options.device, options.flops))
    return 0


COMMAND = Command(
    name="estimate",
    summary="Estimate what an ensemble and its student cost: arithmetic, time, disk and memory.",
    description="""
Counts follow from the options. Times are counts divided by a rate, which is measured on this device by a few seconds of
training these networks, unless --flops gives it.""",
    examples=(
        "asrkd estimate --hours 2000 --teachers 10 --senones 14000",
        "asrkd estimate --hours 100 --teacher.num-layers 5 --teacher.hidden-dim 1024 --flops 5e13 --devices 4",
        "asrkd estimate --run exp/an4     # a finished run: its measured costs next to the estimate",
    ),
    options=_options,
    run=run,
    common=(
        *("hours", "copies", "senones", "teachers"),
        *("teacher.num-layers", "teacher.hidden-dim", "student.num-layers", "student.hidden-dim"),
        *("train.epochs", "train.batch-size", "posteriors.top-k", "device", "devices", "flops", "run"),
    ),
)
