"""The library k2, imported where it is first needed: training and distillation run without it."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

from asrkd.errors import InputError


def import_k2() -> ModuleType:
    """The module k2. InputError where it is missing, or does not import with the torch that is installed.

    k2 itself refuses a torch that it was not built for (an ImportError of several lines). A wheel of another Python or
    CUDA fails with a missing symbol or library.
    """
    try:
        return importlib.import_module("k2")
    except ModuleNotFoundError as error:
        if error.name != "k2":
            raise _refusal(error) from error
        advice = "run `make setup`, or give another environment with ASRKD_PYTHON"
        raise InputError(f"{sys.executable}: k2 is not installed: {advice}") from None
    except (ImportError, OSError) as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    expected = f"expected a k2 that was built for torch {torch.__version__}"
    return InputError(f"{sys.executable}: {expected}, found `import k2`: {reason}; `asrkd doctor` says what fits")
