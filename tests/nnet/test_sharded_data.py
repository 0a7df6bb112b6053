"""A training set that does not fit is learnt shard by shard: the same examples, from disk, and resumable."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchrun_training import NUM_CLASSES, frame_store

from asrkd.distil.compression import StoreOptions, compress
from asrkd.distil.loss import DenseTargets, Distillation, DistilOptions, LogitMatching
from asrkd.distil.store import StoredTargets
from asrkd.errors import InputError
from asrkd.features.splicing import SplicedFrames, Windows
from asrkd.features.store import FrameStore
from asrkd.nnet import ArrayInputs, DevSet, HardTargets, TrainOptions, TrainResult, train, train_stacked, trainer
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.sharded_data import Shard, ShardedData
from asrkd.nnet.stacked import StackedEnsemble
from asrkd.nnet.training_data import TrainingData
from asrkd.workflow.distributed import SINGLE_PROCESS, ProcessGroup

CPU = torch.device("cpu")
OPTIONS = TrainOptions(epochs=3, batch_size=32, learning_rate=0.01, precision="float32", show_progress=False)
SHAPE = ModelOptions(hidden_dim=16, num_layers=2, dropout=0.1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return frame_store(tmp_path_factory.mktemp("shards") / "store")


def labels_of(store: FrameStore) -> torch.Tensor:
    return (store.feats.sum(dim=1) > 0).long() + 2 * (store.feats[:, 0] > 0).long()


def learn(store: FrameStore, out_dir: Path, **changes) -> tuple[AcousticDnn, TrainResult]:
    in_memory = () if changes.get("shard_frames") else None
    inputs = SplicedFrames(store, 2, 1, utt_ids=in_memory)
    model = AcousticDnn(inputs.dim, NUM_CLASSES, SHAPE, seed=1)
    dev = DevSet(SplicedFrames(store, 2, 1), labels_of(store))
    objective, ids = HardTargets(labels_of(store)), torch.arange(0, len(store), 2)
    result = train(model, inputs, objective, replace(OPTIONS, **changes), out_dir, dev=dev, frame_ids=ids)
    return model, result


def torn(store: FrameStore, out_dir: Path, monkeypatch: pytest.MonkeyPatch, **changes) -> None:
    """A training that ends after its second epoch."""
    original = trainer._train_and_evaluate

    def interrupted(run, epoch, *rest):
        if epoch == 2:
            raise KeyboardInterrupt
        return original(run, epoch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_train_and_evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            learn(store, out_dir, **changes)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_one_shard_is_the_whole(store: FrameStore, tmp_path: Path) -> None:
    whole, _ = learn(store, tmp_path / "whole")
    one, _ = learn(store, tmp_path / "one", shard_frames=len(store))
    assert same(whole, one)


def test_shards_learn_as_well_and_go_on_from_a_checkpoint(
    store: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = learn(store, tmp_path / "whole")
    model, found = learn(store, tmp_path / "shards", shard_frames=100)
    assert found.history[-1]["dev_accuracy"] > whole.history[-1]["dev_accuracy"] - 0.05
    torn(store, tmp_path / "torn", monkeypatch, shard_frames=100)
    resumed, _ = learn(store, tmp_path / "torn", shard_frames=100)
    assert same(resumed, model)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shard_frames", [None, 100])
def test_a_gpu_learns_from_frames_in_its_own_memory_and_goes_on(
    store: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_frames: int | None
) -> None:
    changes = {"shard_frames": shard_frames, "device": "cuda", "precision": "bfloat16"}
    _, whole = learn(store, tmp_path / "whole", **changes)
    _, here = learn(store, tmp_path / "here")
    assert whole.history[-1]["dev_accuracy"] > here.history[-1]["dev_accuracy"] - 0.1
    torn(store, tmp_path / "torn", monkeypatch, **changes)
    _, resumed = learn(store, tmp_path / "torn", **changes)
    assert resumed.history[-1]["dev_loss"] == pytest.approx(whole.history[-1]["dev_loss"], rel=0.02)


def test_a_stacked_member_sees_what_it_would_see_alone(store: FrameStore, tmp_path: Path) -> None:
    options = replace(OPTIONS, shard_frames=150)
    inputs = SplicedFrames(store, 2, 1, utt_ids=())
    objective = HardTargets(labels_of(store))
    stack = StackedEnsemble([AcousticDnn(inputs.dim, NUM_CLASSES, SHAPE, seed) for seed in (1, 2)])
    train_stacked(stack, (1, 2), inputs, objective, options, tmp_path / "stack")
    alone = AcousticDnn(inputs.dim, NUM_CLASSES, SHAPE, seed=2)
    train(alone, inputs, objective, replace(options, seed=2), tmp_path / "alone")
    for found, expected in zip(stack.members()[1].parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_every_example_is_in_one_shard_and_keeps_its_target(store: FrameStore) -> None:
    inputs, objective = SplicedFrames(store, 2, 1), HardTargets(torch.arange(len(store)))
    ids = torch.arange(0, len(store), 3)
    data, options = TrainingData(inputs, objective, ids), replace(OPTIONS, shard_frames=64)
    shards = ShardedData.create(data, options, SINGLE_PROCESS, CPU, "float32")
    assert max(shards.sizes) < 64 + 48
    seen = []
    for shard in shards.iterate(range(len(shards.sizes))):
        labels = shard.objective.labels
        assert torch.equal(shard.inputs.batch(shard.ids), inputs.batch(labels))
        seen += labels.tolist()
    assert sorted(seen) == ids.tolist()


def test_the_next_shard_loads_while_one_is_learnt_from() -> None:
    started = [threading.Event() for _ in range(3)]
    threads = []

    def load(index: int) -> Shard:
        threads.append(threading.current_thread())
        started[index].set()
        return Shard(ArrayInputs(torch.zeros(1, 1)), HardTargets(torch.zeros(1, dtype=torch.long)), torch.zeros(1))

    shards = ShardedData((1, 1, 1), load, CPU, CPU).iterate([2, 0, 1])
    next(shards)
    assert started[0].wait(timeout=10)
    assert not started[1].is_set()
    assert len(list(shards)) == 2
    assert threading.current_thread() not in threads


def test_two_shards_are_in_memory_at_most(store: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards: list[weakref.ref[Windows]] = []
    original = SplicedFrames.subset

    def subset(*arguments: object) -> Windows:
        assert sum(shard() is not None for shard in shards) <= 1, "the shard that is trained on"
        windows = original(*arguments)
        shards.append(weakref.ref(windows))
        return windows

    frames = SplicedFrames(store, 2, 1, utt_ids=())
    objective = HardTargets(labels_of(store))
    model = AcousticDnn(frames.dim, NUM_CLASSES, SHAPE)
    monkeypatch.setattr(SplicedFrames, "subset", subset)
    options = replace(OPTIONS, shard_frames=100)
    monkeypatch.setattr("asrkd.nnet.trainer.training_fingerprint", lambda *_: "it reads a subset too")
    train(model, frames, objective, options, tmp_path)
    assert len(shards) > 3 * OPTIONS.epochs


def test_what_a_shard_cannot_be_is_refused(store: FrameStore) -> None:
    objective = HardTargets(labels_of(store))
    options = replace(OPTIONS, shard_frames=64)
    frames = SplicedFrames(store, 2, 1)
    ids = torch.arange(len(store))
    for inputs, ranks in ((ArrayInputs(store.feats), SINGLE_PROCESS), (frames, ProcessGroup(0, 2))):
        with pytest.raises(InputError, match="shard_frames: expected frames of a store, and one process"):
            ShardedData.create(TrainingData(inputs, objective, ids), options, ranks, CPU, "float32")
    with pytest.raises(InputError, match=r"shard_frames: expected at least two batches \(64\) or none, found 63"):
        replace(OPTIONS, shard_frames=63)


def test_soft_targets_keep_their_examples() -> None:
    logits = torch.randn(2, 30, 9, generator=torch.Generator().manual_seed(0))
    labels, ids = torch.arange(30) % 9, torch.tensor([7, 3, 29])
    options = StoreOptions(top_k=3, temperatures=(2.0,))
    stored = StoredTargets(compress(logits.mean(dim=0), options), options, "stored")
    dense = DenseTargets.from_logits(logits, 2.0)
    mixed = DistilOptions(alpha=0.5, temperature=2.0)
    student = torch.randn(3, 9)
    for objective in (
        Distillation(labels, stored, mixed),
        Distillation(labels, dense, mixed),
        Distillation(None, dense, replace(mixed, alpha=1.0)),
        LogitMatching(logits.mean(dim=0)),
        HardTargets(labels, label_smoothing=0.1),
    ):
        subset = objective.subset(ids, CPU)
        torch.testing.assert_close(subset(student, torch.arange(3)), objective(student, ids))
