"""Attention: its products are int8, the softmax between them is float (see ``rules.sequences``).

Queries, keys and values are dense layers of their own, each on its own grid. XNNPACK multiplies two int8 tensors only if
zero of the right one is 0, so keys and values lie on symmetric grids. The factor of the queries is in their kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from keras.src.ops import numpy as knp

from edgecls.graph import Op
from edgecls.quantize import exact
from edgecls.quantize.registry import lowers, missing, plans
from edgecls.zoo import layers as zoo_layers
from edgecls.zoo import vit

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering
    from edgecls.quantize.plan import Plan, Value

Tensor = Any
Shape = tuple[int | None, ...]

SEQUENCE = 3  # dimensions of a batch of sequences
PARTS = ("query", "key", "value")

_serializable = keras.saving.register_keras_serializable(package="edgecls")


@_serializable
class MatMul(layers.Layer):
    """The product of two batches of matrices: [..., n, m] and [..., m, k] make [..., n, k]."""

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        return tf.matmul(*inputs)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        left, right = input_shape
        return *left[:-1], right[-1]


@_serializable
class QuantizedMatMul(exact.Exact, MatMul):
    """``MatMul`` of two tensors on grids."""

    def call(self, inputs: Sequence[Tensor], training: bool | None = None) -> Tensor:
        if not self.counts(training):
            return super().call(inputs)
        assert self.steps is not None
        left, right, target = self.steps
        total = tf.matmul(exact.counted(inputs[0], left), exact.counted(inputs[1], right))
        return exact.requantized(total, exact.product(left, right), target)

    def unit(self, steps: Sequence[float]) -> float:
        return math.prod(steps)


@plans(MatMul)
def _matmul(plan: Plan, op: Op, values: list[Value]) -> Value:
    left, right = map(plan.unshifted, values)
    nodes = [plan.on_grid(left), plan.on_symmetric_grid(right)]
    node = plan.node(op.layer.name, QuantizedMatMul, nodes, {})
    return plan.result(op, node, scale=left.scale * right.scale)


@lowers(knp.Matmul)
def _bare_matmul(lowering: Lowering, op: Any, inputs: Sequence[Any]) -> Tensor:
    if not all(isinstance(x, keras.KerasTensor) and len(x.shape) >= SEQUENCE for x in inputs):
        raise missing(op, "a product with a constant matrix; a Dense layer has one")
    if len(inputs[0].shape) != len(inputs[1].shape):
        raise missing(op, "a product of matrices of different ranks")
    return MatMul(name=lowering.name(op.name))(list(inputs))


@lowers(vit.Attention)
def _attention(lowering: Lowering, layer: vit.Attention, inputs: Tensor) -> Tensor:
    parts = _thirds(lowering, layer, inputs)
    return _attend(lowering, layer.name, parts, layer.heads, layer.scale)


def _thirds(lowering: Lowering, layer: Any, inputs: Tensor) -> list[Tensor]:
    """Queries, keys and values, by three dense layers in place of the one that makes all."""
    before, width = inputs._keras_history.operation, inputs.shape[-1] // 3
    runs = [slice(i * width, (i + 1) * width) for i in range(3)]
    if type(before) is not layers.Dense or before.name in lowering.kept:
        named = zip(PARTS, runs, strict=True)
        return [
            zoo_layers.Channels(run.start, run.stop, name=lowering.name(f"{layer.name}.{part}"))(inputs)
            for part, run in named
        ]
    kernel, bias = before.kernel, before.bias
    return [
        _dense(
            lowering,
            f"{before.name}.{part}",
            before.input,
            kernel[:, run],
            None if bias is None else bias[run],
        )
        for part, run in zip(PARTS, runs, strict=True)
    ]


@lowers(layers.MultiHeadAttention)
def _multi_head(lowering: Lowering, layer: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Keras' attention, of a sequence to itself or to another one."""
    known = {"query", "value", "key", "training"}
    strange = [name for name, value in inputs.items() if name not in known and value is not None]
    strange = [name for name in strange if inputs[name] is not False]
    strange += [name for name in ("use_gate", "sliding_window") if getattr(layer, f"_{name}", None)]
    query, value = inputs["query"], inputs["value"]
    key = value if inputs.get("key") is None else inputs["key"]
    if strange or len(query.shape) != SEQUENCE:
        raise missing(layer, f"attention with {' and '.join(strange) or f'{len(query.shape)} dimensions'}")
    parts = [
        _dense(lowering, f"{layer.name}.{part}", x, *_matrix(getattr(layer, f"{part}_dense"), 1))
        for part, x in zip(PARTS, (query, key, value), strict=True)
    ]
    scale = 1 / math.sqrt(layer.key_dim)
    gathered = _attend(lowering, f"{layer.name}.gather", parts, layer.num_heads, scale)
    return _dense(lowering, layer.name, gathered, *_matrix(layer.output_dense, 2))


def _matrix(layer: Any, inputs: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Kernel [inputs, outputs] and bias of an ``EinsumDense`` whose kernel's first ``inputs`` axes are summed over."""
    kernel = layer.kernel.numpy()
    bias = None if layer.bias is None else layer.bias.numpy().reshape(-1)
    return kernel.reshape(math.prod(kernel.shape[:inputs]), -1), bias


def _dense(lowering: Lowering, name: str, inputs: Tensor, kernel: Any, bias: Any) -> Tensor:
    layer = layers.Dense(kernel.shape[-1], use_bias=bias is not None, name=lowering.name(name))
    outputs = layer(inputs)
    layer.set_weights([np.asarray(kernel)] if bias is None else [np.asarray(kernel), np.asarray(bias)])
    return outputs


def _attend(lowering: Lowering, name: str, parts: Sequence[Tensor], heads: int, scale: float) -> Tensor:
    """What each of ``heads`` gathers for each query, side by side.

    Args:
        lowering: The pass.
        name: Of the last layer; the others' begin with it.
        parts: Queries, keys and values [batch, tokens, channels].
        heads: Shares of the channels.
        scale: Factor of the products.
    """

    def named(part: str) -> str:
        return lowering.name(f"{name}.{part}")

    def split(x: Tensor, part: str, axes: tuple[int, int, int]) -> Tensor:
        _, count, channels = x.shape
        x = layers.Reshape((count, heads, channels // heads), name=named(f"{part}.heads"))(x)
        return layers.Permute(axes, name=named(f"{part}.order"))(x)

    queries = layers.Rescaling(scale, name=named("scale"))(parts[0])
    queries = split(queries, "query", (2, 1, 3))
    keys, values = split(parts[1], "key", (2, 3, 1)), split(parts[2], "value", (2, 1, 3))
    products = MatMul(name=named("products"))([queries, keys])
    shares = layers.Softmax(name=named("shares"))(products)
    x = MatMul(name=named("sums"))([shares, values])
    x = layers.Permute((2, 1, 3), name=named("order"))(x)
    return layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]), name=lowering.name(name))(x)
