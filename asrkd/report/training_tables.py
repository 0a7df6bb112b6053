"""Tables of training and distillation: epochs, temperature and α, disagreement of teachers, posterior store."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from asrkd.report.systems import METRICS, Metric, called, finite, flags, level, metrics, role
from asrkd.report.tables import (
    MISSING,
    Row,
    Table,
    count,
    duration,
    enumerate_words,
    keyed_table,
    magnitude,
    number,
    number_plain,
    scientific,
)

# key, label, digits, scale, unit
DISAGREEMENT = (
    ("mean_kl", "KL from a member to the ensemble, mean over members, nats/frame", 4, 1.0, ""),
    ("accuracy", "frame accuracy of a member, mean over members", 2, 100.0, "%"),
    ("ensemble_accuracy", "frame accuracy of the ensemble", 2, 100.0, "%"),
)


def training_table(results: Row) -> Table | None:
    """Epochs, the best of them, time and speed of training, one row per system."""
    trained = {name: system for name, system in results["systems"].items() if system.get("history")}
    if not trained:
        return None
    rows = []
    for name, system in trained.items():
        history = system["history"]
        best = best_epoch(system)
        of_best = history[best - 1]
        rows.append(
            (
                name,
                str(len(history)),
                str(best),
                number(of_best.get("dev_accuracy"), 2, 100),
                number(of_best.get("dev_loss"), 4),
                duration(sum(finite(epoch.get("seconds")) or 0.0 for epoch in history)),
                _median_speed(history),
            )
        )
    headers = ("system", "epochs", "best", "dev frame acc. %", "dev CE nats/frame", "time", "frames/s")
    roles = tuple(role(name, system) for name, system in trained.items())
    return Table("Training", headers, tuple(rows), "lrrrrrr", roles=roles)


def best_epoch(system: Row) -> int:
    """The epoch of the model that was saved, from 1."""
    stated = system.get("best_epoch")
    if stated is not None:
        return int(stated)
    accuracies = [finite(epoch.get("dev_accuracy")) or 0.0 for epoch in system["history"]]
    return accuracies.index(max(accuracies)) + 1


def _median_speed(history: Sequence[Row]) -> str:
    speeds = [speed for epoch in history if (speed := finite(epoch.get("frames_per_sec"))) is not None]
    return magnitude(statistics.median(speeds)) if speeds else MISSING


@dataclass(frozen=True)
class DevMeasure:
    """A measure of a student on the development set, as the sweep has it."""

    key: str
    """In a row of the sweep."""
    name: str
    """Without the set."""
    metric: Metric

    def best(self, rows: Sequence[Row]) -> Row | None:
        """The row of the best value, the first among equals; None without values or with only one."""
        measured = [row for row in rows if finite(row.get(self.key)) is not None]
        if len(measured) < 2:
            return None
        sign = 1.0 if self.metric.higher_is_better else -1.0
        return max(measured, key=lambda row: sign * float(row[self.key]))

    def text(self, row: Row) -> str:
        """The row's value with its unit."""
        return number(row.get(self.key), self.metric.digits, self.metric.scale) + self.metric.level_unit


def dev_measures(results: Row) -> tuple[DevMeasure, ...]:
    """The measures that the rows of a sweep can have."""
    shapes = metrics(results)
    return tuple(DevMeasure(f"dev_{key}", shapes[key].label, shapes[key]) for key in METRICS)


def sweep_table(results: Row) -> Table | None:
    """Students by temperature, α and dropout on the development set: which one is the system, which ones are best."""
    rows = results.get("sweep")
    if not rows:
        return None
    measures = dev_measures(results)
    best = {measure.name: measure.best(rows) for measure in measures}
    cells = []
    for row in rows:
        notes = [name for name in ("chosen", "configured") if row.get(name)]
        notes += [f"best {name}" for name, of_best in best.items() if of_best is row]
        cells.append(
            (
                number_plain(row.get("temperature")),
                number_plain(row.get("alpha")),
                number_plain(row.get("dropout")),
                *_dev_cells(row),
                ", ".join(notes),
            )
        )
    headers = ("temperature", "alpha", "dropout", *_dev_headers(results), "note")
    table = Table("Sweep on the development set", headers, tuple(cells), "rrrrrrl", strong=_in_use(rows))
    one_dropout = len({row.get("dropout") for row in rows}) == 1
    return table.without({"dropout"} if one_dropout else ()).without_empty_columns()


def _dev_headers(results: Row) -> tuple[str, ...]:
    return "dev frame acc. %", "dev CE nats/frame", f"dev {metrics(results)['wer'].label} %"


def _dev_cells(row: Row) -> tuple[str, ...]:
    return (
        number(row.get("dev_frame_accuracy"), 2, 100),
        number(row.get("dev_cross_entropy"), 4),
        number(row.get("dev_wer"), 2),
    )


def in_use(rows: Sequence[Row]) -> Row | None:
    """The row of the student that is the system: the chosen one, the configured one where nobody chose."""
    for key in ("chosen", "configured"):
        found = next((row for row in rows if row.get(key)), None)
        if found is not None:
            return found
    return None


def _in_use(rows: Sequence[Row]) -> tuple[bool, ...]:
    used = in_use(rows)
    return tuple(row is used for row in rows)


def baselines_table(results: Row) -> Table | None:
    """Networks that learn hard labels on the development set: which ones are systems, and the strongest of these."""
    rows = results.get("baselines") or ()
    if len(rows) < 2:
        return None
    cells = tuple(
        (
            str(row.get("system") or "not decoded"),
            number_plain(row.get("dropout")),
            "distorted" if row.get("augmented") else "",
            *_dev_cells(row),
            "strongest" if row.get("chosen") else "",
        )
        for row in rows
    )
    headers = ("system", "dropout", "inputs", *_dev_headers(results), "note")
    note = "All are trained as long as the distilled student."
    strong = flags(rows, "chosen")
    return Table(
        "Baselines on the development set", headers, cells, "lrlrrrl", (), strong, note
    ).without_empty_columns()


def subset_table(results: Row) -> Table | None:
    """Students of a part of the training utterances beside those of all: what they fit and what they learn of it."""
    subset = results.get("subset")
    if not subset:
        return None
    cells = []
    for row in subset["rows"]:
        name = row["system"]
        accuracy, cross_entropy, errors = (level(results, name, metric)[0] for metric in METRICS)
        cells.append(
            (
                name,
                row["targets"],
                f"{100 * subset['fraction']:g}%" if row["speech"] == "subset" else "100%",
                count(row["utterances"]),
                number(row["train_frame_accuracy"], 2, 100),
                number(accuracy, 2, 100),
                number(row["train_cross_entropy"], 4),
                number(cross_entropy, 4),
                number(errors, 2),
            )
        )
    headers = (
        *("system", "targets", "training speech", "utterances", "frame acc. % training", "test"),
        *("CE training, nats/frame", "test", f"{metrics(results)['wer'].label} %"),
    )
    note = (
        "The training figures are those of the utterances that each has learned from, copies at other speeds included. "
        "In the paper (Table 5), frame accuracy in training and test: all speech 63.4 and 58.9; 3% of it 67.3 and 44.5 "
        "on hard labels, 65.4 and 57.0 on soft targets."
    )
    return Table("Part of the training speech", headers, tuple(cells), "llr" + "r" * 6, note=note)


def weak_student_text(results: Row) -> str | None:
    """A warning where a baseline is as good as the distilled student on the development set, None where none is."""
    used = in_use(results.get("sweep") or ())
    strongest = next((row for row in results.get("baselines") or () if row.get("chosen")), None)
    ours, theirs = (finite(row.get("dev_cross_entropy")) if row else None for row in (used, strongest))
    if strongest is None or ours is None or theirs is None or ours < theirs:
        return None
    baseline = called(str(strongest["system"]))
    return (
        f"The distilled student is no better than {baseline} on the development set (cross-entropy {number(ours, 4)} "
        f"against {number(theirs, 4)} nats/frame); a wider sweep (--students.sweep-alphas, "
        "--students.sweep-dropouts) may find a better one."
    )


def sweep_text(results: Row) -> str | None:
    """Sentences on what was tried and which temperature and α the distilled student has."""
    rows = results.get("sweep") or ()
    configured = next((row for row in rows if row.get("configured")), None)
    chosen = next((row for row in rows if row.get("chosen")), None)
    shown = [f"The recipe is configured with {setting(configured, rows)}."] if configured else []
    if chosen:
        shown.append(f"Of {len(rows)} students, {setting(chosen, rows)} is the distilled one.")
    best_in: dict[str, list[str]] = {}
    for measure in dev_measures(results):
        row = measure.best(rows)
        if row is not None:
            best_in.setdefault(setting(row, rows), []).append(f"{measure.name} ({measure.text(row)})")
    bests = [f"{where} has the best {enumerate_words(names)}" for where, names in best_in.items()]
    shown += [f"On the development set, {'; '.join(bests)}."] if bests else []
    return " ".join(shown) or None


def setting(row: Row, rows: Sequence[Row] = ()) -> str:
    """Temperature and α of a student, and its dropout where `rows` differ in it; α = 0 is hard labels alone."""
    if row.get("alpha") == 0:
        return "α=0 (hard labels)"
    dropout = f", dropout {number_plain(row['dropout'])}" if len({one.get("dropout") for one in rows}) > 1 else ""
    return f"T={number_plain(row.get('temperature'))}, α={number_plain(row.get('alpha'))}{dropout}"


def disagreement_table(results: Row) -> Table | None:
    """The members' disagreement: mean over pairs, KL to the ensemble, frame accuracy of member and ensemble."""
    measured = results.get("disagreement")
    if not measured:
        return None
    pairs: dict[str, str] = {}
    matrix = measured.get("pairwise")
    if matrix is not None and len(matrix) > 1:
        off_diagonal = [float(v) for i, row in enumerate(matrix) for j, v in enumerate(row) if i != j]
        pairs["frames on which two members differ, mean over pairs"] = (
            f"{number(statistics.fmean(off_diagonal), 2, 100)}%"
        )
    for key, label, digits, scale, unit in DISAGREEMENT:
        value = measured.get(key)
        if value is not None:
            mean = statistics.fmean(value) if isinstance(value, Sequence) else value
            pairs[label] = number(mean, digits, scale) + unit
    if measured.get("num_frames") is not None:
        pairs["frames counted"] = count(measured["num_frames"])
    return keyed_table("Disagreement between members", pairs, ("measure", "value")) if pairs else None


def store_table(results: Row) -> Table | None:
    """Bytes per frame of the posterior store against KL to the dense posterior."""
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
    headers = (
        "top k",
        "temperature",
        "bytes/frame",
        "KL to dense, nats/frame",
        "KL, tail as one class",
        "tail mass",
        "note",
    )
    table = Table("Posterior store", headers, cells, "rrrrrrl", strong=flags(rows, "chosen"))
    return table.without_empty_columns()


def hard_label_level(results: Row, measure: DevMeasure) -> float | None:
    """What the baseline, trained on hard labels alone, has in a measure on the development set."""
    rows = results.get("sweep") or ()
    hard = next((finite(row.get(measure.key)) for row in rows if row.get("alpha") == 0), None)
    baseline = results["systems"].get("baseline") or {}
    if hard is not None or not baseline.get("history"):
        return hard
    # The history calls the development cross-entropy a loss.
    key = {"dev_frame_accuracy": "dev_accuracy", "dev_cross_entropy": "dev_loss"}.get(measure.key, measure.key)
    return finite(baseline["history"][best_epoch(baseline) - 1].get(key))
