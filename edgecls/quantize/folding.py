"""Batch normalizations folded before quantization: for what needs to see the kernels of the file in the float network.

With a scale for each channel the factors of a normalization behind a kernel change nothing but those scales, so
``finalize`` can fold them when training has ended. One scale for all channels has to be that of the folded kernel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from edgecls.graph import Graph, Op, rebuild, trace

KERNELS = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def fold_norms(network: keras.Model, kept: Collection[str] = ()) -> keras.Model:
    """Write every batch normalization into the kernel before it, or else as a factor and a summand for each channel.

    Args:
        network: From ``lower``. It is not changed.
        kept: Names of layers that are left as they are, and with them the normalizations behind them.

    Returns:
        A network that computes the same in inference.

    Example:
        >>> image = keras.Input((8, 8, 3))
        >>> x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, use_bias=False, name="conv")(image))
        >>> [layer.name for layer in fold_norms(keras.Model(image, x)).layers[1:]]
        ['conv']
    """
    graph = trace(network)
    folded: dict[str, Line] = {}  # by the name of the kernel's layer
    lines: dict[str, Line | None] = {}  # by the name of the normalization; None: it is in a kernel
    for op in graph.ops:
        before = graph.makers[op.inputs[0]] if op.inputs else None
        if before is None or not isinstance(op.layer, layers.BatchNormalization):
            continue
        if isinstance(before.layer, layers.InputLayer) or not _last_axis(op.layer):
            continue  # values that need not be pixels; an axis that has no plan, which says so
        if {op.layer.name, before.layer.name} & set(kept):
            continue
        line = Line.of(op.layer)
        alone = _takes(graph, before) and graph.calls[op.layer.name] == 1
        lines[op.layer.name] = None if alone else line
        if alone:
            folded[before.layer.name] = line
    if not lines:
        return network

    def change(layer: Any, inputs: Any) -> Any:
        if layer.name in folded:
            return _kernel_with(network.get_layer(layer.name), folded[layer.name], inputs)
        if layer.name not in lines:
            return None
        line = lines[layer.name]
        return inputs if line is None else line.layer(layer.name)(inputs)

    return rebuild(network, change)


@dataclass(frozen=True)
class Line:
    """``gain * x + shift`` for each channel."""

    gain: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(cls, norm: layers.BatchNormalization, least: float = 0.0) -> Line:
        """What ``norm`` computes in inference; a ``gamma`` that is smaller than ``least`` counts as that."""
        gain = 1 / np.sqrt(float64(norm.moving_variance) + norm.epsilon)
        if norm.scale:
            gamma = float64(norm.gamma)
            gain = gain * np.where(np.abs(gamma) < least, least, gamma)
        shift = -float64(norm.moving_mean) * gain
        return cls(gain, shift + float64(norm.beta) if norm.center else shift)

    def layer(self, name: str) -> layers.Rescaling:
        """It as a layer."""
        return layers.Rescaling(self.gain.tolist(), self.shift.tolist(), name=name)


def output_channels(layer: Any, factors: np.ndarray) -> np.ndarray:
    """``factors`` of the output channels of a kernel's layer, in a shape that multiplies its kernel."""
    return factors.reshape(layer.kernel.shape[2:]) if isinstance(layer, layers.DepthwiseConv2D) else factors


def float64(variable: Any) -> np.ndarray:
    """The values of a variable."""
    return np.asarray(variable.numpy(), np.float64)


def _takes(graph: Graph, before: Op) -> bool:
    """Whether a normalization behind ``before`` can be in its kernel."""
    layer = before.layer
    once = graph.users[before.output] == graph.calls[layer.name] == 1
    transposed = isinstance(layer, layers.Conv2DTranspose)
    return once and isinstance(layer, KERNELS) and not transposed


def _last_axis(norm: layers.BatchNormalization) -> bool:
    return norm.axis in (-1, len(norm.input.shape) - 1)


def _kernel_with(layer: Any, line: Line, inputs: Any) -> Any:
    """The output of the twin of ``layer`` that has ``line`` in its kernel and bias."""
    twin = type(layer).from_config({**layer.get_config(), "use_bias": True})
    outputs = twin(inputs)
    bias = float64(layer.bias) if layer.use_bias else 0.0
    twin.kernel.assign(float64(layer.kernel) * output_channels(layer, line.gain))
    twin.bias.assign(bias * line.gain + line.shift)
    return outputs
