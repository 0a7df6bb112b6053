"""results.json and RESULTS.md of new speech, in the form of a run's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from asrkd.data.manifests import load_split
from asrkd.decode import Hypotheses
from asrkd.features.store import FrameStore
from asrkd.files import read_json, write_json
from asrkd.lang.scripts import is_unspaced
from asrkd.recipe.command_line import REPORT_HTML, RESULTS_FILE, RESULTS_MD
from asrkd.recipe.evaluate import Run, open_graph, references, source_of_gain, tuning_results
from asrkd.recipe.finished_run import FinishedRun
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.losses import rejected_before
from asrkd.recipe.new_data_decoding import vocabulary
from asrkd.recipe.new_data_source import SPLIT
from asrkd.recipe.results import NUM_WORST, top_confusions
from asrkd.report import write_report, write_results_md
from asrkd.scoring.provenance import RunProvenance
from asrkd.scoring.results import SystemMetrics, assemble_results, comparisons, gaps_recovered, worst_rows
from asrkd.scoring.sclite_files import write_trn
from asrkd.scoring.words import WordErrors
from asrkd.workflow import provenance

REFERENCE_FILE = "references.trn"
SECONDS_PER_HOUR = 3600.0
NUM_OOV_WORDS = 50
# What the table of systems shows of a trained system, from the run's results.json.
OF_SYSTEM = ("parameters", "macs_per_frame", "description", "role", "finished", "device")


def score(run: FinishedRun, systems: Sequence[Run], graph_dir: Path, command: str, out: Path, out_dir: Path) -> None:
    """Stage 11: results.json of the new speech, and its references. `graph_dir` has the graph that was searched."""
    scoring = run.scoring
    words = frozenset(scoring.fold(sorted(vocabulary(open_graph(graph_dir)))))
    refs = references(out, SPLIT, scoring)
    hypotheses = {one.name: Hypotheses.load(out / one.step) for one in systems}
    errors = {name: scoring.errors(refs, one.words) for name, one in hypotheses.items()}
    metrics = {name: [{"wer": one.metric}] for name, one in errors.items()}
    # As in a run: the later system minus the earlier one.
    pairs = [(later, earlier) for earlier, later in combinations(errors, 2)]
    entries = {
        one.name: _system(run, one, errors[one.name], hypotheses[one.name].rtf)
        | _characters(run, refs, hypotheses[one.name])
        for one in systems
    }
    results = assemble_results(
        RunProvenance(
            recipe=f"{run.results['recipe']} on other speech",
            command=command,
            git_sha=provenance.git_sha(),
            config_sha=run.results["config_sha"],
            seed=run.results["seed"],
            device=run.results["device"],
        ),
        systems=entries,
        comparisons=comparisons(metrics, pairs),
        gap_recovered=_gap(run, metrics),
        decoded_run={"exp_dir": run.exp_dir, "git_sha": run.results["git_sha"], "graph": graph_dir},
        variant=run.options.lang.units,
        unit=scoring.unit,
        unspaced=scoring.unit == "word" and is_unspaced(word for ref in refs.values() for word in ref),
        confusions={name: top_confusions(one) for name, one in errors.items()},
        worst_utterances=_worst(errors, refs, words),
        **_outside(refs, words),
        **_background(run, refs, out),
    )
    write_json(out_dir / RESULTS_FILE, results)
    write_trn(refs, out_dir / REFERENCE_FILE)


def _gap(run: FinishedRun, metrics: Mapping[str, Sequence[SystemMetrics]]) -> dict[str, Any]:
    """The share of the teacher's gain that the student has here, where all three are decoded."""
    teacher = source_of_gain(run.options) or ""
    whole = metrics.keys() >= {"baseline", teacher, "distilled"}
    return gaps_recovered(metrics, ensemble=teacher) if whole else {}


def _system(run: FinishedRun, system: Run, errors: WordErrors, rtf: float) -> dict[str, Any]:
    """An entry of `systems`: what the run states of it, and the errors on the new speech."""
    trained = run.results["systems"].get(system.system, {})
    return {name: trained[name] for name in OF_SYSTEM if name in trained} | {"wer": errors.as_json(), "rtf": rtf}


def _characters(run: FinishedRun, refs: Mapping[str, Sequence[str]], hypotheses: Hypotheses) -> dict[str, Any]:
    counted = run.scoring.character_errors(refs, hypotheses.words)
    return {} if counted is None else {"cer": counted.as_json()}


def _outside(refs: Mapping[str, Sequence[str]], words: frozenset[str]) -> dict[str, Any]:
    """Words of the references that no system can recognise, the most frequent first."""
    outside = Counter(word for ref in refs.values() for word in ref if word not in words)
    ranked = sorted(outside.items(), key=lambda item: (-item[1], item[0]))
    rate = outside.total() / max(1, sum(map(len, refs.values())))
    return {"oov_rate": {SPLIT: rate}, "oov_words": ranked[:NUM_OOV_WORDS], "oov_types": len(outside)}


def _worst(
    errors: Mapping[str, WordErrors], refs: Mapping[str, Sequence[str]], words: frozenset[str]
) -> list[dict[str, Any]]:
    """The last system's worst utterances, and the same utterances by the others."""
    *_, main = errors
    rows = worst_rows(main, errors[main], NUM_WORST)
    worst = {row["utt_id"] for row in rows}
    for name in [name for name in errors if name != main]:
        rows += [row for row in worst_rows(name, errors[name], len(refs)) if row["utt_id"] in worst]
    return [{**row, "oov": sorted(set(refs[row["utt_id"]]) - words)} for row in rows]


def _background(run: FinishedRun, refs: Mapping[str, Sequence[str]], out: Path) -> dict[str, Any]:
    """What is shown with the scores: the scales that the run has tuned, counts, versions."""
    folders = RunFolders(out)
    split, store = load_split(folders.manifests(SPLIT)), FrameStore.open(folders.features(SPLIT))
    tuning = tuning_results(run.exp_dir / "decode" / "tuning")["tuning"]
    return {
        "corpus": {
            SPLIT: {
                "utterances": len(store.utt_ids),
                "speakers": len(set(store.speakers)),
                "hours": sum(one.duration for one in split.recordings) / SECONDS_PER_HOUR,
                "words": sum(map(len, refs.values())),
                "frames": len(store),
            }
        },
        "tuning": [row for row in tuning if row["chosen"]],
        "excluded": split.excluded,
        "rejected": [(row.utt_id, row.reason) for row in rejected_before(folders, SPLIT)],
        "environment": provenance.versions(),
    }


def report(out: Path, out_dir: Path) -> None:
    """Stage 12: RESULTS.md and the self-contained report.html of the new speech."""
    results = read_json(out / "score" / RESULTS_FILE)
    split = load_split(RunFolders(out).manifests(SPLIT))
    audio = {one.id: one.sources[0].source for one in split.recordings}
    worst = [{**row, "audio": audio[row["utt_id"]]} for row in results["worst_utterances"]]
    write_results_md(results, out_dir / RESULTS_MD)
    write_report(results, {"worst_utterances": worst}, out_dir / REPORT_HTML)
