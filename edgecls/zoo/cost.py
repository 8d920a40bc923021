"""What a network costs, counted from its layers."""

from __future__ import annotations

import math

import keras
from keras import layers, tree


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
    for layer in _linear(model):
        if not isinstance(layer, layers.Dense):
            positions = math.prod(length + _dropped(layer) for length in layer.output.shape[1:3])
            # A kernel [h, w, in / groups, out], or [h, w, in, multiplier] when depthwise: each scalar is used
            # once at every output position.
            total += math.prod(layer.kernel.shape) * positions
        else:
            total += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
    return total


def memory_access(model: keras.Model) -> int:
    """Scalars that convolutions and dense layers read, weights too, and write (Ma et al., 2018,
    https://arxiv.org/abs/1807.11164)."""
    return sum(_size(e.input) + _size(e.output) + e.count_params() for e in _linear(model))


def peak_activations(model: keras.Model) -> int:
    """Most scalars of maps alive at once when layers run one by one in the model's order.

    A layer without kernel or window that keeps the size of its only input writes over it where nobody else reads it.
    """
    order = [(e, tree.flatten(e.input), tree.flatten(e.output)) for e in model.operations]
    last = {id(t): i for i, (_, inputs, _) in enumerate(order) for t in inputs}
    last |= dict.fromkeys(map(id, model.outputs), len(order))
    alive: dict[int, int] = {}
    peak = 0
    for i, (layer, inputs, outputs) in enumerate(order):
        kept = [_size(t) for t in inputs] == [_size(t) for t in outputs]
        over = kept and not (hasattr(layer, "kernel") or hasattr(layer, "pool_size"))
        made = {id(t): _size(t) for t in outputs}
        rest = {t: size for t, size in alive.items() if last[t] > i}
        peak = max(peak, sum((rest if over else alive).values()) + sum(made.values()))
        alive = rest | made
    return peak


def _linear(model: keras.Model) -> list[keras.layers.Layer]:
    return [e for e in _leaves(model) if isinstance(e, layers.DepthwiseConv2D | layers.Conv2D | layers.Dense)]


def _size(tensor: keras.KerasTensor) -> int:
    return math.prod(tensor.shape[1:])


def _dropped(layer: keras.layers.Layer) -> bool:
    """Whether a strided SAME convolution pads its end more than its start. Maps are square."""
    (size, length), stride = (t.shape[1] for t in (layer.input, layer.output)), layer.strides[0]
    padding = max((length - 1) * stride + layer.kernel_size[0] - size, 0)
    return layer.padding == "same" and stride > 1 and padding % 2 == 1


def _leaves(model: keras.Model) -> list[keras.layers.Layer]:
    return list(model._flatten_layers(include_self=False))


def _running(layer: keras.layers.Layer) -> list[keras.Variable]:
    return [layer.moving_mean, layer.moving_variance] if isinstance(layer, layers.BatchNormalization) else []


COSTS = {f.__name__: f for f in (params, macs, memory_access, peak_activations)}
