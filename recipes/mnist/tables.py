"""Tables of the MNIST results. Each shows one part of results.json, and is None if the results lack that part."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from asrkd.errors import name_some
from asrkd.report.spread import mean_and_deviation
from asrkd.report.tables import MISSING, Row, Table, count, duration, magnitude, number, number_plain, present
from recipes.mnist.claim_tests import tally
from recipes.mnist.options import EXPERIMENTS
from recipes.mnist.score import TUNED_ON_EVAL

HEADLINE = ("teacher", "baseline", "distilled")
ROLES = {"teacher": "teacher", "baseline": "baseline", "distilled": "distilled"}
SPREAD_HEADERS = ("mean", "± sd", "best", "worst")


def experiment_tables(results: Row) -> list[tuple[str, tuple[Table, ...]]]:
    """(Title, tables) of each experiment that was run."""
    transfer = {table.caption: table for table in transfer_tables(results)}
    by_experiment: dict[int, tuple[Table, ...]] = {
        1: (headline_table(results),),
        2: present(sweep_table(results)),
        3: present(transfer.get("no_3")),
        4: present(transfer.get("only_7_8")),
        5: present(matching_table(results)),
        6: present(
            points_table(results, "alphas", "alpha", "Weight of the soft targets"),
            points_table(results, "teachers", "teachers", "Number of teachers"),
            small_set_table(results),
        ),
        7: present(controls_table(results)),
    }
    return [
        (f"Experiment {number}: {EXPERIMENTS[number]}", tables) for number, tables in by_experiment.items() if tables
    ]


def spread_cells(row: Row) -> tuple[str, str, str, str]:
    """Mean, standard deviation over seeds, best and worst errors."""
    return number(row["mean"], 1), number(row["deviation"], 1), count(row["best"]), count(row["worst"])


def headline_table(results: Row) -> Table:
    """Experiment 1: errors in the paper and ours, with those of the ensemble that makes the soft targets."""
    table, ensemble = _systems(results, "Errors", HEADLINE), results["ensemble"]
    shifts = f", each over {ensemble['shifts']} shifts of a digit" if ensemble["shifts"] > 1 else ""
    row = ("ensemble of teachers", MISSING, number(ensemble["errors"], 1), *[MISSING] * (len(table.headers) - 4))
    row = (*row, f"the mean of {ensemble['teachers']}{shifts}")
    index = HEADLINE.index("teacher") + 1
    return replace(
        table,
        rows=(*table.rows[:index], row, *table.rows[index:]),
        roles=(*table.roles[:index], "other", *table.roles[index:]),
        strong=(*table.strong[:index], False, *table.strong[index:]),
        note=f"{table.note} Soft targets are those of the ensemble. The paper's student has one teacher.",
    )


def epochs_text(results: Row, rows: Sequence[Row]) -> str:
    """Epochs of the students of a comparison, and of the distilled student of experiment 1."""
    systems = results["systems"]
    epochs = sorted({systems[row["variant"]]["epochs"] for row in rows})
    lengths = " or ".join(map(str, epochs))
    return f"Trained for {lengths} epochs. The distilled student of experiment 1: {systems['distilled']['epochs']}."


def systems_table(results: Row) -> Table:
    """Every variant."""
    return _systems(results, "All networks", list(results["systems"]))


def _systems(results: Row, caption: str, names: Sequence[str]) -> Table:
    headers = ("networks", "paper", *SPREAD_HEADERS, "seeds", "digits", "epochs", "params", "digits/s", "description")
    rows = tuple(_system_row(name, results["systems"][name]) for name in names)
    roles = tuple(ROLES.get(name, "other") for name in names)
    note = f"Errors on {results['evaluated_on']}. The paper's are of one network. Digits/s are of all seeds in a stack."
    strong = tuple(name == "distilled" for name in names)
    return Table(caption, headers, rows, "lrrrrrrrrrrl", roles=roles, strong=strong, note=note)


def _system_row(name: str, system: Row) -> tuple[str, ...]:
    return (
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


def trainings_table(results: Row) -> Table:
    """One row per way of training, with its networks."""
    headers = ("networks", "optimiser", "highest rate", "schedule", "batch", "momentum", "beta2", "weight decay")
    rows = tuple(_training_row(training) for training in results["trainings"])
    note = "The table of all networks has their epochs. For adamw, momentum is beta1, and weight decay is decoupled."
    return Table("How they were trained", headers, rows, "llrlrrrr", note=note)


def _training_row(training: Row) -> tuple[str, ...]:
    return (
        name_some(training["networks"]),
        training["optimizer"],
        number_plain(training["learning_rate"]),
        f"{training['schedule']}, warm-up {number_plain(training['warmup_fraction'])}",
        count(training["batch_size"]),
        number_plain(training["momentum"]),
        number_plain(training["beta2"]) if training["optimizer"] == "adamw" else MISSING,
        number_plain(training["weight_decay"]),
    )


def transfer_tables(results: Row) -> list[Table]:
    """Experiments 3 and 4: errors before and after the biases are shifted, one row per method."""
    return [_transfer(name, transfer) for name, transfer in results["transfer"].items()]


def _transfer(name: str, transfer: Mapping[str, Any]) -> Table:
    classes = " and ".join(map(str, transfer["classes"]))
    paper = _paper_cells(transfer["paper"])
    rows = tuple(_transfer_row(row, paper.get(row["method"], (None, None, None))) for row in transfer["rows"])
    headers = ("biases", "paper", *SPREAD_HEADERS, f"paper on {classes}", f"on {classes}", "paper's shift", "shift")
    note = (
        "The paper's method uses the labels of the evaluation digits. Held-out digits are training digits that the "
        "student never learnt. The class prior needs no labels. Matched by every bias, it also corrects random "
        "differences between the class counts of the held-out digits and the prior. "
        f"On {classes}: mean errors on {transfer['eval_of_classes']} digits."
    )
    if transfer["no_match"]:
        note += f" No biases match the prior: {transfer['no_match']}."
    return Table(name, headers, rows, "lrrrrrrrrr", note=note)


def _paper_cells(paper: Row | None) -> dict[str, tuple[int | None, int | None, float | None]]:
    """The paper's errors, errors on the classes, and shift, by method."""
    if paper is None:
        return {}
    return {
        "before": (paper["before"], paper["before_on_classes"], None),
        TUNED_ON_EVAL: (paper["after"], paper["after_on_classes"], paper["shift"]),
    }


def _transfer_row(row: Row, paper: tuple[int | None, int | None, float | None]) -> tuple[str, ...]:
    errors, on_classes, shift = paper
    shifts = row.get("shifts")
    return (
        row["method"],
        count(errors),
        *spread_cells(row),
        count(on_classes),
        number(statistics.fmean(row["errors_on_classes"]), 1),
        number(shift, 1, signed=True),
        number(statistics.fmean(shifts), 1, signed=True) if shifts else MISSING,
    )


def sweep_table(results: Row) -> Table | None:
    """Experiment 2: mean errors, one row per width and one column per temperature."""
    rows = results.get("sweep")
    if not rows:
        return None
    widths, temperatures = axes_of(rows)
    by_point = {(row["width"], row["temperature"]): mean_and_deviation(row["errors"], 1) for row in rows}
    cells = tuple((str(width), *(by_point[width, temperature] for temperature in temperatures)) for width in widths)
    headers = ("units per layer", *(f"T={number_plain(temperature)}" for temperature in temperatures))
    note = f"Mean errors ± sd. {epochs_text(results, rows)}"
    return Table("Temperature and width", headers, cells, "l" + "r" * len(temperatures), note=note)


def axes_of(rows: Sequence[Row]) -> tuple[list[int], list[float]]:
    """Widths and temperatures of experiment 2, in order."""
    return sorted({row["width"] for row in rows}), sorted({row["temperature"] for row in rows})


def matching_table(results: Row) -> Table | None:
    """Experiment 5: errors at each temperature, and the digits classified differently from logit matching."""
    rows = results.get("matching")
    if not rows:
        return None
    cells = []
    for row in rows:
        differing = number(statistics.fmean(row["differing_percent"]), 2)
        point = "logit matching" if row["temperature"] is None else f"T={number_plain(row['temperature'])}"
        cells.append((point, *spread_cells(row), differing))
    headers = ("student", *SPREAD_HEADERS, "classified differently, %")
    note = (
        "Each network is compared with logit matching of another seed, in the row of logit matching too. "
        f"{epochs_text(results, rows)}"
    )
    return Table("Logit matching", headers, tuple(cells), "lrrrrr", note=note)


def points_table(results: Row, key: str, point: str, caption: str) -> Table | None:
    """Experiment 6: errors along one axis."""
    rows = results.get(key)
    if not rows:
        return None
    cells = tuple((number_plain(row[point]), *spread_cells(row)) for row in rows)
    return Table(caption, (point, *SPREAD_HEADERS), cells, "rrrrr", note=epochs_text(results, rows))


def small_set_table(results: Row) -> Table | None:
    """Experiment 6: accuracy on training and evaluation digits, with hard labels and with soft targets."""
    systems = {name: one for name, one in results["systems"].items() if "train_accuracy" in one}
    if not systems:
        return None
    cells = tuple(
        (
            name,
            count(system["digits"]),
            count(system["epochs"]),
            mean_and_deviation(system["train_accuracy"], 2, 100),
            mean_and_deviation(system["eval_accuracy"], 2, 100),
        )
        for name, system in systems.items()
    )
    headers = ("student", "training digits", "epochs", "training accuracy, %", "evaluation accuracy, %")
    note = (
        "Mean ± sd over seeds. All seeds learn the same digits. The paper's table is for speech: hard labels on all of "
        "the data 63.4 and 58.9, on 3% 67.3 and 44.5, soft targets on 3% 65.4 and 57.0."
    )
    return Table("A small fraction of the digits", headers, cells, "lrrrr", note=note)


def controls_table(results: Row) -> Table | None:
    """Experiment 7: the share of the distilled student's gain that each control has without a teacher."""
    rows = results.get("controls")
    if not rows:
        return None
    cells = tuple(
        (
            row["variant"],
            *spread_cells(row),
            count(results["systems"][row["variant"]]["epochs"]),
            _share_cell(row["share_of_gain"]),
            results["systems"][row["variant"]]["description"],
        )
        for row in rows
    )
    headers = ("student", *SPREAD_HEADERS, "epochs", "share of the gain, %", "description")
    note = (
        "Share of the gain from the baseline to the distilled student, with its 95% interval over digits and seeds. "
        "label_smoothing and longer are trained as the distilled student and differ from it only in their targets. "
        "The baseline has another training too."
    )
    roles = tuple(ROLES.get(row["variant"], "other") for row in rows)
    return Table("Controls", headers, cells, "lrrrrrrl", roles=roles, note=note)


def _share_cell(share: Sequence[float] | None) -> str:
    if share is None:
        return MISSING
    value, low, high = (number(one, 0, 100) for one in share)
    return f"{value} [{low}, {high}]"


def claims_table(results: Row) -> Table:
    """The verdict on each of the paper's claims, with the evidence."""
    rows = tuple((claim["text"], claim["verdict"], claim["evidence"] or MISSING) for claim in results["claims"])
    note = (
        "Each claim is tested on our own networks, over digits and over seeds, separately at the 5% level. Holds: "
        "every test confirms it. Holds in part: the figures support it and one test confirms it. Does not hold here: "
        "all other cases, including claims that are merely not shown. The tests are in recipes/mnist/claim_tests.py."
    )
    return Table("The paper's claims", ("claim", "verdict", "evidence"), rows, "lll", note=note)


def tally_text(results: Row) -> str:
    """How many of the claims have each verdict."""
    return f"Of {len(results['claims'])} claims: {tally([claim['verdict'] for claim in results['claims']])}."


def estimate_text(results: Row) -> str | None:
    """The extrapolated time of the full profile on this device."""
    estimate = results.get("full_profile_estimate")
    if not estimate:
        return None
    return (
        f"The full profile on this device ({results['device']}): about {duration(estimate['seconds'])}, extrapolated, "
        f"not measured: {estimate['training_flop'] / 1e12:,.0f} TFLOP of training at the rates of this run's networks "
        f"of the nearest size ({duration(estimate['training_seconds'])}), and the teachers' soft targets "
        f"({duration(estimate['posteriors_seconds'])})."
    )
