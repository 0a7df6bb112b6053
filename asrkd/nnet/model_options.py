"""The options of an acoustic model: its architecture, its sizes and its regularisation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from asrkd.errors import InputError

# The architectures of this package; a recipe can add its own (asrkd.nnet.modules).
KINDS = ("dnn", "cnn", "tdnn")


@dataclass(frozen=True)
class ModelOptions:
    """Shape and regularisation of an acoustic model."""

    hidden_dim: int = 512
    """Units in each hidden layer; of a tdnn, at each position in time."""
    num_layers: int = 4
    """Number of hidden layers; a cnn has two convolutions before them."""
    dropout: float = 0.2
    """Dropout probability of a hidden unit. The feature maps of a cnn have no dropout."""
    input_dropout: float = 0.0
    """Dropout probability of an input value."""
    max_norm: float | None = None
    """Largest Euclidean norm of a hidden unit's incoming weights; None for no limit."""
    init_scale: float = 1.0
    """Factor on the random initial weights. Below 1, they matter less compared with what is learnt."""
    kind: str = "dnn"
    """Architecture: dnn (feed-forward), cnn (convolutions over time and frequency), tdnn (time delays), or the name of
    a model that the recipe adds."""
    norm: Literal["auto", "none", "layer"] = "auto"
    """Layer normalisation of each hidden layer before its ReLU. auto: layer for a cnn and a tdnn, none for a dnn."""
    filters: int = 32
    """Feature maps of each convolution of a cnn."""

    def __post_init__(self) -> None:
        if self.hidden_dim < 1 or self.num_layers < 1:
            raise InputError(
                f"model: expected hidden_dim and num_layers of at least 1, "
                f"found {self.hidden_dim} and {self.num_layers}"
            )
        for name in ("dropout", "input_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"model.{name}: expected a probability in [0, 1), found {getattr(self, name)}")
        if self.max_norm is not None and self.max_norm <= 0:
            raise InputError(f"model.max_norm: expected a positive norm or none, found {self.max_norm}")
        if self.init_scale <= 0:
            raise InputError(f"model.init_scale: expected a positive factor, found {self.init_scale}")
        if self.filters < 1:
            raise InputError(f"model.filters: expected at least 1, found {self.filters}")
        if not self.kind:
            raise InputError(f"model.kind: expected {', '.join(KINDS)} or the name of a model, found nothing")

    @property
    def normalises(self) -> bool:
        """Whether hidden layers have layer normalisation."""
        return self.kind in ("cnn", "tdnn") if self.norm == "auto" else self.norm == "layer"

    def json_values(self) -> dict[str, Any]:
        """The fields that files and stamps have: later ones only where they decide something.

        Networks, stamps and configurations of runs without them therefore stay as they are.
        """
        unused = {"kind"} if self.kind == "dnn" else set()
        if self.norm == "auto":
            unused.add("norm")
        if self.kind in ("dnn", "tdnn"):
            unused.add("filters")
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in unused}
