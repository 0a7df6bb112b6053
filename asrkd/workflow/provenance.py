"""Provenance of a result: git revision, versions, device."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shlex
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

# Options with a value that choose which part of a run is computed.
PARTS_OF_A_RUN = ("--stage", "--stop-stage", "--only")
# Switches that list steps and compute nothing.
LISTINGS = ("--dry-run", "--list-steps", "--no-dry-run", "--no-list-steps")
PACKAGES = ("torch", "k2", "lhotse", "kaldifst", "kaldialign", "sentencepiece", "torchaudio", "numpy")


@cache
def git_sha() -> str:
    """Revision of the checkout the code runs from, `+dirty` when files of it are changed, or `unknown`.

    Untracked files do not count: `asrkd init` writes users' recipes into the checkout.
    """
    package = Path(__file__).resolve().parents[1]
    revision = _git("rev-parse", "--short=12", "HEAD", cwd=package)
    if revision is None:
        return "unknown"
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", "asrkd", "recipes", cwd=package.parent)
    return revision + ("+dirty" if changes else "")


@cache
def versions() -> dict[str, str]:
    """`git_sha` and the version of Python and of each package that is installed."""
    found = {"git_sha": git_sha(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def code() -> dict[str, str]:
    """Digest of this package's sources and versions of its dependencies: workers must have the same."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)} ".encode() + file.read_bytes())
    used = {name: version for name, version in versions().items() if name != "git_sha"}
    return {"asrkd": digest.hexdigest()[:12], **used}


def code_record() -> dict[str, str]:
    """What stands in a step's stamp record: `versions`, and the digest of this package's sources."""
    return {**versions(), "asrkd": code()["asrkd"]}


def command_of_all(program: str, arguments: Sequence[str]) -> str:
    """The command line that makes the whole result, whichever of its stages `arguments` asked for."""
    whole: list[str] = []
    value_follows = False
    for argument in arguments:
        name, _, value = argument.replace("_", "-").partition("=")
        if value_follows:
            value_follows = False
        elif name in PARTS_OF_A_RUN:
            value_follows = not value
        elif name not in LISTINGS:
            whole.append(argument)
    return shlex.join([program, *whole])


def device_name(device: str) -> str:
    """The processor that `device` names, in words: model, and cores used by torch."""
    name, threads = processor_name(device), torch.get_num_threads()
    return name if device.startswith("cuda") else f"{name}, {threads} thread{'' if threads == 1 else 's'}"


def processor_name(device: str) -> str:
    """The model name of the GPU or CPU that `device` names."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str, cwd: Path) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode(errors="replace").strip()
