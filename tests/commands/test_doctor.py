"""`asrkd doctor`: versions that fit or do not, packages that are missing or break, and never a traceback."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asrkd.commands import doctor
from asrkd.commands.doctor import Check, Import

ROOT = Path(__file__).resolve().parents[2]


def imported(name: str, version: str) -> Import:
    return Import(name, version, "", {})


def package(folder: Path, name: str, body: str, version: str = "1.13.1") -> None:
    """A package as an installer leaves it, whose import runs `body`."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(body)
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that comes before all others, in this process and in those it starts."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    return tmp_path


@pytest.fixture
def few_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at torch and k2 alone: the others take seconds to import."""
    few = {"training": ("torch",), "decoding": ("k2",), "exported models": (), "report": (), "tests": ()}
    monkeypatch.setattr(doctor, "PACKAGES", few)


CUDA_MISMATCH = "built for CUDA 13.2, found a torch for CUDA 13.0: `local/setup.sh --torch 2.13.0+cu130`"


@pytest.mark.parametrize(
    ("built_for", "torch", "status", "advice"),
    [
        (("1.13.1+cu117", "11.7"), ("1.13.1+cu117", "11.7"), "ok", ""),
        (("1.13.1+cu117", "11.7"), ("1.13.1", ""), "ok", ""),
        (("2.13.0", ""), ("2.13.0+cpu", ""), "ok", ""),
        (("2.13.0", "13.2"), ("2.13.0+cu130", "13.0"), "FAIL", CUDA_MISMATCH),
        (("1.13.1+cu117", "11.7"), ("1.13.0", ""), "FAIL", "built for torch 1.13.1, found torch 1.13.0"),
        (("2.12.0", ""), ("2.13.0+cpu", ""), "FAIL", "found torch 2.13.0: `local/setup.sh --torch 2.13.0+cpu`"),
        (("", ""), ("2.13.0+cpu", ""), "warn", "no record of the torch that it was built for: was that 2.13.0?"),
    ],
)
def test_k2_runs_on_the_torch_of_its_record(
    built_for: tuple[str, str], torch: tuple[str, str], status: str, advice: str
) -> None:
    k2 = Import("k2", "1.24.4", "", dict(zip(("torch", "cuda"), built_for, strict=True)))
    check = doctor.check_package(k2, "decoding", {"torch": Import("torch", torch[0], "", {"cuda_built": torch[1]})})
    assert check.status == status
    assert advice in check.advice
    # Its own refusal, of several lines, is replaced.
    if status == "FAIL":
        refused = Import("k2", "", "But you are using PyTorch 2 to run it", k2.facts)
        torch_import = Import("torch", torch[0], "", {"cuda_built": torch[1]})
        assert advice in doctor.check_package(refused, "decoding", {"torch": torch_import}).advice


RECORD = '# cmake\nk2_torch_version = "1.13.1+cu117"\nk2_torch_cuda_version = "11.7"\n'


@pytest.mark.parametrize(
    ("version", "record", "torch", "cuda"),
    [
        ("1.23.4", RECORD, "1.13.1+cu117", "11.7"),
        ("1.24.4.dev20260710+cpu.torch2.13.0", None, "2.13.0", ""),
        ("1.24.4.dev20260710+cuda13.2.torch2.13.0", None, "2.13.0", "13.2"),
        ("1.23.4", None, "", ""),
    ],
)
def test_k2s_record_is_read_without_importing_it(
    site: Path, version: str, record: str | None, torch: str, cuda: str
) -> None:
    package(site, "k2", "raise ImportError\n", version)
    if record is not None:
        (site / "k2" / "torch_version.py").write_text(record)
    assert doctor.torch_of_k2(version) == {"torch": torch, "cuda": cuda}


@pytest.mark.parametrize(
    ("torchaudio", "torch", "status"),
    [
        ("0.13.1+cu117", "1.13.1", "ok"),
        ("0.12.0", "1.13.1", "warn"),
        ("2.1.0", "1.13.1", "warn"),
        ("2.1.0", "2.1.2", "ok"),
        ("2.1.0", "2.2.0", "warn"),
        ("2.11.1", "2.13.0+cpu", "ok"),
        ("2.11.1", "2.10.0", "warn"),
    ],
)
def test_torchaudio_goes_with_its_torch(torchaudio: str, torch: str, status: str) -> None:
    assert doctor.check_torchaudio(torchaudio, torch).status == status


@pytest.mark.parametrize(
    ("name", "version", "torch", "status"),
    [
        ("numpy", "1.26.4", "1.13.1+cu117", "ok"),
        ("numpy", "2.1.0", "1.13.1+cu117", "FAIL"),
        ("numpy", "2.4.6", "2.13.0+cpu", "ok"),
        ("lhotse", "1.32.1", "1.13.1", "ok"),
        ("lhotse", "1.33.0", "1.13.1", "warn"),
        ("lhotse", "1.33.0", "2.13.0+cpu", "ok"),
        ("lhotse", "1.30.3", "2.13.0+cpu", "warn"),
        ("lhotse", "1.30.3", "1.13.1", "warn"),
    ],
)
def test_ranges_of_numpy_and_lhotse(name: str, version: str, torch: str, status: str) -> None:
    check = doctor.check_package(imported(name, version), "decoding", {"torch": imported("torch", torch)})
    assert check.status == status


@pytest.mark.parametrize(("version", "status"), [((3, 9), "FAIL"), ((3, 10), "ok"), ((3, 14), "ok"), ((3, 15), "warn")])
def test_python_versions(version: tuple[int, int], status: str) -> None:
    assert doctor.check_python(version, "x").status == status


def test_a_gpu_that_this_torch_has_no_kernels_for() -> None:
    facts = {"gpus": [["Some GPU", "sm_90"]], "archs": ["sm_70", "sm_86"], "cuda_built": "11.7"}
    check = doctor.check_gpu(Import("torch", "1.13.1", "", facts))
    assert check.status == "warn"
    assert "sm_90" in check.advice
    facts["archs"] = ["sm_90"]
    assert doctor.check_gpu(Import("torch", "2.13.0", "", facts)) == Check("GPU", "machine", "ok", "Some GPU")


def test_cpu_without_avx2(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Old One\nflags\t\t: fpu sse2\n")
    assert doctor.check_cpu(cpuinfo).status == "warn"
    cpuinfo.write_text("model name\t: New One\nflags\t\t: fpu avx2 avx512_bf16\n")
    check = doctor.check_cpu(cpuinfo)
    assert check.status == "ok"
    assert "New One (avx2 avx512_bf16)" in check.result
    assert doctor.check_cpu(tmp_path / "none").status == "ok"


@pytest.mark.parametrize(
    ("failing", "code"),
    [
        ((), 0),
        (("kenlm",), 0),
        (("matplotlib",), 0),
        (("k2",), 1),
        (("lhotse", "kenlm"), 1),
        (("soxr",), 0),
        (("torch", "k2"), 1),
        (("torch", "onnxruntime"), 2),
    ],
)
def test_exit_codes(failing: tuple[str, ...], code: int) -> None:
    checks = [
        Check(name, need, ("warn" if need == "tests" else "FAIL") if name in failing else "ok", "1.0")
        for need, names in doctor.PACKAGES.items()
        for name in names
    ]
    lines, exit_code = doctor.verdict(checks)
    assert exit_code == code
    blamed = [name for name in failing if code != 2 or name == "torch"]
    assert ("Exported models work" in lines[0]) == (failing == ("torch", "k2"))
    if code != 1:
        assert all(name in "\n".join(lines) for name in blamed)


def test_versions_are_read_as_numbers() -> None:
    assert doctor.release("1.32.1rc2") == (1, 32, 1)
    assert doctor.release("nightly") == ()
    assert doctor.public("1.13.1+cu117") == "1.13.1"
    assert doctor.public("1.23.4.dev20230224+cpu.torch1.13.1") == "1.23.4"


def test_import_that_crashes(site: Path) -> None:
    package(site, "crasher", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    assert "crashed Python (signal 11)" in doctor.probe("crasher").error


def test_import_that_hangs(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(site, "hanger", "import time\ntime.sleep(100)\n")
    monkeypatch.setattr(doctor, "IMPORT_TIMEOUT_SEC", 1)
    assert "took more than 1 s" in doctor.probe("hanger").error


def test_import_that_prints_and_has_no_version(site: Path) -> None:
    package(site, "talker", "print('hello')\n", version="4.5")
    assert doctor.probe("talker") == Import("talker", "4.5", "", {"version": ""})


def test_package_that_is_missing() -> None:
    missing = doctor.probe("no_such_package_as_this")
    assert missing.error == "not installed"
    check = doctor.check_package(missing, "decoding", {"torch": imported("torch", "1.13.1")})
    assert check.status == "FAIL"


@pytest.mark.usefixtures("few_packages")
def test_torch_without_its_cuda_libraries(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = "libcublas.so.11: cannot open shared object file: No such file or directory"
    package(site, "torch", f"raise OSError({lost!r})\n")
    package(site, "k2", "import torch\n")
    assert doctor.run() == doctor.EXIT_BROKEN
    printed = capsys.readouterr().out
    assert printed.count("nvidia packages, on a machine with no GPU as well") == 2
    assert "Nothing works yet" in printed


@pytest.mark.usefixtures("few_packages")
def test_torch_that_k2_was_not_built_for(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "import types\n__version__ = '2.13.0'\nversion = types.SimpleNamespace(cuda=None)\n"
    body += "cuda = types.SimpleNamespace(is_available=lambda: False)\nget_num_threads = lambda: 1\n"
    package(site, "torch", body, version="2.13.0")
    package(site, "k2", "raise ImportError('k2 was built using PyTorch 1.13.1\\nBut')\n", version="1.23.4")
    (site / "k2" / "torch_version.py").write_text(RECORD)
    assert doctor.run() == doctor.EXIT_TRAINS
    printed = capsys.readouterr().out
    assert "built for torch 1.13.1, found torch 2.13.0: `local/setup.sh --torch 2.13.0`" in printed
    assert "Training and distilling work; alignment and decoding do not: k2." in printed


def test_this_environment() -> None:
    command = [sys.executable, "-m", "asrkd.commands.doctor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode in (doctor.EXIT_DECODES, doctor.EXIT_TRAINS), done.stdout
    has_k2 = importlib.util.find_spec("k2") is not None
    assert (done.returncode == doctor.EXIT_DECODES) == has_k2, done.stdout
