"""results.json (DESIGN section 5), put together from scores."""

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
from asrkd.scoring.frames import FrameMetrics
from asrkd.scoring.words import WordErrors, worst_utterances

# Metrics by the name they have in results.json; each system of one seed holds some of them.
SystemMetrics = Mapping[str, UtteranceMetric]


def system_metrics(frames: FrameMetrics | None, errors: WordErrors | None) -> dict[str, UtteranceMetric]:
    """frame_accuracy, cross_entropy and wer of one system on one test set, as far as they were measured."""
    metrics = [] if frames is None else [frames.accuracy, frames.cross_entropy]
    metrics += [] if errors is None else [errors.metric]
    return {metric.name: metric for metric in metrics}


def system_entry(
    parameters: int,
    macs_per_frame: int,
    frames: FrameMetrics,
    errors: Mapping[str, WordErrors],
    rtf: Mapping[str, float],
    seed: int = 0,
    **extra: Any,
) -> dict[str, Any]:
    """An entry of `systems`. `errors` and `rtf` go by test set; with a single one they stand without its
    name.

    `frames` are those of the first, of which the others are parts. `extra` (description, history, ...) is added as
    it is.
    """
    if set(errors) != set(rtf):
        raise ValueError(f"expected wer and rtf on the same test sets, found {sorted(errors)} and {sorted(rtf)}")
    word_errors: Any = {name: counted.as_json(seed=seed) for name, counted in errors.items()}
    factors: Any = dict(rtf)
    if len(errors) == 1:
        (word_errors,), (factors,) = word_errors.values(), factors.values()
    return {
        "parameters": parameters,
        "macs_per_frame": macs_per_frame,
        "frame_accuracy": frames.accuracy.value,
        "frame_accuracy_ci95": list(interval(frames.accuracy, seed=seed)),
        "cross_entropy": frames.cross_entropy.value,
        "cross_entropy_ci95": list(interval(frames.cross_entropy, seed=seed)),
        "wer": word_errors,
        "rtf": factors,
        **extra,
    }


def comparisons(
    systems: Mapping[str, Sequence[SystemMetrics]],
    pairs: Sequence[tuple[str, str]],
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> list[Comparison]:
    """Each pair (a, b) in every metric that both have; `systems` holds one SystemMetrics a seed, and seeds
    are averaged."""
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
    """The `gap_recovered` object: {value, ci95, reason} a metric, seeds averaged."""
    base, top, student = (_over_seeds(systems, name) for name in (baseline, ensemble, distilled))
    names = [name for name in base if name in top and name in student]
    return {name: gap_recovered(base[name], top[name], student[name], num_replicates, seed).as_json() for name in names}


def seed_rows(systems: Mapping[str, Sequence[SystemMetrics]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One row {seed, system, metric: value ...} a seed of each system that was trained with several."""
    return [
        {"seed": seed, "system": name, **{metric.name: metric.value for metric in metrics.values()}}
        for name, runs in systems.items()
        if len(runs) > 1
        for seed, metrics in zip(seeds, runs, strict=True)
    ]


def worst_rows(system: str, errors: WordErrors, count: int) -> list[dict[str, Any]]:
    """The utterances of the highest error rate, as the report shows them: utt_id, system, alignment, errors, words."""
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
    recipe: str,
    command: str,
    git_sha: str,
    config_sha: str,
    seed: int,
    device: str,
    systems: Mapping[str, Mapping[str, Any]],
    comparisons: Sequence[Comparison],
    gap_recovered: Mapping[str, Any],
    **extra: Any,
) -> dict[str, Any]:
    """The results.json object; `extra` (sweep, tuning, confusions, ...) stands beside the keys of DESIGN
    section 5."""
    for row in comparisons:
        for name in (row.a, row.b):
            if name not in systems:
                raise InputError(f"results.json: expected a system named {name}, found {sorted(systems)}")
    return {
        "recipe": recipe,
        "command": command,
        "git_sha": git_sha,
        "config_sha": config_sha,
        "seed": seed,
        "device": device,
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
