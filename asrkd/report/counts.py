"""Tables of what went in and what it took: corpus, drops, errors, training, time, environment."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from asrkd.report.systems import finite, role
from asrkd.report.tables import (
    MISSING,
    Row,
    Table,
    count,
    duration,
    keyed_table,
    magnitude,
    number,
)

BOUNDARY_LIMITS_MS = (10, 20, 30)
INSERTED, DELETED = "(inserted)", "(deleted)"
SHOWN_CONFUSIONS = 20
# key, what it says, digits, scale, unit
DISAGREEMENT = (
    ("mean_kl", "KL from a member to the ensemble, mean over members, nats/frame", 4, 1.0, ""),
    ("accuracy", "frame accuracy of a member, mean over members", 2, 100.0, "%"),
    ("ensemble_accuracy", "frame accuracy of the ensemble", 2, 100.0, "%"),
)


def corpus_table(results: Row) -> Table | None:
    """Utterances, speakers, hours, words, copies (at other speeds) and frames a split."""
    corpus = results.get("corpus")
    if not corpus:
        return None
    columns = list(dict.fromkeys(key for split in corpus.values() for key in split))
    rows = tuple((name, *(_corpus_cell(split.get(key)) for key in columns)) for name, split in corpus.items())
    return Table("Corpus", ("split", *columns), rows, "l" + "r" * len(columns))


def _corpus_cell(value: Any) -> str:
    if isinstance(value, float):
        return number(value, 2)
    return count(value) if isinstance(value, int) else str(value if value is not None else MISSING)


def oov_text(results: Row) -> str | None:
    """One sentence on words outside the language model."""
    rate = results.get("oov_rate")
    if rate is None:
        return None
    rates = rate if isinstance(rate, Mapping) else {"test": rate}
    shown = ", ".join(f"{name} {number(value, 2, 100)}%" for name, value in rates.items())
    return f"Running words outside the language model: {shown}."


def boundary_table(results: Row) -> Table | None:
    """How far the alignment's boundaries are from those that people marked, a row a split."""
    splits = results.get("boundaries")
    if not splits:
        return None
    rows = tuple(
        (
            name,
            count(found["boundaries"]),
            *(number(found[key], 1) for key in ("mean_ms", "median_ms")),
            number(found["median_late_ms"], 1, signed=True),
            *(number(found[f"within_{limit}_ms"], 1, 100) for limit in BOUNDARY_LIMITS_MS),
        )
        for name, found in splits.items()
    )
    return Table(
        "Boundaries against marks by hand",
        (
            *("split", "boundaries", "mean error, ms", "median error, ms", "median lateness, ms"),
            *(f"within {limit} ms, %" for limit in BOUNDARY_LIMITS_MS),
        ),
        rows,
        "l" + "r" * (4 + len(BOUNDARY_LIMITS_MS)),
        note="Starts of phones, and ends before a pause; errors without their sign.",
    )


def excluded_table(results: Row) -> Table | None:
    """Utterances the corpus preparation left out, by rule."""
    rules = results.get("excluded")
    if not rules:
        return None
    return keyed_table("Left out by rule", {rule: count(n) for rule, n in rules.items()}, ("rule", "utterances"))


def rejected_table(results: Row) -> Table | None:
    """Utterances dropped as bad or impossible to align, with the reason."""
    rejected = results.get("rejected")
    if not rejected:
        return None
    return Table("Dropped utterances", ("utt_id", "reason"), tuple((str(u), str(r)) for u, r in rejected), "ll")


def confusion_tables(results: Row) -> list[Table]:
    """The most frequent word confusions, one table a system."""
    confusions = results.get("confusions")
    if not confusions:
        return []
    by_system = confusions if isinstance(confusions, Mapping) else {"": confusions}
    tables = []
    for system, rows in by_system.items():
        ranked = sorted(rows, key=lambda row: -int(row[2]))[:SHOWN_CONFUSIONS]
        cells = tuple((ref or INSERTED, hyp or DELETED, count(n)) for ref, hyp, n in ranked)
        left = len(rows) - len(cells)
        caption = f"Confusions of {system}" if system else "Confusions"
        note = f"{left} rarer ones are not shown." if left else ""
        tables.append(Table(caption, ("said", "heard", "times"), cells, "llr", note=note))
    return tables


def training_table(results: Row) -> Table | None:
    """Epochs, the best of them, time and speed of training, a row a system."""
    trained = {name: system for name, system in results["systems"].items() if system.get("history")}
    if not trained:
        return None
    rows = []
    for name, system in trained.items():
        history = system["history"]
        best = best_epoch(system)
        kept = history[best - 1]
        rows.append(
            (
                name,
                str(len(history)),
                str(best),
                number(kept.get("dev_accuracy"), 2, 100),
                number(kept.get("dev_loss"), 4),
                duration(sum(finite(epoch.get("seconds")) or 0.0 for epoch in history)),
                _median_speed(history),
            )
        )
    headers = ("system", "epochs", "best", "dev frame acc. %", "dev loss", "time", "frames/s")
    roles = tuple(role(name, system) for name, system in trained.items())
    return Table("Training", headers, tuple(rows), "lrrrrrr", roles=roles)


def best_epoch(system: Row) -> int:
    """The epoch that was kept, from 1."""
    stated = system.get("best_epoch")
    if stated is not None:
        return int(stated)
    accuracies = [finite(epoch.get("dev_accuracy")) or 0.0 for epoch in system["history"]]
    return accuracies.index(max(accuracies)) + 1


def _median_speed(history: Sequence[Row]) -> str:
    speeds = [speed for epoch in history if (speed := finite(epoch.get("frames_per_sec"))) is not None]
    return magnitude(statistics.median(speeds)) if speeds else MISSING


def disagreement_table(results: Row) -> Table | None:
    """The members' disagreement: mean over pairs, KL to the ensemble, what the ensemble gains."""
    found = results.get("disagreement")
    if not found:
        return None
    pairs: dict[str, str] = {}
    matrix = found.get("pairwise")
    if matrix is not None and len(matrix) > 1:
        off_diagonal = [float(v) for i, row in enumerate(matrix) for j, v in enumerate(row) if i != j]
        pairs["frames on which two members differ, mean over pairs"] = (
            f"{number(statistics.fmean(off_diagonal), 2, 100)}%"
        )
    for key, label, digits, scale, unit in DISAGREEMENT:
        value = found.get(key)
        if value is not None:
            mean = statistics.fmean(value) if isinstance(value, Sequence) else value
            pairs[label] = number(mean, digits, scale) + unit
    if found.get("num_frames") is not None:
        pairs["frames counted"] = count(found["num_frames"])
    return keyed_table("Disagreement between members", pairs, ("measure", "value")) if pairs else None


def timing_table(results: Row) -> Table | None:
    """Wall-clock time a stage, and their sum."""
    timing = results.get("timing")
    if not timing:
        return None
    pairs = {stage: duration(seconds) for stage, seconds in timing.items()}
    pairs["all"] = duration(sum(float(seconds) for seconds in timing.values()))
    return keyed_table("Time a stage", pairs, ("stage", "time"))


def environment_table(results: Row) -> Table | None:
    """Versions and machine."""
    environment = results.get("environment")
    if not environment:
        return None
    pairs = {str(name): str(value) for name, value in environment.items()}
    return keyed_table("Environment", pairs, ("what", "value"), "ll")


def provenance_pairs(results: Row) -> dict[str, str]:
    """What identifies the run: recipe, configuration hash, git SHA, seeds, device."""
    seed = results["seed"]
    seeds = ", ".join(map(str, seed)) if isinstance(seed, (list, tuple)) else str(seed)
    shown = {
        "recipe": results["recipe"],
        "variant": results.get("variant"),
        "configuration": results["config_sha"],
        "git": results["git_sha"],
        "seed": seeds,
        "device": results["device"],
    }
    return {key: str(value) for key, value in shown.items() if value is not None}
