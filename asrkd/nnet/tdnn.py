"""The layers of a time-delay network over a window of frames."""

from __future__ import annotations

from asrkd.nnet.layers import Dense, Layer, ModelShape, fit_width

FIRST_WIDTH, FIRST_STEP = 5, 3
WIDTH, STEP = 2, 2


def tdnn_layers(shape: ModelShape) -> list[Layer]:
    """Time-delay layers (Waibel et al. 1989) that are computed at the positions alone which the output needs.

    As of Peddinti, Povey and Khudanpur (2015), with sub-sampling: each layer is a 1-d convolution over time with a
    step. The first one reads 5 frames every 3 frames, each later one 2 positions every 2 positions, until one is left;
    further hidden layers are fully connected. Where the steps do not fit the window, a layer reads the few positions
    more with which they do. The last hidden layer reads all that are left. 26 frames become 8, 4, 2 and 1 positions.
    """
    positions, fan_in = shape.window()
    options = shape.options
    layers: list[Layer] = []
    for number in range(1, options.num_layers + 1):
        width, step = (FIRST_WIDTH, FIRST_STEP) if number == 1 else (WIDTH, STEP)
        width = positions if number == options.num_layers else fit_width(positions, width, step)
        layer = Dense(fan_in, options.hidden_dim, positions, width, step)
        layers.append(layer)
        positions, fan_in = layer.num_windows, layer.fan_out
    return [*layers, Dense(fan_in, shape.num_outputs)]
