"""Stage 11: results.json from the trained networks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrkd.data.corpora.mnist import NUM_CLASSES, SIDE
from asrkd.files import fingerprint, load_tensors, read_json, save_tensors, write_json
from asrkd.nnet import TrainOptions, iter_logits
from asrkd.nnet.devices import resolve_device
from asrkd.workflow import provenance
from asrkd.workflow.steps import Record, Step, stage_seconds
from recipes.mnist import paper
from recipes.mnist.claim_tests import Outcome, share_of_gain
from recipes.mnist.data import DigitData
from recipes.mnist.estimate import Measured, extrapolate, kind_of, training_flop
from recipes.mnist.images import JitteredImages
from recipes.mnist.networks import LOGITS_FILE, SUMMARY_FILE, load_stack
from recipes.mnist.options import EXPERIMENTS, DigitsOptions, Profiles
from recipes.mnist.score import (
    Repaired,
    Scored,
    disagreement_percent,
    logits_of,
    repair_biases,
    score_variant,
)
from recipes.mnist.variants import (
    ALL_CLASSES,
    HardLabels,
    SoftLabels,
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

RESULTS_FILE = "results.json"
PREDICTIONS_FILE = "predictions.safetensors"
LABELS = {
    "quick": "Quick profile: reduced length, few seeds, not the paper's comparison.",
    "full": "Full profile; the students of experiments 2, 5 and 6 are trained for fewer steps than those of 1, 3, 4.",
}
OPTIMISED_BY = (
    "optimizer", "learning_rate", "schedule", "warmup_fraction", "batch_size", "momentum", "beta2", "weight_decay"
)  # fmt: skip
REMAINING_SHOWN = 60
# Share of the label at which a digit of the dark-knowledge figure is plainly what it is.
SURE = 0.9


def step_name(variant_name: str) -> str:
    """Folder of a variant's networks."""
    return "teachers" if variant_name == "teacher" else f"students/{variant_name}"


def score(
    command: str, steps: Sequence[Step], exp_dir: Path, options: DigitsOptions, profiles: Profiles, out_dir: Path
) -> None:
    """Stage 11: errors of every variant, repaired biases, verdicts on the claims, as results.json."""
    data = DigitData.open(exp_dir / "corpus", options)
    findings = measure(exp_dir, data, options)
    results = {
        "recipe": "mnist",
        "profile": options.profile,
        "label": label_of(options, profiles[options.profile]),
        "command": command,
        "git_sha": provenance.git_sha(),
        "config_sha": config_sha(options),
        "seed": options.seed,
        "temperature": options.student.distil.temperature,
        "device": read_json(exp_dir / step_name("baseline") / SUMMARY_FILE)["device"],
        "evaluated_on": f"{len(data.eval_set.labels):,} {data.eval_set_name} digits",
        "corpus": {"train": len(data.train.labels), "judged": len(data.eval_set.labels), "held out": data.num_held_out},
        "systems": {name: _system(one, exp_dir, data, options) for name, one in findings.scored.items()},
        "trainings": trainings([one.variant for one in findings.scored.values()]),
        "together": _together(findings),
        "transfer": {name: _transfer(name, findings) for name in findings.repaired},
        "claims": _claims(findings),
        "remaining_errors": remaining_errors(findings.scored["distilled"]),
        "dark_knowledge": dark_knowledge(_teacher_logits(exp_dir)["logits"], data, options),
        "timing": stage_seconds(exp_dir, steps),
        "environment": {**provenance.versions(), "networks made by": _made_by(exp_dir, steps)},
        **_comparisons(findings),
    }
    if options.profile == "quick":
        results["full_profile_estimate"] = _estimate(results["systems"], exp_dir, data, options, profiles["full"])
    write_json(out_dir / RESULTS_FILE, results)
    predictions = {name: one.predictions.to(torch.uint8) for name, one in findings.scored.items()}
    save_tensors(out_dir / PREDICTIONS_FILE, predictions, {"config_sha": config_sha(options)})


def measure(exp_dir: Path, data: DigitData, options: DigitsOptions) -> Findings:
    """Predictions of every variant, before and after its biases are repaired."""
    device = resolve_device(options.device)
    scored: dict[str, Scored] = {}
    repaired: dict[str, list[Repaired]] = {}
    reasons: dict[str, str] = {}
    for variant in [teacher(options), *students(options)]:
        folder = exp_dir / step_name(variant.name)
        scored[variant.name], logits = score_variant(variant, folder, data, device)
        if variant.name in paper.TRANSFER:
            held_out = logits_of(load_stack(folder, device), data.tuning, device)
            classes = paper.TRANSFER[variant.name].classes
            repaired[variant.name], reason = repair_biases(scored[variant.name], logits, held_out, data, classes)
            reasons |= {variant.name: reason} if reason else {}
    together = _teacher_logits(exp_dir)["judged"].mean(dim=0).argmax(dim=1) != data.eval_set.labels
    return Findings(options, scored, repaired, reasons, Outcome(together.unsqueeze(0).numpy()))


def config_sha(options: DigitsOptions) -> str:
    """Fingerprint of what decides the results: neither folders nor stages, nor how often a training is noted."""
    return fingerprint(replace(options, corpus_dir=Path(), exp_dir=Path(), stage=0, stop_stage=0, checkpoint_epochs=1))


def label_of(options: DigitsOptions, profile: DigitsOptions) -> str:
    """What a reader must know of a run before its figures."""
    changed = config_sha(replace(options, device="auto")) != config_sha(replace(profile, device="auto"))
    return LABELS[options.profile] + (" Options differ from the profile's: see the command." if changed else "")


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


def _system(one: Scored, exp_dir: Path, data: DigitData, options: DigitsOptions) -> dict[str, Any]:
    variant = one.variant
    folder = exp_dir / step_name(variant.name)
    entry = {
        "experiments": [n for n in options.experiments if n in EXPERIMENTS and _serves(variant, n, options)],
        "description": describe(variant),
        "paper_errors": paper.ERRORS.get(variant.name) if options.evaluates_test else None,
        **_spread(one.outcome.errors.tolist()),
        **read_json(folder / SUMMARY_FILE),
    }
    if variant.fraction < 1.0 or (variant.name == "baseline" and 6 in options.experiments):
        entry["learnt_accuracy"] = _learnt_accuracy(variant, folder, data, options)
        entry["eval_accuracy"] = (1.0 - one.outcome.wrong.mean(axis=1)).tolist()
    return entry


def _serves(variant: Variant, experiment: int, options: DigitsOptions) -> bool:
    if variant.name == "teacher":
        return experiment == 1
    return variant.name in {one.name for one in students_of(experiment, options)}


def _learnt_accuracy(variant: Variant, folder: Path, data: DigitData, options: DigitsOptions) -> list[float]:
    """Share of the learnt digits that each network has right."""
    device = resolve_device(options.device)
    ids = data.ids_for(variant, options.seed)
    inputs = JitteredImages(data.train.images.to(device), max_shift=0)
    stack = load_stack(folder, device)
    predicted = torch.cat([logits.argmax(dim=2).cpu() for _, logits in iter_logits(stack, inputs, ids)], dim=1)
    return (predicted == data.train.labels[ids]).double().mean(dim=1).tolist()


def describe(variant: Variant) -> str:
    """A variant in a few words."""
    model = variant.model
    parts = [f"{model.num_layers}×{model.hidden_dim}"]
    if model.dropout or model.input_dropout:
        parts.append(f"dropout {model.input_dropout:g}/{model.dropout:g}")
    parts += [f"max-norm {model.max_norm:g}"] if model.max_norm else []
    parts += [f"begun at {model.init_scale:g} of the weights"] if model.init_scale != 1.0 else []
    parts += [f"weights decayed by {variant.train.weight_decay:g}"] if variant.train.weight_decay else []
    parts += [f"±{variant.jitter} px"] if variant.jitter else []
    targets = variant.targets
    if isinstance(targets, HardLabels):
        parts.append("hard labels" + (f", smoothed {targets.label_smoothing:g}" if targets.label_smoothing else ""))
    elif isinstance(targets, SoftLabels):
        distil = targets.distil
        parts.append(f"T={distil.temperature:g}, α={distil.alpha:g}, {_count(targets.teachers, 'teacher')}")
    else:
        parts.append(f"squared logit differences, {_count(targets.teachers, 'teacher')}")
    if variant.classes != ALL_CLASSES:
        parts.append("classes " + "".join(map(str, variant.classes)))
    parts += [f"{100 * variant.fraction:g}% of the digits"] if variant.fraction < 1.0 else []
    return ", ".join(parts)


def trainings(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """How networks are optimised, and which of them so: their epochs are told with each."""
    alike: dict[TrainOptions, list[str]] = {}
    for variant in variants:
        alike.setdefault(replace(variant.train.without_runtime_options(), epochs=1), []).append(variant.name)
    return [{"networks": names, **{key: getattr(train, key) for key in OPTIMISED_BY}} for train, names in alike.items()]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _transfer(name: str, findings: Findings) -> dict[str, Any]:
    """Rows of experiments 3 and 4: before, and after each way of finding the shift."""
    wanted = paper.TRANSFER[name]
    before = findings.scored[name]
    rows = [{"way": "before", **_transfer_row(before, wanted.classes)}]
    for one in findings.repaired[name]:
        rows.append({"way": one.way, **_transfer_row(one.scored, wanted.classes), "shifts": one.shifts})
    num_eval = int(torch.isin(before.labels, torch.tensor(wanted.classes)).sum())
    comparable = findings.options.evaluates_test
    return {
        "classes": wanted.classes,
        "paper": wanted if comparable else None,
        "rows": rows,
        "eval_of_classes": num_eval,
        "no_match": findings.no_match.get(name),
    }


def _transfer_row(scored: Scored, classes: Sequence[int]) -> dict[str, Any]:
    errors = _spread(scored.outcome.errors.tolist())
    return {**errors, "errors_on_classes": scored.errors_on(classes)}


def _comparisons(findings: Findings) -> dict[str, Any]:
    """What experiments 2, 5, 6 and 7 compare, each where it was made."""
    options, made = findings.options, set(findings.options.experiments)
    found: dict[str, Any] = {}

    def row(variant: Variant, **point: Any) -> dict[str, Any]:
        return {**point, "variant": variant.name, **_spread(findings.scored[variant.name].outcome.errors.tolist())}

    if 2 in made:
        found["sweep"] = [row(v, width=width, temperature=t) for (width, t), v in width_points(options)]
    if 5 in made:
        matched = findings.scored[logit_matching(options).name]
        found["matching"] = [
            row(v, temperature=t, differing_percent=disagreement_percent(findings.scored[v.name], matched).tolist())
            for t, v in matching_points(options)
        ]
        between_seeds = disagreement_percent(matched, matched).tolist()
        found["matching"].append(row(matched.variant, temperature=None, differing_percent=between_seeds))
    if 6 in made:
        found["alphas"] = [row(v, alpha=alpha) for alpha, v in alpha_points(options)]
        found["teachers"] = [row(v, teachers=size) for size, v in teacher_points(options)]
    if 7 in made:
        found["controls"] = _control_rows(findings)
    return found


def _control_rows(findings: Findings) -> list[dict[str, Any]]:
    """Of the distilled student's gain over the baseline, the part that each control has by itself."""
    baseline, distilled = (findings.scored[name].outcome for name in ("baseline", "distilled"))
    rows = []
    for name in ("baseline", *CONTROLS, "distilled"):
        one = findings.scored[name].outcome
        share = share_of_gain(baseline, distilled, one) if name in CONTROLS else None
        of_gain = [share.value, share.low, share.high] if share else None
        rows.append({"variant": name, **_spread(one.errors.tolist()), "share_of_gain": of_gain})
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


def remaining_errors(scored: Scored, shown: int = REMAINING_SHOWN) -> dict[str, Any]:
    """How many judged digits some seed gets wrong, and those that most seeds do: number, class, what each seed says."""
    wrong = torch.from_numpy(scored.outcome.wrong).sum(dim=0)
    ranked = torch.sort(wrong, descending=True, stable=True).indices[:shown]
    digits = [
        {"digit": int(i), "label": int(scored.labels[i]), "predicted": scored.predictions[:, i].tolist()}
        for i in ranked
        if wrong[i] > 0
    ]
    by_every_seed = int((wrong == len(scored.predictions)).sum())
    return {"by_some_seed": int((wrong > 0).sum()), "by_every_seed": by_every_seed, "digits": digits}


def dark_knowledge(logits: Tensor, data: DigitData, options: DigitsOptions) -> list[dict[str, Any]]:
    """Of each class the learnt digit whose soft targets tell the most beside its label.

    Of those that the teachers together are sure of (SURE of the label at T = 1), the one whose targets at the
    students' temperature are the furthest from the mean of its class, in KL divergence (nats): what the label alone
    would not have told.
    """
    labels = data.train.labels[: data.num_learnt]
    combined = logits[:, : data.num_learnt].mean(dim=0)
    temperature = options.student.distil.temperature
    probs, softened = torch.softmax(combined, dim=1), torch.softmax(combined / temperature, dim=1)
    found = []
    for label in range(NUM_CLASSES):
        mine = ((labels == label) & (probs[:, label] >= SURE)).nonzero().squeeze(1)
        if len(mine) == 0:
            continue
        told = (softened[mine] * (softened[mine] / softened[labels == label].mean(dim=0)).log()).sum(dim=1)
        digit = int(mine[told.argmax()])
        found.append(
            {
                "digit": digit,
                "label": label,
                "told": float(told.max()),
                "probs": probs[digit].tolist(),
                "softened": softened[digit].tolist(),
            }
        )
    return found


def _teacher_logits(exp_dir: Path) -> dict[str, Tensor]:
    """Logits [M, N, 10] of the teachers for the training digits and for the judged ones."""
    return load_tensors(exp_dir / "posteriors" / LOGITS_FILE)[0]


def _together(findings: Findings) -> dict[str, Any]:
    """How good the soft targets are: errors of the teachers' mean, each over as many views of a digit."""
    large = findings.options.teacher
    return {"teachers": large.size, "views": large.views, "errors": int(findings.together.errors[0])}


def _made_by(exp_dir: Path, steps: Sequence[Step]) -> str:
    """Versions that trained the networks, which need not be those that score them."""
    records = [Record.read(exp_dir / step.name) for step in steps if step.trains]
    return "; ".join(sorted({f"torch {one.code['torch']} at {one.code['git_sha']}" for one in records if one}))


def _estimate(
    systems: Mapping[str, Mapping[str, Any]],
    exp_dir: Path,
    data: DigitData,
    options: DigitsOptions,
    full: DigitsOptions,
) -> dict[str, Any]:
    """The full profile's time on this device, from the rates that this run measured."""
    variants = {variant.name: variant for variant in [teacher(options), *students(options)]}
    measured = [
        Measured(
            one["macs_per_digit"],
            training_flop(one["macs_per_digit"], one["digits"], one["epochs"], len(one["seeds"])),
            one["seconds"],
            kind_of(variants[name]),
        )
        for name, one in systems.items()
    ]
    posteriors = Record.read(exp_dir / "posteriors")
    assert posteriors is not None  # scoring requires the step
    full = replace(full, eval_set=options.eval_set, held_out=options.held_out)
    return extrapolate(full, options, data, measured, posteriors.seconds, SIDE * SIDE, NUM_CLASSES)
