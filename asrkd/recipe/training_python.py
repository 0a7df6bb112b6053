"""Which interpreter trains and scores the networks of a run (`--train.python`)."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from asrkd.errors import InputError
from asrkd.nnet.devices import supports_gpu
from asrkd.nnet.options import SAME_PYTHON
from asrkd.recipe.options import SpeechOptions
from asrkd.workflow.child_process import call_in_subprocess
from asrkd.workflow.interpreter import OPTION, Interpreter

AUTO = "auto"
# What `make setup-train` makes in this checkout.
TRAIN_PYTHON = Path(__file__).resolve().parents[2] / ".venv-train" / "bin" / "python"
# Of the drivers of NVIDIA, also under Windows, and of AMD. Without one of them there is no GPU to ask about.
GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")

Options = TypeVar("Options", bound=SpeechOptions)


def with_training_python(options: Options) -> Options:
    """The options with `train.python` as an absolute path, or as SAME_PYTHON. InputError for a path that is no file.

    "auto" never chooses another torch on a CPU: the networks would differ, in their last digits, from those of a
    machine without that environment.
    """
    chosen = options.train.python
    if chosen == AUTO:
        chosen = str(TRAIN_PYTHON) if _needs_other_torch(options.device) else SAME_PYTHON
    elif chosen != SAME_PYTHON:
        chosen = _absolute(chosen)
    return replace(options, train=replace(options.train, python=chosen))


def training_interpreter(options: SpeechOptions) -> Path | None:
    """The other interpreter of options that `with_training_python` returned; None without one."""
    return None if options.train.python in (SAME_PYTHON, AUTO) else Path(options.train.python)


def _absolute(python: str) -> str:
    """SAME_PYTHON for this interpreter. A link is not followed: that of a virtual environment names its packages."""
    path = Path(python).absolute()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"{OPTION} {python}: expected a Python interpreter, {SAME_PYTHON} or {AUTO}, found {found}")
    return SAME_PYTHON if os.path.normpath(path) == os.path.normpath(sys.executable) else str(path)


def _needs_other_torch(device: str) -> bool:
    """Whether networks can use this machine's GPU in TRAIN_PYTHON, and not here."""
    if device == "cpu" or not TRAIN_PYTHON.is_file() or not any(map(os.path.exists, GPU_FILES)):
        return False
    if call_in_subprocess(supports_gpu):
        return False
    try:
        with Interpreter(TRAIN_PYTHON) as other:
            return bool(other.run(supports_gpu))
    except InputError as error:
        print(f"   warning: {error}; networks train without it", file=sys.stderr)
        return False
