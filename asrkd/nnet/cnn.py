"""The layers of a convolutional network over a window of frames: an image of time and frequency."""

from __future__ import annotations

from asrkd.nnet.layers import Convolution, Dense, Layer, ModelShape, fit_width

# (time, frequency) of the kernels. Sainath et al. 2013: 9 x 9 and 4 x 3; their window has 11 frames, ours is longer.
FIRST_KERNEL, SECOND_KERNEL = (5, 8), (3, 4)
TIME_STEP = 2
POOL = 3


def cnn_layers(shape: ModelShape) -> list[Layer]:
    """Two convolutions, then fully connected layers.

    After Sainath, Mohamed, Kingsbury and Ramabhadran (2013), "Deep convolutional neural networks for LVCSR": local
    kernels over time and frequency, max-pooling of three neighbouring frequencies after the first convolution, none
    over time. The first convolution steps by two frames, because windows of 26 frames are long. Kernels are larger by
    the positions with which steps and pooling cover the whole window. 26 frames of 40 energies become maps of 11 x 11
    and of 9 x 8.
    """
    frames, features = shape.window()
    options = shape.options
    kernel = min(FIRST_KERNEL[1], features)
    pool = POOL if features - kernel + 1 >= POOL else 1
    kernel += (features - kernel + 1) % pool
    first = Convolution(
        1,
        options.filters,
        (frames, features),
        (fit_width(frames, FIRST_KERNEL[0], TIME_STEP), kernel),
        TIME_STEP,
        pool,
    )
    time, frequency = first.pooled
    second = Convolution(
        options.filters,
        options.filters,
        first.pooled,
        (min(SECOND_KERNEL[0], time), min(SECOND_KERNEL[1], frequency)),
    )
    dims = [second.num_outputs] + [options.hidden_dim] * options.num_layers
    hidden = [Dense(fan_in, options.hidden_dim) for fan_in in dims[:-1]]
    return [first, second, *hidden, Dense(dims[-1], shape.num_outputs)]
