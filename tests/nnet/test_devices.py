"""Devices that can train, and the settings of the process that a training leaves as it found them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asrkd.errors import InputError
from asrkd.nnet import AcousticDnn, ArrayInputs, HardTargets, ModelOptions, TrainOptions, train
from asrkd.nnet.devices import cpu_threads, flushes_denormals, resolve_device


def test_the_cpu_is_a_device() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "mps", "meta", "xpu"])
def test_other_devices_are_refused_with_the_option_that_works(name: str) -> None:
    with pytest.raises(InputError) as refused:
        resolve_device(name)
    assert str(refused.value) == (
        f"--device={name}: expected cpu, cuda or auto, found {name!r} (--device=cpu always works)"
    )


def test_a_training_refuses_another_device_before_it_starts(tmp_path: Path) -> None:
    options = TrainOptions(epochs=1, device="meta", show_progress=False)
    model = AcousticDnn(2, 2, ModelOptions(hidden_dim=3, num_layers=1))
    with pytest.raises(InputError, match="--device=meta: expected cpu, cuda or auto"):
        train(model, ArrayInputs(torch.zeros(4, 2)), HardTargets(torch.zeros(4).long()), options, tmp_path)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"--device=cuda: expected a CUDA device, found none \(--device=cpu always"):
        resolve_device("cuda")
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match="--device=cuda:2: expected a CUDA device, found 2"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("before", [False, True])
def test_denormals_and_threads_are_as_they_were_afterwards(before: bool) -> None:
    if not torch.set_flush_denormal(before):
        pytest.skip("this processor cannot flush denormal numbers")
    try:
        threads = torch.get_num_threads()
        with cpu_threads(threads + 1):
            assert flushes_denormals()
            assert torch.get_num_threads() == threads + 1
        assert flushes_denormals() == before
        assert torch.get_num_threads() == threads
        with pytest.raises(ZeroDivisionError), cpu_threads(0):
            raise ZeroDivisionError
        assert flushes_denormals() == before
    finally:
        torch.set_flush_denormal(False)


NEW_PAGES = """
import resource, sys, torch
from asrkd.workflow.memory import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit("no glibc")
for step in range(20):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def new_pages(memory: str) -> int:
    """Pages that the kernel hands out for 64 MiB that are asked for and given back, ten times, after as many others."""
    found = subprocess.run([sys.executable, "-c", NEW_PAGES, memory], capture_output=True, text=True)
    if found.stderr.strip() == "no glibc":
        pytest.skip("no glibc")
    return int(found.stdout)


def test_memory_freed_is_used_again() -> None:
    # A small block can come to lie in the way of a large one, which is then laid elsewhere once: so not "no new pages".
    assert 4 * new_pages("kept") < new_pages("as it was")
