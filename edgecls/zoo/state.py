"""How a network's variables are named and laid out in a state ``{name: array}``.

A state has PaddlePaddle's form, which the layer names of the zoo follow: ``<layer>.weight``, ``.bias``, ``._mean`` and
``._variance``. Kernels of convolutions are [out, in / groups, height, width], of depthwise ones
[channels, 1, height, width], of dense layers [in, out].

Keras' own layers are known here. A family's own layer says itself what it adds to the state: see ``CustomState``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import keras
import numpy as np
from keras import layers

CONVOLUTION = (2, 3, 1, 0)  # [out, in / groups, h, w] -> Keras' [h, w, in / groups, out]
DEPTHWISE = (2, 3, 0, 1)  # [channels, 1, h, w] -> Keras' [h, w, channels, 1]


@runtime_checkable
class CustomState(Protocol):
    """A layer with variables that is none of Keras' own.

    Example:
        >>> class Scale(keras.layers.Layer):
        ...     state_axes = None
        ...
        ...     def build(self, shape):
        ...         self.gain = self.add_weight((shape[-1],), name="gain")
        ...
        ...     def state_variables(self):
        ...         return {f"{state_name(self)}.gain": self.gain}
        >>> isinstance(Scale(), CustomState)
        True
    """

    state_axes: tuple[int, int, int, int] | None
    """Order of a state's axes in Keras, for its four-dimensional variables; None where both are laid out alike."""

    def state_variables(self) -> Mapping[str, keras.Variable]:
        """The variables by their names in the state."""


def state_name(layer: keras.layers.Layer) -> str:
    """The name of a layer in the state.

    TensorFlow takes no name that begins with an underscore, so a layer's name has a dot before it. Keras takes no
    slash in a name, so a layer's name has ``>`` in its place.
    """
    return str(layer.name.removeprefix(".").replace(">", "/"))


def variables(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer, keras.Variable]]:
    """Every variable of a state: its name in the state, its layer and itself."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, CustomState):
            yield from ((name, layer, variable) for name, variable in layer.state_variables().items())
            continue
        if isinstance(layer, layers.BatchNormalization):
            parts = {
                "weight": layer.gamma,
                "bias": layer.beta,
                "_mean": layer.moving_mean,
                "_variance": layer.moving_variance,
            }
        elif isinstance(layer, layers.LayerNormalization):
            parts = {"weight": layer.gamma, "bias": layer.beta}
        elif isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
            parts = {"weight": layer.kernel, "bias": layer.bias}
        else:
            continue
        yield from ((f"{state_name(layer)}.{part}", layer, v) for part, v in parts.items() if v is not None)


def state_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's state, also of a model that was built without values."""
    return {
        name: to_state(layer, np.broadcast_to(np.float32(0), variable.shape)).shape
        for name, layer, variable in variables(model)
    }


def to_state(layer: keras.layers.Layer, value: np.ndarray) -> np.ndarray:
    """The value of a layer's variable, laid out as in a state."""
    if value.ndim == 4 and (axes := _axes(layer)):
        return value.transpose(np.argsort(axes))
    if value.ndim == 2 and (shape := _flattened_map(layer)):
        return value.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(value.shape)
    return value


def from_state(layer: keras.layers.Layer, value: np.ndarray) -> np.ndarray:
    """An array of a state, laid out as the layer's variable."""
    if value.ndim == 4 and (axes := _axes(layer)):
        return value.transpose(axes)
    if value.ndim == 2 and (shape := _flattened_map(layer)):
        height, width, channels = shape
        if len(value) == height * width * channels:
            rows = value.reshape(channels, height, width, -1)
            return rows.transpose(1, 2, 0, 3).reshape(value.shape)
    return value


def _axes(layer: keras.layers.Layer) -> tuple[int, int, int, int] | None:
    if isinstance(layer, CustomState):
        return layer.state_axes
    return DEPTHWISE if isinstance(layer, layers.DepthwiseConv2D) else CONVOLUTION


def _flattened_map(layer: keras.layers.Layer) -> tuple[int, int, int] | None:
    """Height, width and channels of the map that a dense kernel's rows come from; a state has the channels first."""
    source = layer.input._keras_history.operation
    if isinstance(source, layers.Dropout):
        source = source.input._keras_history.operation
    if not isinstance(source, layers.Flatten) or len(source.input.shape) != 4:
        return None
    return source.input.shape[1:]
