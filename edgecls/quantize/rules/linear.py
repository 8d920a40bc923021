"""Convolutions and dense layers: kernels of their own on int8 grids.

A kernel undoes the scale of its input. What is folded into it costs nothing: the scale that the next operation wants, a
hard-sigmoid's slope and offset, a batch normalization.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from edgecls.graph import Op
from edgecls.quantize import layers as ql
from edgecls.quantize.registry import lowers, plans
from edgecls.zoo import layers as zoo_layers

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Plan, Value

Tensor = Any

_serializable = keras.saving.register_keras_serializable(package="edgecls")


@lowers(layers.SeparableConv2D)
def _separable(lowering: Lowering, layer: Any, inputs: Tensor) -> Tensor:
    """A depthwise convolution and one of a pixel."""
    same = {key: layer.get_config()[key] for key in ("padding", "data_format", "dilation_rate")}
    keys = {"kernel_size": layer.kernel_size, "strides": layer.strides, "use_bias": False}
    first = layers.DepthwiseConv2D(depth_multiplier=layer.depth_multiplier, **keys, **same)
    second = layers.Conv2D(layer.filters, 1, use_bias=layer.use_bias, data_format=same["data_format"])
    for part, name, kernel in ((first, "depthwise", "depthwise_kernel"), (second, "", "pointwise_kernel")):
        inputs = lowering.clone(layer, name, part, {"kernel": kernel})(inputs)
    return lowering.activate(layer.activation, f"{layer.name}.act", inputs)


@plans(layers.Conv2D, zoo_layers.GroupedConv2D, zoo_layers.StridedPointConv2D)
def _conv(plan: Plan, op: Op, values: list[Value]) -> Value:
    return _linear(plan, op, values[0], QuantizedConv2D)


@plans(layers.DepthwiseConv2D)
def _depthwise(plan: Plan, op: Op, values: list[Value]) -> Value:
    return _linear(plan, op, values[0], QuantizedDepthwiseConv2D)


@plans(layers.Conv2DTranspose)
def _transposed(plan: Plan, op: Op, values: list[Value]) -> Value:
    return _linear(plan, op, values[0], QuantizedConv2DTranspose)


@plans(layers.Dense)
def _dense(plan: Plan, op: Op, values: list[Value]) -> Value:
    return _linear(plan, op, values[0], QuantizedDense)


def _linear(plan: Plan, op: Op, value: Value, kind: type) -> Value:
    value = plan.unshifted(value)
    if plan.graph.calls[op.layer.name] > 1 and not _normalized(plan, op):
        return _shared(plan, op, value, kind)
    pixels = plan.stems.get(op.layer.name, {})
    node = plan.add(op, kind, [plan.on_grid(value)], **{"input_scale": value.scale} | pixels)
    if op.call:
        node.name = plan.free_name(f"{op.layer.name}_{op.call}")
        plan.notes[node.name] = "a copy of the kernel: a batch normalization follows, which is folded into it"
    return plan.result(op, node, linear=True, maker=node)


def _normalized(plan: Plan, op: Op) -> bool:
    """Whether a batch normalization follows a call of the layer."""
    calls = [other for other in plan.graph.ops if other.layer is op.layer]
    followers = (user for call in calls for user in plan.graph.consumers(call.output))
    return any(isinstance(user.layer, layers.BatchNormalization) for user in followers)


def _shared(plan: Plan, op: Op, value: Value, kind: type) -> Value:
    """All calls of one kernel have one input grid and one output grid, since it computes with the same integers."""
    first = next((node for node in plan.nodes if node.source is op.layer), None)
    value = plan.rescaled(value, first.config["input_scale"]) if first else value
    node = plan.add(op, kind, [plan.on_grid(value)], input_scale=value.scale)
    result = plan.result(op, node)
    plan.on_grid(result)
    if first:
        plan.join(first.inputs[0], node.inputs[0])
        plan.join(first, node)
    return result


@_serializable
class QuantizedConv2D(ql.QuantizedKernel, zoo_layers.GroupedConv2D):
    """``Conv2D`` with an int8 kernel, one scale an output channel."""

    def linear(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return self.convolution_op(inputs, kernel)


@_serializable
class QuantizedDepthwiseConv2D(ql.QuantizedKernel, layers.DepthwiseConv2D):
    """``DepthwiseConv2D`` with an int8 kernel, one scale an output channel."""

    def _grid(self, kernel: Tensor) -> Tensor:
        height, width, *channels = kernel.shape
        return tf.reshape(kernel, [1, height, width, int(np.prod(channels))])

    def linear(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        kernel, strides = tf.reshape(kernel, self.kernel.shape), [1, *self.strides, 1]
        dilations = list(self.dilation_rate)
        return tf.nn.depthwise_conv2d(inputs, kernel, strides, self.padding.upper(), dilations=dilations)


@_serializable
class QuantizedConv2DTranspose(ql.QuantizedKernel, layers.Conv2DTranspose):
    """``Conv2DTranspose`` with an int8 kernel of one scale: the converter loses the axis of several."""

    has_channel_scales = False
    takes_norm = False

    def linear(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return keras.ops.conv_transpose(
            inputs, kernel, self.strides, self.padding, self.output_padding, dilation_rate=self.dilation_rate
        )


@_serializable
class QuantizedDense(ql.QuantizedKernel, layers.Dense):
    """``Dense`` on the last axis with an int8 kernel, computed as a 1x1 convolution: one scale an output.

    The converter transposes the weights of a fully connected op and then loses their axis.
    """

    def _grid(self, kernel: Tensor) -> Tensor:
        return tf.reshape(kernel, [1, 1, *kernel.shape])

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        *shape, channels = inputs.shape[1:]
        if len(shape) == 2:
            return super().call(inputs, training)
        outputs = super().call(tf.reshape(inputs, [-1, 1, math.prod(shape), channels]), training)
        return tf.reshape(outputs, [-1, *shape, self.units])

    def linear(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return tf.nn.conv2d(inputs, kernel, 1, "VALID")
