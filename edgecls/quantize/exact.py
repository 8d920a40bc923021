"""The integer arithmetic of the file, in Keras: what a finalized network computes in inference.

Fake quantization rounds a float that can differ from the file's in the last bit. It also rounds halves up, and XNNPACK
rounds halves to even. Such a difference can move a value to the next int8 step (about 1 value in 10^6), and each later
layer amplifies it. So once the ranges are final, a layer whose output goes to a grid computes with integers: it divides
its float inputs by their step, accumulates the integers (float32 does so without error below 2**24), and rounds as
XNNPACK's int8 kernels do.

Between layers the values stay real numbers on their grids. Saturation is done by the ``Quantize`` layer that follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgecls.errors import UsageError

Tensor = Any

MULTIPLIER_BITS = 20  # of the fixed-point factor of a sum's larger term


class Exact:
    """What the layers share whose outputs go to a grid.

    Args:
        steps: The steps of the grids of the inputs and, last, of the output. ``finalize`` sets them; None before.
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

    def unit(self, steps: Sequence[float]) -> Any:
        """The real value of 1 in what is rounded to the output's grid, for inputs of these steps; 0: it is no matter.

        XNNPACK refuses an operation whose output's step is many times finer.
        """
        return 0.0

    def get_config(self) -> dict[str, Any]:
        grids = {key: value and list(value) for key, value in (("steps", self.steps), ("zeros", self.zeros))}
        return {**super().get_config(), **grids}  # type: ignore[misc]


def counted(values: Tensor, step: float | Tensor) -> Tensor:
    """The integers behind values on a grid, as float32."""
    return tf.round(values / tf.cast(step, tf.float32))


def requantized(total: Tensor, unit: Any, step: float) -> Tensor:
    """Round an accumulator to the grid of the output, with one float32 factor and halves to even.

    Args:
        total: An integer accumulator in float32.
        unit: The real value of 1 in the accumulator: one number, or one a channel, as float64 that float32 can hold.
        step: The step of the output's grid.
    """
    target = float(np.float32(step))
    # A division in float64 that is rounded once equals one in float32, and no graph optimizer changes it.
    factor = tf.cast(tf.cast(unit, tf.float64) / target, tf.float32)
    return tf.round(total * factor) * target


def product(a: Any, b: Any) -> Tensor:
    """The float32 product of two steps, as float64."""
    return tf.cast(tf.cast(single(a) * single(b), tf.float32), tf.float64)


def single(value: Any) -> Tensor:
    """``value`` as float32 has it, as float64."""
    return tf.cast(tf.cast(value, tf.float32), tf.float64)


def added(a: Tensor, b: Tensor, steps: Sequence[float]) -> Tensor:
    """Add integers on two grids and round the sum to a third.

    XNNPACK multiplies both terms by fixed-point factors, the larger of them with 21 bits, and rounds halves up.

    Args:
        a: Integers on the first grid, as float32.
        b: Integers on the second grid, as float32.
        steps: The steps of the first, the second and the output's grid.
    """
    ratios = [np.float32(step) / np.float32(steps[2]) for step in steps[:2]]
    shift = MULTIPLIER_BITS - (math.frexp(max(ratios))[1] - 1)
    factors = [int(np.rint(float(ratio) * 2.0**shift)) for ratio in ratios]
    total = tf.cast(a, tf.int32) * factors[0] + tf.cast(b, tf.int32) * factors[1] + (1 << (shift - 1))
    return tf.cast(tf.bitwise.right_shift(total, shift), tf.float32) * float(np.float32(steps[2]))
