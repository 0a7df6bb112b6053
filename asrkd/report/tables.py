"""Tables of strings, built once from a results dict and shown three ways: terminal, Markdown, HTML."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asrkd.report.systems import (
    METRICS,
    chosen_rows,
    comparison_verdict,
    error_unit,
    finite,
    gaps,
    interval,
    metrics,
    role,
    rtf,
    test_sets,
    wer,
)

MISSING = "–"
MINUS = "−"
NO_GAIN = "the ensemble is no better than the baseline"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Headers and cells as shown; `align`: l or r a column; `roles` colours rows, `strong` is bold."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    roles: tuple[str, ...] = ()
    strong: tuple[bool, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        widths = {len(self.headers), len(self.align), *(len(row) for row in self.rows)}
        if len(widths) != 1:
            raise ValueError(f"table {self.caption!r}: headers, align and rows differ in length: {sorted(widths)}")


def number(value: Any, digits: int, scale: float = 1.0, signed: bool = False) -> str:
    """A number at a fixed precision, MISSING when there is none; `signed` shows plus and minus."""
    shown = finite(value)
    if shown is None:
        return MISSING
    return f"{shown * scale:{'+' if signed else ''}.{digits}f}".replace("-", MINUS)


def count(value: Any) -> str:
    """An integer with thousands separated."""
    return MISSING if value is None else f"{int(value):,}"


def magnitude(value: Any) -> str:
    """A large count to three digits, in thousands or millions."""
    shown = finite(value)
    if shown is None:
        return MISSING
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if float(f"{shown:.3g}") >= size:
            return f"{shown / size:#.3g}".rstrip(".") + suffix
    return f"{shown:g}"


def span(value: Any, digits: int, scale: float = 1.0, signed: bool = False) -> str:
    """An interval as `[low, high]`."""
    ends = interval(value)
    if ends is None:
        return MISSING
    return "[" + ", ".join(number(end, digits, scale, signed) for end in ends) + "]"


def duration(seconds: Any) -> str:
    """Seconds as `1 h 02 min`, `3 min 05 s` or `4.2 s`."""
    shown = finite(seconds)
    if shown is None:
        return MISSING
    if round(shown, 1) < 60:
        return f"{shown:.1f} s"
    whole = round(shown)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def systems_table(results: Row) -> Table:
    """The main table: a row a system (and test set, when there are several)."""
    sets = test_sets(results)
    rows, roles, strong = [], [], []
    for name, system in results["systems"].items():
        scored = [test_set for test_set in sets if wer(system, test_set)] or sets[:1]
        for position, test_set in enumerate(scored):
            rows.append(_system_row(name, system, test_set, first=position == 0))
            roles.append(role(name, system))
            strong.append(name == "distilled")
    headers = (
        "system",
        "test set",
        "frame acc. %",
        "CE nats",
        f"{metrics(results)['wer'].label} %",
        "95% interval",
        "ins",
        "del",
        "sub",
        f"{error_unit(results)}s",
        "params",
        "MACs/frame",
        "RTF",
        "what",
    )
    note = "Of a student trained from several seeds, the first is shown here." if results.get("seeds") else ""
    table = Table("Systems", headers, tuple(rows), "llrrrrrrrrrrrl", tuple(roles), tuple(strong), note)
    hidden = {"test set"} if len(sets) == 1 else set()
    return _without_columns(table, hidden | _empty_columns(table))


def _system_row(name: str, system: Row, test_set: str, first: bool) -> tuple[str, ...]:
    errors = wer(system, test_set)
    counts = (errors.insertions, errors.deletions, errors.substitutions, errors.words) if errors else (None,) * 4
    return (
        name,
        test_set,
        number(system.get("frame_accuracy"), 2, 100) if first else "",
        number(system.get("cross_entropy"), 4) if first else "",
        number(errors.percent, 2) if errors else MISSING,
        span(errors.ci95, 2) if errors else MISSING,
        *map(count, counts),
        magnitude(system.get("parameters")) if first else "",
        magnitude(system.get("macs_per_frame")) if first else "",
        number(rtf(system, test_set), 3),
        str(system.get("description") or "") if first else "",
    )


def compact_systems_table(results: Row) -> Table:
    """The main table without what a terminal line has no room for."""
    return _without_columns(systems_table(results), {f"{error_unit(results)}s", "MACs/frame", "what"})


def comparisons_table(results: Row) -> Table | None:
    """Paired comparisons a minus b with their interval and p."""
    rows = results.get("comparisons")
    if not rows:
        return None
    cells = []
    for row in rows:
        metric = metrics(results).get(row["metric"])
        label = f"{metric.label} ({metric.unit})" if metric else str(row["metric"])
        scale, digits = (metric.scale, metric.digits) if metric else (1.0, 4)
        cells.append(
            (
                str(row["a"]),
                str(row["b"]),
                str(row.get("test_set") or ""),
                label,
                number(row["delta"], digits, scale, signed=True),
                span(row.get("ci95"), digits, scale, signed=True),
                p_value(row.get("p")),
                comparison_verdict(row),
            )
        )
    headers = ("a", "b", "test set", "metric", "a − b", "95% interval", "p", "reading")
    averaged = ", the seeds of a student averaged in each" if results.get("seeds") else ""
    note = f"Both systems scored on the same utterances{averaged}; an interval that includes zero separates nothing."
    table = Table("Paired comparisons", headers, tuple(cells), "llllrrrl", note=note)
    return _without_columns(table, _empty_columns(table))


def p_value(value: Any) -> str:
    """p to three digits, never as zero."""
    shown = finite(value)
    if shown is None:
        return MISSING
    return "<0.001" if shown < 0.001 else f"{shown:.3f}"


def gap_table(results: Row) -> Table | None:
    """(distilled − baseline) / (ensemble − baseline) a metric, or the reason why it is undefined."""
    found = gaps(results)
    if not found:
        return None
    shapes = metrics(results)
    rows = tuple(
        (
            shapes[gap.metric].label if gap.metric in shapes else gap.metric,
            f"{number(gap.value, 1, 100)}%" if gap.value is not None else MISSING,
            span(gap.ci95, 1, 100),
            gap.reason or ("" if gap.value is not None else NO_GAIN),
        )
        for gap in found
    )
    table = Table(
        "Gap recovered",
        ("metric", "recovered", "95% interval, %", "reason"),
        rows,
        "lrrl",
        note="(distilled − baseline) / (ensemble − baseline); 100% is the ensemble itself.",
    )
    return _without_columns(table, _empty_columns(table))


def seeds_table(results: Row) -> Table | None:
    """Mean and standard deviation over seeds, a row a system."""
    rows = results.get("seeds")
    if not rows:
        return None
    names = list(dict.fromkeys(str(row["system"]) for row in rows))
    measured = [name for name in METRICS if any(finite(row.get(name)) is not None for row in rows)]
    cells = []
    for name in names:
        mine = [row for row in rows if row["system"] == name]
        seeds = ", ".join(str(row["seed"]) for row in mine)
        cells.append((name, seeds, *(_mean_and_deviation(mine, metric) for metric in measured)))
    rate = f"{metrics(results)['wer'].label} %"
    shown = {"frame_accuracy": "frame acc. %", "cross_entropy": "CE nats", "wer": rate}
    return Table(
        "Over seeds",
        ("system", "seeds", *(shown[metric] for metric in measured)),
        tuple(cells),
        "ll" + "r" * len(measured),
        roles=tuple(role(name, results["systems"].get(name, {})) for name in names),
        note="Mean ± standard deviation over seeds.",
    )


def _mean_and_deviation(rows: Iterable[Row], metric: str) -> str:
    values = [value for row in rows if (value := finite(row.get(metric))) is not None]
    if not values:
        return MISSING
    shape = METRICS[metric]
    mean = number(statistics.fmean(values), shape.digits, shape.scale)
    if len(values) == 1:
        return mean
    return f"{mean} ± {number(statistics.stdev(values), shape.digits, shape.scale)}"


def sweep_table(results: Row) -> Table | None:
    """Temperature and α on the development set."""
    rows = results.get("sweep")
    if not rows:
        return None
    cells = tuple(
        (
            number_plain(row.get("temperature")),
            number_plain(row.get("alpha")),
            number(row.get("dev_frame_accuracy"), 2, 100),
            number(row.get("dev_cross_entropy"), 4),
            number(row.get("dev_wer"), 2),
            "chosen" if row.get("chosen") else "",
        )
        for row in rows
    )
    rate = f"dev {metrics(results)['wer'].label} %"
    headers = ("temperature", "alpha", "dev frame acc. %", "dev CE nats", rate, "")
    table = Table("Sweep on the development set", headers, cells, "rrrrrl", strong=tuple(chosen_rows(rows)))
    return _without_columns(table, _empty_columns(table))


def number_plain(value: Any) -> str:
    """A setting as one would type it."""
    shown = finite(value)
    return MISSING if shown is None else f"{shown:g}".replace("-", MINUS)


def tuning_table(results: Row) -> Table | None:
    """Development WER over acoustic scale, LM scale and insertion score, the best first."""
    tried = results.get("tuning")
    if not tried:
        return None
    rows = sorted(tried, key=lambda row: float(row["wer"]))
    cells = tuple(
        (
            str(row.get("system") or ""),
            number_plain(row.get("acoustic_scale")),
            number_plain(row.get("lm_scale")),
            number_plain(row.get("insertion_score")),
            number(row.get("wer"), 2),
            "chosen" if row.get("chosen") else "",
        )
        for row in rows
    )
    headers = ("system", "acoustic scale", "LM scale", "insertion score", f"dev {metrics(results)['wer'].label} %", "")
    table = Table(
        "Decoding scales on the development set",
        headers,
        cells,
        "lrrrrl",
        strong=tuple(chosen_rows(rows)),
    )
    return _without_columns(table, _empty_columns(table))


def store_table(results: Row) -> Table | None:
    """Bytes a frame of the posterior store against KL to the dense posterior."""
    rows = results.get("store")
    if not rows:
        return None
    cells = tuple(
        (
            count(row["top_k"]),
            number_plain(row.get("temperature")),
            number(row["bytes_per_frame"], 1),
            scientific(row["kl_to_dense"]),
            scientific(row.get("kl_lumped")),
            scientific(row.get("tail")),
            "in use" if row.get("chosen") else "",
        )
        for row in rows
    )
    table = Table(
        "Posterior store",
        (
            "top k",
            "temperature",
            "bytes/frame",
            "KL to dense, nats/frame",
            "KL, tail as one class",
            "tail mass",
            "",
        ),
        cells,
        "rrrrrrl",
        strong=tuple(chosen_rows(rows)),
    )
    return _without_columns(table, _empty_columns(table))


def scientific(value: Any) -> str:
    """Three significant digits, powers of ten where a plain number would be long."""
    shown = finite(value)
    return MISSING if shown is None else f"{shown:.3g}".replace("-", MINUS)


def _empty_columns(table: Table) -> set[str]:
    return {
        header
        for position, header in enumerate(table.headers)
        if all(row[position] in ("", MISSING) for row in table.rows)
    }


def _without_columns(table: Table, hidden: set[str]) -> Table:
    keep = [position for position, header in enumerate(table.headers) if header not in hidden]
    return Table(
        table.caption,
        tuple(table.headers[position] for position in keep),
        tuple(tuple(row[position] for position in keep) for row in table.rows),
        "".join(table.align[position] for position in keep),
        table.roles,
        table.strong,
        table.note,
    )


def keyed_table(caption: str, pairs: Mapping[str, str], headers: Sequence[str], align: str = "lr") -> Table:
    """A two-column table of a mapping."""
    return Table(caption, tuple(headers), tuple((str(key), value) for key, value in pairs.items()), align)
