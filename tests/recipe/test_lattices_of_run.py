"""Stage 7's lattice targets of single utterances, and which students learn from them."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_task import Task
from torch import Tensor

from asrkd.decode import DecodeOptions
from asrkd.decode.k2_search import K2Search
from asrkd.distil.compression import Compressed, StoreOptions, expand
from asrkd.distil.loss import Distillation, DistilOptions
from asrkd.distil.store import StoredTargets
from asrkd.recipe import networks
from asrkd.recipe.lattice_targets import LatticeTargets

OPTIONS = StoreOptions(top_k=20, temperatures=(1.0, 2.0))


class Inputs:
    """Logits as inputs, read in chunks."""

    def __init__(self, logits: dict[str, Tensor]) -> None:
        self.logits = logits

    def read_chunks(self, utt_id: str, chunk: int) -> Iterator[Tensor]:
        yield from self.logits[utt_id].split(5)


def targets_of(task: Task, weight: float, monkeypatch: pytest.MonkeyPatch) -> tuple[LatticeTargets, dict[str, Tensor]]:
    """The task of two utterances: speech, and one that is shorter than any word."""
    monkeypatch.setattr("asrkd.recipe.lattice_targets.DENSE_FRAMES", 7)
    logits = {"speech": task.speech(["TO", "ME", "TWO"]), "short": task.noise(2)}
    sizes = [len(one) for one in logits.values()]
    frames: Any = SimpleNamespace(utt_ids=tuple(logits), offsets=torch.tensor([0, sizes[0], sum(sizes)]))
    search = K2Search(task.graph, DecodeOptions(acoustic_scale=0.5, lattice_beam=6.0, allow_partial=False)).open()
    inputs, model = Inputs(logits), torch.nn.Identity()
    log_prior = torch.zeros(task.graph.num_pdfs)
    lattice = lambda utt_id, scores: search.intersect(search.k2_graph, scores)  # noqa: E731
    return LatticeTargets(frames, inputs, model, log_prior, lattice, weight, OPTIONS), logits  # type: ignore[arg-type]


def stored(rows: tuple[Any, ...]) -> Compressed:
    return Compressed(*map(torch.from_numpy, rows))


@pytest.mark.needs("k2")
def test_targets_are_weighed_between_lattice_and_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = {}
    for weight in (1.0, 0.25):
        targets, logits = targets_of(Task(), weight, monkeypatch)
        found = expand(stored(targets((0, len(logits["speech"])))), 0, 1.0)
        dense[weight] = torch.zeros(logits["speech"].shape).scatter(1, found.pdf_ids, found.probs)
    own = logits["speech"].softmax(dim=1)
    torch.testing.assert_close(dense[0.25], 0.25 * dense[1.0] + 0.75 * own, atol=2e-2, rtol=0.0)
    assert float((dense[1.0] - own).abs().max()) > 0.3, "the words say more than the frame"


@pytest.mark.needs("k2")
def test_students_learn_nothing_of_an_utterance_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    targets, logits = targets_of(Task(), 0.5, monkeypatch)
    num_good, num_frames = len(logits["speech"]), sum(map(len, logits.values()))
    parts = [stored(targets(span)) for span in ((0, num_good), (num_good, num_frames))]
    store = StoredTargets(Compressed(*(torch.cat(column) for column in zip(*parts, strict=True))), OPTIONS, "both")
    objective = Distillation(torch.zeros(num_frames, dtype=torch.long), store, DistilOptions(alpha=1.0))
    ids = networks._frames_with_targets(objective)
    assert ids is not None and ids.tolist() == list(range(num_good))
    assert torch.isfinite(objective(torch.randn(num_good, Task().graph.num_pdfs), ids))
    whole = Distillation(objective.labels, store.subset(ids, torch.device("cpu")), DistilOptions(alpha=1.0))
    assert networks._frames_with_targets(whole) is None
