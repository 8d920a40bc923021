"""What a network costs, counted from its layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import keras
from keras import layers, tree
from keras.src.backend.common import global_state


@contextmanager
def without_values() -> Iterator[None]:
    """Models built inside have shapes but no values: the largest takes a second and no memory.

    Example:
        >>> with without_values():
        ...     model = keras.Sequential([keras.Input((9,)), layers.Dense(3)])
        >>> params(model)
        30
    """
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Keras keeps their variables, to give all of them values when it next traces a layer.
        global_state.set_global_attribute("uninitialized_variables", [])


def params(model: keras.Model) -> int:
    """The number of trainable scalars, as if no layer were frozen."""
    norms = [layer for layer in _leaves(model) if isinstance(layer, layers.BatchNormalization)]
    statistics = {id(v) for norm in norms for v in (norm.moving_mean, norm.moving_variance)}
    return sum(math.prod(v.shape) for v in model.weights if id(v) not in statistics)


def macs(model: keras.Model) -> int:
    """Multiply-accumulates of convolutions and dense layers for one image; biases and other layers are not counted.

    If TensorFlow's SAME padding of a strided convolution is uneven, one row and one column more are counted.
    PaddlePaddle's EfficientNets compute and drop them, and the published figures include them (0.2 % of B0).
    """
    # Each scalar of a kernel, grouped and depthwise ones too, is used once at every output position.
    uses = ((e.kernel.shape, [n + _dropped(e) for n in e.output.shape[1:-1]]) for e in _linear(model))
    return sum(math.prod(kernel) * math.prod(positions) for kernel, positions in uses)


def memory_access(model: keras.Model) -> int:
    """Scalars that convolutions and dense layers read, weights too, and write (Ma et al., 2018,
    https://arxiv.org/abs/1807.11164)."""
    return sum(_size(e.input) + _size(e.output) + e.count_params() for e in _linear(model))


def peak_activations(model: keras.Model) -> int:
    """The most scalars of feature maps that exist at once when layers run one by one, in the model's order.

    An element-wise layer writes its result over its input, if no other layer reads that input: a layer counts as
    element-wise if it has neither a kernel nor a window and its output has the size of its only input.
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
    """Whether this is a strided SAME convolution that pads its end more than its start. Maps are square."""
    if isinstance(layer, layers.Dense):
        return False
    (size, length), stride = (t.shape[1] for t in (layer.input, layer.output)), layer.strides[0]
    padding = max((length - 1) * stride + layer.kernel_size[0] - size, 0)
    return layer.padding == "same" and stride > 1 and padding % 2 == 1


def _leaves(model: keras.Model) -> list[keras.layers.Layer]:
    return list(model._flatten_layers(include_self=False))


COSTS = {f.__name__: f for f in (params, macs, memory_access, peak_activations)}
