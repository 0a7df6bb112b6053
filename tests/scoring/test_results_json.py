"""The keys of results.json, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from asrkd.errors import InputError
from asrkd.scoring.bootstrap import UtteranceMetric, compare, interval
from asrkd.scoring.characters import cer
from asrkd.scoring.frames import frame_metrics
from asrkd.scoring.provenance import RunProvenance
from asrkd.scoring.results import (
    assemble_results,
    comparisons,
    gaps_recovered,
    seed_rows,
    system_entry,
    system_metrics,
)
from asrkd.scoring.words import wer

REFS = {"u1": "THE CAT SAT".split(), "u2": "A B C D".split(), "u3": ["YES"]}
HYPS = {"u1": "THE CAT SAT".split(), "u2": "A X C D E".split(), "u3": []}
RUN = RunProvenance("an4", "recipes/an4/run.sh", git_sha="0" * 7, config_sha="1" * 7, seed=0, device="cpu")


def test_results_have_the_agreed_keys() -> None:
    errors = wer(REFS, HYPS)
    frames = frame_metrics(
        [(utt, torch.log_softmax(torch.randn(4, 3), 1)) for utt in REFS],
        {utt: torch.zeros(4) for utt in REFS},
    )
    characters = {"test": cer(REFS, HYPS)}
    entry = system_entry(1000, 900, frames, {"test": errors}, {"test": 0.05}, characters, description="4x512")
    runs = {
        "baseline": [system_metrics(frames, errors)] * 2,
        "distilled": [system_metrics(frames, errors)] * 2,
        "ensemble": [system_metrics(frames, errors)],
    }
    rows = comparisons(runs, [("distilled", "baseline")])
    results = assemble_results(
        RUN,
        systems=dict.fromkeys(runs, entry),
        comparisons=rows,
        gap_recovered=gaps_recovered(runs),
        seeds=seed_rows(runs, (0, 1)),
    )
    assert json.loads(json.dumps(results)) == results
    assert list(results)[:6] == ["recipe", "command", "git_sha", "config_sha", "seed", "device"]
    system = results["systems"]["baseline"]
    assert set(system) == {
        "parameters", "macs_per_frame", "frame_accuracy", "frame_accuracy_ci95", "cross_entropy", "cross_entropy_ci95",
        "wer", "cer", "rtf", "description",
    }  # fmt: skip
    assert set(system["cer"]) == {"percent", "ins", "del", "sub", "characters", "ci95"}
    assert "cer" not in system_entry(1000, 900, frames, {"test": errors}, {"test": 0.05})
    assert system["frame_accuracy_ci95"] == list(interval(frames.accuracy))
    assert system["cross_entropy_ci95"] == list(interval(frames.cross_entropy))
    assert set(system["wer"]) == {"percent", "ins", "del", "sub", "words", "ci95"}
    assert [row["metric"] for row in results["comparisons"]] == ["frame_accuracy", "cross_entropy", "wer"]
    assert set(results["comparisons"][0]) == {"a", "b", "metric", "delta", "ci95", "p"}
    assert results["gap_recovered"]["wer"]["value"] is None
    assert [(row["seed"], row["system"]) for row in results["seeds"]] == [
        (0, "baseline"), (1, "baseline"), (0, "distilled"), (1, "distilled"),
    ]  # fmt: skip
    two = system_entry(1, 1, frames, {"clean": errors, "other": errors}, {"clean": 0.1, "other": 0.2})
    assert two["rtf"] == {"clean": 0.1, "other": 0.2}
    assert two["wer"]["other"]["words"] == 8


def test_results_name_only_systems_that_are_there() -> None:
    errors = UtteranceMetric("wer", ("u1", "u2"), np.array([1.0, 0.0]), np.array([4.0, 2.0]))
    row = compare(("distilled", errors), ("baseline", errors))
    with pytest.raises(InputError, match="expected a system named distilled"):
        assemble_results(RUN, {"baseline": {}}, [row], {})
