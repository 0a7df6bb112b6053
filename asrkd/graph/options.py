"""Weights of a decoding graph. No kaldifst here: networks are trained where there is none."""

from __future__ import annotations

from dataclasses import dataclass

from asrkd.errors import InputError


@dataclass(frozen=True)
class GraphOptions:
    """Weights of silence and durations in the decoding graph."""

    silence_prob: float = 0.5
    """Probability of silence before, between and after words; 0: no silence."""
    self_loop_scale: float = 0.1
    """Weight of the log-probabilities of staying in a state and of leaving it; 0.1 is Kaldi's value."""
    transition_scale: float = 1.0
    """Weight of the choice between several ways out of a state; of no effect in a topology without skips."""

    def __post_init__(self) -> None:
        if not 0 <= self.silence_prob < 1:
            raise InputError(f"graph: expected silence_prob in [0, 1), found {self.silence_prob}")
        if self.self_loop_scale < 0 or self.transition_scale < 0:
            raise InputError("graph: expected scales of at least 0")
