"""What the families share: four serialisable layers and a few builders on Keras tensors.

Builders give every layer the name of its entry in the reference state (``blocks.3.mid_se.conv1``), so that
``<layer name>.weight`` is the key of its kernel in a published checkpoint and no name map is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import initializers, layers, ops

Tensor = Any  # a symbolic Keras tensor or an eager one, NHWC


@keras.saving.register_keras_serializable(package="edgecls")
class BatchNormalization(layers.BatchNormalization):
    """Keras' batch normalization computed by one fused TensorFlow op, about 1.5 times faster a training step.

    Same arguments, variables, configuration and ``trainable=False`` behaviour as
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

    def _fusible(self, inputs: Tensor) -> bool:
        rank = len(inputs.shape)
        last_axis = self.axis in (-1, rank - 1)
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        narrow = dtype == self.compute_dtype and dtype in ("float32", "float16", "bfloat16")
        return rank == 4 and last_axis and narrow and not (self.renorm or self.synchronized)


@keras.saving.register_keras_serializable(package="edgecls")
class HardSwish(layers.Layer):
    """``x * relu6(x + 3) / 6``, element-wise (Howard et al., 2019, https://arxiv.org/abs/1905.02244)."""

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * ops.relu6(inputs + 3.0) * (1.0 / 6.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


@keras.saving.register_keras_serializable(package="edgecls")
class HardSigmoid(layers.Layer):
    """``clip(slope * x + offset, 0, 1)``, element-wise.

    Explicit because frameworks disagree: the slope is 0.2 in fluid and MobileNetV3's gates here, 1/6 in Keras 3.
    """

    def __init__(self, slope: float = 0.2, offset: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slope, self.offset = float(slope), float(offset)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.clip(inputs * self.slope + self.offset, 0.0, 1.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slope": self.slope, "offset": self.offset}


@keras.saving.register_keras_serializable(package="edgecls")
class Normalize(layers.Layer):
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

    def call(self, inputs: Tensor) -> Tensor:
        scale = [1.0 / (255.0 * s) for s in self.std]
        offset = [-m / s for m, s in zip(self.mean, self.std, strict=True)]
        return inputs * ops.convert_to_tensor(scale, inputs.dtype) + ops.convert_to_tensor(
            offset, inputs.dtype
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@dataclass(frozen=True)
class Head:
    """What follows the backbone: how many classes, dropout rate before them, width of an optional embedding."""

    classes: int = 1000
    dropout: float = 0.0
    embedding_dim: int | None = None


@dataclass(frozen=True)
class Style:
    """What a whole family shares: batch normalization's constants, padding and the convolutions' initializer.

    Args:
        epsilon: Batch normalization's epsilon.
        momentum: Weight of the old running statistics.
        same_padding: TensorFlow's SAME for strided convolutions too; else (kernel - 1) // 2 on every side.
        kernel_std: Standard deviation of initial kernels; None is sqrt(2 / (kernel area * input channels)),
            with all input channels counted in depthwise convolutions too, as PaddlePaddle's default does.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    same_padding: bool = False
    kernel_std: float | None = None


PADDLE = Style()


def activation(x: Tensor, kind: str | None, name: str) -> Tensor:
    """Apply ``relu``, ``relu6``, ``hard_swish``, ``hard_sigmoid`` or any Keras activation, as its own layer."""
    if kind is None:
        return x
    if kind in ("relu", "relu6"):
        return layers.ReLU(max_value=6.0 if kind == "relu6" else None, name=name)(x)
    if kind in ("hard_swish", "hard_sigmoid"):
        return (HardSwish if kind == "hard_swish" else HardSigmoid)(name=name)(x)
    return layers.Activation(kind, name=name)(x)


def conv(
    x: Tensor,
    filters: int,
    kernel: int,
    stride: int = 1,
    *,
    name: str,
    groups: int = 1,
    bias: bool = False,
    style: Style = PADDLE,
) -> Tensor:
    """Convolve NHWC ``x``; depthwise when every channel is its own group.

    Strided kernels are padded symmetrically by a layer of their own unless the style says SAME: Keras' SAME pads
    only the bottom and right of even sizes, which shifts the features against the reference.
    """
    channels = x.shape[-1]
    padding = "same"
    if stride > 1 and not style.same_padding:
        padding = "valid"
        if kernel > 1:
            x = layers.ZeroPadding2D((kernel - 1) // 2, name=f"{name}.pad")(x)
    std = style.kernel_std or math.sqrt(2.0 / (kernel * kernel * channels))
    init = initializers.RandomNormal(stddev=std)
    if groups == channels == filters and groups > 1:
        depthwise = layers.DepthwiseConv2D(
            kernel, stride, padding=padding, use_bias=bias, depthwise_initializer=init, name=name
        )
        return depthwise(x)
    return layers.Conv2D(
        filters,
        kernel,
        stride,
        padding=padding,
        groups=groups,
        use_bias=bias,
        kernel_initializer=init,
        name=name,
    )(x)


def conv_bn(
    x: Tensor,
    filters: int,
    kernel: int,
    stride: int = 1,
    *,
    name: str,
    groups: int = 1,
    act: str | None = None,
    style: Style = PADDLE,
) -> Tensor:
    """Convolution without bias, batch normalization and activation: ``<name>.conv``, ``.bn``, ``.act``."""
    x = conv(x, filters, kernel, stride, groups=groups, style=style, name=f"{name}.conv")
    x = BatchNormalization(momentum=style.momentum, epsilon=style.epsilon, name=f"{name}.bn")(x)
    return activation(x, act, f"{name}.act")


def squeeze_excite(
    x: Tensor,
    squeezed: int,
    *,
    name: str,
    act: str = "relu",
    gate: str = "hard_sigmoid",
    style: Style = PADDLE,
) -> Tensor:
    """Reweigh channels by a gate computed from their means (Hu et al., 2018, https://arxiv.org/abs/1709.01507).

    1x1 convolutions on a 1x1 map rather than Dense layers: the whole block then stays in one delegate partition.
    """
    s = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.avg_pool")(x)
    s = conv(s, squeezed, 1, bias=True, style=style, name=f"{name}.conv1")
    s = activation(s, act, f"{name}.act")
    s = conv(s, x.shape[-1], 1, bias=True, style=style, name=f"{name}.conv2")
    s = activation(s, gate, f"{name}.gate")
    return layers.Multiply(name=f"{name}.scale")([x, s])


def classifier(x: Tensor, head: Head, *, name: str = "fc", uniform: float | None = None) -> Tensor:
    """Logits [batch, classes] from a pooled map [batch, 1, 1, channels].

    Args:
        x: Pooled features.
        head: Classes, dropout and embedding.
        name: The classifier's layer name.
        uniform: Bound of the initial kernel's uniform distribution; None is Xavier's.
    """
    x = layers.Flatten(name="flatten")(x)
    if head.embedding_dim:
        x = layers.Dense(head.embedding_dim, name="embedding")(x)
    if head.dropout:
        x = layers.Dropout(head.dropout, name="dropout")(x)
    init = initializers.RandomUniform(-uniform, uniform) if uniform else "glorot_uniform"
    return layers.Dense(head.classes, kernel_initializer=init, name=name)(x)


def divisible(value: float, by: int = 8) -> int:
    """``value`` rounded to a multiple of ``by``, at least ``by`` and never less than 0.9 of it."""
    rounded = max(by, int(value + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * value else rounded


class Taps(dict[int, Tensor]):
    """The last feature map of each stride, collected while a backbone is built."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._size = x.shape[1]

    def add(self, x: Tensor) -> Tensor:
        """Remember ``x`` as the deepest map of its stride and return it."""
        # Rounded to a power of two, because odd input sizes do not divide evenly.
        self[2 ** round(math.log2(self._size / x.shape[1]))] = x
        return x

    def outputs(self) -> Mapping[str, Tensor]:
        """``{"stride_4": map, ...}`` from the finest to the coarsest, without the input's own resolution."""
        return {f"stride_{stride}": self[stride] for stride in sorted(self) if stride > 1}
