"""What a network costs, counted from its layers."""

from __future__ import annotations

import math

import keras
from keras import layers


def params(model: keras.Model) -> int:
    """Number of trainable scalars, as if no layer were frozen."""
    statistics = {id(v) for bn in _leaves(model) for v in _running(bn)}
    return sum(math.prod(v.shape) for v in model.weights if id(v) not in statistics)


def macs(model: keras.Model) -> int:
    """Multiply-accumulates of convolutions and dense layers for one image; biases and the rest are not counted.

    Where TensorFlow's SAME padding of a strided convolution is uneven, one more row and column count: PaddlePaddle's
    EfficientNets compute them and drop them, and published figures include them (0.2 % of B0).
    """
    total = 0
    for layer in _leaves(model):
        if isinstance(layer, layers.DepthwiseConv2D | layers.Conv2D):
            positions = math.prod(length + _dropped(layer) for length in layer.output.shape[1:3])
            # A kernel [h, w, in / groups, out], or [h, w, in, multiplier] when depthwise: each scalar is used
            # once at every output position.
            total += math.prod(layer.kernel.shape) * positions
        elif isinstance(layer, layers.Dense):
            total += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
    return total


def _dropped(layer: keras.layers.Layer) -> bool:
    """Whether a strided SAME convolution pads its end more than its start. Maps are square."""
    (size, length), stride = (t.shape[1] for t in (layer.input, layer.output)), layer.strides[0]
    padding = max((length - 1) * stride + layer.kernel_size[0] - size, 0)
    return layer.padding == "same" and stride > 1 and padding % 2 == 1


def _leaves(model: keras.Model) -> list[keras.layers.Layer]:
    return list(model._flatten_layers(include_self=False))


def _running(layer: keras.layers.Layer) -> list[keras.Variable]:
    return [layer.moving_mean, layer.moving_variance] if isinstance(layer, layers.BatchNormalization) else []
