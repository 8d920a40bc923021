"""Pools. Averages become convolutions with constant weights, because XNNPACK does not run them in int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from edgecls.graph import Op
from edgecls.quantize import exact, quantizers
from edgecls.quantize import layers as ql
from edgecls.quantize.exact import counted
from edgecls.quantize.registry import missing, plans
from edgecls.quantize.rules.shapes import same_grid
from edgecls.zoo import pooling

if TYPE_CHECKING:
    from edgecls.quantize.plan import Plan, Value

Tensor = Any
Shape = tuple[int | None, ...]

_serializable = keras.saving.register_keras_serializable(package="edgecls")


@plans(layers.GlobalAveragePooling2D)
def _mean(plan: Plan, op: Op, values: list[Value]) -> Value:
    node = plan.add(op, QuantizedMean, [plan.on_grid(values[0])])
    return plan.result(op, node, scale=values[0].scale, shift=values[0].shift)


@plans(layers.GlobalMaxPooling2D, pooling.EdgeMaxPooling2D)
def _global_max(plan: Plan, op: Op, values: list[Value]) -> Value:
    return same_grid(plan, op, values[0], again=True)


@plans(layers.MaxPooling2D)
def _max(plan: Plan, op: Op, values: list[Value]) -> Value:
    if tuple(op.layer.pool_size) != (1, 1):
        return same_grid(plan, op, values[0])
    _check_strides(op.layer)
    value = plan.unshifted(
        values[0]
    )  # it only leaves out cells, and XNNPACK wants windows as large as the stride
    config = {"scale": 1.0, "offset": 0.0, "strides": op.layer.strides}
    node = plan.node(op.layer.name, ql.ConstantConv2D, [plan.on_grid(value)], config)
    return plan.result(op, node, scale=value.scale)


@plans(layers.AveragePooling2D)
def _average(plan: Plan, op: Op, values: list[Value]) -> Value:
    layer = op.layer
    sizes = layer.input.shape[1:3], layer.output.shape[1:3], layer.pool_size, layer.strides
    counts = [_cells(*axis, layer.padding == "same") for axis in zip(*sizes, strict=True)]
    return _windows(plan, op, values[0], counts, layer.padding)


@plans(pooling.EdgeAveragePooling2D)
def _edge_average(plan: Plan, op: Op, values: list[Value]) -> Value:
    value, name = plan.unshifted(values[0]), f"{op.layer.name}.pad"
    pad = plan.node(name, layers.ZeroPadding2D, [plan.on_grid(value)], {"padding": (1, 1)})
    plan.passing(op, pad, [value.node.grid], again=True)
    sizes = op.layer.input.shape[1:3], op.layer.output.shape[1:3]
    counts = [np.array([3 - (i == 0) - (2 * i == n) for i in range(m)]) for n, m in zip(*sizes, strict=True)]
    return _windows(plan, op, replace(value, node=pad), counts, "valid")


def _cells(size: int, outputs: int, window: int, stride: int, padded: bool) -> np.ndarray:
    """How many cells of an axis each window covers, without padding."""
    before = max((outputs - 1) * stride + window - size, 0) // 2 if padded else 0
    starts = np.arange(outputs) * stride - before
    return np.minimum(starts + window, size) - np.maximum(starts, 0)


def _check_strides(layer: Any) -> None:
    """A depthwise convolution, which the layer becomes, has one stride."""
    if len(set(layer.strides)) > 1:
        raise missing(layer, f"an average pool or a choice of cells with strides {tuple(layer.strides)}")


def _windows(plan: Plan, op: Op, value: Value, counts: list[np.ndarray], padding: str) -> Value:
    """Averages over whole windows, and where some reach into the padding, a product that makes up for it."""
    value, layer = plan.unshifted(value), op.layer
    _check_strides(layer)
    window, strides = tuple(layer.pool_size), tuple(layer.strides)
    gains = np.outer(*(size / cells for size, cells in zip(window, counts, strict=True)))
    whole = bool(np.all(gains == 1.0))
    config = {
        "scale": 1.0,
        "offset": 0.0,
        "window": window,
        "strides": strides,
        "padding": "valid" if whole else padding,
    }
    name = layer.name if whole else f"{layer.name}.windows"
    node = plan.node(name, ql.ConstantConv2D, [plan.on_grid(value)], config)
    if not whole:
        source = plan.on_grid(plan.result(op, node))
        node = plan.node(layer.name, ConstantMultiply, [source], {"factors": gains.tolist()})
    return plan.result(op, node, scale=value.scale, linear=True)


@_serializable
class QuantizedMean(exact.Exact, layers.GlobalAveragePooling2D):
    """``GlobalAveragePooling2D`` of a tensor on a grid.

    XNNPACK adds up the int8 values as they are and corrects for both zero points at once, in float32.
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not self.counts(training):
            return super().call(inputs)
        assert self.steps is not None
        assert self.zeros is not None
        count, target = inputs.shape[1] * inputs.shape[2], np.float32(self.steps[1])
        factor = np.float32(self.steps[0]) / target * (np.float32(1.0) / np.float32(count))
        offset = np.float32(self.zeros[1]) - np.float32(count * self.zeros[0]) * factor
        total = tf.reduce_sum(counted(inputs, self.steps[0]), [1, 2], keepdims=self.keepdims)
        total = tf.cast(total + count * self.zeros[0], tf.float64)
        # The product is in float64: a compiler could fuse a float32 one with the sum and round once less.
        scaled = tf.cast(total * float(factor), tf.float32)
        return (tf.round(scaled + offset) - self.zeros[1]) * target

    def unit(self, steps: Sequence[float]) -> float:
        return steps[0]


@_serializable
class ConstantMultiply(exact.Exact, layers.Layer):
    """A map times a constant factor at each position. The factors are rounded to a grid of their own.

    Args:
        factors: Positive, [height, width].
    """

    def __init__(self, factors: Sequence[Sequence[float]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factors = np.array(factors, float).tolist()

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        factors = np.array(self.factors, np.float32)[None, :, :, None]
        top = float(factors.max())
        if self.counts(training):
            assert self.steps is not None
            source, target = self.steps
            step = float(np.float32(top / quantizers.STEPS))
            product = counted(inputs, source) * tf.constant(np.rint(factors / np.float32(step)))
            return exact.requantized(product, exact.product(source, step), target)
        return inputs * (quantizers.fixed(tf.constant(factors), 0.0, top) if self.enabled else factors)

    def unit(self, steps: Sequence[float]) -> float:
        return steps[0] * float(np.max(self.factors)) / quantizers.STEPS

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factors": self.factors}
