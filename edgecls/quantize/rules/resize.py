"""Bilinear upsampling: the output lies on the grid of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from edgecls.graph import Op
from edgecls.quantize import exact
from edgecls.quantize.registry import plans

if TYPE_CHECKING:
    from edgecls.quantize.plan import Plan, Value

Tensor = Any

ALPHA_BITS = 11  # of a weight in XNNPACK

_serializable = keras.saving.register_keras_serializable(package="edgecls")


@plans(layers.UpSampling2D)
def _bilinear(plan: Plan, op: Op, values: list[Value]) -> Value:
    value = plan.unshifted(values[0])
    node = plan.add(op, BilinearUpSampling2D, [plan.on_grid(value)])
    plan.passing(op, node, [value.node.grid], again=True)
    return plan.result(op, node, scale=value.scale)


@_serializable
class BilinearUpSampling2D(exact.Exact, layers.UpSampling2D):
    """``UpSampling2D(interpolation="bilinear")`` of a tensor on a grid, with weights of 11 bits; halves are rounded up."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not self.counts(training):
            return super().call(inputs)
        assert self.steps is not None
        x = tf.cast(exact.counted(inputs, self.steps[0]), tf.int32)
        for axis, factor in ((2, self.size[1]), (1, self.size[0])):
            first, second, weight = _neighbors(x.shape[axis], factor)
            shape = [-1 if i == axis else 1 for i in range(4)]
            before, after = tf.gather(x, first, axis=axis), tf.gather(x, second, axis=axis)
            x = before * (1 << ALPHA_BITS) + (after - before) * tf.reshape(weight, shape)
        half = 1 << (2 * ALPHA_BITS - 1)
        total = tf.bitwise.right_shift(x + half, 2 * ALPHA_BITS)
        return tf.cast(total, tf.float32) * float(np.float32(self.steps[1]))


def _neighbors(size: int, factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two cells that each cell of the larger axis lies between, and the weight of the second."""
    at = (np.arange(size * factor, dtype=np.float32) + np.float32(0.5)) / np.float32(factor) - np.float32(0.5)
    at = np.clip(at, 0, size - 1)
    first = np.floor(at).astype(np.int32)
    weight = np.rint((at - first) * 2**ALPHA_BITS).astype(np.int32)
    return first, np.minimum(first + 1, size - 1), weight
