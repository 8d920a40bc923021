"""What the families share: serialisable layers and a few builders on Keras tensors.

Builders give every layer the name of its entry in the reference state, so that ``<layer name>.weight`` is the key of
its kernel in a published checkpoint. A dot goes before a leading underscore, which TensorFlow takes for no name.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras import initializers, layers, ops

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


@dataclass(frozen=True)
class Head:
    """What follows the backbone: how many classes, dropout rate before them, width of an optional embedding, and
    whether the classifiers that only training uses are wanted, if the network has any."""

    classes: int = 1000
    dropout: float = 0.0
    embedding_dim: int | None = None
    auxiliary: bool = False


@dataclass(frozen=True)
class Style:
    """What a whole family shares: batch normalization's constants, padding and the convolutions' initializer.

    Args:
        epsilon: Batch normalization's epsilon.
        momentum: Weight of the old running statistics.
        same_padding: TensorFlow's SAME for strided convolutions too; else (kernel - 1) // 2 on every side.
        kernel_std: Standard deviation of initial kernels; None is sqrt(2 / (kernel area * input channels)),
            with all input channels counted in depthwise convolutions too, as PaddlePaddle's default does.
        msra: Count only the input channels that a kernel sees (He et al., 2015).
        uniform: Draw kernels and biases uniformly within sqrt(uniform / (kernel area * input channels seen)).
        conv: What the convolution in ``conv_bn`` is called.
        norm: What its batch normalization is called.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    same_padding: bool = False
    kernel_std: float | None = None
    msra: bool = False
    uniform: float | None = None
    conv: str = "conv"
    norm: str = "bn"

    def initializers(self, area: int, channels: int, groups: int) -> tuple[Any, Any]:
        """Initializers of a convolution's kernel, which covers ``area`` cells, and bias."""
        seen = area * channels // groups
        if self.uniform:
            bound = math.sqrt(self.uniform / seen)
            return tuple(initializers.RandomUniform(-bound, bound) for _ in range(2))
        fan_in = seen if self.msra else area * channels
        return initializers.RandomNormal(stddev=self.kernel_std or math.sqrt(2.0 / fan_in)), "zeros"


PADDLE = Style()


GATES = {"hard_sigmoid": (0.2, 0.5), "hard_sigmoid6": (1 / 6, 0.5), "clip": (1.0, 0.0)}  # slope and offset


def activation(x: Tensor, kind: str | None, name: str) -> Tensor:
    """Apply ``relu``, ``relu6``, ``hard_swish``, a gate of ``GATES`` or any Keras activation, as its own layer."""
    if kind is None:
        return x
    if kind in ("relu", "relu6"):
        return layers.ReLU(max_value=6.0 if kind == "relu6" else None, name=name)(x)
    if kind == "hard_swish":
        return HardSwish(name=name)(x)
    if kind in GATES:
        return HardSigmoid(*GATES[kind], name=name)(x)
    return layers.Activation(kind, name=name)(x)


def conv(
    x: Tensor,
    filters: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    *,
    name: str,
    groups: int = 1,
    bias: bool = False,
    padding: int | None = None,
    dilation: int = 1,
    style: Style = PADDLE,
) -> Tensor:
    """Convolve NHWC ``x``; depthwise when every channel is its own group.

    Strided kernels are padded symmetrically by a layer of their own unless the style says SAME: Keras' SAME pads
    only the bottom and right of even sizes, which shifts the features against the reference. ``padding`` is for
    another one than (kernel - 1) // 2.
    """
    channels, sizes = x.shape[-1], kernel if isinstance(kernel, tuple) else (kernel, kernel)
    mode = "same"
    if padding is not None or (stride > 1 and not style.same_padding):
        mode = "valid"
        cells = tuple((size - 1) // 2 if padding is None else padding for size in sizes)
        if any(cells):
            x = layers.ZeroPadding2D(cells, name=f"{name}.pad")(x)
    init, bias_init = style.initializers(math.prod(sizes), channels, groups)
    options = {"padding": mode, "dilation_rate": dilation, "use_bias": bias, "bias_initializer": bias_init}
    if groups == channels == filters and groups > 1:
        return layers.DepthwiseConv2D(kernel, stride, depthwise_initializer=init, name=name, **options)(x)
    options |= {"groups": groups, "kernel_initializer": init}
    kind = GroupedConv2D if groups > 1 else layers.Conv2D
    if kernel == 1 and stride == 2 and channels < 16:
        kind = StridedPointConv2D
    return kind(filters, kernel, stride, name=name, **options)(x)


def conv_bn(
    x: Tensor,
    filters: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    *,
    name: str,
    groups: int = 1,
    act: str | None = None,
    style: Style = PADDLE,
    **options: Any,
) -> Tensor:
    """Convolution (with ``options`` of ``conv``), batch normalization, activation; named ``<name>.conv`` and so on."""
    x = conv(x, filters, kernel, stride, groups=groups, style=style, name=f"{name}.{style.conv}", **options)
    x = BatchNormalization(momentum=style.momentum, epsilon=style.epsilon, name=f"{name}.{style.norm}")(x)
    return activation(x, act, f"{name}.act")


def squeeze_excite(
    x: Tensor,
    squeezed: int,
    *,
    name: str,
    act: str = "relu",
    gate: str = "hard_sigmoid",
    parts: tuple[str, str] = ("conv1", "conv2"),
    dense: bool = False,
    style: Style = PADDLE,
) -> Tensor:
    """Reweigh channels by a gate computed from their means (Hu et al., 2018, https://arxiv.org/abs/1709.01507).

    1x1 convolutions on a 1x1 map, or dense layers where the reference's state has them; ``parts`` are their names.
    """
    channels = x.shape[-1]
    s = layers.GlobalAveragePooling2D(keepdims=not dense, name=f"{name}.avg_pool")(x)
    for part, width, kind in ((parts[0], squeezed, act), (parts[1], channels, gate)):
        if dense:
            init = initializers.VarianceScaling(*KERNELS["uniform"])
            s = layers.Dense(width, kernel_initializer=init, name=f"{name}.{part}")(s)
        else:
            s = conv(s, width, 1, bias=True, style=style, name=f"{name}.{part}")
        s = activation(s, kind, f"{name}.act" if part == parts[0] else f"{name}.gate")
    if dense:
        s = layers.Reshape((1, 1, channels), name=f"{name}.reshape")(s)
    return layers.Multiply(name=f"{name}.scale")([x, s])


# Of a classifier's initial kernel: uniform within 1 / sqrt(inputs), and what is known by its authors' names.
KERNELS = {
    "uniform": (1 / 3, "fan_in", "uniform"),
    "xavier": (1.0, "fan_avg", "uniform"),
    "lecun": (1.0, "fan_in", "uniform"),
    "msra": (2.0, "fan_in", "untruncated_normal"),
}


def classifier(
    x: Tensor, head: Head, *, name: str = "fc", init: str | float = "uniform", prefix: str = ""
) -> Tensor:
    """Logits [batch, classes] from a map [batch, height, width, channels], which is pooled, or from vectors.

    Args:
        x: Features.
        head: Classes, dropout and embedding.
        name: The classifier's layer name.
        init: Of ``KERNELS``, or the bound of the initial kernel's uniform distribution.
        prefix: Of the other layers' names, where a network has several classifiers.
    """
    if len(x.shape) == 4 and x.shape[1:3] != (1, 1):
        x = layers.GlobalAveragePooling2D(keepdims=True, name=f"{prefix}avg_pool")(x)
    if len(x.shape) > 2:
        x = layers.Flatten(name=f"{prefix}flatten")(x)
    if head.embedding_dim:
        x = layers.Dense(head.embedding_dim, name=f"{prefix}embedding")(x)
    if head.dropout:
        x = layers.Dropout(head.dropout, name=f"{prefix}dropout")(x)
    if isinstance(init, str):
        kernel = initializers.VarianceScaling(*KERNELS[init])
    else:
        kernel = initializers.RandomUniform(-init, init)
    return layers.Dense(head.classes, kernel_initializer=kernel, name=name)(x)


def wide_classifier(x: Tensor, width: int, act: str, head: Head, *, act_name: str) -> Tensor:
    """Pool, widen by a 1x1 convolution that has no normalization (it would see one cell), and classify."""
    x = layers.GlobalAveragePooling2D(keepdims=True, name="avg_pool")(x)
    x = activation(conv(x, width, 1, name="last_conv"), act, act_name)
    return classifier(x, head, init="xavier")


def join(parts: Sequence[Tensor], name: str) -> Tensor:
    """Join maps by channels, five at most in one step: XNNPACK takes no more."""
    while len(parts) > 5:
        parts = [layers.Concatenate(name=f"{name}.before{len(parts) - 4}")(parts[:5]), *parts[5:]]
    return layers.Concatenate(name=name)(parts)


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
