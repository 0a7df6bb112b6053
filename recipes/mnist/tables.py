"""Tables of the digits results, each made from its part of results.json, or None without that part."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from asrkd.errors import name_some
from asrkd.report.tables import MISSING, Row, Table, count, duration, magnitude, number, number_plain
from recipes.mnist.claim_tests import tally
from recipes.mnist.score import TUNED_ON_JUDGED

HEADLINE = ("teacher", "baseline", "distilled")
ROLES = {"teacher": "teacher", "baseline": "baseline", "distilled": "distilled"}
SPREAD_HEADERS = ("mean", "± sd", "best", "worst")


def spread_cells(row: Row) -> tuple[str, str, str, str]:
    """Mean, standard deviation over seeds, best and worst."""
    return number(row["mean"], 1), number(row["deviation"], 1), count(row["best"]), count(row["worst"])


def headline_table(results: Row) -> Table:
    """Experiment 1: the paper's column and ours, and what the soft targets are made of."""
    table, together = _systems(results, "Errors", HEADLINE), results["together"]
    views = f", each over {together['views']} shifts of a digit" if together["views"] > 1 else ""
    row = ("teachers together", MISSING, number(together["errors"], 1), *[MISSING] * (len(table.headers) - 4))
    row = (*row, f"the mean of {together['teachers']}{views}")
    place = HEADLINE.index("teacher") + 1
    return replace(
        table,
        rows=(*table.rows[:place], row, *table.rows[place:]),
        roles=(*table.roles[:place], "other", *table.roles[place:]),
        strong=(*table.strong[:place], False, *table.strong[place:]),
        note=f"{table.note} Soft targets are those of the teachers together; the paper's student has one teacher.",
    )


def epochs_text(results: Row, rows: Sequence[Row]) -> str:
    """How long the students of a comparison were trained, beside the headline's."""
    systems = results["systems"]
    epochs = sorted({systems[row["variant"]]["epochs"] for row in rows})
    lengths = " or ".join(map(str, epochs))
    return f"Trained for {lengths} epochs; the distilled student of experiment 1 for {systems['distilled']['epochs']}."


def systems_table(results: Row) -> Table:
    """Every variant."""
    return _systems(results, "All networks", list(results["systems"]))


def _systems(results: Row, caption: str, names: Sequence[str]) -> Table:
    rows = []
    for name in names:
        system = results["systems"][name]
        rows.append(
            (
                name,
                count(system["paper_errors"]),
                *spread_cells(system),
                count(len(system["seeds"])),
                count(system["digits"]),
                count(system["epochs"]),
                magnitude(system["parameters"]),
                magnitude(system["digits_per_sec"]),
                system["description"],
            )
        )
    headers = ("networks", "paper", *SPREAD_HEADERS, "seeds", "digits", "epochs", "params", "digits/s", "what")
    roles = tuple(ROLES.get(name, "other") for name in names)
    note = f"Errors on {results['evaluated_on']}; the paper's are of one network. Digits/s are of all seeds together."
    strong = tuple(name == "distilled" for name in names)
    return Table(caption, headers, tuple(rows), "lrrrrrrrrrrl", roles=roles, strong=strong, note=note)


def trainings_table(results: Row) -> Table:
    """How the networks were optimised, a row a way."""
    rows = []
    for one in results["trainings"]:
        rows.append(
            (
                name_some(one["networks"]),
                one["optimizer"],
                number_plain(one["learning_rate"]),
                f"{one['schedule']}, warm-up {number_plain(one['warmup_fraction'])}",
                count(one["batch_size"]),
                number_plain(one["momentum"]),
                number_plain(one["beta2"]) if one["optimizer"] == "adamw" else MISSING,
                number_plain(one["weight_decay"]),
            )
        )
    headers = ("networks", "optimiser", "highest rate", "schedule", "batch", "momentum", "beta2", "decay")
    note = "Epochs are told with each network. A momentum is beta1 of adamw, and its decay of weights is decoupled."
    return Table("How they were trained", headers, tuple(rows), "llrlrrrr", note=note)


def transfer_tables(results: Row) -> list[Table]:
    """Experiments 3 and 4: errors before and after the biases are moved, a row a way."""
    return [_transfer(name, found) for name, found in results["transfer"].items()]


def _transfer(name: str, found: Mapping[str, Any]) -> Table:
    classes = " and ".join(map(str, found["classes"]))
    paper, of_paper = found["paper"], {}
    if paper:
        of_paper["before"] = paper["before"], paper["before_on_classes"], None
        of_paper[TUNED_ON_JUDGED] = paper["after"], paper["after_on_classes"], paper["shift"]
    rows = []
    for row in found["rows"]:
        errors, on_classes, shift = of_paper.get(row["way"], (None, None, None))
        shifts = row.get("shifts")
        rows.append(
            (
                row["way"],
                count(errors),
                *spread_cells(row),
                count(on_classes),
                number(sum(row["errors_on_classes"]) / len(row["errors_on_classes"]), 1),
                number(shift, 1, signed=True),
                number(sum(shifts) / len(shifts), 1, signed=True) if shifts else MISSING,
            )
        )
    headers = ("biases", "paper", *SPREAD_HEADERS, f"paper on {classes}", f"on {classes}", "paper's shift", "shift")
    note = (
        "The paper's way sees the labels it is judged by; held-out digits are training digits "
        "that the student never learnt; the class prior needs no label of the digits it is matched on, and "
        "matched by every bias it takes for a fault what those few thousand digits have by chance of each class. "
        f"On {classes}: mean errors of {found['eval_of_classes']} digits."
    )
    if found["no_match"]:
        note += f" No biases match the prior: {found['no_match']}."
    return Table(name, headers, tuple(rows), "lrrrrrrrrr", note=note)


def sweep_table(results: Row) -> Table | None:
    """Experiment 2: mean errors, a row a width, a column a temperature."""
    rows = results.get("sweep")
    if not rows:
        return None
    widths, temperatures = axes_of(rows)
    means = {(row["width"], row["temperature"]): row for row in rows}
    cells = tuple(
        (str(width), *(_mean_and_deviation(means[width, temperature]) for temperature in temperatures))
        for width in widths
    )
    headers = ("units a layer", *(f"T={number_plain(temperature)}" for temperature in temperatures))
    note = f"Mean errors ± sd. {epochs_text(results, rows)}"
    return Table("Temperature and width", headers, cells, "l" + "r" * len(temperatures), note=note)


def axes_of(rows: Sequence[Row]) -> tuple[list[int], list[float]]:
    """Widths and temperatures of the sweep, in order."""
    return sorted({row["width"] for row in rows}), sorted({row["temperature"] for row in rows})


def _mean_and_deviation(row: Row) -> str:
    return f"{number(row['mean'], 1)} ± {number(row['deviation'], 1)}"


def matching_table(results: Row) -> Table | None:
    """Experiment 5: errors at each temperature, and on how many digits logit matching differs."""
    rows = results.get("matching")
    if not rows:
        return None
    cells = []
    for row in rows:
        differing = row["differing_percent"]
        point = "logit matching" if row["temperature"] is None else f"T={number_plain(row['temperature'])}"
        cells.append((point, *spread_cells(row), number(statistics.fmean(differing), 2)))
    headers = ("student", *SPREAD_HEADERS, "classed otherwise, %")
    note = f"Each seed against the next seed of logit matching, in its own row too. {epochs_text(results, rows)}"
    return Table("Logit matching", headers, tuple(cells), "lrrrrr", note=note)


def points_table(results: Row, key: str, point: str, caption: str) -> Table | None:
    """Experiment 6: errors along one axis."""
    rows = results.get(key)
    if not rows:
        return None
    cells = tuple((number_plain(row[point]), *spread_cells(row)) for row in rows)
    return Table(caption, (point, *SPREAD_HEADERS), cells, "rrrrr", note=epochs_text(results, rows))


def small_set_table(results: Row) -> Table | None:
    """Experiment 6: accuracy on the learnt digits and on the judged ones, hard labels against soft targets."""
    systems = {name: one for name, one in results["systems"].items() if "learnt_accuracy" in one}
    if not systems:
        return None
    cells = tuple(
        (
            name,
            count(system["digits"]),
            count(system["epochs"]),
            _percent_and_deviation(system["learnt_accuracy"]),
            _percent_and_deviation(system["eval_accuracy"]),
        )
        for name, system in systems.items()
    )
    headers = ("student", "digits learnt", "epochs", "accuracy on them, %", "on the judged, %")
    note = (
        "Mean ± sd over seeds; all seeds learn the same part. The paper's table is of speech: hard labels on all of "
        "the data 63.4 and 58.9, on 3% 67.3 and 44.5, soft targets on 3% 65.4 and 57.0."
    )
    return Table("A small part of the digits", headers, cells, "lrrrr", note=note)


def _percent_and_deviation(shares: Sequence[float]) -> str:
    deviation = statistics.stdev(shares) if len(shares) > 1 else None
    return f"{number(statistics.fmean(shares), 2, 100)} ± {number(deviation, 2, 100)}"


def controls_table(results: Row) -> Table | None:
    """Experiment 7: of the distilled student's gain, the part that each control has by itself."""
    rows = results.get("controls")
    if not rows:
        return None
    cells = tuple(
        (
            row["variant"],
            *spread_cells(row),
            count(results["systems"][row["variant"]]["epochs"]),
            _share_text(row["share_of_gain"]),
            results["systems"][row["variant"]]["description"],
        )
        for row in rows
    )
    headers = ("student", *SPREAD_HEADERS, "epochs", "of the distilled gain, %", "what")
    note = (
        "Of the way from the baseline to the distilled student, with the 95% interval over digits and seeds. "
        "label_smoothing and longer are trained as the distilled student is and differ from it in their targets alone; "
        "the baseline's training is another too."
    )
    roles = tuple(ROLES.get(row["variant"], "other") for row in rows)
    return Table("Controls", headers, cells, "lrrrrrrl", roles=roles, note=note)


def _share_text(share: Sequence[float] | None) -> str:
    if share is None:
        return MISSING
    value, low, high = (number(one, 0, 100) for one in share)
    return f"{value} [{low}, {high}]"


def claims_table(results: Row) -> Table:
    """The scorecard."""
    rows = tuple((claim["text"], claim["verdict"], claim["evidence"] or MISSING) for claim in results["claims"])
    note = (
        "Judged by tests of our own networks, over digits and over seeds, each claim by itself at the 5% level. "
        "Holds: all tests say so. In part: the figures lie on its side and one test says so. Does not hold here: the "
        "rest, so it may be that it is not shown. The tests are in recipes/mnist/claim_tests.py."
    )
    return Table("Scorecard", ("claim", "verdict", "evidence"), rows, "lll", note=note)


def tally_text(results: Row) -> str:
    """How many claims came to each verdict."""
    return f"Of {len(results['claims'])} claims: {tally([claim['verdict'] for claim in results['claims']])}."


def estimate_text(results: Row) -> str | None:
    """The full profile's time on this device, and how it was come by."""
    estimate = results.get("full_profile_estimate")
    if not estimate:
        return None
    return (
        f"The full profile on this device ({results['device']}): about {duration(estimate['seconds'])}, extrapolated, "
        f"not measured: {estimate['training_flop'] / 1e12:,.0f} TFLOP of training at the rates of this run's networks "
        f"of the nearest size ({duration(estimate['training_seconds'])}), and the teachers' soft targets "
        f"({duration(estimate['posteriors_seconds'])})."
    )
