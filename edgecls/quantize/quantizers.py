"""tfmot's quantizers on Keras 3 layers.

The quantizers hold a range in two variables of the layer they serve and apply TensorFlow's fake-quantization ops with
straight-through gradients (Jacob et al., 2018, https://arxiv.org/abs/1712.05877). They need the legacy Keras for one call
only: ``layer.add_weight(name, initializer=<tf_keras>, shape=None or int)``. ``ranges`` answers it with Keras 3's.
"""

from __future__ import annotations

from typing import Any

import keras  # before tfmot, which asks TensorFlow for the legacy Keras
import tensorflow as tf
from tensorflow_model_optimization.python.core.quantization.keras import quant_ops, quantizers

Tensor = Any
Ranges = dict[str, keras.Variable]

STEPS = 255  # steps of an 8-bit grid
SKEW = 128 / 127  # int8 reaches one step further down than up
KERNEL_STEPS = 127  # steps of a kernel's grid on either side of zero
TINY = 1e-6  # least width of a range: a scale of zero breaks the converter
DEAD = 2.0**-14  # least range of a channel's kernel relative to the largest channel's, for the same reason


def ranges(
    quantizer: quantizers.Quantizer,
    shape: tuple[int, ...],
    name: str,
    layer: keras.Layer,
    members: int | None = None,
) -> Ranges:
    """The range variables ``<name>_min`` and ``<name>_max`` that ``quantizer`` wants, owned by ``layer``.

    Args:
        quantizer: One of tfmot's.
        shape: Shape of the quantized tensor; per-axis ranges have its last dimension.
        name: Prefix of the variables' names.
        layer: The Keras 3 layer being built.
        members: How many tensors have a range of their own; None: there is one range.
    """

    class Adapter:
        def add_weight(
            self, name: str, initializer: Any, trainable: bool, shape: Any = None
        ) -> keras.Variable:
            return layer.add_weight(
                name=name,
                shape=() if shape is None and members is None else (members or shape,),
                initializer=keras.initializers.Constant(float(initializer.value)),
                trainable=trainable,
                aggregation="mean",  # replicas see different batches
            )

    return quantizer.build(shape, name, Adapter())


def values(ranges: Ranges) -> dict[str, Tensor]:
    """The TensorFlow variables behind ``ranges``, as tfmot's quantizers take them."""
    return {key: variable.value for key, variable in ranges.items()}


class KernelQuantizer(quantizers.LastValueQuantizer):
    """Symmetric signed 8 bits, -127..127. The range is that of the present kernel.

    Args:
        per_channel: One range for each channel of the last axis; otherwise one for the tensor.
    """

    def __init__(self, per_channel: bool = True) -> None:
        super().__init__(num_bits=8, per_axis=per_channel, symmetric=True, narrow_range=True)

    def __call__(self, inputs: Tensor, training: bool, weights: dict[str, Tensor], **kwargs: Any) -> Tensor:
        if training:
            axes = list(range(len(inputs.shape) - 1)) if self.per_axis else None
            bound = tf.reduce_max(tf.abs(tf.stop_gradient(inputs)), axis=axes)
            bound = tf.maximum(bound, tf.maximum(tf.reduce_max(bound) * DEAD, TINY))
            weights["min_var"].assign(-bound)
            weights["max_var"].assign(bound)
            return with_gradient(inputs, super().__call__(inputs, False, weights, **kwargs))
        return super().__call__(inputs, False, weights, **kwargs)


class ActivationQuantizer(quantizers.MovingAverageQuantizer):
    """Asymmetric 8 bits over a range that follows a moving average of each batch's minimum and maximum.

    tfmot starts at -6..6 with a decay of 0.999, and a short training never leaves that start. Here the decay is an
    argument, and ``calibrate`` sets the start.

    Args:
        decay: Weight of the old range.
        floor: The range ends there, because what follows treats all lower values alike (-3 before hard-swish).
        width: The least width of the range.
        headroom: Factor of the range: 1.5 is half as wide again as the values seen, so that the logits of other
            images do not saturate.
        symmetric: The integer 0 stands for zero, as XNNPACK wants it of the right factor of a matrix product.
    """

    def __init__(
        self,
        decay: float = 0.99,
        floor: float | None = None,
        width: float = TINY,
        headroom: float = 1.0,
        symmetric: bool = False,
    ) -> None:
        super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
        self.decay, self.floor, self.width, self.headroom = decay, floor, width, headroom
        self.grid_is_symmetric = symmetric  # tfmot's ``symmetric`` is another thing

    def clipped(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Widen a range so that it holds zero and has the least width, and end it at the floor."""
        low = tf.minimum(low if self.floor is None else tf.maximum(low, self.floor), 0.0)
        high = tf.maximum(tf.maximum(high, 0.0), low + self.width)
        if not self.grid_is_symmetric:
            return low, high
        bound = tf.maximum(-low, high * SKEW)
        return -bound, bound / SKEW

    def __call__(
        self, inputs: Tensor, member: int | None, weights: dict[str, Tensor], **kwargs: Any
    ) -> Tensor:
        """Round ``inputs``; the range of ``member`` follows them, None: no range does."""
        if member is not None:
            values = tf.stop_gradient(inputs)
            batch = self.clipped(tf.reduce_min(values) * self.headroom, tf.reduce_max(values) * self.headroom)
            for variable, new in zip((weights["min_var"], weights["max_var"]), batch, strict=True):
                chosen = tf.range(tf.size(variable)) == member
                moved = variable * self.decay + new * (1.0 - self.decay)
                variable.assign(moved if variable.shape.rank == 0 else tf.where(chosen, moved, variable))
        if weights["min_var"].shape.rank:
            low, high = tf.reduce_min(weights["min_var"]), tf.reduce_max(weights["max_var"])
            weights = {"min_var": low, "max_var": high}
        return super().__call__(inputs, False, weights, **kwargs)


@tf.custom_gradient
def with_gradient(inputs: Tensor, rounded: Tensor) -> tuple[Tensor, Any]:
    """``rounded`` with the gradient of ``inputs``, none of which is outside of the range.

    TensorFlow's fake quantization looks for those outside again, and computes gradients of the range, which is not trained.
    """
    return tf.identity(rounded), lambda upstream: (upstream, None)


def fixed(inputs: Tensor, low: float, high: float) -> Tensor:
    """``inputs`` on the 8-bit grid of a range known beforehand."""
    return quant_ops.FixedQuantize(inputs, low, high)
