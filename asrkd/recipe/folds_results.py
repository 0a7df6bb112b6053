"""Stages 11 and 12 of a cross-validation: every utterance, scored by models that never heard its speaker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asrkd.data.manifests import load_split
from asrkd.errors import InputError
from asrkd.files import read_json, read_object, write_json
from asrkd.lang.scripts import is_unspaced
from asrkd.recipe.choice import MEASURE
from asrkd.recipe.command_line import RESULTS_FILE
from asrkd.recipe.corpus import CORPUS_STEP, Corpus
from asrkd.recipe.evaluate import Run, references, runs, source_of_gain
from asrkd.recipe.folders import FOLD_FILE, RunFolders, fold_name
from asrkd.recipe.networks import teachers
from asrkd.recipe.options import SpeechOptions, options_of_folds
from asrkd.recipe.results import NUM_WORST, Scored, config_sha, top_confusions
from asrkd.recipe.students import DISTILLED
from asrkd.recipe.trained import training_provenance
from asrkd.recipe.tried import strongest_entry
from asrkd.report import print_table, write_report, write_results_md
from asrkd.report.lost_tables import worst_first
from asrkd.scoring.bootstrap import UtteranceMetric, by_speaker
from asrkd.scoring.characters import CharacterErrors
from asrkd.scoring.frames import FrameMetrics
from asrkd.scoring.provenance import RunProvenance
from asrkd.scoring.results import (
    assemble_results,
    comparisons,
    gaps_recovered,
    seed_rows,
    system_entry,
    system_metrics,
)
from asrkd.scoring.words import WordErrors
from asrkd.workflow import provenance
from asrkd.workflow.steps import Step, stage_seconds

# Of each fold's counts of its test set, those that add up.
SUMMED = ("utterances", "speakers", "hours", "words", "phones", "frames", "unaligned", "doubtful", "excluded")
SCALES = ("acoustic_scale", "lm_scale", "insertion_score")


def build_steps(corpus: Corpus, options: SpeechOptions, command: str, steps: Sequence[Step]) -> list[Step]:
    """The steps that score all folds together and report on them. `steps` are those of the folds."""
    folders = [fold_name(fold) for fold in range(options.folds or 0)]
    read = [CORPUS_STEP, "manifests/test", "features/test", *(run.step for run in combined_runs(options)), "score"]
    decides = {"config": config_sha(options), "command": command, "scoring": corpus.scoring.rules}
    return [
        Step(
            11,
            "score",
            partial(score, corpus, command, list(steps), options),
            decides,
            tuple(f"{folder}/{name}" for folder in folders for name in read),
        ),
        Step(
            12,
            "report",
            partial(report, options),
            None,
            (*(f"{folder}/manifests/test" for folder in folders), "score"),
        ),
    ]


def combined_runs(options: SpeechOptions) -> list[Run]:
    """The systems of the combined table: all but the single teachers, whose ensemble is there."""
    members = teachers(options)
    return [run for run in runs(options) if len(members) < 2 or run.models not in [(step,) for step in members]]


@dataclass(frozen=True)
class Folds:
    """What the folds measured."""

    options: list[SpeechOptions]
    results: list[dict[str, Any]]
    """results.json of each fold."""
    speakers: dict[str, str]
    """utt_id -> speaker, of all test sets."""
    refs: list[dict[str, list[str]]]
    """Reference words of each fold's test set."""
    scored: dict[Run, list[Scored]]
    """Each system's measurements in each fold."""

    @classmethod
    def of(cls, corpus: Corpus, options: SpeechOptions) -> Folds:
        folds = options_of_folds(options)
        refs = [references(one.exp_dir, "test", corpus.scoring) for one in folds]
        speakers: dict[str, str] = {}
        for one, texts in zip(folds, refs, strict=True):
            spoken = load_split(RunFolders(one.exp_dir).manifests("test")).supervisions
            twice = [utt_id for utt_id in texts if utt_id in speakers]
            if twice:
                raise InputError(f"{one.exp_dir}: expected test utterances of no other fold, found {twice[0]}")
            speakers |= {supervision.id: supervision.speaker for supervision in spoken}
        scored = {
            run: [
                Scored.of(run, one.exp_dir, texts, corpus.scoring, {"test": list(texts)})
                for one, texts in zip(folds, refs, strict=True)
            ]
            for run in combined_runs(options)
        }
        results = [read_object(one.exp_dir / "score" / RESULTS_FILE, systems=dict) for one in folds]
        return cls(folds, results, speakers, refs, scored)

    def system(self, run: Run) -> Scored:
        """A system's measurements on all utterances; its metrics draw speakers."""
        parts = self.scored[run]
        seconds = [result["corpus"]["test"]["hours"] for result in self.results]
        return Scored(
            run,
            FrameMetrics(
                _over_folds([one.frames.accuracy for one in parts], self.speakers),
                _over_folds([one.frames.cross_entropy for one in parts], self.speakers),
            ),
            _joined_errors([one.errors for one in parts], self.speakers),
            {name: _joined_errors([one.by_set[name] for one in parts], self.speakers) for name in parts[0].by_set},
            _joined_characters(parts, self.speakers),
            {name: float(np.average([one.rtf[name] for one in parts], weights=seconds)) for name in parts[0].rtf},
            round(float(np.mean([one.parameters for one in parts]))),
            round(float(np.mean([one.macs_per_frame for one in parts]))),
        )


def _over_folds(parts: Sequence[UtteranceMetric], speakers: Mapping[str, str]) -> UtteranceMetric:
    """A metric over the utterances of all folds, by speaker."""
    first = parts[0]
    utt_ids = tuple(utt_id for one in parts for utt_id in one.utt_ids)
    numerator, denominator = (
        np.concatenate([getattr(one, name) for one in parts]) for name in ("numerator", "denominator")
    )
    whole = UtteranceMetric(first.name, utt_ids, numerator, denominator, first.scale, first.higher_is_better)
    return by_speaker(whole, speakers)


def _joined_errors(parts: Sequence[WordErrors], speakers: Mapping[str, str]) -> WordErrors:
    return WordErrors(tuple(utterance for one in parts for utterance in one.utterances), speakers)


def _joined_characters(parts: Sequence[Scored], speakers: Mapping[str, str]) -> dict[str, CharacterErrors] | None:
    """Character errors of all folds by test set; None where the corpus scores no words."""
    counted = [one.characters for one in parts if one.characters is not None]
    if len(counted) < len(parts):
        return None
    joined = {}
    for name, first in counted[0].items():
        utt_ids = tuple(utt_id for one in counted for utt_id in one[name].utt_ids)
        counts = {key: np.concatenate([one[name].counts[key] for one in counted]) for key in first.counts}
        joined[name] = CharacterErrors(utt_ids, counts, speakers)
    return joined


def score(corpus: Corpus, command: str, steps: Sequence[Step], options: SpeechOptions, out_dir: Path) -> None:
    """Stage 11: results.json of all folds together (docs/file_formats.md); intervals are over speakers."""
    folds = Folds.of(corpus, options)
    whole = {run: folds.system(run) for run in folds.scored}
    metrics: dict[str, list[Any]] = defaultdict(list)
    for run, one in whole.items():
        metrics[run.system].append(system_metrics(one.frames, one.errors))
    first = {run.system: one for run, one in whole.items() if run.seed == 0}
    words = [word for texts in folds.refs for ref in texts.values() for word in ref]
    models = [one.exp_dir / step for one in folds.options for run in whole for step in run.models]
    teacher, strongest = source_of_gain(options), _strongest_baseline(folds.results)
    results = assemble_results(
        RunProvenance(
            recipe=corpus.name,
            command=command,
            git_sha=provenance.git_sha(),
            config_sha=config_sha(options),
            seed=options.seed,
            device=training_provenance(models)["device"],
        ),
        systems={name: _system(one, folds) for name, one in first.items()},
        comparisons=comparisons(metrics, _pairs(folds.results, metrics)),
        gap_recovered=gaps_recovered(metrics, ensemble=teacher) if teacher else {},
        strongest_baseline=strongest_entry(metrics, strongest, teacher),
        variant=options.lang.units,
        unit=corpus.scoring.unit,
        unspaced=corpus.scoring.unit == "word" and is_unspaced(words),
        resampled="speakers",
        folds=_fold_rows(folds),
        speakers=_speaker_rows(folds, first),
        seeds=seed_rows(metrics, range(options.students.seeds)),
        confusions={name: top_confusions(first[name].errors) for name in (teacher, DISTILLED) if name in first},
        worst_utterances=_worst(folds.results, set(first)),
        **_background(folds, options, steps),
    )
    write_json(out_dir / RESULTS_FILE, results)
    print(print_table(results), flush=True)


def _system(one: Scored, folds: Folds) -> dict[str, Any]:
    described = [result["systems"][one.run.system].get("description", "") for result in folds.results]
    extra: dict[str, Any] = {"description": "; ".join(dict.fromkeys(described))}
    extra |= training_provenance([fold.exp_dir / step for fold in folds.options for step in one.run.models])
    return system_entry(one.parameters, one.macs_per_frame, one.frames, one.by_set, one.rtf, one.characters, **extra)


def _strongest_baseline(results: Sequence[Mapping[str, Any]]) -> str:
    """The baseline with the best mean over all folds of what each fold's development speakers say."""
    figures: dict[str, list[float]] = defaultdict(list)
    for row in (row for result in results for row in result["baselines"] if row["system"]):
        figures[row["system"]].append(row[MEASURE])
    return min(figures, key=lambda name: float(np.mean(figures[name])))


def _pairs(results: Sequence[Mapping[str, Any]], systems: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The pairs of systems that the folds compare."""
    pairs = dict.fromkeys((row["a"], row["b"]) for result in results for row in result["comparisons"])
    return [(a, b) for a, b in pairs if a in systems and b in systems]


def _fold_rows(folds: Folds) -> list[dict[str, Any]]:
    """Who is in each fold, what scales were tuned there, and what each system's first seed has on its test set."""
    rows = []
    for fold, (one, result) in enumerate(zip(folds.options, folds.results, strict=True)):
        names = read_object(one.exp_dir / CORPUS_STEP / FOLD_FILE, speakers=dict)["speakers"]
        chosen: Mapping[str, Any] = next((row for row in result.get("tuning") or () if row.get("chosen")), {})
        first = {run.system: parts[fold] for run, parts in folds.scored.items() if run.seed == 0}
        rows.append(
            {
                "fold": fold,
                "test_speakers": names["test"],
                "dev_speakers": names["dev"],
                "train_speakers": names["train"],
                "utterances": result["corpus"]["test"]["utterances"],
                "words": next(iter(first.values())).errors.words,
                "train_hours": result["corpus"]["train"]["hours"],
                "scales": {name: chosen[name] for name in SCALES if name in chosen},
                "systems": {
                    name: {
                        "wer": one.errors.percent,
                        "frame_accuracy": one.frames.accuracy.value,
                        "cross_entropy": one.frames.cross_entropy.value,
                    }
                    for name, one in first.items()
                },
            }
        )
    return rows


def _speaker_rows(folds: Folds, first: Mapping[str, Scored]) -> list[dict[str, Any]]:
    """Words of each speaker, and errors of each system's first seed in them."""
    fold_of = {folds.speakers[utt_id]: fold for fold, texts in enumerate(folds.refs) for utt_id in texts}
    metrics = {name: one.errors.metric for name, one in first.items()}
    some = next(iter(metrics.values()))
    return [
        {
            "speaker": speaker,
            "fold": fold_of[speaker],
            "words": int(some.denominator[row]),
            "errors": {name: int(metric.numerator[row]) for name, metric in metrics.items()},
        }
        for row, speaker in enumerate(some.utt_ids)
    ]


def _worst(results: Sequence[Mapping[str, Any]], systems: set[str]) -> list[dict[str, Any]]:
    """The distilled student's worst utterances of all folds, each of which lists as many of its own."""
    rows = [row for result in results for row in result["worst_utterances"] if row["system"] in systems]
    distilled = [row for row in rows if row["system"] == "distilled"]
    ranked = sorted(distilled, key=lambda row: (-row["errors"] / max(row["words"], 1), -row["errors"], row["utt_id"]))
    worst = [row["utt_id"] for row in ranked[:NUM_WORST]]
    return sorted((row for row in rows if row["utt_id"] in worst), key=lambda row: worst.index(row["utt_id"]))


def _background(folds: Folds, options: SpeechOptions, steps: Sequence[Step]) -> dict[str, Any]:
    """What is shown with the scores: counts and losses of the test sets, times, versions."""
    tests = [result["corpus"]["test"] for result in folds.results]
    words = [sum(map(len, texts.values())) for texts in folds.refs]
    oov = [result["oov_rate"]["test"] for result in folds.results]
    of_test = {
        key: [row for result in folds.results for row in result[key] if row["split"] == "test"]
        for key in ("unaligned", "doubtful")
    }
    environments: dict[str, str] = {}
    for result in folds.results:
        environments |= result["training_environment"]
    return {
        "corpus": {"test": {key: sum(one[key] for one in tests) for key in SUMMED if key in tests[0]}},
        "oov_rate": {"test": float(np.average(oov, weights=words))},
        "excluded": folds.results[0]["excluded"],
        "rejected": sorted({tuple(row) for result in folds.results for row in result["rejected"]}),
        "unaligned": of_test["unaligned"],
        "doubtful": worst_first(of_test["doubtful"]),
        "timing": stage_seconds(options.exp_dir, steps),
        "environment": provenance.versions(),
        "training_environment": environments,
    }


def report(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 12: RESULTS.md and the self-contained report.html of all folds together."""
    results = read_json(options.exp_dir / "score" / RESULTS_FILE)
    splits = [load_split(RunFolders(one.exp_dir).manifests("test")) for one in options_of_folds(options)]
    audio = {one.id: one.sources[0].source for split in splits for one in split.recordings}
    speakers = {one.id: one.speaker for split in splits for one in split.supervisions}
    extras = {
        "worst_utterances": [{**row, "audio": audio[row["utt_id"]]} for row in results["worst_utterances"]],
        "doubtful": [
            {**row, "audio": audio[row["utt_id"]], "speaker": speakers[row["utt_id"]]} for row in results["doubtful"]
        ],
    }
    write_results_md(results, out_dir / "RESULTS.md")
    write_report(results, extras, out_dir / "report.html")
