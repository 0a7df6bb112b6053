"""How well students fit what they have learned from, beside what they learn of it: the paper's Table 5 on speech.

Hinton, Vinyals and Dean (2015), section 6.1: a network on 3% of the training utterances, on hard labels and on soft
targets, and one on all of them.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from asrkd.features.store import FrameStore
from asrkd.files import read_object, write_json
from asrkd.nnet.devices import resolve_device
from asrkd.nnet.evaluate import CHUNK
from asrkd.nnet.models import load_model
from asrkd.recipe.networks import MODEL_FILE, LabelledFrames
from asrkd.recipe.options import SpeechOptions
from asrkd.recipe.students import BASELINE, DISTILLED, SUBSET_HARD, SUBSET_SOFT, Student, students
from asrkd.recipe.subset import subset_utterances
from asrkd.scoring.frames import frame_metrics

FIT_FILE = "fit.json"
# Systems of the table, in its order.
SYSTEMS = (BASELINE, SUBSET_HARD, SUBSET_SOFT, DISTILLED)


def measured_students(options: SpeechOptions) -> list[Student]:
    """The students of the table, of every seed; none without a subset."""
    if options.students.subset is None:
        return []
    return [one for name in SYSTEMS for one in students(options) if one.system == name and not one.is_sweep]


def fit_step(student: Student) -> str:
    """The step that measures a student."""
    return f"fit/{student.name}"


def measure_fit(student: Student, options: SpeechOptions, out_dir: Path) -> None:
    """Stage 8: frame accuracy and cross-entropy of a student on the utterances that it has learned from."""
    frames = LabelledFrames.open_to_read("train", options)
    utt_ids = _utterances(student, frames.store, options)
    device = resolve_device(options.device)
    model = load_model(options.exp_dir / student.step / MODEL_FILE).to(device)

    @torch.no_grad()
    def log_probs(utt_id: str) -> Tensor:
        chunks = frames.inputs.read_chunks(utt_id, CHUNK)
        return torch.cat([F.log_softmax(model(chunk.to(device)), dim=1).cpu() for chunk in chunks])

    labels = {utt_id: frames.labels_of(utt_id) for utt_id in utt_ids}
    found = frame_metrics(((utt_id, log_probs(utt_id)) for utt_id in utt_ids), labels)
    write_json(
        out_dir / FIT_FILE,
        {
            "utterances": len(utt_ids),
            "frames": int(found.accuracy.denominator.sum()),
            "frame_accuracy": found.accuracy.value,
            "cross_entropy": found.cross_entropy.value,
        },
    )


def subset_results(options: SpeechOptions) -> dict[str, Any] | None:
    """The `subset` object of results.json; None without a subset. Figures are means over seeds."""
    if options.students.subset is None:
        return None
    of_system: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for student in measured_students(options):
        of_system[student.system].append(read_object(options.exp_dir / fit_step(student) / FIT_FILE, frames=int))
    rows = [
        {
            "system": name,
            "speech": "subset" if name in (SUBSET_HARD, SUBSET_SOFT) else "all",
            "targets": "hard" if name in (BASELINE, SUBSET_HARD) else "soft",
            **{key: fits[0][key] for key in ("utterances", "frames")},
            **{
                f"train_{key}": sum(one[key] for one in fits) / len(fits) for key in ("frame_accuracy", "cross_entropy")
            },
        }
        for name, fits in of_system.items()
    ]
    return {"fraction": options.students.subset, "seed": options.students.subset_seed, "rows": rows}


def _utterances(student: Student, store: FrameStore, options: SpeechOptions) -> list[str]:
    chosen = options.students
    if student.speech != "subset" or chosen.subset is None:
        return list(store.utt_ids)
    return subset_utterances(store.utt_ids, chosen.subset, chosen.subset_seed)
