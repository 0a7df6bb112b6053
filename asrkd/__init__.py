"""Distil acoustic models, after Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asrkd.runtime.model import load as load

__version__ = "0.3.0"


def __getattr__(name: str) -> Any:
    """`asrkd.load` imports onnxruntime and numpy; `import asrkd` does not."""
    if name == "load":
        from asrkd.runtime.model import load

        return load
    raise AttributeError(f"module 'asrkd' has no attribute {name!r}")
