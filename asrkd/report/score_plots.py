"""Plots of the scores: a dot and its interval by system, seeds; and the time by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from asrkd.report.plots import MARKERS, PANEL_INCHES, STAND_IN, legend_below, panel, role_colour, to_svg
from asrkd.report.systems import Metric, finite
from asrkd.report.tables import Row


@dataclass(frozen=True)
class Estimate:
    """A measured value, with its 95% interval where one was computed."""

    value: float
    ci95: tuple[float, float] | None = None


def interval_dots(
    estimates: Mapping[str, Estimate], roles: Mapping[str, str], title: str, xlabel: str, name: str
) -> str:
    """A dot and its 95% interval by system, from top to bottom.

    Without any interval the axis starts at zero: nothing else tells how large the differences are.
    """
    size = (PANEL_INCHES[0], 1.1 + 0.28 * len(estimates))
    with panel(title, xlabel, "", size) as (figure, axes):
        axes.grid(axis="y", visible=False)
        for position, (system, shown) in enumerate(estimates.items()):
            colour = role_colour(roles[system])
            if shown.ci95:
                axes.plot(shown.ci95, (position, position), color=colour, lw=2, solid_capstyle="round")
            axes.plot(shown.value, position, "o", color=colour, ms=6.5)
        named_rows(axes, list(estimates))
        axes.margins(x=0.1)
        if not any(shown.ci95 for shown in estimates.values()):
            axes.set_xlim(0.0, 1.1 * max(shown.value for shown in estimates.values()) or 1.0)
        return to_svg(figure, name)


def named_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names along the y axis, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def seed_lines(rows: Sequence[Row], key: str, roles: Mapping[str, str], metric: Metric) -> str | None:
    """A mark for each seed and system; a line joins the systems of one seed, so that paired differences show."""
    measured = [row for row in rows if finite(row.get(key)) is not None]
    systems = [name for name in roles if any(row["system"] == name for row in measured)]
    seeds = sorted({row["seed"] for row in measured})
    if len(systems) < 2 or len(seeds) < 2:
        return None
    size = (PANEL_INCHES[0], 1.4 + 0.36 * len(systems))
    with panel(f"{metric.title} by seed", metric.axis_label, "", size) as (figure, axes):
        axes.grid(axis="y", visible=False)
        for position, seed in enumerate(seeds):
            of_seed = {row["system"]: row[key] * metric.scale for row in measured if row["seed"] == seed}
            points = [(of_seed[name], height) for height, name in enumerate(systems) if name in of_seed]
            marker = MARKERS[position % len(MARKERS)]
            axes.plot(*zip(*points, strict=True), color=STAND_IN["teacher"], lw=0.8)
            for value, height in points:
                axes.plot(value, height, marker=marker, color=role_colour(roles[systems[height]]), ms=6)
            # The legend's marks are grey: a seed has a shape, colours are the systems'.
            axes.plot([], [], ls="", marker=marker, color=STAND_IN["muted"], label=f"seed {seed}")
        named_rows(axes, systems)
        legend_below(figure, axes)
        return to_svg(figure, f"seeds-{key.replace('_', '-')}")


def stage_bars(timing: Mapping[str, float]) -> str:
    """Wall-clock time by stage, in the order run."""
    longest = max(timing.values())
    unit, size = ("minutes", 60.0) if longest > 120 else ("seconds", 1.0)
    with panel("Time by stage", unit, "", (PANEL_INCHES[0], 1.0 + 0.26 * len(timing))) as (figure, axes):
        axes.grid(axis="y", visible=False)
        for position, seconds in enumerate(timing.values()):
            axes.barh(position, seconds / size, height=0.62, color=STAND_IN["series-1"])
            axes.annotate(
                f"{seconds / size:.1f}",
                (seconds / size, position),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        named_rows(axes, list(timing))
        axes.margins(x=0.12)
        return to_svg(figure, "timing")
