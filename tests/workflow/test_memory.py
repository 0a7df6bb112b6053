"""Tensors on the disk, and shards of whole utterances."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asrkd.workflow.memory import LARGE_BYTES, large_tensor, new_tensor, spans, utterance_shards


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.float32])
def test_a_tensor_on_the_disk_is_a_tensor_and_leaves_no_file(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = new_tensor((5, 3), dtype, tmp_path)
    assert (tensor.shape, tensor.dtype) == ((5, 3), dtype)
    tensor.copy_(torch.arange(15).view(5, 3))
    assert torch.equal(tensor.sum(0), torch.arange(15).view(5, 3).sum(0).to(tensor.sum(0).dtype))
    assert list(tmp_path.iterdir()) == []
    assert new_tensor((0, 3), dtype, tmp_path).shape == (0, 3)
    assert new_tensor((2,), dtype, None).shape == (2,)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("num_bytes", [0, 96, 2 * LARGE_BYTES])
def test_a_large_tensor_is_a_tensor(dtype: torch.dtype, num_bytes: int) -> None:
    shape = (num_bytes // (3 * torch.empty(0, dtype=dtype).element_size()), 3)
    tensor = large_tensor(shape, dtype)
    assert (tensor.shape, tensor.dtype) == (shape, dtype)
    assert bool((tensor.fill_(1) == 1).all())


# Shards of 20 to 29 MB that a thread loads while the one before is in use, and 100 MB of blocks with a gap after them.
RETURNED = """
import sys
from concurrent.futures import ThreadPoolExecutor
import torch
from asrkd.workflow.memory import keep_freed_memory, large_tensor, release_freed_memory

def megabytes():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3

assert keep_freed_memory()
before, peak, shard = megabytes(), 0.0, None
with ThreadPoolExecutor(1) as loader:
    for number in range(40):
        size = 20_000_000 + number % 7 * 1_500_000
        loaded = loader.submit(lambda: large_tensor((size,), torch.uint8).fill_(1)).result()
        peak = max(peak, megabytes() - before)
        shard = loaded
del shard, loaded
print(round(peak), round(megabytes() - before))
blocks = [torch.ones(100_000, dtype=torch.uint8) for _ in range(1000)]
last, blocks = blocks[-1], None  # the last one is the end of the heap, which therefore stays as long
full = megabytes()
assert release_freed_memory()
print(round(full - megabytes()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RssAnon is Linux'")
def test_freed_shards_and_gaps_between_blocks_are_given_back() -> None:
    (peak, left), (released,) = (map(int, line.split()) for line in output(RETURNED, Path()).splitlines())
    assert 50 <= peak <= 2 * 29 + 6, "two shards, however many there were"
    assert left <= 6 and released >= 90


# A process with 400 MB more data than it has now; the tensor would need 800 MB.
WITHIN_A_LIMIT = """
import resource, sys
from pathlib import Path
import torch
from asrkd.workflow.memory import new_tensor
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + 400_000_000,) * 2)
try:
    torch.empty(100_000_000, dtype=torch.long)
    print("no limit")
except RuntimeError:
    tensor = new_tensor((100_000_000,), torch.long, Path(sys.argv[1]))
    tensor[::1_000_000] = 1
    print(int(tensor[::1_000_000].sum()))
"""
# Files of more than 64 kB are refused, as on a full disk.
FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from asrkd.workflow.memory import new_tensor
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    new_tensor((100_000,), torch.long, Path(sys.argv[1]))
except OSError as error:
    print(error)
"""


def output(code: str, folder: Path) -> str:
    return subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True).stdout


def test_it_counts_as_no_data_of_the_process(tmp_path: Path) -> None:
    assert output(WITHIN_A_LIMIT, tmp_path) == "100\n"


def test_a_full_disk_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    assert f"'{tmp_path}'" in output(FULL, tmp_path)


@given(lengths=st.lists(st.integers(0, 9), max_size=20), max_frames=st.integers(1, 30))
def test_shards_are_whole_utterances_and_as_large_as_may_be(lengths: list[int], max_frames: int) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    shards = list(utterance_shards(offsets, max_frames))
    assert [utterance for first, after in shards for utterance in range(first, after)] == list(range(len(lengths)))
    for first, after in shards:
        assert sum(lengths[first:after]) <= max_frames or after == first + 1
        assert after == len(lengths) or sum(lengths[first : after + 1]) > max_frames


def test_spans_cover_all_frames() -> None:
    assert [(one.start, one.stop) for one in spans(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(spans(0)) == []
