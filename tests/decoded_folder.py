"""A folder of results as scoring leaves it, without audio and networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from lhotse import RecordingSet, SupervisionSegment, SupervisionSet

from asrkd.data.manifests import save_split
from asrkd.data.splits import CorpusSplit
from asrkd.features.store import FrameStore
from asrkd.files import write_json
from asrkd.recipe.folders import RunFolders
from asrkd.recipe.scoring import Scoring
from asrkd.workflow.steps import STAMP_FILE


def finish(folder: Path, options: object = None) -> None:
    """The stamp of a finished step."""
    record = {"stamp": "0" * 16, "content": None, "options": options, "inputs": {}, "seconds": 1.0}
    write_json(folder / STAMP_FILE, {**record, "finished": "2026-01-01T00:00:00+00:00", "code": {}})


def decoded_folder(
    folder: Path, refs: Mapping[str, str], hyps: Mapping[str, Mapping[str, str]], speakers: Mapping[str, str]
) -> Path:
    """Results of systems, name -> utt_id -> words, against references of speakers; the words are upper case."""
    folders = RunFolders(folder)
    supervisions = [SupervisionSegment(one, one, 0.0, 1.0, text=refs[one], speaker=speakers[one]) for one in refs]
    nothing = RecordingSet.from_recordings([])
    save_split(CorpusSplit(nothing, SupervisionSet.from_segments(supervisions)), folders.manifests("test"))
    utterances = [(one, speakers[one], refs[one], torch.zeros(10, 2)) for one in refs]
    FrameStore.write(folders.features("test"), utterances, {"frame_shift_ms": 10.0}, "x")
    for name, words in hyps.items():
        (folder / "decode" / name).mkdir(parents=True)
        write_json(folder / "decode" / name / "hypotheses.json", {"words": dict(words)})
        finish(folder / "decode" / name)
    (folder / "score").mkdir()
    write_json(folder / "score" / "results.json", {"systems": {name: {} for name in hyps}})
    finish(folder / "score", {"scoring": Scoring().rules})
    return folder
