"""Parameters, arithmetic and memory of a network, counted from its shape alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from asrkd.nnet.dnn import AcousticDnn, layers_of, num_weights
from asrkd.nnet.layers import Layer, ModelShape
from asrkd.nnet.model_options import ModelOptions

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Network:
    """A network from `input_dim` inputs to `outputs` classes, as `AcousticDnn` builds it."""

    input_dim: int
    outputs: int
    model: ModelOptions
    frame_dim: int | None = None
    """Features of each frame of an input."""

    @cached_property
    def layers(self) -> list[Layer]:
        """The hidden layers and the output layer."""
        return layers_of(ModelShape(self.input_dim, self.outputs, self.model, self.frame_dim))

    def build(self, seed: int = 0) -> AcousticDnn:
        """The network, untrained."""
        return AcousticDnn(self.input_dim, self.outputs, self.model, seed, self.frame_dim)

    @property
    def layer_macs(self) -> list[int]:
        """Multiply-adds of each layer for one frame."""
        return [layer.macs for layer in self.layers]

    @property
    def macs(self) -> int:
        """Multiply-adds of a forward pass of one frame."""
        return sum(self.layer_macs)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return num_weights(self.layers, self.model)

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
        # Of a normalised layer there are also the values before it.
        copies = 3 if self.model.normalises else 2
        hidden = self.input_dim + copies * sum(layer.num_computed for layer in self.layers[:-1])
        return FLOAT_BYTES * batch_size * (hidden + 3 * self.outputs)

    @property
    def widest(self) -> int:
        """Values of the largest hidden layer for one frame."""
        return max(layer.num_computed for layer in self.layers[:-1])
