"""What the families share: builders of a few layers on Keras tensors.

Builders give every layer the name of its entry in the reference state, so that ``<layer name>.weight`` is the key of
its kernel in a published checkpoint. A dot goes before a leading underscore, which TensorFlow takes for no name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras import initializers, layers

from edgecls.zoo.layers import (
    BatchNormalization,
    GroupedConv2D,
    HardSigmoid,
    HardSwish,
    StridedPointConv2D,
    Tensor,
)


@dataclass(frozen=True)
class Head:
    """What follows the backbone.

    Args:
        classes: Number of classes.
        dropout: Dropout rate before the classifier.
        embedding_dim: Width of a linear layer before the classifier; None for no such layer.
        auxiliary: Whether to build the classifiers that only training uses, if the network has any.
    """

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
    only the bottom and right of even sizes, which shifts the features against the reference. ``padding`` overrides
    the usual (kernel - 1) // 2.
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


# Initial kernels of classifiers: uniform within 1 / sqrt(inputs), and those that are named after their authors.
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
        init: A name in ``KERNELS``, or the bound of the initial kernel's uniform distribution.
        prefix: Prefix of the other layers' names, for a network with several classifiers.
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
    """Pool, widen with a 1x1 convolution and classify. The convolution has no normalization: it would see one cell."""
    x = layers.GlobalAveragePooling2D(keepdims=True, name="avg_pool")(x)
    x = activation(conv(x, width, 1, name="last_conv"), act, act_name)
    return classifier(x, head, init="xavier")


def join(parts: Sequence[Tensor], name: str) -> Tensor:
    """Concatenate maps by channels, at most five in one step: XNNPACK takes no more."""
    while len(parts) > 5:
        parts = [layers.Concatenate(name=f"{name}.before{len(parts) - 4}")(parts[:5]), *parts[5:]]
    return layers.Concatenate(name=name)(parts)


def divisible(value: float, by: int = 8) -> int:
    """Round ``value`` to a multiple of ``by``; the result is at least ``by`` and at least 0.9 of ``value``.

    Example:
        >>> divisible(22.4), divisible(11.0)
        (24, 16)
    """
    rounded = max(by, int(value + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * value else rounded


class Taps(dict[int, Tensor]):
    """What a backbone says of itself while it is built: the last feature map of each stride, and its stages.

    Attributes:
        stages: ``stem``, ``1``, ``2``, ... to the layers that the stage ends with. What comes after the last stage is
            the head.
        lr_groups: The same for the groups of PaddleClas' ``lr_mult_list``, in families where those are not the stages.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._size = x.shape[1]
        self.stages: dict[str, tuple[str, ...]] = {}
        self.lr_groups: dict[str, tuple[str, ...]] = {}

    def add(self, x: Tensor, stage: int | str | None = None) -> Tensor:
        """Remember ``x`` as the deepest map of its stride, and as the end of ``stage``, and return it."""
        # Rounded to a power of two, because odd input sizes do not divide evenly.
        self[2 ** round(math.log2(self._size / x.shape[1]))] = x
        if stage is not None:
            self.end(stage, x)
        return x

    def end(self, stage: int | str, *maps: Tensor) -> None:
        """Remember that ``stage`` ends with these maps; the last call for a stage counts."""
        self.stages[str(stage)] = tuple(x._keras_history.operation.name for x in maps)

    def end_lr_group(self, group: int, x: Tensor) -> None:
        """Remember that a group of ``lr_mult_list`` (from 1) ends with ``x``; the last call for a group counts."""
        self.lr_groups[f"group{group}"] = (x._keras_history.operation.name,)

    def outputs(self) -> Mapping[str, Tensor]:
        """``{"stride_4": map, ...}`` from the finest to the coarsest, without the input's own resolution."""
        return {f"stride_{stride}": self[stride] for stride in sorted(self) if stride > 1}
