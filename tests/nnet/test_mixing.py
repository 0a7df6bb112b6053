"""Trainings of which only some examples have labels: what an epoch has, in memory, in shards and after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchrun_training import NUM_CLASSES, frame_store

from asrkd.distil.loss import DenseTargets, Distillation, DistilOptions
from asrkd.errors import InputError
from asrkd.features.joined import JoinedFrames
from asrkd.features.splicing import SplicedFrames
from asrkd.features.store import FrameStore
from asrkd.nnet import ArrayInputs, DevSet, HardTargets, TrainOptions, train, trainer
from asrkd.nnet.dnn import AcousticDnn
from asrkd.nnet.mixing import ExtraExamples, Mixture
from asrkd.nnet.model_options import ModelOptions
from asrkd.nnet.sharded_data import ShardedData
from asrkd.nnet.training_data import TrainingData
from asrkd.workflow.distributed import SINGLE_PROCESS

CPU = torch.device("cpu")
OPTIONS = TrainOptions(epochs=3, batch_size=32, learning_rate=0.01, precision="float32", show_progress=False)
SHAPE = ModelOptions(hidden_dim=16, num_layers=2, dropout=0.1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[FrameStore, FrameStore]:
    """Labelled frames, and others by the same ids."""
    folder = tmp_path_factory.mktemp("mixing")
    whole = frame_store(folder / "store")
    return whole.subset(whole.utt_ids[:8]), whole


def labels_of(stores: tuple[FrameStore, FrameStore]) -> torch.Tensor:
    known = stores[0].read()
    labels = (known.sum(dim=1) > 0).long() + 2 * (known[:, 0] > 0).long()
    return torch.cat([labels, torch.full((len(stores[1]),), -1)])


def joined(stores: tuple[FrameStore, FrameStore], utt_ids: tuple[str, ...] | None = None) -> SplicedFrames:
    return SplicedFrames(JoinedFrames(stores[0], (("transfer", stores[1]),)), 2, 1, utt_ids=utt_ids)


def test_frames_of_joined_stores_are_those_of_each(stores: tuple[FrameStore, FrameStore]) -> None:
    both, first, second = joined(stores), *(SplicedFrames(one, 2, 1) for one in stores)
    assert len(both) == len(first) + len(second) and both.store.utt_ids[8] == "transfer:u0"
    everything = torch.cat([one.batch(torch.arange(len(one))) for one in (first, second)])
    assert torch.equal(both.batch(torch.arange(len(both))), everything)
    ids = torch.arange(3, len(both), 7)
    assert torch.equal(
        joined(stores, ()).subset(ids, CPU, torch.float32).batch(torch.arange(len(ids))), everything[ids]
    )
    assert both.store.span("transfer:u0") == (len(first), len(first) + 10)
    with pytest.raises(InputError, match="u99: expected in frame store"):
        both.store.span("u99")


def test_stores_of_other_features_are_not_joined(stores: tuple[FrameStore, FrameStore]) -> None:
    narrow = replace(stores[1].subset(stores[1].utt_ids), feats=stores[1].feats[:, :3])
    with pytest.raises(InputError, match="frames of transfer: expected 6 features, found 3"):
        JoinedFrames(stores[0], (("transfer", narrow),))


@pytest.mark.parametrize(("share", "number"), [(0.5, 30), (0.25, 10), (0.8, 120)])
def test_an_epoch_has_all_training_examples_and_the_share_of_others(share: float, number: int) -> None:
    mixture = Mixture.of(torch.arange(100).flip(0), ExtraExamples(30, share))
    epochs = [mixture.epoch(epoch) for epoch in range(7)]
    for epoch in epochs:
        assert len(epoch) == len(mixture) == 30 + number
        assert sorted(epoch[epoch < 30].tolist()) == list(range(30))
    dealt = torch.cat([epoch[epoch >= 30] for epoch in epochs])
    # Each of the seventy is used once before one is used again.
    for begin in range(0, len(dealt) - 69, 70):
        assert sorted(dealt[begin : begin + 70].tolist()) == list(range(30, 100))
    assert number == 10 or not torch.equal(dealt[:70], dealt[70:140])


def test_without_extra_examples_an_epoch_is_the_training_set() -> None:
    assert Mixture.of(torch.arange(5), ExtraExamples(5, 0.5)).epoch(3).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("first", "share"), [(0, 0.5), (3, 0.0), (3, 1.0), (3, float("nan"))])
def test_a_share_that_is_none_is_refused(first: int, share: float) -> None:
    with pytest.raises(InputError, match="extra examples: expected a share above 0"):
        ExtraExamples(first, share)


def learn(stores: tuple[FrameStore, FrameStore], out_dir: Path, share: float = 0.5, **changes) -> AcousticDnn:
    inputs = joined(stores, () if changes.get("shard_frames") else None)
    labels = labels_of(stores)
    model = AcousticDnn(inputs.dim, NUM_CLASSES, SHAPE, seed=1)
    generator = torch.Generator().manual_seed(4)
    targets = DenseTargets(torch.randn(len(inputs), NUM_CLASSES, generator=generator).softmax(dim=1), 2.0)
    objective = Distillation(labels, targets, DistilOptions(alpha=0.7), labelled_share=1 - share)
    dev = DevSet(SplicedFrames(stores[0], 2, 1), labels[: len(stores[0])])
    options = replace(OPTIONS, **changes)
    train(model, inputs, objective, options, out_dir, dev=dev, extra=ExtraExamples(len(stores[0]), share))
    return model


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("shard_frames", [None, 100])
def test_a_killed_training_resumes_to_the_bit(
    shard_frames: int | None,
    stores: tuple[FrameStore, FrameStore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = learn(stores, tmp_path / "whole", shard_frames=shard_frames)
    original = trainer._train_and_evaluate

    def interrupted(run, epoch, *rest):
        if epoch == 2:
            raise KeyboardInterrupt
        return original(run, epoch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_train_and_evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            learn(stores, tmp_path / "torn", shard_frames=shard_frames)
    assert same(learn(stores, tmp_path / "torn", shard_frames=shard_frames), whole)
    assert not same(learn(stores, tmp_path / "other", 0.3, shard_frames=shard_frames), whole)


def test_one_shard_is_the_whole(stores: tuple[FrameStore, FrameStore], tmp_path: Path) -> None:
    whole = learn(stores, tmp_path / "whole")
    assert same(learn(stores, tmp_path / "one", shard_frames=sum(map(len, stores))), whole)


def test_every_shard_has_training_examples_and_their_share_of_others(stores: tuple[FrameStore, FrameStore]) -> None:
    inputs, labels = joined(stores, ()), labels_of(stores)
    inputs_in_memory = joined(stores)
    objective = HardTargets(labels)
    data = TrainingData(inputs, objective, torch.arange(len(inputs)), extra=ExtraExamples(len(stores[0]), 0.5))
    shards = ShardedData.create(data, replace(OPTIONS, shard_frames=128), SINGLE_PROCESS, CPU, "float32")
    assert len(shards.sizes) > 2
    seen = 0
    for size, shard in zip(shards.sizes, shards.iterate(range(len(shards.sizes))), strict=True):
        ids = shard.epoch_ids(1)
        known = shard.objective.labels[ids] >= 0
        assert len(ids) == len(shard) == size and int(known.sum()) * 2 == size
        seen += int(known.sum())
    assert seen == len(stores[0])
    assert inputs_in_memory.in_memory is None


@pytest.mark.parametrize(("labels", "first"), [([0, -1, 1], None), ([0, -1, 1], 2), ([-1, -1, -1], 1)])
def test_only_extra_examples_may_lack_labels(labels: list[int], first: int | None) -> None:
    objective = HardTargets(torch.tensor(labels))
    extra = None if first is None else ExtraExamples(first, 0.5)
    data = TrainingData.create(ArrayInputs(torch.zeros(3, 4)), objective, None, extra=extra)
    with pytest.raises(InputError, match="labels: expected 0 to 6, found -1 to"):
        data.check(AcousticDnn(4, NUM_CLASSES, SHAPE, seed=0), OPTIONS)
    replace(data, extra=ExtraExamples(1, 0.5), objective=HardTargets(torch.tensor([0, *labels[1:]]))).check(
        AcousticDnn(4, NUM_CLASSES, SHAPE, seed=0), OPTIONS
    )
