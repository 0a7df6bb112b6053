"""Loading an exported model and decoding with it, without torch, k2 and Lhotse."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from toy_model import write_toy_model

from asrkd.errors import InputError
from asrkd.recipe.export import write_archive
from asrkd.runtime.acoustic import Statistics
from asrkd.runtime.model import load

SAMPLES = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)

ISOLATED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "k2", "_k2", "lhotse", "kaldi_hmm_gmm", "scipy", "onnx", "tabulate"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import numpy as np
from asrkd.runtime.model import load
samples = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
for precision in ("float32", "int8"):
    segment = load(sys.argv[1], precision=precision).decode_segment(samples, nbest=2)
    print(len(segment.words) > 0, segment.text)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("models") / "model")


def test_without_torch_k2_and_lhotse(folder: Path) -> None:
    command = [sys.executable, "-c", ISOLATED, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    expected = load(folder, precision="float32").decode_segment(SAMPLES).text
    assert done.stdout.splitlines()[0] == f"True {expected}"


def test_a_segment(folder: Path) -> None:
    model = load(folder)
    assert (model.sampling_rate, model.frame_shift_sec, model.name) == (8000, 0.01, "toy distilled")
    assert model.silence_classes == (0, 1, 2)
    segment = model.decode_segment(SAMPLES, nbest=3)
    assert segment.start == 0.0 and segment.end == 1.0
    assert segment.words and all(0.0 <= word.confidence <= 1.0 for word in segment.words)  # type: ignore[operator]
    assert all(0.0 <= word.start <= word.end <= 1.0 for word in segment.words)
    assert len(segment.alternatives) <= 2 and segment.text not in segment.alternatives


def test_statistics_of_more_speech_can_be_given(folder: Path) -> None:
    model = load(folder, precision="float32")
    feats = model.log_mel(SAMPLES)
    prior = Statistics.prior(model.description.normalisation)
    np.testing.assert_array_equal(model.scores(SAMPLES), model.scores(SAMPLES, prior + Statistics.of(feats)))
    assert model.decode_segment(SAMPLES, statistics=Statistics.of(feats)).end == 1.0


@pytest.mark.parametrize("num_samples", [0, 1, 39, 41, 500])
def test_hardly_any_sound(num_samples: int, folder: Path) -> None:
    segment = load(folder).decode_segment(SAMPLES[:num_samples])
    assert segment.end == num_samples / 8000


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_silence_and_constant_samples(value: float, folder: Path) -> None:
    load(folder).decode_segment(np.full(4000, value, dtype=np.float32))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.full(100, np.nan, dtype=np.float32), "expected finite samples, found NaN"),
        (np.full(100, np.inf, dtype=np.float32), "expected finite samples, found NaN or infinity"),
        (np.zeros((100, 2), dtype=np.float32), r"expected one channel of samples, found an array of shape \(100, 2\)"),
    ],
)
def test_bad_samples(samples: np.ndarray, message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        load(folder).decode_segment(samples)


def test_an_archive_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    for name in ("one.tar.gz", "two.tar.gz"):
        write_archive(folder, tmp_path / name)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    found = load(tmp_path / "one.tar.gz")
    assert found.decode_segment(SAMPLES) == load(folder).decode_segment(SAMPLES)


@pytest.mark.parametrize("name", [".", "model", "./model"])
def test_an_archive_that_tar_packed(name: str, folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(folder, arcname=name)
    assert load(tmp_path / "model.tar.gz").decode_segment(SAMPLES) == load(folder).decode_segment(SAMPLES)


def test_a_damaged_archive(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.tar.gz"
    write_archive(folder, path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"text", b"", whole[:500] + bytes(500) + whole[1000:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"expected"):
            load(path)


def test_an_archive_writes_nothing_outside(tmp_path: Path) -> None:
    path = tmp_path / "model.tar.gz"
    for names in (
        ["../outside"],
        ["/tmp/outside"],
        ["sub/sub/x"],
        ["sub/../x"],
        [".."],
        ["x", "sub/x"],
        ["a/x", "b/x"],
    ):
        with tarfile.open(path, "w:gz") as archive:
            for name in names:
                entry = tarfile.TarInfo(name)
                entry.size = 1
                archive.addfile(entry, io.BytesIO(b"x"))
        with pytest.raises(InputError, match=r"model\.tar\.gz: expected the files of a model, found '"):
            load(path)
    link = tarfile.TarInfo("model.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(link)
    with pytest.raises(InputError, match=r"expected the files of a model, found 'model\.json'"):
        load(path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: expected a model of `asrkd export`, found no such folder or file"):
        load(tmp_path / "none")


def test_a_model_without_int8(tmp_path: Path) -> None:
    folder = write_toy_model(tmp_path / "model", int8=False)
    assert load(folder).decode_segment(SAMPLES).end == 1.0
    with pytest.raises(InputError, match=r"expected a model with model\.int8\.onnx, found none .*use float32"):
        load(folder, precision="int8")
