"""Sums and products of tensors: in pairs, because an int8 operation takes two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras import layers
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from edgecls.graph import Op
from edgecls.quantize import exact, floats
from edgecls.quantize.exact import added, counted, product, requantized
from edgecls.quantize.registry import lowers, plans

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Node, Plan, Value

Tensor = Any

# XNNPACK adds int8 tensors only if no term's step is 2**10 times finer than the sum's. A term that is nearly zero
# everywhere would have such a step and split the graph.
TERM_WIDTH = 0.02

_serializable = keras.saving.register_keras_serializable(package="edgecls")


@lowers(CustomScaleLayer)
def _scaled_sum(lowering: Lowering, layer: Any, inputs: list[Tensor]) -> Tensor:
    scaled = layers.Rescaling(layer.scale, name=lowering.name(f"{layer.name}.scale"))(inputs[1])
    return layers.Add(name=lowering.name(layer.name))([inputs[0], scaled])


@plans(layers.Add)
def _add(plan: Plan, op: Op, values: list[Value]) -> Value:
    """In a transformer the sum of all branches goes on in float: it is dequantized for each normalization anyway."""
    if floats.read_in_float(plan, op):
        return floats.keep(plan, op, values)
    return _sum(plan, op, values, [1.0] * len(values))


@plans(layers.Subtract)
def _subtract(plan: Plan, op: Op, values: list[Value]) -> Value:
    return _sum(plan, op, values, [1.0, -1.0])


@plans(layers.Average)
def _average(plan: Plan, op: Op, values: list[Value]) -> Value:
    """The sum is the average at another scale."""
    total = _sum(plan, op, values, [1.0] * len(values))
    return replace(total, scale=total.scale * len(values))


def _sum(plan: Plan, op: Op, values: list[Value], signs: list[float]) -> Value:
    """All terms get one scale: that of a term that cannot be rescaled without an operation."""
    fixed = [v.scale * sign for v, sign in zip(values, signs, strict=True) if not v.scalable]
    scale = max(fixed) if fixed else values[0].scale
    scale = scale if scale > 0 else 1.0
    width = TERM_WIDTH * scale
    terms = [plan.rescaled(v, scale * sign) for v, sign in zip(values, signs, strict=True)]
    node = _in_pairs(plan, op, QuantizedAdd, [plan.on_grid(v, width=width) for v in terms], width)
    return plan.result(op, node, scale=scale, linear=True)


@plans(layers.Multiply)
def _multiply(plan: Plan, op: Op, values: list[Value]) -> Value:
    factors = [plan.unshifted(value) for value in values]
    node = _in_pairs(plan, op, QuantizedMultiply, [plan.on_grid(value) for value in factors])
    return plan.result(op, node, scale=math.prod(value.scale for value in factors), linear=True)


def _in_pairs(plan: Plan, op: Op, kind: type, nodes: list[Node], width: float = 0.0) -> Node:
    """``kind`` of all ``nodes``, two at a time; what lies between is on grids of its own."""
    while len(nodes) > 2:
        part = plan.node(plan.free_name(f"{op.layer.name}.part"), kind, nodes[:2], {})
        nodes = [plan.on_grid(plan.result(op, part), width=width), *nodes[2:]]
    return plan.node(op.layer.name, kind, nodes, {})


@_serializable
class QuantizedAdd(exact.Exact, layers.Add):
    """``Add`` of two tensors on grids."""

    def call(self, inputs: Sequence[Tensor], training: bool | None = None) -> Tensor:
        if not self.counts(training):
            return super().call(inputs)
        assert self.steps is not None
        a, b = map(counted, inputs, self.steps[:2])
        return added(*aligned(a, b), self.steps)

    def unit(self, steps: Sequence[float]) -> float:
        return max(steps)


@_serializable
class QuantizedMultiply(exact.Exact, layers.Multiply):
    """``Multiply`` of two tensors on grids."""

    def call(self, inputs: Sequence[Tensor], training: bool | None = None) -> Tensor:
        if not self.counts(training):
            return super().call(inputs)
        assert self.steps is not None
        a, b = map(counted, inputs, self.steps[:2])
        a, b = aligned(a, b)
        return requantized(a * b, product(*self.steps[:2]), self.steps[2])

    def unit(self, steps: Sequence[float]) -> float:
        return math.prod(steps)


def aligned(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both at the higher rank of the two, as Keras aligns them: with new axes after the batch."""
    ranks = len(a.shape), len(b.shape)
    for _ in range(abs(ranks[0] - ranks[1])):
        a, b = (tf.expand_dims(a, 1), b) if ranks[0] < ranks[1] else (a, tf.expand_dims(b, 1))
    return a, b
