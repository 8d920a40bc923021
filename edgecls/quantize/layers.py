"""Layers of a quantization-aware network: each computes in float what its int8 counterpart will compute.

Scales. Hard-swish and the hard-sigmoid gate come out six times too large here (see ``ScaledHardSwish``), so a tensor
may be ``scale`` times that of the float network. The next linear layer divides by its ``input_scale``. Kernels stay in
their original scale and are multiplied by a constant when used: their gradients are those of the float network.

A finalized network computes with integers in inference: see ``exact``.

Switches are plain attributes, read when a step is traced; ``edgecls.quantize.control`` sets them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from edgecls.quantize import exact, quantizers
from edgecls.zoo import layers as zoo_layers

Tensor = Any
Shape = tuple[int | None, ...]

GATE_STEP = 6.0 / quantizers.STEPS  # of relu6 in ScaledHardSwish

_serializable = keras.saving.register_keras_serializable(package="edgecls")


def _uneven(channels: int) -> np.ndarray:
    """Ones, the first with a different last bit.

    The converter quantizes a bias of equal numbers with the scale of the first channel alone.
    """
    ones = np.ones(channels, np.float32)
    ones[0] += 2 * np.finfo(np.float32).eps
    return ones


@_serializable
class Quantize(layers.Layer):
    """Round a tensor to an 8-bit grid. It follows every group of layers that is one int8 operation in the file.

    Called with ``follow=False`` its range stays as it is. Pools need that: they keep the grid of their input.

    Args:
        fixed: ``(low, high)`` if the range is known beforehand. Otherwise it is calibrated and follows the data.
        floor: See ``ActivationQuantizer``.
        decay: See ``ActivationQuantizer``.
        width: See ``ActivationQuantizer``.
        headroom: See ``ActivationQuantizer``.
    """

    def __init__(
        self,
        fixed: Sequence[float] | None = None,
        floor: float | None = None,
        decay: float = 0.99,
        width: float = quantizers.TINY,
        headroom: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fixed = None if fixed is None else (float(fixed[0]), float(fixed[1]))
        self.quantizer = quantizers.ActivationQuantizer(decay, floor, width, headroom)
        self.enabled = True
        self.observing = True
        self.probe: Callable[[Quantize, Tensor], None] | None = None

    def build(self, input_shape: Shape) -> None:
        self.ranges = (
            {} if self.fixed else quantizers.ranges(self.quantizer, input_shape, "range", self)  # type: ignore[arg-type]
        )
        self.built = True

    @property
    def range(self) -> tuple[float, float]:
        """The range's low and high end."""
        return self.fixed or (float(self.ranges["min_var"]), float(self.ranges["max_var"]))

    def set_range(self, low: float, high: float) -> None:
        """Set the range, made to hold zero; the moving average goes on from there."""
        for variable, end in zip(self.ranges.values(), self.quantizer.clipped(low, high), strict=True):
            variable.assign(end)

    def call(self, inputs: Tensor, training: bool | None = None, follow: bool = True) -> Tensor:
        if self.probe is not None and follow and not self.fixed:
            self.probe(self, inputs)
        if not self.enabled:
            return inputs
        if self.fixed:
            return quantizers.fixed(inputs, *self.fixed)
        moving = bool(training) and self.observing and follow
        return self.quantizer(inputs, moving, quantizers.values(self.ranges))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        moving = {key: getattr(self.quantizer, key) for key in ("floor", "decay", "width", "headroom")}
        return {**super().get_config(), "fixed": self.fixed, **moving}


class QuantizedKernel(exact.Exact):
    """What the linear layers share: a kernel on an int8 grid of its own, and constant scales around it.

    ``output = output_scale * (layer(input / input_scale)) + output_shift``. Each has a bias. Without ``use_bias`` the
    bias is not used before ``finalize`` folds a normalization into it.
    """

    per_channel = True

    def __init__(
        self,
        *args: Any,
        input_scale: float = 1.0,
        output_scale: float = 1.0,
        output_shift: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.input_scale, self.output_scale, self.output_shift = input_scale, output_scale, output_shift
        self.kernel_quantizer = quantizers.KernelQuantizer(self.per_channel)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)  # type: ignore[misc]
        shape = tuple(self._grid(tf.zeros(self.kernel.shape)).shape)  # type: ignore[attr-defined]
        self.ranges = quantizers.ranges(self.kernel_quantizer, shape, "kernel_range", self)
        if not self.use_bias:  # type: ignore[attr-defined]
            self.bias = self.add_weight(name="bias", shape=shape[-1:], initializer="zeros", trainable=False)  # type: ignore[attr-defined]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        kernel = self.quantized_kernel(training)
        if not self.counts(training):
            return self.shifted(self.linear(inputs, kernel))
        assert self.steps is not None
        source, target = self.steps
        ends = (tf.cast(self.ranges[f"{end}_var"].value, tf.float64) for end in ("max", "min"))
        step = exact.single(tf.subtract(*ends) / (2 * quantizers.KERNEL_STEPS))
        unit = exact.product(source, step)
        bias = tf.cast(tf.convert_to_tensor(self.bias) * self.output_scale + self.output_shift, tf.float64)
        total = tf.round(self.linear(exact.counted(inputs, source), exact.counted(kernel, step)))
        total += tf.cast(tf.round(bias / unit), tf.float32)
        return exact.requantized(total, unit, target)

    def linear(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The layer's operation on ``inputs``, with ``kernel`` in place of the layer's own, without bias."""
        raise NotImplementedError

    def quantized_kernel(self, training: bool | None) -> Tensor:
        """The scaled kernel on its grid, in the shape the TFLite op has it, last axis the channels."""
        kernel = tf.convert_to_tensor(self.kernel) * (self.output_scale / self.input_scale)  # type: ignore[attr-defined]
        kernel = self._grid(kernel)
        if not self.enabled:
            return kernel
        return self.kernel_quantizer(kernel, bool(training), quantizers.values(self.ranges))

    def shifted(self, outputs: Tensor) -> Tensor:
        """``outputs`` of the scaled kernel with the scaled bias and the shift."""
        if self.use_bias or self.steps:  # type: ignore[attr-defined]
            bias = tf.convert_to_tensor(self.bias) * self.output_scale + self.output_shift
        elif self.output_shift:
            bias = tf.fill([outputs.shape[-1]], self.output_shift)
        else:
            return outputs
        return outputs + bias * _uneven(outputs.shape[-1])

    def _grid(self, kernel: Tensor) -> Tensor:
        return kernel

    def save_own_variables(self, store: Any) -> None:
        for variable in self.variables:  # type: ignore[attr-defined]  # Keras' own would leave out the ranges
            store[variable.name] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        for variable in self.variables:  # type: ignore[attr-defined]
            variable.assign(store[variable.name])

    def get_config(self) -> dict[str, Any]:
        scales = {key: getattr(self, key) for key in ("input_scale", "output_scale", "output_shift")}
        return {**super().get_config(), **scales}


@_serializable
class QuantizedConv2D(QuantizedKernel, zoo_layers.GroupedConv2D):
    """``Conv2D`` with an int8 kernel, one scale an output channel."""

    def linear(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return self.convolution_op(inputs, kernel)


@_serializable
class QuantizedDepthwiseConv2D(QuantizedKernel, layers.DepthwiseConv2D):
    """``DepthwiseConv2D`` with an int8 kernel, one scale an output channel."""

    def _grid(self, kernel: Tensor) -> Tensor:
        height, width, *channels = kernel.shape
        return tf.reshape(kernel, [1, height, width, int(np.prod(channels))])

    def linear(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        kernel, strides = tf.reshape(kernel, self.kernel.shape), [1, *self.strides, 1]
        dilations = list(self.dilation_rate)
        return tf.nn.depthwise_conv2d(inputs, kernel, strides, self.padding.upper(), dilations=dilations)


@_serializable
class QuantizedDense(QuantizedKernel, layers.Dense):
    """``Dense`` on [batch, features] with an int8 kernel, computed as a 1x1 convolution: one scale an output.

    The converter transposes the weights of a fully connected op and then loses their axis.
    """

    def _grid(self, kernel: Tensor) -> Tensor:
        return tf.reshape(kernel, [1, 1, *kernel.shape])

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        outputs = super().call(tf.reshape(inputs, [-1, 1, 1, inputs.shape[-1]]), training)
        return tf.reshape(outputs, [-1, self.units])

    def linear(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return tf.nn.conv2d(inputs, kernel, 1, "VALID")


@_serializable
class FreezableBatchNormalization(zoo_layers.BatchNormalization):
    """Batch normalization that can use its running statistics in training, while gamma and beta still learn.

    Args:
        output_scale: Constant factor of the output.
        folded: ``finalize`` has put it into the layer before it, so it passes its input on.
    """

    def __init__(self, *args: Any, output_scale: float = 1.0, folded: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.output_scale, self.folded = output_scale, folded
        self.frozen = False

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        if self.folded:
            return inputs
        training = bool(training) and not self.frozen
        if training or self.output_scale == 1.0:
            outputs = super().call(inputs, training=training, mask=mask)
            return outputs if self.output_scale == 1.0 else outputs * self.output_scale
        # One factor and one offset: the converter does not fold a second factor.
        gain = tf.math.rsqrt(tf.convert_to_tensor(self.moving_variance) + self.epsilon) * self.output_scale
        if self.scale:
            gain *= tf.convert_to_tensor(self.gamma)
        offset = -tf.convert_to_tensor(self.moving_mean) * gain
        if self.center:
            offset += tf.convert_to_tensor(self.beta) * self.output_scale
        return inputs * gain + offset

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output_scale": self.output_scale, "folded": self.folded}


@_serializable
class ScaledHardSwish(exact.Exact, layers.Layer):
    """``x * relu6(x + 3)``: hard-swish times six, in a form that stays one delegate partition in int8.

    XNNPACK does not take an int8 HARD_SWISH, and the converter fuses the textbook form into one.
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if self.counts(training):
            assert self.steps is not None
            source, target = self.steps
            x = exact.counted(inputs, source)
            three = tf.constant(float(quantizers.STEPS))  # in steps of its own grid, which ends there
            gate = exact.added(x, three, (source, 3.0 / quantizers.STEPS, GATE_STEP))
            gate = exact.counted(tf.nn.relu6(gate), GATE_STEP)
            return exact.requantized(x * gate, exact.product(source, GATE_STEP), target)
        gate = tf.nn.relu6(inputs + 3.0)
        return inputs * (quantizers.fixed(gate, 0.0, 6.0) if self.enabled else gate)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@_serializable
class ConstantConv2D(exact.Exact, layers.Layer):
    """A depthwise convolution with constant weights: ``mean of a window * scale + offset``. It is one int8 operation.

    All weights of a channel are 127 steps of its grid, so they are exact. With a window of one pixel it is an affine
    map of each channel. Larger windows compute average pools, which XNNPACK does not run in int8.

    Args:
        scale: Factor of each channel, not zero.
        offset: Offset of each channel.
        window: Height and width of the averaged window, which is also the stride; it must divide the input.
    """

    def __init__(
        self,
        scale: Sequence[float],
        offset: Sequence[float],
        window: Sequence[int] = (1, 1),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scale, self.offset = [float(s) for s in scale], [float(o) for o in offset]
        self.window = tuple(int(n) for n in window)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        weights = np.array(self.scale, np.float32) / np.float32(np.prod(self.window))
        offset = np.array(self.offset)
        if self.counts(training):
            assert self.steps is not None
            source, target = self.steps
            unit = np.float32(source) * np.float32(np.abs(weights).astype(float) / quantizers.KERNEL_STEPS)
            signs = quantizers.KERNEL_STEPS * np.sign(weights)
            total = self._windows(
                exact.counted(inputs, source), tf.constant(np.tile(signs, (*self.window, 1)))
            )
            total += np.rint(offset / unit).astype(np.float32)
            return exact.requantized(total, unit.astype(float), target)
        kernel = tf.constant(np.broadcast_to(weights, (1, *self.window, len(weights))))
        if self.enabled:
            kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
                kernel, -np.abs(weights), np.abs(weights), narrow_range=True
            )
        outputs = self._windows(inputs, kernel)
        # An addition, even of zeros, would stop the converter from folding a convolution and a normalization.
        return outputs + offset.astype(np.float32) * _uneven(len(weights)) if offset.any() else outputs

    def _windows(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        kernel = tf.reshape(kernel, [*self.window, len(self.scale), 1])
        return tf.nn.depthwise_conv2d(inputs, kernel, [1, *self.window, 1], "VALID")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        rows, columns = (n and n // w for n, w in zip((height, width), self.window, strict=True))
        return batch, rows, columns, channels

    def get_config(self) -> dict[str, Any]:
        constants = {key: getattr(self, key) for key in ("scale", "offset", "window")}
        return {**super().get_config(), **constants}
