"""torchrun: two real processes train as one does, and a training that lost a process goes on with another number."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
import torchrun_training

from asrkd.errors import InputError
from asrkd.files import load_tensors, read_json
from asrkd.nnet import HardTargets, trainer
from asrkd.nnet.checkpoint import CHECKPOINT_NAME
from asrkd.nnet.data_parallel import BatchShard
from asrkd.nnet.training_data import TrainingData
from asrkd.workflow.distributed import ProcessGroup

TESTS = Path(__file__).parents[1]
# Sums of float32 in another order.
TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}


def train_together(kind: str, out_dir: Path, *death: str) -> subprocess.CompletedProcess[str]:
    torchrun_training.frame_store(out_dir.parent / "store")  # here, or both would write it
    return torchrun_training.torchrun([str(TESTS / "torchrun_training.py"), kind, str(out_dir), *death])


def losses(out_dir: Path) -> torch.Tensor:
    """Training and development loss of each epoch."""
    history = read_json(out_dir / "history.json")
    return torch.tensor([[epoch["train_loss"], epoch["dev_loss"] or 0.0] for epoch in history])


def require_same(found: Path, expected: Path) -> None:
    torch.testing.assert_close(losses(found), losses(expected), rtol=1e-5, atol=1e-6)
    tensors, wanted = (load_tensors(out_dir / "model.safetensors")[0] for out_dir in (found, expected))
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, wanted[name], **TOLERANCE)


@pytest.mark.parametrize("kind", ["frames", "stack", "online", "transfer"])
def test_two_processes_train_the_model_that_one_does(kind: str, tmp_path: Path) -> None:
    torchrun_training.run(kind, tmp_path / "one")
    done = train_together(kind, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    require_same(tmp_path / "two", tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["history.json", "model.safetensors"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_gpus_train_the_model_that_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By NCCL; each holds the frames of its utterances."""
    monkeypatch.setenv(torchrun_training.DEVICE_VARIABLE, "cuda")
    torchrun_training.run("frames", tmp_path / "one")
    done = train_together("frames", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    require_same(tmp_path / "two", tmp_path / "one")


def test_with_dropout_the_loss_comes_as_far(tmp_path: Path) -> None:
    """Masks belong to the processes, so numbers differ, as they would with another seed."""
    torchrun_training.run("dropout", tmp_path / "one")
    assert train_together("dropout", tmp_path / "two").returncode == 0
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert not torch.equal(one, two)
    assert float(one[0, 0] - one[-1, 0]) > 0.3, "nothing was learnt that could be compared"
    torch.testing.assert_close(two[-1], one[-1], rtol=0.1, atol=0.0)


def test_a_lost_process_costs_the_epoch_it_was_in(tmp_path: Path) -> None:
    """Killed in the third epoch of nine steps; one process goes on from the second's end."""
    died = train_together("frames", tmp_path / "torn", "1:20")
    assert died.returncode != 0 and "exitcode  : -9" in died.stderr, died.stderr
    assert (tmp_path / "torn" / CHECKPOINT_NAME).is_file() and not (tmp_path / "torn" / "model.safetensors").exists()
    result = torchrun_training.run("frames", tmp_path / "torn")
    assert len(result.history) == 4
    torchrun_training.run("frames", tmp_path / "whole")
    require_same(tmp_path / "torn", tmp_path / "whole")


def test_a_training_of_one_goes_on_with_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Exception):
        pass

    def interrupted(*arguments: object) -> None:
        raise Interrupted

    original = trainer._train_and_evaluate
    with monkeypatch.context() as patch:
        patch.setattr(
            trainer,
            "_train_and_evaluate",
            lambda state, epoch, *rest: interrupted() if epoch == 2 else original(state, epoch, *rest),
        )
        with pytest.raises(Interrupted):
            torchrun_training.run("frames", tmp_path / "torn")
    done = train_together("frames", tmp_path / "torn")
    assert done.returncode == 0, done.stderr
    torchrun_training.run("frames", tmp_path / "whole")
    require_same(tmp_path / "torn", tmp_path / "whole")


class OneOfTwo:
    """Stands for one process of two, without the other."""

    size, rank, is_main = 2, 1, False

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


def test_shards_of_all_processes_make_up_the_batch(tmp_path: Path) -> None:
    store = torchrun_training.frame_store(tmp_path / "store")
    ids = torch.randperm(len(store))[:64]
    loaded = []
    for rank in range(3):
        inputs = torchrun_training.SplicedFrames(store, 2, 1, utt_ids=store.utt_ids[rank::3])
        shard = BatchShard(ProcessGroup(rank, 3), inputs.in_memory)
        (batch,) = shard.split_epoch(ids, len(ids), ids.device)
        part = shard.load(inputs, batch, torch.Generator())
        assert torch.equal(part.inputs, torchrun_training.SplicedFrames(store, 2, 1).batch(part.ids))
        assert torch.equal(inputs.sample(ids), torchrun_training.SplicedFrames(store, 2, 1).batch(ids))
        loaded.append(part.ids)
    assert sorted(torch.cat(loaded).tolist()) == sorted(ids.tolist())


def test_frames_that_no_process_loads_are_an_error(tmp_path: Path) -> None:
    store = torchrun_training.frame_store(tmp_path / "store")
    inputs = torchrun_training.SplicedFrames(store, 2, 1, utt_ids=store.utt_ids[:3])
    data = TrainingData(inputs, HardTargets(torch.zeros(len(store)).long()), torch.arange(len(store)))
    with pytest.raises(InputError, match=f"expected processes to load {len(store)} frames, found 36"):
        BatchShard.create(OneOfTwo(), data, 1, torch.device("cpu"))
    with pytest.raises(InputError, match="load all inputs of a stack"):
        BatchShard.create(OneOfTwo(), data, 3, torch.device("cpu"))
