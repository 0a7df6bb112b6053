"""Artefacts are whole or absent, and a damaged one is named."""

from __future__ import annotations

import errno
import gzip
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from asrkd import files
from asrkd.errors import InputError
from asrkd.files import (
    atomic_dir,
    atomic_file,
    fingerprint,
    folder_fingerprint,
    load_tensors,
    map_tensors,
    read_json,
    read_lines,
    safetensors_fingerprint,
    save_tensors,
    write_json,
)


@dataclass(frozen=True)
class Options:
    rate: float = 0.5
    path: Path = Path("a")


def test_fingerprint_is_of_the_values() -> None:
    assert fingerprint({"b": Options(), "a": (1, 2)}) == fingerprint({"a": [1, 2], "b": {"rate": 0.5, "path": "a"}})
    assert fingerprint(Options()) != fingerprint(Options(rate=0.25))


def test_json_and_tensors_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "o.json", Options())
    assert read_json(tmp_path / "o.json") == {"rate": 0.5, "path": "a"}
    save_tensors(tmp_path / "t", {"x": torch.arange(6).view(2, 3).t()}, {"made_by": "f00d"})
    tensors, metadata = load_tensors(tmp_path / "t")
    assert torch.equal(tensors["x"], torch.arange(6).view(2, 3).t()) and metadata == {"made_by": "f00d"}


def test_mapped_tensors_are_those_that_were_saved(tmp_path: Path) -> None:
    saved = {
        "bytes": torch.arange(7, dtype=torch.int8),
        "long": torch.arange(5),
        "half": torch.randn(2, 3).bfloat16(),
        "none": torch.zeros(0, 3),
        "one": torch.tensor(3.0),
    }
    save_tensors(tmp_path / "t", saved, {"made_by": "f00d"})
    tensors, metadata = map_tensors(tmp_path / "t")
    assert metadata == {"made_by": "f00d"} and tensors.keys() == saved.keys()
    for name, tensor in saved.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor), name
    (tmp_path / "t").unlink()
    assert tensors["long"].tolist() == [0, 1, 2, 3, 4], "mapped"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_written_files_have_the_mode_that_the_umask_gives(tmp_path: Path, umask: int, mode: int) -> None:
    """safetensors alone would make files that only their owner can read."""
    write: dict[str, Callable[[Path], object]] = {
        "t.safetensors": lambda path: save_tensors(path, {"x": torch.ones(2)}, {}),
        "o.json": lambda path: write_json(path, {}),
    }
    before = os.umask(umask)
    try:
        for name, function in write.items():
            function(tmp_path / name)
            function(tmp_path / name)  # replaced
    finally:
        os.umask(before)
    assert {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in write} == dict.fromkeys(write, mode)


KILLED = """
import os, signal, sys, torch, safetensors.torch, asrkd.files
original = safetensors.torch.save_file
def torn(tensors, path, metadata):
    original(tensors, path, metadata=metadata)
    open(os.path.join(os.path.dirname(path), ".tmp0a1b2c"), "wb").write(bytes(1000))  # safetensors' own name
    os.kill(os.getpid(), signal.SIGKILL)
safetensors.torch.save_file = torn
asrkd.files.save_tensors(sys.argv[1], {"x": torch.ones(2)}, {})
"""


def test_the_next_write_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert not path.exists() and len(list(tmp_path.iterdir())) == 1
    save_tensors(path, {"x": torch.zeros(2)}, {})
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_the_names_and_contents_of_its_files(tmp_path: Path) -> None:
    def filled(name: str, value: float = 1.0, text: str = "GO", words: str = "GO STOP") -> str:
        folder = tmp_path / name
        (folder / "store").mkdir(parents=True)
        metadata = {"words": words, **{f"key {number}": "the order of keys is random" for number in range(20)}}
        save_tensors(folder / "store" / "graph", {"x": torch.tensor([value])}, metadata)
        (folder / "text").write_text(text)
        (folder / "pending.json").write_text(name)
        return folder_fingerprint(folder, excluded=("pending.json",))

    first = filled("first")
    assert filled("copy") == first
    others = {filled("value", value=2.0), filled("text", text="STOP"), filled("words", words="GO HALT")}
    (tmp_path / "copy" / "text").rename(tmp_path / "copy" / "texts")
    others.add(folder_fingerprint(tmp_path / "copy", excluded=("pending.json",)))
    assert first not in others and len(others) == 4


def test_a_models_weights_can_be_told_from_its_metadata(tmp_path: Path) -> None:
    for number in range(2):
        save_tensors(tmp_path / str(number), {"x": torch.ones(3)}, {"seconds": str(number)})
    with_metadata, weights = (
        [safetensors_fingerprint(tmp_path / name, with_metadata) for name in ("0", "1")]
        for with_metadata in (True, False)
    )
    assert with_metadata[0] != with_metadata[1] and weights[0] == weights[1]


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 16, (3).to_bytes(8, "little") + b"[]x"])
def test_a_file_of_other_content_has_no_tensors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    for read in (safetensors_fingerprint, load_tensors, map_tensors):
        with pytest.raises(InputError, match="x: expected a safetensors file"):
            read(tmp_path / "x")


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with atomic_file(path) as partial:
            partial.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_write_the_system_refuses_is_an_oserror_that_names_the_file(tmp_path: Path) -> None:
    """safetensors has errors of its own; a limit on file sizes stands for the full disk."""
    path = tmp_path / "big.safetensors"
    script = (
        "import resource, signal, sys, torch\n"
        "from asrkd.files import save_tensors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    save_tensors(sys.argv[1], {'x': torch.zeros(1000)}, {})\n"
        "except OSError as error:\n"
        "    print(error.errno, error.filename)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), str(path)]
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for value in "12":
        with atomic_dir(tmp_path / "d") as partial:
            (partial / value).touch()
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["2"]


@pytest.mark.parametrize("content", [None, b"{"])
def test_missing_or_damaged_files_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken"
    if content is not None:
        path.write_bytes(content)
    for read in (read_json, load_tensors):
        with pytest.raises(InputError, match="broken"):
            read(path)


def test_a_gzip_that_expands_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    path.write_bytes(gzip.compress(b"\n" * (8 << 20)))
    assert len(read_lines(path)) == 8 << 20
    monkeypatch.setattr(files, "FREE_EXPANSION", 1 << 20)
    with pytest.raises(InputError, match="text: expected a gzip that expands at most 250 times"):
        read_lines(path)
