"""Posteriors: teachers' forward pass, top-k and the store, part by part; what the store loses; reading it back.

.venv/bin/python local/bench/posteriors.py --exp-dir exp/an4
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from bench import Table, finished_run, main, quickest, verdict

from asrkd.distil.compression import combined_logits
from asrkd.distil.store import EnsemblePosteriors, PosteriorStore, write_store
from asrkd.distil.store_report import store_report
from asrkd.nnet.evaluate import iter_logits
from asrkd.recipe.networks import LabelledFrames, open_ensemble, teacher_folders
from asrkd.recipe.options import options_of_run
from asrkd.recipe.trained import trained_precision
from asrkd.workflow.child_process import run_in_subprocess
from asrkd.workflow.executor import Executor

WRITING_GOAL, BYTES_GOAL, KL_GOAL = 0.8, 96, 0.01
KL_TEMPERATURE = 2.0
READ_FRAMES = 1024  # of a training step


@dataclass(frozen=True)
class Options:
    """Whose posteriors."""

    exp_dir: Path | None = None
    """folder of a finished run"""
    utterances: int = 100
    """training utterances, from the first"""


def mean_kl(reference: torch.Tensor, other: torch.Tensor, temperature: float) -> float:
    """Nats per frame: KL(reference || other) of combined logits [N, S]."""
    log_p, log_q = (torch.log_softmax(z.double() / temperature, dim=1) for z in (reference, other))
    return float((log_p.exp() * (log_p - log_q)).sum(dim=1).mean())


def measure(options: Options) -> Table:
    """The table of this benchmark."""
    exp = finished_run(options.exp_dir)
    chosen = options_of_run(exp)
    folders = teacher_folders(chosen)
    ensemble, precision = open_ensemble(folders), trained_precision(folders)
    whole = LabelledFrames.open("train", chosen)
    store = whole.store.subset(whole.store.utt_ids[: options.utterances])
    inputs = type(whole.inputs)(store, chosen.context.left, chosen.context.right)
    frames = len(store)

    def forward(arithmetic: str) -> torch.Tensor:
        parts = [z.float() for _, z in iter_logits(ensemble, inputs, precision=arithmetic)]
        return combined_logits(torch.cat(parts, dim=1), chosen.posteriors)

    def only_forward() -> None:
        for _ in iter_logits(ensemble, inputs, precision=precision):
            pass

    with tempfile.TemporaryDirectory() as name:
        number = 0

        def write() -> None:
            nonlocal number
            number += 1
            folder = Path(name, str(number))
            task = EnsemblePosteriors(ensemble, inputs, chosen.posteriors, precision)
            run_in_subprocess(
                lambda: write_store(  # type: ignore[arg-type,return-value]
                    folder,
                    task.describe(store, "bench"),
                    task,
                    executor=Executor(chosen.num_jobs),
                    show_progress=False,
                )
            )

        taken = quickest({"forward": only_forward, "store": write}, repeats=3)
        posteriors = PosteriorStore.open(Path(name, "1"))
        order = torch.randperm(frames)[: 64 * READ_FRAMES].split(READ_FRAMES)

        def read() -> None:
            for ids in order:
                posteriors.targets(ids, KL_TEMPERATURE)

        reading = quickest({"read": read}, repeats=3)["read"] / sum(map(len, order))
        num_bytes = posteriors.bytes_per_frame
    rounding = mean_kl(forward("float32"), forward(precision), KL_TEMPERATURE)
    dev = LabelledFrames.open("dev", chosen)
    row = next(
        one for one in store_report(ensemble, dev.inputs, chosen.posteriors)
        if one["temperature"] == KL_TEMPERATURE and one["chosen"]
    )  # fmt: skip
    share = taken["forward"] / taken["store"]
    rows = [
        ("forward alone", f"{frames / taken['forward']:,.0f}"),
        (f"forward, top-k, store, {chosen.num_jobs} processes", f"{frames / taken['store']:,.0f}"),
        ("targets read at random, batches of 1024", f"{1 / reading:,.0f}"),
    ]
    return Table(
        f"{ensemble.num_members} teachers of {ensemble.num_parameters / ensemble.num_members / 1e6:.2f} M parameters, "
        f"{frames:,} frames, {ensemble.num_outputs} senones, top {chosen.posteriors.top_k}, {precision}",
        ("part", "frames/s"),
        rows,
        (
            f"Goal: written at {WRITING_GOAL:.0%} of the forward rate: {share:.0%}, {verdict(share, WRITING_GOAL)}.",
            f"Goal: {BYTES_GOAL} bytes a frame: {num_bytes}, {verdict(num_bytes, BYTES_GOAL, False)}.",
            f"Goal: KL to dense of {KL_GOAL} nats a frame at T={KL_TEMPERATURE:g} (development speakers): "
            f"{row['kl_lumped']:.2g} with the tail as one class, as the objective has it, "
            f"{verdict(row['kl_lumped'], KL_GOAL, False)}; {row['kl_to_dense']:.2g} with the tail spread evenly, "
            f"{verdict(row['kl_to_dense'], KL_GOAL, False)}; tail mass {row['tail']:.2g}.",
            f"{precision} against float32 teachers: KL {rounding:.2g} nats a frame at T={KL_TEMPERATURE:g}.",
        ),
        {**taken, "read_sec_a_frame": reading, "rounding_kl": rounding},
    )


if __name__ == "__main__":
    main(Options, measure, __doc__)
