"""results.json (docs/file_formats.md), assembled from scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asrkd.errors import InputError
from asrkd.scoring.bootstrap import (
    NUM_REPLICATES,
    Comparison,
    UtteranceMetric,
    compare,
    gap_recovered,
    interval,
    mean_over_seeds,
)
from asrkd.scoring.characters import CharacterErrors
from asrkd.scoring.frames import FrameMetrics
from asrkd.scoring.provenance import RunProvenance
from asrkd.scoring.words import WordErrors, worst_utterances

SystemMetrics = Mapping[str, UtteranceMetric]
"""Metrics of one system of one seed, by their name in results.json."""


def system_metrics(frames: FrameMetrics | None, errors: WordErrors | None) -> dict[str, UtteranceMetric]:
    """frame_accuracy, cross_entropy and wer of one system on one test set, without those that were not measured."""
    metrics = [] if frames is None else [frames.accuracy, frames.cross_entropy]
    metrics += [] if errors is None else [errors.metric]
    return {metric.name: metric for metric in metrics}


def system_entry(
    parameters: int,
    macs_per_frame: int,
    frames: FrameMetrics,
    errors: Mapping[str, WordErrors],
    rtf: Mapping[str, float],
    characters: Mapping[str, CharacterErrors] | None = None,
    seed: int = 0,
    **extra: Any,
) -> dict[str, Any]:
    """An entry of `systems`.

    `errors`, `rtf` and `characters` are by test set. A single test set is written without its name. `frames` are those
    of the first test set, which contains the others. Without `characters` the entry has no `cer`. `extra` (description,
    history, ...) is added unchanged. ValueError if they have different test sets.
    """
    by_set: dict[str, Mapping[str, Any]] = {
        "wer": {name: counted.as_json(seed=seed) for name, counted in errors.items()},
        "cer": {name: counted.as_json(seed=seed) for name, counted in (characters or {}).items()},
        "rtf": rtf,
    }
    if characters is None:
        del by_set["cer"]
    for key, values in by_set.items():
        if set(errors) != set(values):
            sets = f"found {sorted(errors)} and {sorted(values)}"
            raise ValueError(f"expected wer and {key} on the same test sets, {sets}")
    return {
        "parameters": parameters,
        "macs_per_frame": macs_per_frame,
        "frame_accuracy": frames.accuracy.value,
        "frame_accuracy_ci95": list(interval(frames.accuracy, seed=seed)),
        "cross_entropy": frames.cross_entropy.value,
        "cross_entropy_ci95": list(interval(frames.cross_entropy, seed=seed)),
        **{key: next(iter(values.values())) if len(errors) == 1 else dict(values) for key, values in by_set.items()},
        **extra,
    }


def comparisons(
    systems: Mapping[str, Sequence[SystemMetrics]],
    pairs: Sequence[tuple[str, str]],
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> list[Comparison]:
    """Comparisons of each pair (a, b) in every metric that both have.

    `systems` has one SystemMetrics per seed. Seeds are averaged. InputError if a system is missing, or if two systems
    were scored on different utterances.
    """
    rows = []
    for a, b in pairs:
        left, right = _over_seeds(systems, a), _over_seeds(systems, b)
        rows += [compare((a, left[name]), (b, right[name]), num_replicates, seed) for name in left if name in right]
    return rows


def gaps_recovered(
    systems: Mapping[str, Sequence[SystemMetrics]],
    baseline: str = "baseline",
    ensemble: str = "ensemble",
    distilled: str = "distilled",
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> dict[str, Any]:
    """The `gap_recovered` object: {value, ci95, reason} per metric, with seeds averaged.

    `ensemble` and `baseline` are the systems between which the gap lies: also a single teacher, or another baseline.
    """
    base, top, student = (_over_seeds(systems, name) for name in (baseline, ensemble, distilled))
    reference = "the baseline" if baseline == "baseline" else baseline
    return {
        name: gap_recovered(base[name], top[name], student[name], num_replicates, seed, ensemble, reference).as_json()
        for name in base
        if name in top and name in student
    }


def seed_rows(systems: Mapping[str, Sequence[SystemMetrics]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One row {seed, system, metric: value ...} per seed of each system that has several seeds."""
    return [
        {"seed": seed, "system": name, **{metric.name: metric.value for metric in metrics.values()}}
        for name, runs in systems.items()
        if len(runs) > 1
        for seed, metrics in zip(seeds, runs, strict=True)
    ]


def worst_rows(system: str, errors: WordErrors, count: int) -> list[dict[str, Any]]:
    """The `count` utterances of the highest error rate: rows {utt_id, system, alignment, errors, words}."""
    return [
        {
            "utt_id": utt.utt_id,
            "system": system,
            "alignment": [list(pair) for pair in utt.pairs],
            "errors": utt.errors,
            "words": utt.words,
        }
        for utt in worst_utterances(errors, count)
    ]


def assemble_results(
    run: RunProvenance,
    systems: Mapping[str, Mapping[str, Any]],
    comparisons: Sequence[Comparison],
    gap_recovered: Mapping[str, Any],
    **extra: Any,
) -> dict[str, Any]:
    """The results.json object. `extra` (sweep, tuning, confusions, ...) follows the keys of docs/file_formats.md.

    InputError if a comparison names a system that is not in `systems`.
    """
    for row in comparisons:
        for name in (row.a, row.b):
            if name not in systems:
                raise InputError(f"results.json: expected a system named {name}, found {sorted(systems)}")
    return {
        **run.as_json(),
        "systems": {name: dict(system) for name, system in systems.items()},
        "comparisons": [row.as_json() for row in comparisons],
        "gap_recovered": dict(gap_recovered),
        **extra,
    }


def _over_seeds(systems: Mapping[str, Sequence[SystemMetrics]], name: str) -> dict[str, UtteranceMetric]:
    runs = systems.get(name)
    if not runs:
        raise InputError(f"results.json: expected scores of system {name}, found {sorted(systems)}")
    names = [metric for metric in runs[0] if all(metric in run for run in runs)]
    return {metric: mean_over_seeds([run[metric] for run in runs]) for metric in names}
