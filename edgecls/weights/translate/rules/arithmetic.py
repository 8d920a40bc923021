"""Sums, products and the like, of two tensors or with a constant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from keras.src.ops.math import Erf

from edgecls.weights.translate.registry import Node, translates
from edgecls.weights.translate.values import Unsupported, Value, aligned, constant
from edgecls.zoo import layers as zoo_layers

TOLERANCE = 1e-5  # of constants that exporters have rounded

PAIRS: dict[str, tuple[Callable[..., keras.Layer] | None, Callable[[Any, Any], Any]]] = {
    "Add": (layers.Add, ops.add),
    "Sub": (layers.Subtract, ops.subtract),
    "Mul": (layers.Multiply, ops.multiply),
    "Div": (None, ops.divide),
    "Max": (layers.Maximum, ops.maximum),
    "Min": (layers.Minimum, ops.minimum),
}


@translates(*PAIRS)
def _pair(node: Node) -> Value:
    if len(node.inputs) != 2:
        raise Unsupported(f"{len(node.inputs)} operands; with two it is known")
    layer, operation = PAIRS[node.kind]
    left, right = node.inputs
    if isinstance(left, Value) and isinstance(right, Value):
        pairs = [(left, right), (right, left)] if node.kind == "Mul" else []
        known = next((found for a, b in pairs if (found := _gated(node, a, b) or _gelu(node, a, b))), None)
        if known:
            return known
        a, b = aligned([left, right], node.name)
        pair = [a.tensor, b.tensor]
        return a.with_tensor(layer(name=node.name)(pair) if layer else operation(*pair))
    index = 0 if isinstance(left, Value) else 1
    x = node.value(index)
    operand = constant(node.array(1 - index), x).astype(np.float32)
    line = _line(node.kind, operand, first=index == 0)
    if line and operand.size in (1, x.tensor.shape[-1]) and operand.shape[-1] == operand.size:
        return x.with_tensor(_rescaled(x.tensor, *line, node.name))
    pair = [x.tensor, operand] if index == 0 else [operand, x.tensor]
    return x.with_tensor(operation(*pair))


def _gated(node: Node, x: Value, gate: Value) -> Value | None:
    """The activation that the product is, if ``gate`` is the sigmoid or hard-sigmoid of ``x``: exporters and onnxruntime
    write SiLU and hard-swish out.
    """
    maker = gate.tensor._keras_history.operation
    hard = isinstance(maker, zoo_layers.HardSigmoid)
    soft = type(maker) is layers.Activation and maker.activation is keras.activations.sigmoid
    if not (hard or soft) or maker.input is not x.tensor:
        return None
    if soft:
        return x.with_tensor(layers.Activation("silu", name=node.name)(x.tensor))
    if abs(maker.slope * 6 - 1) > TOLERANCE or maker.offset != 0.5:
        return None
    return x.with_tensor(zoo_layers.HardSwish(name=node.name)(x.tensor))


def _gelu(node: Node, x: Value, gate: Value) -> Value | None:
    """The GELU that the product is, up to a factor, if it is ``x * (1 + erf(x / sqrt(2)))``."""
    inner, scale, offset = _unscaled(gate.tensor)
    maker = inner._keras_history.operation
    if not isinstance(maker, Erf):
        return None
    source, slope, shift = _unscaled(maker.input)
    other, factor, rest = _unscaled(x.tensor)
    fits = (
        abs(abs(slope) - math.sqrt(0.5)) < TOLERANCE
        and abs(math.copysign(scale, slope * scale) - offset) < TOLERANCE
    )
    if other is not source or not fits or shift or rest:
        return None
    result = layers.Activation("gelu", name=node.name)(source)
    return x.with_tensor(_rescaled(result, 2 * factor * offset, 0.0, node.part("scale")))


def _unscaled(tensor: Any) -> tuple[Any, float, float]:
    """What a tensor is ``scale * source + offset`` of, by one factor and summand; itself if it is of none."""
    maker = tensor._keras_history.operation
    if type(maker) is layers.Rescaling and np.ndim(maker.scale) == np.ndim(maker.offset) == 0:
        return maker.input, maker.scale, maker.offset
    return tensor, 1.0, 0.0


def _rescaled(tensor: Any, scale: Any, offset: Any, name: str) -> Any:
    """``scale * tensor + offset`` by one layer, also for several in a row."""
    scale, offset = np.asarray(scale, float), np.asarray(offset, float)
    source, before, beside = _unscaled(tensor)
    scale, offset = scale * before, offset + scale * beside
    scale, offset = (part.reshape(-1) if part.size > 1 else part.reshape(()) for part in (scale, offset))
    if np.allclose(scale, 1, rtol=TOLERANCE) and not offset.any():
        return source
    return layers.Rescaling(scale.tolist(), offset.tolist(), name=name)(source)


@translates("Neg")
def _negative(node: Node) -> Value:
    return node.value().with_tensor(_rescaled(node.value().tensor, -1.0, 0.0, node.name))


def _line(kind: str, operand: np.ndarray, first: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Factor and summand, if the operation with a constant has them; ``first``: the tensor is the left operand."""
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    if kind == "Add":
        return one, operand
    if kind == "Sub":
        return (one, -operand) if first else (-one, operand)
    if kind == "Mul":
        return operand, zero
    return (1 / operand, zero) if kind == "Div" and first and operand.all() else None


@translates("Sum")
def _sum(node: Node) -> Value:
    values = aligned([node.value(i) for i in range(len(node.inputs))], node.name)
    if len(values) == 1:
        return values[0]
    return values[0].with_tensor(layers.Add(name=node.name)([value.tensor for value in values]))


@translates("Pow")
def _power(node: Node) -> Value:
    x, exponent = node.value(), node.array(1).astype(np.float32)
    if exponent.size == 1 and exponent.item() == 2:
        return x.with_tensor(layers.Multiply(name=node.name)([x.tensor, x.tensor]))
    return x.with_tensor(ops.power(x.tensor, constant(exponent, x)))
