"""What distillation gains: size, arithmetic and latency of the students, compared with the ensemble.

    .venv/bin/python local/bench/students.py --exp-dir exp/an4

Latency is the time of one utterance through the network, on one thread. Errors are those of the finished run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from bench import Table, finished_run, main, quickest
from torch import nn

from asrkd.distil.ensemble import AveragedEnsemble
from asrkd.files import read_json
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.stacked import StackedEnsemble
from asrkd.recipe.networks import MODEL_FILE, LabelledFrames
from asrkd.recipe.options import options_of_run

MS_PER_SEC = 1000.0
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Options:
    """The run with the networks."""

    exp_dir: Path | None = None
    """folder of a finished run"""


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    exp = finished_run(options.exp_dir)
    chosen = options_of_run(exp)
    systems = read_json(exp / "results.json")["systems"]
    teachers = [exp / "teachers" / str(member) / MODEL_FILE for member in range(chosen.ensemble.size)]
    models: dict[str, nn.Module] = {"ensemble": AveragedEnsemble(StackedEnsemble.load(teachers))}
    for name in systems:
        if name.startswith("distilled"):
            models[name] = AcousticDnn.load(exp / "students" / name / MODEL_FILE)
    dev = LabelledFrames.open("dev", chosen)
    utt_id = dev.store.utt_ids[0]
    batch = dev.inputs.utt_batch(utt_id)
    torch.set_num_threads(1)

    @torch.no_grad()
    def run(model: nn.Module) -> None:
        model(batch)

    taken = quickest({name: lambda model=model: run(model) for name, model in models.items()}, repeats=20)
    seconds = len(batch) * dev.store.frame_shift_ms / MS_PER_SEC
    rows = []
    for name, system in ((name, systems[name]) for name in models):
        # of the only test set, or of the first of several
        scored = system["wer"] if "percent" in system["wer"] else next(iter(system["wer"].values()))
        rows.append(
            (
                name,
                f"{system['parameters'] / 1e6:.2f} M",
                f"{FLOAT_BYTES * system['parameters'] / 1e6:.1f} MB",
                f"{system['macs_per_frame'] / 1e6:.2f} M",
                f"{MS_PER_SEC * taken[name]:.1f}",
                f"{taken[name] / seconds:.4f}",
                f"{100 * system['frame_accuracy']:.2f}",
                f"{scored['percent']:.2f}",
            )
        )
    return Table(
        f"{exp}: one utterance of {seconds:.1f} s, float32, one thread",
        ("system", "parameters", "size", "MACs per frame", "ms", "RTF of the network", "frame accuracy %", "WER %"),
        rows,
        ("Errors are the finished run's, on its test set.",),
        taken,
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
