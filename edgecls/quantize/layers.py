"""Layers of a quantization-aware network: each computes in float what its int8 counterpart will compute.

Scales. Hard-swish and the hard-sigmoid gate come out six times too large here (see ``rules.gates``), so a tensor may be ``scale`` times that of the float network. The next linear layer divides by its ``input_scale``. Kernels stay in
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

Tensor = Any
Shape = tuple[int | None, ...]

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

    Several tensors can share one grid. Each is a ``member`` with a range of its own that follows its values, and the
    grid reaches from the lowest end to the highest. Called with ``member=None`` a tensor has no part in the range: it
    is made of values that are on the grid already.

    Args:
        fixed: ``(low, high)`` if the range is known beforehand. Otherwise it is calibrated and follows the data.
        floor: See ``ActivationQuantizer``.
        decay: See ``ActivationQuantizer``.
        width: See ``ActivationQuantizer``.
        headroom: See ``ActivationQuantizer``.
        symmetric: See ``ActivationQuantizer``.
        members: How many tensors decide the range.
    """

    supports_jit = False  # XLA on a CPU takes many times longer for a step

    def __init__(
        self,
        fixed: Sequence[float] | None = None,
        floor: float | None = None,
        decay: float = 0.99,
        width: float = quantizers.TINY,
        headroom: float = 1.0,
        symmetric: bool = False,
        members: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.members = int(members)
        self.fixed = None if fixed is None else (float(fixed[0]), float(fixed[1]))
        self.quantizer = quantizers.ActivationQuantizer(decay, floor, width, headroom, symmetric)
        self.enabled = True
        self.observing = True
        self.probe: Callable[[Quantize, Tensor], None] | None = None

    def build(self, input_shape: Shape) -> None:
        count = self.members if self.members > 1 else None
        self.ranges = (
            {} if self.fixed else quantizers.ranges(self.quantizer, input_shape, "range", self, count)  # type: ignore[arg-type]
        )
        self.built = True

    @property
    def range(self) -> tuple[float, float]:
        """The range's low and high end."""
        if self.fixed:
            return self.fixed
        return float(np.min(self.ranges["min_var"])), float(np.max(self.ranges["max_var"]))

    def set_range(self, low: float, high: float) -> None:
        """Set the range, made to hold zero; the moving average goes on from there."""
        for variable, end in zip(self.ranges.values(), self.quantizer.clipped(low, high), strict=True):
            variable.assign(np.full(variable.shape, end))

    def learn_range(self, on: bool) -> None:
        """Train the ends of the range with the weights, or do not; a grid that is symmetric keeps its own."""
        if self.quantizer.grid_is_symmetric:
            return
        keep = {
            "min_var": lambda low: tf.minimum(low, 0.0),
            "max_var": lambda high: tf.maximum(high, self.quantizer.width),
        }
        for key, variable in self.ranges.items():
            variable.trainable, variable.constraint = on, keep[key] if on else None

    def call(self, inputs: Tensor, training: bool | None = None, member: int | None = 0) -> Tensor:
        if self.probe is not None and member is not None and not self.fixed:
            self.probe(self, inputs)
        if not self.enabled:
            return inputs
        if self.fixed:
            return quantizers.fixed(inputs, *self.fixed)
        moving = member if training and self.observing else None
        return self.quantizer(inputs, moving, quantizers.values(self.ranges))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        keys = ("floor", "decay", "width", "headroom", "grid_is_symmetric")
        moving = {key.removeprefix("grid_is_"): getattr(self.quantizer, key) for key in keys}
        return {**super().get_config(), "fixed": self.fixed, "members": self.members, **moving}


class QuantizedKernel(exact.Exact):
    """What the linear layers share: a kernel on an int8 grid of its own, and constant scales around it.

    ``output = output_scale * layer(input / input_scale + input_offset) + output_shift``, where padding is zeros of
    ``input``. Each has a bias. Without ``use_bias`` the bias is not used before ``finalize`` folds a normalization into it.

    Args:
        input_scale: One number, or one for each input channel.
        input_offset: One number for each input channel; None: zeros.
        output_scale: See above.
        output_shift: See above.
        per_channel: The kernel has a scale for each output channel; otherwise one.
    """

    has_channel_scales = True  # the file can have them
    takes_norm = True  # a batch normalization behind it can be folded into its kernel

    def __init__(
        self,
        *args: Any,
        input_scale: float | Sequence[float] = 1.0,
        input_offset: Sequence[float] | None = None,
        output_scale: float = 1.0,
        output_shift: float = 0.0,
        per_channel: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.per_channel = per_channel and self.has_channel_scales
        self.input_scale, self.input_offset = input_scale, input_offset
        self.output_scale, self.output_shift = output_scale, output_shift
        self.kernel_quantizer = quantizers.KernelQuantizer(self.per_channel)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)  # type: ignore[misc]
        shape = tuple(self._grid(tf.zeros(self.kernel.shape)).shape)  # type: ignore[attr-defined]
        self.ranges = quantizers.ranges(self.kernel_quantizer, shape, "kernel_range", self)
        if not self.use_bias:  # type: ignore[attr-defined]
            channels = self.compute_output_shape(input_shape)[-1:]  # type: ignore[attr-defined]
            self.bias = self.add_weight(name="bias", shape=channels, initializer="zeros", trainable=False)  # type: ignore[attr-defined]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        kernel = self.quantized_kernel(training)
        if not self.counts(training):
            return self.shifted(self.linear(inputs, kernel), kernel)
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
        kernel = self._grid(tf.convert_to_tensor(self.kernel) * self.kernel_factor)  # type: ignore[attr-defined]
        if not self.enabled:
            return kernel
        return self.kernel_quantizer(kernel, bool(training), quantizers.values(self.ranges))

    @property
    def kernel_factor(self) -> Any:
        """What the kernel is multiplied by: a number, or an array over its last but one axis, the input channels."""
        if isinstance(self.input_scale, int | float):
            return self.output_scale / self.input_scale
        return (self.output_scale / np.array(self.input_scale)).astype(np.float32)[:, None]

    def offset_sum(self, kernel: Tensor) -> Tensor:
        """What ``input_offset`` adds to each output of ``kernel``, the quantized one [..., inputs, outputs]."""
        offset = np.array(self.input_offset) * np.array(self.input_scale)
        return tf.reduce_sum(kernel * offset.astype(np.float32)[:, None], list(range(len(kernel.shape) - 1)))

    def absorb_offset(self) -> None:
        """Put what ``input_offset`` adds into the bias."""
        if self.input_offset is not None:
            self.bias.assign_add(self.offset_sum(self.quantized_kernel(False)) / self.output_scale)
            self.input_offset = None

    def shifted(self, outputs: Tensor, kernel: Tensor) -> Tensor:
        """``outputs`` of the scaled ``kernel`` with the scaled bias and the shift."""
        if self.input_offset is not None:
            outputs += self.offset_sum(kernel)
        if self.use_bias or self.steps:  # type: ignore[attr-defined]
            bias = tf.convert_to_tensor(self.bias) * self.output_scale + self.output_shift
        elif self.output_shift:
            bias = tf.fill([outputs.shape[-1]], self.output_shift)
        else:
            return outputs
        return outputs + bias * _uneven(outputs.shape[-1])

    def unit(self, steps: Sequence[float]) -> np.ndarray:
        """The real value of 1 in the integer accumulator, for each channel."""
        return steps[0] * self.ranges["max_var"].numpy().astype(np.float64) / quantizers.KERNEL_STEPS

    def _grid(self, kernel: Tensor) -> Tensor:
        return kernel

    def save_own_variables(self, store: Any) -> None:
        for variable in self.variables:  # type: ignore[attr-defined]  # Keras' own would leave out the ranges
            store[variable.name] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        for variable in self.variables:  # type: ignore[attr-defined]
            variable.assign(store[variable.name])

    def get_config(self) -> dict[str, Any]:
        keys = ("input_scale", "input_offset", "output_scale", "output_shift", "per_channel")
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}}


@_serializable
class ConstantConv2D(exact.Exact, layers.Layer):
    """A depthwise convolution with constant weights: ``mean of a window * scale + offset``. It is one int8 operation.

    All weights of a channel are 127 steps of its grid, so they are exact unless channels have one grid. With a window of one pixel it is an affine
    map of each channel, of a tensor of any rank. Larger windows compute average pools, which XNNPACK does not run in
    int8.

    Args:
        scale: Factor of each channel, or one for all; not zero.
        offset: Offset of each channel, or one for all.
        window: Height and width of the averaged window.
        strides: Steps of the window; None: as large as the window.
        padding: ``valid``, or ``same`` with zeros, which count as cells of the window.
        per_channel: Each channel has a grid of its own; otherwise they have one.
    """

    def __init__(
        self,
        scale: float | Sequence[float],
        offset: float | Sequence[float],
        window: Sequence[int] = (1, 1),
        strides: Sequence[int] | None = None,
        padding: str = "valid",
        per_channel: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.per_channel = per_channel
        self.scale, self.offset = np.array(scale, float).tolist(), np.array(offset, float).tolist()
        self.window = tuple(int(n) for n in window)
        self.strides = self.window if strides is None else tuple(int(n) for n in strides)
        self.padding = padding

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        channels = inputs.shape[-1]
        weights = np.broadcast_to(np.array(self.scale, np.float32), channels) / np.float32(
            np.prod(self.window)
        )
        offset = np.broadcast_to(np.array(self.offset), channels)
        if self.counts(training):
            assert self.steps is not None
            source, target = self.steps
            step = np.float32(self._bound(weights).astype(float) / quantizers.KERNEL_STEPS)
            unit = np.float32(source) * step
            counts = np.tile(np.rint(weights / step), (*self.window, 1))
            total = self._windows(exact.counted(inputs, source), tf.constant(counts))
            total += np.rint(offset / unit).astype(np.float32)
            return exact.requantized(total, unit.astype(float), target)
        kernel = tf.constant(np.broadcast_to(weights, (1, *self.window, channels)))
        if self.enabled:
            bound = self._bound(weights)
            round_to_grid = (
                tf.quantization.fake_quant_with_min_max_vars_per_channel
                if self.per_channel
                else tf.quantization.fake_quant_with_min_max_vars
            )
            kernel = round_to_grid(kernel, -bound, bound, narrow_range=True)
        # An addition, even of zeros, would stop the converter from folding a convolution and a normalization.
        bias = offset.astype(np.float32) * _uneven(channels) if offset.any() else None
        return self._windows(inputs, kernel, bias)

    def unit(self, steps: Sequence[float]) -> np.ndarray:
        return steps[0] * self._bound(np.array(self.scale)) / quantizers.KERNEL_STEPS

    def _bound(self, weights: np.ndarray) -> Any:
        """The largest weight on the grid of each channel, or on the one of all."""
        return np.abs(weights) if self.per_channel else np.abs(weights).max()

    def round_offset(self, step: float) -> None:
        """Put the offset on the grid of the accumulator, for inputs of ``step``: else the converter rounds a half its way.

        Pixels from -1 to 1 have one: 127.5 steps.
        """
        unit = self.unit([step]) / float(np.prod(self.window))
        self.offset = (np.rint(np.array(self.offset) / unit) * unit).tolist()

    def _windows(self, inputs: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        *shape, channels = inputs.shape[1:]
        x = inputs if len(shape) == 2 else tf.reshape(inputs, [-1, 1, 1, channels])
        kernel = tf.reshape(kernel, [*self.window, channels, 1])
        x = tf.nn.depthwise_conv2d(x, kernel, [1, *self.strides, 1], self.padding.upper())
        x = x if bias is None else x + bias
        return x if len(shape) == 2 else tf.reshape(x, [-1, *shape, channels])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 4:
            return input_shape
        batch, height, width, channels = input_shape
        sizes = zip((height, width), self.window, self.strides, strict=True)
        same = self.padding == "same"
        rows, columns = (n and (-(-n // s) if same else (n - w) // s + 1) for n, w, s in sizes)
        return batch, rows, columns, channels

    def get_config(self) -> dict[str, Any]:
        keys = ("scale", "offset", "window", "strides", "padding", "per_channel")
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}}
