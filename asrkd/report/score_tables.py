"""Tables of the scores: systems, paired comparisons, gap recovered, seeds."""

from __future__ import annotations

from collections.abc import Iterable

from asrkd.report.spread import mean_and_deviation
from asrkd.report.systems import (
    METRICS,
    cer,
    comparison_verdict,
    error_unit,
    finite,
    gaps,
    metrics,
    resampled,
    role,
    rtf,
    shows_characters,
    strongest_baseline,
    strongest_gaps,
    test_sets,
    wer,
)
from asrkd.report.tables import MISSING, Row, Table, count, magnitude, number, p_value, span

NOT_DETERMINED = "not determined"


def systems_table(results: Row) -> Table:
    """The main table: one row per system (and test set, when there are several), the error rate first."""
    sets = test_sets(results)
    rows, roles, strong = [], [], []
    for name, system in results["systems"].items():
        scored = [test_set for test_set in sets if wer(system, test_set)] or sets[:1]
        for position, test_set in enumerate(scored):
            rate = cer(system, test_set) if shows_characters(results) else None
            rows.append(_system_row(name, system, test_set, rate, first=position == 0))
            roles.append(role(name, system))
            strong.append(name == "distilled")
    headers = (
        "system",
        "test set",
        f"{metrics(results)['wer'].label} %",
        "95% interval",
        "CER %",
        "frame acc. %",
        "CE nats/frame",
        "ins",
        "del",
        "sub",
        f"{error_unit(results)}s",
        "params",
        "MACs/frame",
        "RTF",
        "description",
    )
    notes = ["A student that was trained from several seeds is shown with its first."] if results.get("seeds") else []
    notes += [text] if (text := strongest_text(results)) else []
    note = " ".join(notes)
    table = Table("Systems", headers, tuple(rows), "llrrrrrrrrrrrrl", tuple(roles), tuple(strong), note)
    return table.without({"test set"} if len(sets) == 1 else ()).without_empty_columns()


def strongest_text(results: Row) -> str | None:
    """A sentence that names the strongest baseline, None where there is one baseline or where nobody chose."""
    tried = [row for row in results.get("baselines") or () if row.get("system")]
    name = next((str(row["system"]) for row in tried if row.get("chosen")), None)
    if name is None or len(tried) < 2:
        return None
    return f"The strongest baseline on the development set is {name}, by cross-entropy."


def _system_row(name: str, system: Row, test_set: str, character_rate: float | None, first: bool) -> tuple[str, ...]:
    errors = wer(system, test_set)
    counts = (errors.insertions, errors.deletions, errors.substitutions, errors.words) if errors else (None,) * 4
    return (
        name,
        test_set,
        number(errors.percent, 2) if errors else MISSING,
        span(errors.ci95, 2) if errors else MISSING,
        number(character_rate, 2),
        number(system.get("frame_accuracy"), 2, 100) if first else "",
        number(system.get("cross_entropy"), 4) if first else "",
        *map(count, counts),
        magnitude(system.get("parameters")) if first else "",
        magnitude(system.get("macs_per_frame")) if first else "",
        number(rtf(system, test_set), 3),
        str(system.get("description") or "") if first else "",
    )


def compact_systems_table(results: Row) -> Table:
    """The main table without what a terminal line has no room for."""
    return systems_table(results).without({f"{error_unit(results)}s", "MACs/frame", "description"})


def comparisons_table(results: Row) -> Table | None:
    """Paired comparisons, first system minus second, with their interval and p."""
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
                f"{row['a']} − {row['b']}",
                str(row.get("test_set") or ""),
                label,
                number(row["delta"], digits, scale, signed=True),
                span(row.get("ci95"), digits, scale, signed=True),
                p_value(row.get("p")),
                comparison_verdict(row),
            )
        )
    headers = ("systems", "test set", "metric", "difference", "95% interval", "p", "result")
    averaged = " A student with several seeds counts with their mean." if results.get("seeds") else ""
    note = f"Both systems are scored on the same utterances.{averaged}"
    note += " Intervals are over speakers." if resampled(results) == "speakers" else ""
    note += " A difference is significant where its interval excludes zero."
    return Table("Paired comparisons", headers, tuple(cells), "lllrrrl", note=note).without_empty_columns()


def gap_table(results: Row) -> Table | None:
    """(distilled − baseline) / (teacher − baseline) by metric and baseline, or why it is not determined."""
    shown = [*gaps(results), *strongest_gaps(results)]
    if not shown:
        return None
    shapes = metrics(results)
    rows = tuple(
        (
            gap.baseline,
            shapes[gap.metric].label if gap.metric in shapes else gap.metric,
            f"{number(gap.value, 1, 100)}%" if gap.determined else NOT_DETERMINED,
            span(gap.ci95, 1, 100) if gap.determined else MISSING,
            gap.obstacle,
        )
        for gap in shown
    )
    teacher, strongest = shown[0].teacher, strongest_baseline(results)
    note = f"(distilled − baseline) / ({teacher} − baseline); 100% is the {teacher} itself."
    note += f" {strongest} is the strongest baseline on the development set." if strongest else ""
    headers = ("baseline", "metric", "recovered", "95% interval, %", "reason")
    table = Table("Gap recovered", headers, rows, "llrrl", note=note)
    return table.without(() if strongest else {"baseline"}).without_empty_columns()


def seeds_table(results: Row) -> Table | None:
    """Mean and standard deviation over seeds, one row per system."""
    rows = results.get("seeds")
    if not rows:
        return None
    names = list(dict.fromkeys(str(row["system"]) for row in rows))
    measured = [name for name in METRICS if any(finite(row.get(name)) is not None for row in rows)]
    cells = []
    for name in names:
        of_system = [row for row in rows if row["system"] == name]
        seeds = ", ".join(str(row["seed"]) for row in of_system)
        cells.append((name, seeds, *(_mean_and_deviation(of_system, metric) for metric in measured)))
    headers = {
        "frame_accuracy": "frame acc. %",
        "cross_entropy": "CE nats/frame",
        "wer": f"{metrics(results)['wer'].label} %",
    }
    return Table(
        "Over seeds",
        ("system", "seeds", *(headers[metric] for metric in measured)),
        tuple(cells),
        "ll" + "r" * len(measured),
        roles=tuple(role(name, results["systems"].get(name, {})) for name in names),
        note="Mean ± standard deviation over seeds.",
    )


def _mean_and_deviation(rows: Iterable[Row], metric: str) -> str:
    values = [value for row in rows if (value := finite(row.get(metric))) is not None]
    if not values:
        return MISSING
    return mean_and_deviation(values, METRICS[metric].digits, METRICS[metric].scale)
