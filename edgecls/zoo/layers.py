"""Layers that the families share. Each can be saved and loaded: Keras knows it by its name, ``edgecls>HardSwish``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

Tensor = Any  # a symbolic Keras tensor or an eager one, NHWC


@keras.saving.register_keras_serializable(package="edgecls")
class BatchNormalization(layers.BatchNormalization):
    """Keras' batch normalization computed by one fused TensorFlow op, about 1.5 times faster a training step.

    Same arguments, variables, configuration and ``trainable=False`` behavior as
    ``keras.layers.BatchNormalization``. NHWC float inputs with ``axis=-1`` take the fused op; anything else
    (masks, other axes or ranks, float64, renormalization, synchronized replicas) takes Keras' own path.

    The running variance accumulates the biased batch variance, as Keras and PaddlePaddle do; the fused op
    returns the unbiased one, so it is scaled back. Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        if mask is not None or not self._fusible(inputs):
            return super().call(inputs, training=training, mask=mask)
        batch_statistics = bool(training) and self.trainable
        mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
        # The raw op, because tf.nn's wrapper silently raises epsilon to 1.001e-5.
        outputs, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma) if self.scale else tf.ones_like(mean),
            offset=tf.convert_to_tensor(self.beta) if self.center else tf.zeros_like(mean),
            mean=mean[:0] if batch_statistics else mean,
            variance=variance[:0] if batch_statistics else variance,
            epsilon=self.epsilon,
            is_training=batch_statistics,
        )
        if batch_statistics:
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
            biased = batch_variance * ((count - 1.0) / count)
            self.moving_mean.assign(mean * self.momentum + batch_mean * (1.0 - self.momentum))
            self.moving_variance.assign(variance * self.momentum + biased * (1.0 - self.momentum))
        return outputs

    def to_keras(self) -> layers.Layer:
        """The same in Keras' own layers; see ``edgecls.export.stock``."""
        return layers.BatchNormalization.from_config(self.get_config())

    def _fusible(self, inputs: Tensor) -> bool:
        rank = len(inputs.shape)
        last_axis = self.axis in (-1, rank - 1)
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        narrow = dtype == self.compute_dtype and dtype in ("float32", "float16", "bfloat16")
        return rank == 4 and last_axis and narrow and not (self.renorm or self.synchronized)


class Elementwise(layers.Layer):
    """A layer whose output has the shape of its input."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


@keras.saving.register_keras_serializable(package="edgecls")
class HardSwish(Elementwise):
    """``x * relu6(x + 3) / 6``, element-wise (Howard et al., 2019, https://arxiv.org/abs/1905.02244)."""

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * ops.relu6(inputs + 3.0) * (1.0 / 6.0)

    def to_keras(self) -> layers.Layer:
        """The same in Keras' own layers."""
        return layers.Activation("hard_silu", name=self.name)


@keras.saving.register_keras_serializable(package="edgecls")
class HardSigmoid(Elementwise):
    """``clip(slope * x + offset, 0, 1)``, element-wise.

    Explicit because frameworks disagree: the slope is 0.2 in fluid and MobileNetV3's gates here, 1/6 in Keras 3.
    """

    def __init__(self, slope: float = 0.2, offset: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slope, self.offset = float(slope), float(offset)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.clip(inputs * self.slope + self.offset, 0.0, 1.0)

    def to_keras(self) -> Callable[[Tensor], Tensor]:
        """The same in Keras' own layers."""
        line = layers.Rescaling(self.slope, self.offset, name=f"{self.name}.line")
        clip = layers.ReLU(max_value=1.0, name=self.name)
        return lambda inputs: clip(line(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slope": self.slope, "offset": self.offset}


@keras.saving.register_keras_serializable(package="edgecls")
class Normalize(Elementwise):
    """Pixels 0..255 to network input: ``(x / 255 - mean) / std``, one mean and std a channel.

    Args:
        mean: Mean of each channel, as a fraction of 255.
        std: Standard deviation of each channel, as a fraction of 255.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean, self.std = [float(m) for m in mean], [float(s) for s in std]
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError(f"mean and std must be of one length and std positive, got {mean} and {std}")

    @property
    def line(self) -> tuple[list[float], list[float]]:
        """Factor and summand of each channel."""
        scale = [1.0 / (255.0 * s) for s in self.std]
        return scale, [-m / s for m, s in zip(self.mean, self.std, strict=True)]

    def call(self, inputs: Tensor) -> Tensor:
        scale, offset = (ops.convert_to_tensor(values, inputs.dtype) for values in self.line)
        return inputs * scale + offset

    def to_keras(self) -> layers.Layer:
        """The same in Keras' own layers."""
        return layers.Rescaling(*self.line, name=self.name)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable(package="edgecls")
class StridedPointConv2D(layers.Conv2D):
    """A 1x1 convolution of stride 2, computed as a 2x2 one whose other cells are zero.

    oneDNN's gradient of a strided 1x1 kernel that sees fewer than 16 channels writes past its workspace and ends
    TensorFlow with corrupted memory (https://github.com/uxlfoundation/oneDNN/issues/6035).
    """

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return ops.conv(inputs, ops.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0))), 2, "same")

    def to_keras(self) -> layers.Layer:
        """The same in Keras' own layers."""
        return layers.Conv2D.from_config(self.get_config())


@keras.saving.register_keras_serializable(package="edgecls")
class GroupedConv2D(layers.Conv2D):
    """Keras' convolution; in groups by TensorFlow's own op where that has a gradient (on a GPU, or with oneDNN):
    Keras leaves them to XLA, which takes many times longer for a step on a CPU.
    """

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        if self.groups == 1 or not _groups_natively():
            return super().convolution_op(inputs, kernel)
        return tf.nn.conv2d(inputs, kernel, self.strides, self.padding.upper(), dilations=self.dilation_rate)

    def to_keras(self) -> layers.Layer:
        """The same in Keras' own layers."""
        return layers.Conv2D.from_config(self.get_config())


@functools.cache
def _groups_natively() -> bool:
    with tf.init_scope():
        one = {"input": tf.ones((1, 1, 1, 2)), "out_backprop": tf.ones((1, 1, 1, 2))}
        try:
            tf.raw_ops.Conv2DBackpropFilter(
                **one, filter_sizes=(1, 1, 1, 2), strides=[1] * 4, padding="VALID"
            )
        except tf.errors.OpError:
            return False
    return True


@keras.saving.register_keras_serializable(package="edgecls")
class Channels(layers.Layer):
    """The channels from ``start`` up to but without ``stop``."""

    def __init__(self, start: int, stop: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start, self.stop = int(start), int(stop)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs[..., self.start : self.stop]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start, "stop": self.stop}


@keras.saving.register_keras_serializable(package="edgecls")
class ChannelShuffle(layers.Layer):
    """Interleave ``groups`` runs of channels (Zhang et al., 2017, https://arxiv.org/abs/1707.01083)."""

    def __init__(self, groups: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = int(groups)

    def call(self, inputs: Tensor) -> Tensor:
        height, width, channels = inputs.shape[1:]
        x = ops.reshape(inputs, (-1, height, width, self.groups, channels // self.groups))
        return ops.reshape(ops.transpose(x, (0, 1, 2, 4, 3)), (-1, height, width, channels))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups}
