"""Decoding of other speech with a finished run: the ordered steps, into a folder that has the form of a run.

Nothing of the run is made again or changed. The steps have stamps, so that what is finished is not made again, and what
was killed is resumed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from asrkd.errors import InputError, name_some
from asrkd.files import atomic_file, file_fingerprint, read_object, require_utf8, write_json
from asrkd.lang.lexicon import CMUDICT, cmudict_version
from asrkd.lang.text_rules import TextRules
from asrkd.nnet.devices import require_device, resolve_device
from asrkd.recipe import features
from asrkd.recipe.command_line import REPORT_HTML, RESULTS_FILE, RESULTS_MD
from asrkd.recipe.evaluate import DecodeTask, Run, tuned, tuned_content
from asrkd.recipe.finished_run import FinishedRun
from asrkd.recipe.folders import LEXICON_FILE, RunFolders
from asrkd.recipe.new_data_decoding import CTM_FILE, TRN_FILE, decode_system, lexicon_file, make_graph
from asrkd.recipe.new_data_options import NewDataOptions
from asrkd.recipe.new_data_results import REFERENCE_FILE, report, score
from asrkd.recipe.new_data_source import SPLIT, NewSpeech, make_manifests
from asrkd.recipe.options import SpeechOptions
from asrkd.report import print_table
from asrkd.workflow.child_process import call_in_subprocess
from asrkd.workflow.stages import StageRange, run_steps
from asrkd.workflow.steps import Step

SOURCE_FILE = "decode.json"
"""What an output folder is made of."""
MADE = ("manifests", "features", "graph", "decode", "score", "report", "segments", "log", ".locks")
"""Folders of an output folder."""


def decode_new_data(options: NewDataOptions, command: str) -> None:
    """Decode the speech, score it where it has transcripts, and publish the results in `--out`."""
    run = FinishedRun.open(options.run)
    systems = run.choose_systems(options.systems)
    speech = NewSpeech.read(options)
    out = _out_folder(options, run)
    device = call_in_subprocess(partial(_device, options.device))  # CUDA that has started here would not work in steps
    steps = build_steps(run, systems, speech, options, device, command)
    out.mkdir(parents=True, exist_ok=True)
    run_steps(steps, out, StageRange(), partial(write_json, out / SOURCE_FILE, _source(options, run)))
    publish(out, systems, speech.has_texts)


def build_steps(
    run: FinishedRun, systems: Sequence[Run], speech: NewSpeech, options: NewDataOptions, device: str, command: str
) -> list[Step]:
    """The steps of an output folder, by the numbers of the recipes' stages."""
    out = options.out.absolute()
    # A GPU is used by one process. Jobs, limits and devices of the run are those of the machine that it ran on.
    num_jobs = options.num_jobs if device == "cpu" else 1
    of_run = replace(run.options, num_jobs=num_jobs, executor="processes", scheduler=None)
    here = replace(of_run, exp_dir=out)
    steps = [*_speech_steps(speech, run, here, options), *_graph_steps(run, of_run, options)]
    with_lm = ("graph",) if options.lm is not None else ()
    search = tuned(run.exp_dir / "decode" / "tuning", of_run)
    lexicon = out / "graph" / LEXICON_FILE if options.lm is not None else RunFolders(run.exp_dir).decode_lexicon
    for system in systems:
        task = DecodeTask(
            *(system, SPLIT, search, of_run, search.test_lattices or of_run.lang.rescore_arpa is not None),
            data_dir=out,
            graph_dir=out if options.lm is not None else None,
            device=device,
        )
        decode = partial(decode_system, task, lexicon, run.scoring)
        read = run.stamps(("tree", *(() if with_lm else ("graph",)), *system.models))
        decides = {"decode": search, "realign": of_run.realign, "run": read, "scoring": run.scoring.rules}
        decides |= {"posteriors.mean": of_run.posteriors.mean} if len(system.models) > 1 else {}
        steps.append(Step(10, system.step, decode, decides, (f"features/{SPLIT}", *with_lm), resumable=True))
    if speech.has_texts:
        steps += _result_steps(run, systems, out, with_lm, command)
    return steps


def _speech_steps(speech: NewSpeech, run: FinishedRun, here: SpeechOptions, options: NewDataOptions) -> list[Step]:
    """Stages 1 and 2."""
    segments_dir = here.exp_dir / "segments"
    decides = {
        **speech.stamp(),
        "max_bad": options.max_bad,
        "max_duration": options.max_duration or here.max_duration,
        "features.sampling_rate": here.features.sampling_rate,
        "texts": TextRules.of(here.lang).options,
    }
    manifests, feats = f"manifests/{SPLIT}", f"features/{SPLIT}"
    heard = RunFolders(run.exp_dir).manifests("train")
    make = partial(make_manifests, speech, here, options, heard, segments_dir)
    return [
        Step(1, manifests, make, decides),
        Step(
            2,
            feats,
            partial(features.make_features, SPLIT, here, run_dir=run.exp_dir),
            {
                "features": features.split_features(SPLIT, here.features),
                **({"run": run.stamps(prior)} if (prior := features.prior_steps(here.features)) else {}),
            },
            (manifests,),
            resumable=True,
        ),
    ]


def _graph_steps(run: FinishedRun, of_run: SpeechOptions, options: NewDataOptions) -> list[Step]:
    """Stage 9, with another language model alone."""
    if options.lm is None:
        return []
    decides: dict[str, Any] = {
        "lm": file_fingerprint(options.lm),
        "lexicon": _dictionary_stamp(lexicon_file(of_run, options)),
        "max_unpronounced": options.max_unpronounced,
        "graph": of_run.graph,
        "run": run.stamps(("tree", "lang/lm")),
    }
    return [Step(9, "graph", partial(make_graph, of_run, options), decides)]


def _dictionary_stamp(path: Path | str) -> str:
    return cmudict_version() if path == CMUDICT else file_fingerprint(path)


def _result_steps(
    run: FinishedRun, systems: Sequence[Run], out: Path, with_lm: tuple[str, ...], command: str
) -> list[Step]:
    """Stages 11 and 12."""
    graph_dir = out if with_lm else run.exp_dir
    inputs = (f"manifests/{SPLIT}", f"features/{SPLIT}", *with_lm, *(system.step for system in systems))
    decides = {
        "scoring": run.scoring.rules,
        "command": command,
        "run": run.stamps(("score", *(() if with_lm else ("graph",)))),
        "scales": tuned_content(run.exp_dir / "decode" / "tuning"),
        "systems": [system.name for system in systems],
    }
    return [
        Step(11, "score", partial(score, run, systems, graph_dir, command, out), decides, inputs),
        Step(12, "report", partial(report, out), None, ("score",)),
    ]


def publish(out: Path, systems: Sequence[Run], has_texts: bool) -> None:
    """Copy what a person reads into `out`, and print the results and what the files are."""
    for system in systems:
        for name, suffix in ((TRN_FILE, "trn"), (CTM_FILE, "ctm")):
            _copy(out / system.step / name, out / f"{system.name}.{suffix}")
    names = name_some([system.name for system in systems])
    print(f"hypotheses: {out}/SYSTEM.trn, and with the times of words {out}/SYSTEM.ctm ({names})")
    if not has_texts:
        print("no transcripts: hypotheses alone, and no WER")
        return
    _copy(out / "score" / REFERENCE_FILE, out / REFERENCE_FILE)
    _copy(out / "score" / RESULTS_FILE, out / RESULTS_FILE)
    _copy(out / "report" / RESULTS_MD, out / RESULTS_MD)
    print(print_table(read_object(out / RESULTS_FILE, systems=dict)))
    print(f"results: {out / RESULTS_FILE}, {out / RESULTS_MD}, {out / REFERENCE_FILE}")
    print(f"report:  {out / 'report' / REPORT_HTML}")


def _copy(source: Path, target: Path) -> None:
    with atomic_file(target) as tmp_path:
        shutil.copyfile(source, tmp_path)


def _device(name: str) -> str:
    require_device(name)
    return resolve_device(name).type


def _source(options: NewDataOptions, run: FinishedRun) -> dict[str, Any]:
    """What an output folder is made of; other systems of the run may be added to it."""
    given = {name: getattr(options, name) for name in ("recordings", "supervisions", "cuts", "kaldi_dir", "lm")}
    paths = {name: None if path is None else str(path.absolute()) for name, path in given.items()}
    return {"run": str(run.exp_dir), **paths}


def _out_folder(options: NewDataOptions, run: FinishedRun) -> Path:
    """The output folder, empty or to be continued.

    InputError if it is in the run, or has something that this command did not make, or results of other speech that
    `--overwrite` does not allow to replace.
    """
    out = options.out.absolute()
    require_utf8(str(out))
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {options.out}: expected a folder, found a file")
    if out.resolve() == run.exp_dir.resolve() or run.exp_dir.resolve() in out.resolve().parents:
        raise InputError(
            f"--out {options.out}: expected a folder outside the run, which is not changed; found one in it"
        )
    if not out.exists() or not any(out.iterdir()):
        return out
    if not (out / SOURCE_FILE).is_file():
        raise InputError(f"--out {options.out}: expected a new folder or one of `asrkd decode`, found another one")
    before, now = read_object(out / SOURCE_FILE), _source(options, run)
    differing = [name for name in now if before.get(name) != now[name]]
    if differing and not options.overwrite and (out / "manifests" / SPLIT).is_dir():
        what = {"run": "run", "lm": "language model"}.get(differing[0], "speech")
        given = ", ".join(f"{name} {value}" for name, value in before.items() if value is not None)
        raise InputError(
            f"--out {options.out}: it has results of another {what} ({given}): give another --out, or --overwrite"
        )
    if options.overwrite:
        for name in MADE:
            shutil.rmtree(out / name, ignore_errors=True)
        for path in (*out.glob("*.trn"), *out.glob("*.ctm"), out / RESULTS_FILE, out / RESULTS_MD):
            path.unlink(missing_ok=True)
    return out
