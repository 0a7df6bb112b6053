"""Parameters, arithmetic and memory of a feed-forward network, counted from its shape alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from asrkd.nnet.model_options import ModelOptions

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Network:
    """A feed-forward network from `input_dim` inputs to `outputs` classes, as `AcousticDnn` builds it."""

    input_dim: int
    outputs: int
    model: ModelOptions

    @property
    def layer_macs(self) -> list[int]:
        """Multiply-adds of each layer for one frame."""
        dims = [self.input_dim] + [self.model.hidden_dim] * self.model.num_layers + [self.outputs]
        return [before * after for before, after in pairwise(dims)]

    @property
    def macs(self) -> int:
        """Multiply-adds of a forward pass of one frame."""
        return sum(self.layer_macs)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.macs + self.model.num_layers * self.model.hidden_dim + self.outputs

    @property
    def forward_flop(self) -> int:
        """Floating-point operations of a forward pass of one frame."""
        return 2 * self.macs

    @property
    def training_flop(self) -> int:
        """Floating-point operations of a training step per frame.

        They are the forward pass and the gradients of each layer's weights and inputs. The first layer's inputs need no
        gradients.
        """
        return 3 * self.forward_flop - 2 * self.layer_macs[0]

    def activations(self, batch_size: int) -> int:
        """Bytes of activations, logits and their gradients in a training step of `batch_size` frames."""
        hidden = self.input_dim + 2 * self.model.num_layers * self.model.hidden_dim
        return FLOAT_BYTES * batch_size * (hidden + 3 * self.outputs)
