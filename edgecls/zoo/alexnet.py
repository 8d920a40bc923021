"""AlexNet in one column (Krizhevsky, 2014, https://arxiv.org/abs/1404.5997), the first of the kind."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from keras import initializers, layers

from edgecls.zoo.blocks import Head, Style, Taps, Tensor, activation, classifier, conv


class Layer(NamedTuple):
    """A convolution with ReLU."""

    name: str
    filters: int
    kernel: int
    stride: int
    padding: int
    pool: bool  # 3x3 max pooling of stride 2 follows


LAYERS = (
    Layer("_conv1._conv", 64, 11, 4, 2, True),
    Layer("_conv2._conv", 192, 5, 1, 2, True),
    Layer("_conv3", 384, 3, 1, 1, False),
    Layer("_conv4", 256, 3, 1, 1, False),
    Layer("_conv5._conv", 256, 3, 1, 1, True),
)
HIDDEN = ("_fc6", "_fc7")
WIDTH = 4096
MODELS = {"AlexNet": LAYERS}
STYLE = Style(uniform=1.0)


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build the network on NHWC input ``x``; returns its feature maps by stride and its logits."""
    taps = Taps(x)
    for each in MODELS[name]:
        padding = each.padding if each.stride > 1 else None
        x = conv(
            x, each.filters, each.kernel, each.stride, bias=True, padding=padding, style=STYLE, name=each.name
        )
        x = taps.add(activation(x, "relu", f"{each.name}.relu"))
        if each.pool:
            x = taps.add(layers.MaxPooling2D(3, 2, name=f"{each.name}.pool")(x))
    x = layers.Flatten(name="flatten")(x)
    for part in HIDDEN:
        if head.dropout:
            x = layers.Dropout(head.dropout, name=f"{part}.dropout")(x)
        bound = 1 / math.sqrt(x.shape[-1])
        kernel, bias = (initializers.RandomUniform(-bound, bound) for _ in range(2))
        x = layers.Dense(WIDTH, kernel_initializer=kernel, bias_initializer=bias, name=part)(x)
        x = activation(x, "relu", f"{part}.relu")
    return taps, classifier(x, replace(head, dropout=0.0), name="_fc8", uniform=1 / math.sqrt(x.shape[-1]))
