"""Activations, and functions of one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from edgecls.weights.translate.registry import Node, translates
from edgecls.weights.translate.values import Unsupported, Value, constant
from edgecls.zoo import layers as zoo_layers

SOFTMAX_OF_ONE_AXIS = 13  # the opset from which on a softmax does not flatten what lies behind its axis
LOWEST = float(np.finfo(np.float32).min)


ACTIVATIONS: dict[str, Callable[[Node], keras.Layer]] = {
    "Relu": lambda node: layers.ReLU(name=node.name),
    "Sigmoid": lambda node: layers.Activation("sigmoid", name=node.name),
    "Tanh": lambda node: layers.Activation("tanh", name=node.name),
    "Elu": lambda node: layers.ELU(node.setting("alpha", default=1.0), name=node.name),
    "Softplus": lambda node: layers.Activation("softplus", name=node.name),
    "LeakyRelu": lambda node: layers.LeakyReLU(node.setting("alpha", default=0.01), name=node.name),
    "HardSwish": lambda node: zoo_layers.HardSwish(name=node.name),
    "HardSigmoid": lambda node: zoo_layers.HardSigmoid(
        node.setting("alpha", default=0.2), node.setting("beta", default=0.5), name=node.name
    ),
}
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "Abs": ops.abs,
    "Erf": ops.erf,
    "Exp": ops.exp,
    "Log": ops.log,
    "Reciprocal": ops.reciprocal,
    "Sqrt": ops.sqrt,
}


@translates(*ACTIVATIONS)
def _activation(node: Node) -> Value:
    return node.value().with_tensor(ACTIVATIONS[node.kind](node)(node.value().tensor))


@translates(*FUNCTIONS)
def _function(node: Node) -> Value:
    return node.value().with_tensor(FUNCTIONS[node.kind](node.value().tensor))


@translates("Gelu")
def _gelu(node: Node) -> Value:
    x = node.value()
    if node.setting("approximate", default=b"none") == b"tanh":
        return x.with_tensor(ops.gelu(x.tensor, approximate=True))
    return x.with_tensor(layers.Activation("gelu", name=node.name)(x.tensor))


@translates("Clip")
def _clip(node: Node) -> Value:
    x, low, high = node.value(), node.setting("min", 1), node.setting("max", 2)
    if low == 0 and (high is None or high > 0):
        return x.with_tensor(layers.ReLU(high, name=node.name)(x.tensor))
    return x.with_tensor(
        ops.clip(x.tensor, LOWEST if low is None else low, -LOWEST if high is None else high)
    )


@translates("PRelu")
def _prelu(node: Node) -> Value:
    x, slope = node.value(), constant(node.array(1), node.value())
    shared = [axis for axis, size in enumerate(slope.shape) if axis and size == 1]
    layer = layers.PReLU(shared_axes=shared, name=node.name)
    result = layer(x.tensor)
    layer.set_weights([np.broadcast_to(slope[0], layer.alpha.shape)])
    return x.with_tensor(result)


@translates("Softmax")
def _softmax(node: Node) -> Value:
    x = node.value()
    axis = node.setting("axis", default=-1 if node.opset >= SOFTMAX_OF_ONE_AXIS else 1) % x.rank
    if node.opset < SOFTMAX_OF_ONE_AXIS and any(size > 1 for size in x.shape[axis + 1 :]):
        raise Unsupported("a softmax over several axes")
    place = x.place(axis)
    last = place == len(x.axes) - 1
    layer = layers.Activation("softmax", name=node.name) if last else layers.Softmax(place, name=node.name)
    return x.with_tensor(layer(x.tensor))


@translates("Identity", "Dropout")
def _same(node: Node) -> Value:
    return node.value()


@translates("Cast")
def _cast(node: Node) -> Value:
    if node.setting("to") not in (1, 10, 11):  # float32, float16, float64
        raise Unsupported("whole numbers or truth values inside the network")
    return node.value()
