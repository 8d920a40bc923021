"""Activation functions as layers: the plain ones, and those of other names or forms that are the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from edgecls.graph import Op
from edgecls.quantize import exact
from edgecls.quantize.registry import lowers, missing, plans
from edgecls.quantize.rules import functions
from edgecls.zoo import layers as zoo_layers

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Plan, Value

Tensor = Any

FORMS: dict[str, Any] = {  # a layer for each activation function that has a plan
    "relu": lambda name: layers.ReLU(name=name),
    "relu6": lambda name: layers.ReLU(6.0, name=name),
    "leaky_relu": lambda name: layers.LeakyReLU(0.2, name=name),
    "hard_silu": lambda name: zoo_layers.HardSwish(name=name),
    "hard_sigmoid": lambda name: zoo_layers.HardSigmoid(1 / 6, name=name),
    "softmax": lambda name: layers.Softmax(name=name),
    "sigmoid": lambda name: layers.Activation("sigmoid", name=name),
    "tanh": lambda name: layers.Activation("tanh", name=name),
    "silu": lambda name: layers.Activation("silu", name=name),
    "gelu": lambda name: layers.Activation("gelu", name=name),
    **{kind: partial(functions.in_float, kind) for kind in functions.FUNCTIONS},
}

_serializable = keras.saving.register_keras_serializable(package="edgecls")


@lowers(layers.Activation)
def _activation(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    if isinstance(layer.activation, keras.Layer):
        return lowering.apply(layer.activation, inputs)
    kind = keras.activations.serialize(layer.activation)
    if kind == "linear":
        return inputs
    if isinstance(kind, str) and kind in FORMS:
        return FORMS[kind](lowering.name(layer.name))(inputs)
    known = isinstance(kind, str) and hasattr(keras.activations, kind)
    model = None if known else functions.traced(layer.activation, inputs, layer.name)
    if model is not None:
        return lowering.inline(model, inputs)
    kind = kind if isinstance(kind, str) else getattr(layer.activation, "__name__", "of a class of its own")
    raise missing(layer, f"activation {kind!r}; there is one for {', '.join(FORMS)}")


@lowers(layers.ReLU)
def _relu_form(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    if layer.threshold or (layer.negative_slope and layer.max_value is not None):
        raise missing(layer, "a leaky or thresholded ReLU with bounds; a plain one has one")
    if layer.negative_slope:
        return layers.LeakyReLU(layer.negative_slope, name=lowering.name(layer.name))(inputs)
    return lowering.clone(layer)(inputs)


@lowers(layers.PReLU)
def _prelu(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    """``x + (1 - slope) * relu(-x)``, for any slope; a depthwise kernel holds it, so that it goes on learning."""
    *positions, _ = layer.alpha.shape
    if math.prod(positions) != 1:
        raise missing(layer, "a PReLU with a slope for each position; shared_axes=[1, 2] has one")
    slope = layers.DepthwiseConv2D(1, use_bias=False, name=lowering.name(f"{layer.name}.slope"))
    flip = layers.Rescaling(-1.0, name=lowering.name(f"{layer.name}.flip"))
    below = layers.ReLU(name=lowering.name(f"{layer.name}.below"))(flip(inputs))
    shape = inputs.shape[1:]
    if len(shape) == 1:
        below = layers.Reshape((1, 1, *shape), name=lowering.name(f"{layer.name}.map"))(below)
    below = slope(below)
    slope.kernel.assign(np.broadcast_to(1 - layer.alpha.numpy().reshape(-1, 1), slope.kernel.shape))
    if len(shape) == 1:
        below = layers.Reshape(shape, name=lowering.name(f"{layer.name}.flat"))(below)
    return layers.Add(name=lowering.name(layer.name))([inputs, below])


@plans(layers.ReLU)
def _relu(plan: Plan, op: Op, values: list[Value]) -> Value:
    return relu(plan, op, values[0], op.layer.max_value, op.layer.name)


def relu(plan: Plan, op: Op, value: Value, top: float | None, name: str) -> Value:
    """A ReLU on ``value``. Int8 operations end at 6 or nowhere: another ``top`` becomes 6 by a scale."""
    value = plan.unshifted(value) if top is None else plan.rescaled(value, 6.0 / top)
    node = plan.fused(value)
    maker = value.maker if node is value.node else None
    node = plan.node(name, layers.ReLU, [node], {"max_value": None if top is None else 6.0})
    return plan.result(op, node, scale=value.scale, maker=maker if top is None else None)


@plans(layers.LeakyReLU)
def _leaky_relu(plan: Plan, op: Op, values: list[Value]) -> Value:
    value = plan.unshifted(values[0])
    node = plan.node(
        op.layer.name, QuantizedLeakyReLU, [plan.on_grid(value)], {"negative_slope": op.layer.negative_slope}
    )
    return plan.result(op, node, scale=value.scale)


@_serializable
class QuantizedLeakyReLU(exact.Exact, layers.LeakyReLU):
    """``LeakyReLU`` of a tensor on a grid. XNNPACK multiplies by factors in steps of 1/256, and rounds halves up."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not self.counts(training):
            return tf.nn.leaky_relu(inputs, self.negative_slope)
        assert self.steps is not None
        source, target = self.steps
        counts = exact.counted(inputs, source)
        ratio = np.float32(source) / np.float32(target)
        factors = [
            float(np.rint(np.float32(256.0) * f)) for f in (ratio, ratio * np.float32(self.negative_slope))
        ]
        total = counts * tf.where(counts >= 0, factors[0], factors[1])
        return tf.floor((total + 128.0) / 256.0) * float(np.float32(target))

    def unit(self, steps: Sequence[float]) -> float:
        return steps[0]
