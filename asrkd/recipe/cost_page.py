"""The page that `asrkd estimate` prints: costs as a table, and the rates behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from asrkd.files import read_object
from asrkd.nnet.devices import resolve_device
from asrkd.recipe.cost_estimate import (
    SECONDS_PER_HOUR,
    Cost,
    CostOptions,
    Rates,
    cost_estimate,
    measure_rates,
    measured_costs,
    options_of_run,
)
from asrkd.recipe.run_options import CONFIG_FILE
from asrkd.workflow import provenance

COLUMNS = ("part", "TFLOP", "one device", "wall clock", "disk", "memory")
COLUMNS_OF_RUN = ("part", "time estimated", "measured", "ratio", "disk estimated", "measured", "ratio")


def page(options: CostOptions) -> str:
    """The estimate as a table, and the rates behind it."""
    rates = measure_rates(options)
    table = _table(list(_table_rows(cost_estimate(options, rates), options.devices)), COLUMNS)
    return f"{_described(options)}\n\n{table}\n\n{_rates_text(options, rates)}"


def page_of_run(exp_dir: Path, device: str, flops: float | None) -> str:
    """The estimate of a finished run next to its measured times and sizes."""
    options = options_of_run(exp_dir, device, flops)
    rates = measure_rates(options)
    measured = measured_costs(exp_dir, options.teachers)
    lines = [
        (
            cost.part,
            _duration(cost.seconds),
            _duration(measured[cost.part].seconds),
            _ratio(cost.seconds, measured[cost.part].seconds),
            _size(cost.disk_bytes),
            _size(measured[cost.part].disk_bytes),
            _ratio(cost.disk_bytes, measured[cost.part].disk_bytes),
        )
        for cost in cost_estimate(options, rates)
    ]
    table = _table(lines, COLUMNS_OF_RUN)
    return f"{exp_dir}: {_described(options)}\n\n{table}\n\n{_rates_text(options, rates)}{_lanes_text(exp_dir)}"


def _lanes_text(exp_dir: Path) -> str:
    """Why networks that trained side by side took longer than estimated; empty where they did not."""
    jobs = int(read_object(exp_dir / CONFIG_FILE).get("network_jobs", 1))
    if jobs == 1:
        return ""
    return (
        f"\nNetworks may have trained {jobs} at a time (--network-jobs): each took longer on its share of the cores, "
        "and all together took less than the sum."
    )


def _table_rows(costs: list[Cost], devices: int) -> Iterator[tuple[str, ...]]:
    """A line of the table for each part, and one for their sum (of the memory: their maximum)."""
    for cost in costs:
        yield (
            cost.part,
            f"{cost.flop / 1e12:,.0f}" if cost.flop else "–",
            _duration(cost.seconds),
            _duration(cost.wall_seconds(devices)),
            _size(cost.disk_bytes),
            _size(cost.memory_bytes),
        )
    yield (
        "total",
        f"{sum(cost.flop for cost in costs) / 1e12:,.0f}",
        _duration(sum(cost.seconds for cost in costs)),
        _duration(sum(cost.wall_seconds(devices) for cost in costs)),
        _size(sum(cost.disk_bytes for cost in costs)),
        _size(max(cost.memory_bytes for cost in costs)),
    )


def _table(rows: Sequence[tuple[str, ...]], headers: tuple[str, ...]) -> str:
    return tabulate(rows, headers=headers, disable_numparse=True, tablefmt="github")


def _described(options: CostOptions) -> str:
    teacher, student = options.teacher, options.student
    return (
        f"{options.frames:,} frames of {options.input_dim} inputs, {options.senones:,} senones; {options.teachers} "
        f"teachers {teacher.num_layers}x{teacher.hidden_dim}, a student {student.num_layers}x{student.hidden_dim}, "
        f"{options.train.epochs} epochs, {options.devices} {'device' if options.devices == 1 else 'devices'}"
    )


def _rates_text(options: CostOptions, rates: Rates) -> str:
    if not rates.measured:
        return f"Rate: {rates.teacher / 1e12:,.3g} TFLOP/s per device, from --flops."
    name = provenance.device_name(str(resolve_device(options.device)))
    values = ", ".join(
        f"{what} {rate / 1e12:,.3g}"
        for what, rate in (("teachers", rates.teacher), ("student", rates.student), ("scoring", rates.scoring))
    )
    return f"TFLOP/s measured on {name}: {values}. Validation, alignment, audio and start-up are not counted."


def _ratio(estimated: float, measured: float) -> str:
    """Measured divided by estimated."""
    return f"{measured / estimated:.2f}" if estimated and measured else "–"


def _duration(seconds: float) -> str:
    if not seconds:
        return "–"
    if seconds < 2 * SECONDS_PER_HOUR:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / SECONDS_PER_HOUR:,.1f} h"


def _size(num_bytes: float) -> str:
    for unit in ("kB", "MB", "GB"):
        num_bytes /= 1000
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
    return f"{num_bytes / 1000:.3g} TB"
