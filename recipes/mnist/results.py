"""Stage 11: results.json from the trained networks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkd.files import load_tensors, read_json, save_tensors, write_json
from asrkd.nnet import iter_logits
from asrkd.nnet.devices import resolve_device
from asrkd.recipe import run_options
from asrkd.recipe.command_line import RESULTS_FILE
from asrkd.recipe.trained import DEVICE_KEY, SUMMARY_FILE, training_provenance
from asrkd.scoring.provenance import RunProvenance
from asrkd.workflow import provenance
from asrkd.workflow.steps import Record, Step, stage_seconds
from recipes.mnist import paper
from recipes.mnist.claim_tests import Outcome, gain_recovered
from recipes.mnist.data import DigitData
from recipes.mnist.descriptions import describe, trainings
from recipes.mnist.estimate import MeasuredRun, MeasuredTraining, extrapolate, kind_of, network_of, training_flop
from recipes.mnist.examples import dark_knowledge, remaining_errors
from recipes.mnist.images import JitteredImages
from recipes.mnist.networks import EVAL_LOGITS, LOGITS_FILE, TRAIN_LOGITS, load_stack
from recipes.mnist.options import DigitsOptions, DigitsRun
from recipes.mnist.score import BiasRepair, Scored, disagreement_percent, logits_of, repair_biases, score_variant
from recipes.mnist.variants import (
    TEACHER,
    Variant,
    alpha_points,
    logit_matching,
    matching_points,
    students,
    students_of,
    teacher,
    teacher_points,
    width_points,
)
from recipes.mnist.verdicts import CONTROLS, Findings, evaluate_claims

PREDICTIONS_FILE = "predictions.safetensors"
LABELS = {
    "quick": "Quick profile: short trainings, few seeds, not the paper's comparison.",
    "full": "Full profile; the students of experiments 2, 5 and 6 are trained for fewer steps than those of 1, 3, 4.",
}


def step_name(variant_name: str) -> str:
    """Name of a variant's step, and of its folder in the experiment."""
    return "teachers" if variant_name == TEACHER else f"students/{variant_name}"


def score(run: DigitsRun, steps: Sequence[Step], out_dir: Path) -> None:
    """Stage 11: errors of every variant, repaired biases and verdicts on the paper's claims, as results.json.

    `steps` are the earlier steps.
    """
    options = run.options
    data = DigitData.open(options.exp_dir / "corpus", options)
    findings = measure(data, options)
    systems = {name: _system(scored, data, options) for name, scored in findings.scored.items()}
    results = {
        **_provenance(run).as_json(),
        **_background(run, data, steps),
        "systems": systems,
        "trainings": trainings([scored.variant for scored in findings.scored.values()]),
        "ensemble": _ensemble(findings),
        "transfer": {name: _transfer(name, findings) for name in findings.repairs},
        "claims": _claims(findings),
        "remaining_errors": remaining_errors(findings.scored["distilled"]),
        "dark_knowledge": dark_knowledge(
            _teacher_logits(options)[TRAIN_LOGITS], data, options.student.distil.temperature
        ),
        **_comparisons(findings),
    }
    if options.profile == "quick":
        results["full_profile_estimate"] = _estimate(systems, data, run)
    write_json(out_dir / RESULTS_FILE, results)
    predictions = {name: scored.predictions.to(torch.uint8) for name, scored in findings.scored.items()}
    save_tensors(out_dir / PREDICTIONS_FILE, predictions, {"config_sha": config_sha(options)})


def measure(data: DigitData, options: DigitsOptions) -> Findings:
    """Predictions of every variant for the evaluation digits, before and after its biases are repaired."""
    device = resolve_device(options.device)
    scored: dict[str, Scored] = {}
    repairs: dict[str, BiasRepair] = {}
    for variant in [teacher(options), *students(options)]:
        step_dir = options.exp_dir / step_name(variant.name)
        scored[variant.name], logits = score_variant(variant, step_dir, data, device)
        if variant.name in paper.TRANSFER:
            held_out = logits_of(load_stack(step_dir, device), data.held_out, device)
            classes = paper.TRANSFER[variant.name].classes
            repairs[variant.name] = repair_biases(scored[variant.name], logits, held_out, data, classes)
    wrong = _teacher_logits(options)[EVAL_LOGITS].mean(dim=0).argmax(dim=1) != data.eval_set.labels
    return Findings(options, scored, repairs, Outcome(wrong.unsqueeze(0).numpy()))


def config_sha(options: DigitsOptions) -> str:
    """Fingerprint of the options that decide the results."""
    return run_options.config_sha(options, checkpoint_epochs=1)


def label_of(run: DigitsRun) -> str:
    """What a reader must know of a run before its figures: the profile, and whether options were changed."""
    options = run.options
    changed = config_sha(options) != config_sha(run.profiles[options.profile])
    return LABELS[options.profile] + (" Options differ from the profile's: see the command." if changed else "")


def _provenance(run: DigitsRun) -> RunProvenance:
    options = run.options
    return RunProvenance(
        recipe="mnist",
        command=run.command,
        git_sha=provenance.git_sha(),
        config_sha=config_sha(options),
        seed=options.seed,
        device=read_json(options.exp_dir / step_name("baseline") / SUMMARY_FILE)[DEVICE_KEY],
    )


def _background(run: DigitsRun, data: DigitData, steps: Sequence[Step]) -> dict[str, Any]:
    """What identifies the run further, apart from its results: profile, digits, times, versions."""
    options, num_eval = run.options, len(data.eval_set.labels)
    return {
        "profile": options.profile,
        "label": label_of(run),
        "temperature": options.student.distil.temperature,
        "evaluated_on": f"{num_eval:,} {data.eval_set_name} digits",
        "corpus": {"train": len(data.train.labels), "eval": num_eval, "held_out": data.num_held_out},
        "timing": stage_seconds(options.exp_dir, steps),
        "environment": provenance.versions(),
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Errors of each seed, their mean and standard deviation, the best and the worst."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {
        "errors": list(values),
        "mean": statistics.fmean(values),
        "deviation": deviation,
        "best": min(values),
        "worst": max(values),
    }


def _spread_of(scored: Scored) -> dict[str, Any]:
    return _spread(scored.outcome.errors.tolist())


def _system(scored: Scored, data: DigitData, options: DigitsOptions) -> dict[str, Any]:
    """An entry of `systems`: a variant's errors, description and training."""
    variant = scored.variant
    step_dir = options.exp_dir / step_name(variant.name)
    entry = {
        "experiments": [number for number in options.experiments if _is_in(variant, number, options)],
        "description": describe(variant),
        "paper_errors": paper.ERRORS.get(variant.name) if options.evaluates_test else None,
        **_spread_of(scored),
        **read_json(step_dir / SUMMARY_FILE),
        **training_provenance([step_dir]),
    }
    if variant.fraction < 1.0 or (variant.name == "baseline" and 6 in options.experiments):
        entry["train_accuracy"] = _train_accuracy(variant, step_dir, data, options)
        entry["eval_accuracy"] = (1.0 - scored.outcome.wrong.mean(axis=1)).tolist()
    return entry


def _is_in(variant: Variant, experiment: int, options: DigitsOptions) -> bool:
    if variant.name == TEACHER:
        return experiment == 1
    return variant.name in {one.name for one in students_of(experiment, options)}


def _train_accuracy(variant: Variant, step_dir: Path, data: DigitData, options: DigitsOptions) -> list[float]:
    """Accuracy of each network on the digits that it learnt, [M]."""
    device = resolve_device(options.device)
    ids = data.train_ids(variant, options.seed)
    inputs = JitteredImages(data.train.images.to(device), max_shift=0)
    stack = load_stack(step_dir, device)
    predicted = torch.cat([logits.argmax(dim=2).cpu() for _, logits in iter_logits(stack, inputs, ids)], dim=1)
    return (predicted == data.train.labels[ids]).double().mean(dim=1).tolist()


def _transfer(name: str, findings: Findings) -> dict[str, Any]:
    """Experiments 3 and 4: errors before the repair, and after the repair by each method."""
    figures, before = paper.TRANSFER[name], findings.scored[name]
    rows = [{"method": "before", **_transfer_row(before, figures.classes)}]
    for one in findings.repairs[name].repaired:
        rows.append({"method": one.method, **_transfer_row(one.scored, figures.classes), "shifts": one.shifts})
    return {
        "classes": figures.classes,
        "paper": figures if findings.options.evaluates_test else None,
        "rows": rows,
        "eval_of_classes": int(torch.isin(before.labels, torch.tensor(figures.classes)).sum()),
        "no_match": findings.repairs[name].missing,
    }


def _transfer_row(scored: Scored, classes: Sequence[int]) -> dict[str, Any]:
    return {**_spread_of(scored), "errors_on_classes": scored.errors_on(classes)}


def _comparisons(findings: Findings) -> dict[str, Any]:
    """Results of experiments 2, 5, 6 and 7, as far as they were run."""
    options, chosen = findings.options, set(findings.options.experiments)
    results: dict[str, Any] = {}

    def row(variant: Variant, **point: Any) -> dict[str, Any]:
        return {**point, "variant": variant.name, **_spread_of(findings.scored[variant.name])}

    if 2 in chosen:
        results["sweep"] = [row(v, width=width, temperature=t) for (width, t), v in width_points(options)]
    if 5 in chosen:
        matched = findings.scored[logit_matching(options).name]
        points = [*matching_points(options), (None, matched.variant)]
        results["matching"] = [
            row(v, temperature=t, differing_percent=disagreement_percent(findings.scored[v.name], matched).tolist())
            for t, v in points
        ]
    if 6 in chosen:
        results["alphas"] = [row(v, alpha=alpha) for alpha, v in alpha_points(options)]
        results["teachers"] = [row(v, teachers=size) for size, v in teacher_points(options)]
    if 7 in chosen:
        results["controls"] = _control_rows(findings)
    return results


def _control_rows(findings: Findings) -> list[dict[str, Any]]:
    """Errors of each control, and the share of the distilled student's gain that it has without a teacher."""
    baseline, distilled = findings.outcome("baseline"), findings.outcome("distilled")
    rows = []
    for name in ("baseline", *CONTROLS, "distilled"):
        gain = gain_recovered(baseline, distilled, findings.outcome(name)) if name in CONTROLS else None
        share = [gain.value, *gain.ci95] if gain is not None and gain.ci95 is not None else None
        rows.append({"variant": name, **_spread_of(findings.scored[name]), "share_of_gain": share})
    return rows


def _claims(findings: Findings) -> list[dict[str, Any]]:
    verdicts = evaluate_claims(findings)
    return [
        {
            "key": claim.key,
            "experiment": claim.experiment,
            "text": claim.text,
            "verdict": verdicts[claim.key].verdict,
            "evidence": verdicts[claim.key].evidence,
        }
        for claim in paper.CLAIMS
    ]


def _teacher_logits(options: DigitsOptions) -> dict[str, Tensor]:
    """Logits [M, N, 10] of the teachers for the training digits and for the evaluation digits."""
    return load_tensors(options.exp_dir / "posteriors" / LOGITS_FILE)[0]


def _ensemble(findings: Findings) -> dict[str, Any]:
    """Errors of the soft targets: the teachers' mean, each averaged over shifts of a digit."""
    large = findings.options.teacher
    return {"teachers": large.size, "shifts": large.num_shifts, "errors": int(findings.ensemble.errors[0])}


def _estimate(systems: Mapping[str, Mapping[str, Any]], data: DigitData, run: DigitsRun) -> dict[str, Any]:
    """Time of the full profile on this device, at the rates that this run measured."""
    options = run.options
    measured = []
    for variant in [teacher(options), *students(options)]:
        one, network = systems[variant.name], network_of(variant)
        flop = training_flop(network, one["digits"], one["epochs"], len(one["seeds"]))
        measured.append(MeasuredTraining(network.macs, flop, one["seconds"], kind_of(variant)))
    posteriors = Record.read(options.exp_dir / "posteriors")
    assert posteriors is not None  # scoring requires the step
    full = replace(run.profiles["full"], eval_set=options.eval_set, held_out=options.held_out)
    return extrapolate(full, data, MeasuredRun(options, measured, posteriors.seconds))
