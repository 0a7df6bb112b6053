"""torchrun: two real processes train as one does, and a training that lost a process goes on with another number."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import shared_training
import torch

from asrkd.errors import InputError
from asrkd.files import load_tensors, read_json
from asrkd.nnet.checkpoint import CHECKPOINT_NAME
from asrkd.nnet.data_parallel import Share
from asrkd.workflow.distributed import ProcessGroup

TESTS = Path(__file__).parents[1]
TIMEOUT_SEC = 120
# Sums of float32 in another order.
TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}


def torchrun(arguments: list[str], num_processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Processes on this machine that meet at a free port of the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={num_processes}"]
    command += ["--master_addr=127.0.0.1", f"--master_port={port}", *arguments]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SEC, check=False)


def train_together(kind: str, out_dir: Path, *death: str) -> subprocess.CompletedProcess[str]:
    shared_training.frame_store(out_dir.parent / "store")  # here, or both would write it
    return torchrun([str(TESTS / "shared_training.py"), kind, str(out_dir), *death])


def losses(out_dir: Path) -> torch.Tensor:
    """Training and development loss of each epoch."""
    history = read_json(out_dir / "history.json")
    return torch.tensor([[epoch["train_loss"], epoch["dev_loss"] or 0.0] for epoch in history])


def require_same(found: Path, expected: Path) -> None:
    torch.testing.assert_close(losses(found), losses(expected), rtol=1e-5, atol=1e-6)
    tensors, wanted = (load_tensors(out_dir / "model.safetensors")[0] for out_dir in (found, expected))
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, wanted[name], **TOLERANCE)


@pytest.mark.parametrize("kind", ["frames", "stack"])
def test_two_processes_train_the_model_that_one_does(kind: str, tmp_path: Path) -> None:
    shared_training.run(kind, tmp_path / "one")
    done = train_together(kind, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    require_same(tmp_path / "two", tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["history.json", "model.safetensors"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_gpus_train_the_model_that_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By NCCL; each holds the frames of its utterances."""
    monkeypatch.setenv(shared_training.DEVICE_VARIABLE, "cuda")
    shared_training.run("frames", tmp_path / "one")
    done = train_together("frames", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    require_same(tmp_path / "two", tmp_path / "one")


def test_with_dropout_the_loss_comes_as_far(tmp_path: Path) -> None:
    """Masks belong to the processes, so numbers differ, as they would with another seed."""
    shared_training.run("dropout", tmp_path / "one")
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
    result = shared_training.run("frames", tmp_path / "torn")
    assert len(result.history) == 4
    shared_training.run("frames", tmp_path / "whole")
    require_same(tmp_path / "torn", tmp_path / "whole")


def test_a_training_of_one_goes_on_with_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Exception):
        pass

    def interrupted(*arguments: object) -> None:
        raise Interrupted

    original = shared_training.asrkd.train.loop._train_and_evaluate
    with monkeypatch.context() as patch:
        patch.setattr(
            shared_training.asrkd.train.loop,
            "_train_and_evaluate",
            lambda run, epoch, *rest: interrupted() if epoch == 2 else original(run, epoch, *rest),
        )
        with pytest.raises(Interrupted):
            shared_training.run("frames", tmp_path / "torn")
    done = train_together("frames", tmp_path / "torn")
    assert done.returncode == 0, done.stderr
    shared_training.run("frames", tmp_path / "whole")
    require_same(tmp_path / "torn", tmp_path / "whole")


class Sums:
    """Stands for a process among others, of which nothing is heard."""

    size, rank, is_main = 2, 1, False

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


def test_shares_make_up_the_batch(tmp_path: Path) -> None:
    store = shared_training.frame_store(tmp_path / "store")
    ids = torch.randperm(len(store))[:64]
    taken = []
    for rank in range(3):
        inputs = shared_training.SplicedFrames(store, 2, 1, utt_ids=store.utt_ids[rank::3])
        share = Share(ProcessGroup(rank, 3), inputs.in_memory)
        (held,) = share.batches(ids, len(ids), ids.device)
        x, mine = share.take(inputs, held, torch.Generator())
        assert torch.equal(x, shared_training.SplicedFrames(store, 2, 1).batch(mine))
        assert torch.equal(inputs.sample(ids), shared_training.SplicedFrames(store, 2, 1).batch(ids))
        taken.append(mine)
    assert sorted(torch.cat(taken).tolist()) == sorted(ids.tolist())


def test_frames_that_no_process_holds_are_noticed(tmp_path: Path) -> None:
    store = shared_training.frame_store(tmp_path / "store")
    inputs = shared_training.SplicedFrames(store, 2, 1, utt_ids=store.utt_ids[:3])
    with pytest.raises(InputError, match=f"expected processes to hold {len(store)} frames, found 36"):
        Share.of(Sums(), inputs, torch.arange(len(store)), 1, torch.device("cpu"))
    with pytest.raises(InputError, match="hold all inputs of a stack"):
        Share.of(Sums(), inputs, torch.arange(len(store)), 3, torch.device("cpu"))
