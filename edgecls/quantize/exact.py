"""The integer arithmetic of the file, in Keras: what a finalized network computes in inference.

Fake quantization rounds a float that is a last bit away from the file's, and half up where XNNPACK rounds half to even.
Some values in a million then fall to the neighbouring step, and every later layer doubles them. So once ranges are
final, a layer that ends in a grid goes back to the integers behind its float inputs, accumulates those, which float32
does without error below 2**24, and rounds as XNNPACK's int8 kernels do.

Values between layers stay real numbers on their grids: saturation is left to the ``Quantize`` that follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from edgecls.errors import UsageError

Tensor = Any

MULTIPLIER_BITS = 20  # of the larger term of a sum

_serializable = keras.saving.register_keras_serializable(package="edgecls")


class Exact:
    """What the layers share that end in a grid.

    Args:
        steps: The steps of the grids of the inputs and, last, of the output; ``finalize`` sets them, None until then.
        zeros: The int8 values that stand for zero on those grids.
    """

    def __init__(
        self,
        *args: Any,
        steps: Sequence[float] | None = None,
        zeros: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.steps = None if steps is None else tuple(float(step) for step in steps)
        self.zeros = None if zeros is None else tuple(int(zero) for zero in zeros)
        self.enabled = True
        self.exact = True

    def counts(self, training: bool | None) -> bool:
        """Whether to compute with integers."""
        if training and self.steps:
            raise UsageError(
                "a finalized network does not train",
                where=self.name,  # type: ignore[attr-defined]
                fix="train first, or quantize the float network again",
            )
        return bool(self.steps) and self.enabled and self.exact

    def get_config(self) -> dict[str, Any]:
        grids = {key: value and list(value) for key, value in (("steps", self.steps), ("zeros", self.zeros))}
        return {**super().get_config(), **grids}  # type: ignore[misc]


def counted(values: Tensor, step: float | Tensor) -> Tensor:
    """How many steps the values on a grid are, in float32."""
    return tf.round(values / tf.cast(step, tf.float32))


def requantized(total: Tensor, unit: Any, step: float) -> Tensor:
    """``total``, in units of ``unit``, on the grid of ``step``: one float32 factor, halves to even.

    Args:
        total: An integer accumulator in float32.
        unit: What one of it is worth, a float64 that float32 holds: one number, or one a channel.
        step: Of the output.
    """
    target = float(np.float32(step))
    # In float64, rounded once: equal to a division in float32, and out of reach of graph optimizers.
    factor = tf.cast(tf.cast(unit, tf.float64) / target, tf.float32)
    return tf.round(total * factor) * target


def product(a: Any, b: Any) -> Tensor:
    """The float32 product of two steps, as float64."""
    return tf.cast(tf.cast(single(a) * single(b), tf.float32), tf.float64)


def single(value: Any) -> Tensor:
    """``value`` as float32 has it, as float64."""
    return tf.cast(tf.cast(value, tf.float32), tf.float64)


def added(a: Tensor, b: Tensor, steps: Sequence[float]) -> Tensor:
    """The sum of ``a`` steps of the first grid and ``b`` of the second on the third.

    XNNPACK scales both terms with fixed-point factors, the larger of 21 bits, and rounds halves up.
    """
    ratios = [np.float32(step) / np.float32(steps[2]) for step in steps[:2]]
    shift = MULTIPLIER_BITS - (math.frexp(max(ratios))[1] - 1)
    factors = [int(np.rint(float(ratio) * 2.0**shift)) for ratio in ratios]
    total = tf.cast(a, tf.int32) * factors[0] + tf.cast(b, tf.int32) * factors[1] + (1 << (shift - 1))
    return tf.cast(tf.bitwise.right_shift(total, shift), tf.float32) * float(np.float32(steps[2]))


@_serializable
class QuantizedAdd(Exact, layers.Add):
    """``Add`` of two tensors on grids."""

    def call(self, inputs: Sequence[Tensor], training: bool | None = None) -> Tensor:
        if not self.counts(training):
            return super().call(inputs)
        assert self.steps is not None
        a, b = map(counted, inputs, self.steps[:2])
        return added(a, b, self.steps)


@_serializable
class QuantizedMultiply(Exact, layers.Multiply):
    """``Multiply`` of two tensors on grids."""

    def call(self, inputs: Sequence[Tensor], training: bool | None = None) -> Tensor:
        if not self.counts(training):
            return super().call(inputs)
        assert self.steps is not None
        a, b = map(counted, inputs, self.steps[:2])
        return requantized(a * b, product(*self.steps[:2]), self.steps[2])


@_serializable
class QuantizedMean(Exact, layers.GlobalAveragePooling2D):
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
        scaled = tf.cast(
            total * float(factor), tf.float32
        )  # no float32 product: nothing may fuse it with the sum
        return (tf.round(scaled + offset) - self.zeros[1]) * target


@_serializable
class QuantizedAverage(Exact, layers.AveragePooling2D):
    """``AveragePooling2D`` of a tensor on a grid, which the result keeps.

    It runs outside XNNPACK: TFLite rounds the average of the int8 values as they are, halves away from int8's zero.
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not self.counts(training):
            return super().call(inputs)
        assert self.steps is not None
        assert self.zeros is not None
        step, zero = self.steps[0], self.zeros[0]
        ones = tf.ones([1, *inputs.shape[1:3], 1]), tf.ones([*self.pool_size, 1, 1])
        size = tf.nn.conv2d(*ones, self.strides, self.padding.upper())  # of each window, without padding
        total = tf.round(super().call(counted(inputs, step)) * size) + size * zero
        average = tf.sign(total) * tf.floor((tf.abs(total) + tf.floor(size / 2)) / size)
        return (average - zero) * float(np.float32(step))
