"""Stages 11 and 12: results.json from the other stages' outputs, RESULTS.md and report.html from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asrkd.align import Alignment, Segment
from asrkd.data.manifests import load_split
from asrkd.data.splits import PART_KEY, total_excluded
from asrkd.decode import Hypotheses
from asrkd.features.store import FrameStore
from asrkd.files import read_json, read_object, write_json
from asrkd.lang.lexicon import Lexicon
from asrkd.lang.scripts import is_unspaced
from asrkd.lang.tags import is_tag
from asrkd.recipe import run_options
from asrkd.recipe.choice import resolve
from asrkd.recipe.command_line import RESULTS_FILE
from asrkd.recipe.corpus import Corpus
from asrkd.recipe.describe import describe
from asrkd.recipe.evaluate import (
    FIRST_PASS_FILE,
    FRAMES_FILE,
    Run,
    load_frame_metrics,
    references,
    runs,
    source_of_gain,
    tuning_results,
)
from asrkd.recipe.fit import subset_results
from asrkd.recipe.folders import SPLITS, RunFolders
from asrkd.recipe.labels import ROUNDS_FILE, load_hmm
from asrkd.recipe.lang import lang_summary
from asrkd.recipe.losses import rejected_before
from asrkd.recipe.networks import REPORT_FILE
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.scoring import Scoring
from asrkd.recipe.students import BASELINE, DISTILLED, Student, students
from asrkd.recipe.trained import SUMMARY_FILE, other_environment, training_provenance
from asrkd.recipe.transfer import transfer_summary
from asrkd.recipe.tried import baseline_rows, pairs, strongest_entry, sweep_rows
from asrkd.report import print_table, write_report, write_results_md
from asrkd.report.lost_tables import worst_first
from asrkd.scoring.boundaries import boundary_errors, joined
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
    worst_rows,
)
from asrkd.scoring.words import WordErrors, confusions
from asrkd.workflow import provenance
from asrkd.workflow.steps import Step, stage_seconds

NUM_CONFUSIONS = 20
NUM_WORST = 8
NOT_RESCORED = ", not rescored"
SECONDS_PER_HOUR = 3600.0
MS_PER_SEC = 1000.0


Parts = Mapping[str, Sequence[str]]
"""utt_ids of each part of the test set."""


@dataclass(frozen=True)
class Scored:
    """Measurements of one run on the test set."""

    run: Run
    frames: FrameMetrics
    errors: WordErrors
    """Of all utterances."""
    by_set: dict[str, WordErrors]
    """Errors of each part of the test set, also before rescoring where there is rescoring."""
    characters: dict[str, CharacterErrors] | None
    """Character errors, as `by_set`; None where the corpus scores no words."""
    rtf: dict[str, float]
    """Real-time factors, as `by_set`."""
    parameters: int
    macs_per_frame: int

    @classmethod
    def of(cls, run: Run, exp_dir: Path, refs: Mapping[str, Sequence[str]], scoring: Scoring, parts: Parts) -> Scored:
        folder = exp_dir / run.step
        hypotheses = Hypotheses.load(folder)
        saved = read_object(folder / FRAMES_FILE)
        passes = {"": (hypotheses.words, hypotheses.rtf)}
        if (folder / FIRST_PASS_FILE).is_file():
            first = read_object(folder / FIRST_PASS_FILE, words=dict, rtf=float)
            passes[NOT_RESCORED] = (first["words"], first["rtf"])
        by_set = {
            f"{part}{name}": scoring.errors({one: refs[one] for one in utt_ids}, {one: words[one] for one in utt_ids})
            for name, (words, _) in passes.items()
            for part, utt_ids in parts.items()
        }
        return cls(
            run,
            load_frame_metrics(saved),
            scoring.errors(refs, hypotheses.words),
            by_set,
            _characters({name: words for name, (words, _) in passes.items()}, refs, scoring, parts),
            {f"{part}{name}": rtf for name, (_, rtf) in passes.items() for part in parts},
            saved["parameters"],
            saved["macs_per_frame"],
        )


def _characters(
    passes: Mapping[str, Mapping[str, Sequence[str]]],
    refs: Mapping[str, Sequence[str]],
    scoring: Scoring,
    parts: Parts,
) -> dict[str, CharacterErrors] | None:
    by_set: dict[str, CharacterErrors] = {}
    for name, words in passes.items():
        counted = scoring.character_errors(refs, words)
        if counted is None:
            return None
        by_set |= {f"{part}{name}": counted.of_utterances(utt_ids) for part, utt_ids in parts.items()}
    return by_set


def score(corpus: Corpus, command: str, steps: Sequence[Step], options: SpeechOptions, out_dir: Path) -> None:
    """Stage 11: results.json (docs/file_formats.md)."""
    exp_dir = options.exp_dir
    refs = references(exp_dir, "test", corpus.scoring)
    parts = _parts_of_test(exp_dir)
    scored = [Scored.of(run, exp_dir, refs, corpus.scoring, parts) for run in runs(options)]
    metrics: dict[str, list[Any]] = defaultdict(list)
    for one in scored:
        metrics[one.run.system].append(system_metrics(one.frames, one.errors))
    hard = baseline_rows(options)
    strongest = next(row["system"] for row in hard if row["chosen"])
    first = _strongest_second({one.run.system: one for one in scored if one.run.seed == 0}, strongest)
    student_of = {student.name: resolve(student, options) for student in students(options)}
    teacher = source_of_gain(options)
    results = assemble_results(
        RunProvenance(
            recipe=corpus.name,
            command=command,
            git_sha=provenance.git_sha(),
            config_sha=config_sha(options),
            seed=options.seed,
            device=training_provenance([exp_dir / one for run in runs(options) for one in run.models])["device"],
        ),
        systems={name: _system(one, options, student_of) for name, one in first.items()},
        comparisons=comparisons(metrics, pairs(options, strongest)),
        gap_recovered=gaps_recovered(metrics, ensemble=teacher) if teacher else {},
        baselines=hard,
        strongest_baseline=strongest_entry(metrics, strongest, teacher),
        variant=options.lang.units,
        unit=corpus.scoring.unit,
        unspaced=corpus.scoring.unit == "word" and is_unspaced(word for words in refs.values() for word in words),
        seeds=seed_rows(metrics, range(options.students.seeds)),
        confusions={name: top_confusions(first[name].errors) for name in (teacher, DISTILLED) if name in first},
        worst_utterances=_worst(first, _recognisable(RunFolders(exp_dir), corpus.scoring)),
        **_background(options, steps, corpus.scoring.unit),
    )
    write_json(out_dir / RESULTS_FILE, results)
    print(print_table(results), flush=True)


def _strongest_second(first: dict[str, Scored], strongest: str) -> dict[str, Scored]:
    """The systems in order, the strongest baseline next to the plain one."""
    ordered: dict[str, Scored] = {}
    for name, one in first.items():
        ordered[name] = one
        if name == BASELINE:
            ordered[strongest] = first[strongest]
    return ordered


def _parts_of_test(exp_dir: Path) -> Parts:
    """Where the corpus names several parts (test-clean, test-other), "all" and those; else all as "test"."""
    parts: dict[str, list[str]] = defaultdict(list)
    for supervision in load_split(RunFolders(exp_dir).manifests("test")).supervisions:
        parts[(supervision.custom or {}).get(PART_KEY, "test")].append(supervision.id)
    everything = [utt_id for utt_ids in parts.values() for utt_id in utt_ids]
    # Frame accuracy and comparisons are of "all" utterances: that part comes first, where they are shown.
    return {"all": everything, **parts} if len(parts) > 1 else {"test": everything}


def top_confusions(errors: WordErrors) -> list[tuple[str | None, str | None, int]]:
    """The NUM_CONFUSIONS most frequent substitutions, insertions and deletions each."""
    rows = confusions(errors)
    substituted = [row for row in rows if row[0] is not None and row[1] is not None]
    inserted, deleted = ([row for row in rows if row[side] is None] for side in (0, 1))
    return [row for kind in (substituted, inserted, deleted) for row in kind[:NUM_CONFUSIONS]]


def _recognisable(folders: RunFolders, scoring: Scoring) -> frozenset[str]:
    """Words that decoding can emit, as they are scored."""
    return frozenset(scoring.fold(Lexicon.load(folders.decode_lexicon).words))


def _worst(first: Mapping[str, Scored], recognisable: frozenset[str]) -> list[dict[str, Any]]:
    """The distilled student's worst utterances, and the same utterances by baseline and teachers; `oov` lists words of
    the reference that decoding cannot emit."""
    rows = worst_rows(DISTILLED, first[DISTILLED].errors, NUM_WORST)
    worst = {row["utt_id"] for row in rows}
    for name in [name for name in (BASELINE, "ensemble", "teacher") if name in first]:
        everything = worst_rows(name, first[name].errors, len(first[name].errors.utterances))
        rows += [row for row in everything if row["utt_id"] in worst]
    refs = {row["utt_id"]: {ref for ref, _ in row["alignment"] if ref is not None} for row in rows}
    return [{**row, "oov": sorted(refs[row["utt_id"]] - recognisable)} for row in rows]


def config_sha(options: SpeechOptions) -> str:
    """Fingerprint of the options that decide the results: no folders, no range of stages, no runtime options."""
    # The stamps have the fingerprints of another system's posterior store, another run's labels, untranscribed speech.
    transfer = options.transfer
    if transfer.has_speech:
        transfer = replace(
            transfer,
            recordings=transfer.recordings and Path(),
            transcripts=transfer.transcripts and Path(),
            confidences=transfer.confidences and Path(),
        )
    named = {"posteriors_from": None, "labels_from": options.labels_from and Path(), "transfer": transfer}
    return run_options.config_sha(options, num_jobs=1, network_jobs=1, executor="processes", scheduler=None, **named)


def _system(one: Scored, options: SpeechOptions, student_of: Mapping[str, Student]) -> dict[str, Any]:
    summary = read_object(options.exp_dir / one.run.models[0] / SUMMARY_FILE, history=list, best_epoch=int)
    extra: dict[str, Any] = {"description": describe(one.run, options, student_of)}
    extra |= training_provenance([options.exp_dir / step for step in one.run.models])
    if len(one.run.models) == 1:
        extra |= {"history": summary["history"], "best_epoch": summary["best_epoch"]}
    return system_entry(
        one.parameters,
        one.macs_per_frame,
        one.frames,
        one.by_set,
        one.rtf,
        one.characters,
        **extra,
    )


def _background(options: SpeechOptions, steps: Sequence[Step], unit: str) -> dict[str, Any]:
    """What is shown with the scores: sweep, tuning, rounds, counts, versions, times."""
    exp_dir, folders = options.exp_dir, RunFolders(options.exp_dir)
    lang = lang_summary(exp_dir)
    posteriors = read_object(folders.posteriors.parent / REPORT_FILE, store=list)
    rejected = [row for split in SPLITS for row in rejected_before(folders, split)]
    untranscribed, subset = transfer_summary(options), subset_results(options)
    excluded = total_excluded({split: load_split(folders.manifests(split)) for split in SPLITS})
    return {
        "sweep": sweep_rows(options),
        **tuning_results(exp_dir / "decode" / "tuning"),
        "alignment_rounds": _alignment_rounds(options),
        "store": posteriors["store"],
        "disagreement": posteriors.get("disagreement"),
        "corpus": {split: _count(folders, split, unit) for split in SPLITS},
        **({} if untranscribed is None else {"transfer": untranscribed}),
        **({} if subset is None else {"subset": subset}),
        "boundaries": _boundaries(folders),
        "oov_rate": lang["oov_rate"],
        "lang": lang,
        "excluded": excluded,
        "rejected": [(row.utt_id, row.reason) for row in rejected],
        "unaligned": _losses(folders, "unaligned"),
        "doubtful": worst_first(_losses(folders, "doubtful")),
        "timing": stage_seconds(exp_dir, steps),
        "environment": provenance.versions(),
        "training_environment": other_environment(exp_dir, steps),
    }


def _alignment_rounds(options: SpeechOptions) -> list[dict[str, Any]]:
    """Log-likelihoods of the rounds of stages 4 and 5; with another run's aligner there is one round."""
    stages = ["align", "tree"] if options.labels_from is None else ["tree"]
    return [row for stage in stages for row in read_json(options.exp_dir / stage / ROUNDS_FILE)]


def _losses(folders: RunFolders, key: str) -> list[dict[str, Any]]:
    """Rows of what stage 5 found lost or doubtful in each split, with the split and its typical log-likelihood."""
    found = []
    for split in SPLITS:
        losses = read_object(folders.losses(split), doubtful=list, unaligned=list, excluded=dict)
        found += [{"split": split, **row, "median": losses["median"]} for row in losses[key]]
    return found


def _boundaries(folders: RunFolders) -> dict[str, Any]:
    """Distance of each split's final alignment from hand-marked phones, where the corpus has such marks."""
    found = {}
    for split in SPLITS:
        alignment = Alignment.load(folders.alignment(split))
        frame_shift_ms = FrameStore.open(folders.features(split)).frame_shift_ms
        aligned = set(alignment.utt_ids)
        marked = {
            s.id: [Segment(one.symbol, one.start, one.end) for one in s.alignment["phone"]]
            for s in load_split(folders.manifests(split)).supervisions
            if s.id in aligned and s.alignment and "phone" in s.alignment
        }
        unknown = {one.phone for marks in marked.values() for one in marks} - set(alignment.phones)
        errors = [
            boundary_errors(marks, alignment.segments(utt_id, frame_shift_ms), unknown)
            for utt_id, marks in marked.items()
        ]
        if errors:
            found[split] = joined(errors).as_json()
    return found


def _count(folders: RunFolders, split: str, unit: str) -> dict[str, Any]:
    """Counts of a split: speech, and frames at every speed. Utterances that could not be aligned or are excluded as
    doubtful are not trained on; held-out ones are decoded."""
    spoken = load_split(folders.manifests(split)).supervisions
    store = FrameStore.open(folders.features(split))
    alignment = Alignment.load(folders.alignment(split))
    losses = read_object(folders.losses(split), doubtful=list, unaligned=list, excluded=dict)
    return {
        "utterances": len(spoken),
        "speakers": len({one.speaker for one in spoken}),
        "hours": sum(one.duration for one in spoken) / SECONDS_PER_HOUR,
        f"{unit}s": sum(not is_tag(word) for one in spoken for word in (one.text or "").split()),
        "copies": len(store.utt_ids) // len(spoken),
        "frames": len(store),
        "unaligned": len(alignment.rejected),
        "doubtful": len(losses["doubtful"]),
        "excluded": len(losses["excluded"]),
    }


def report(options: SpeechOptions, out_dir: Path) -> None:
    """Stage 12: RESULTS.md and the self-contained report.html."""
    exp_dir = options.exp_dir
    results = read_json(exp_dir / "score" / RESULTS_FILE)
    write_results_md(results, out_dir / "RESULTS.md")
    write_report(results, _extras(results, exp_dir), out_dir / "report.html")


def _extras(results: Mapping[str, Any], exp_dir: Path) -> dict[str, Any]:
    """What the report shows besides results.json: audio of the worst and the doubtful utterances, one alignment."""
    folders = RunFolders(exp_dir)
    manifests = {split: load_split(folders.manifests(split)) for split in SPLITS}
    audio = {(split, one.id): one.sources[0].source for split in SPLITS for one in manifests[split].recordings}
    speakers = {(split, one.id): one.speaker for split in SPLITS for one in manifests[split].supervisions}
    worst = [{**row, "audio": audio["test", row["utt_id"]]} for row in results["worst_utterances"]]
    doubtful = [
        {**row, "audio": audio[row["split"], row["utt_id"]], "speaker": speakers[row["split"], row["utt_id"]]}
        for row in results["doubtful"]
    ]
    return {"worst_utterances": worst, "doubtful": doubtful, "alignment_plot": _alignment_plot(folders)}


def _alignment_plot(folders: RunFolders) -> dict[str, Any]:
    """The test utterance of middle length: frames, phones and senones."""
    store = FrameStore.open(folders.features("test"))
    tree, _, _ = load_hmm(folders.tree)
    alignment = Alignment.load(folders.alignment("test"))
    by_length = sorted(alignment.utt_ids, key=lambda utt_id: len(store.utt(utt_id)))
    utt_id = by_length[len(by_length) // 2]
    shift = store.frame_shift_ms / MS_PER_SEC
    segments = alignment.segments(utt_id, store.frame_shift_ms)
    return {
        "utt_id": utt_id,
        "feats": store.utt(utt_id),
        "phones": [(one.phone, round(one.start_sec / shift), round(one.end_sec / shift)) for one in segments],
        "pdf_ids": alignment.pdf_ids(tree)[alignment.span(utt_id)],
        "frame_shift_ms": store.frame_shift_ms,
    }
