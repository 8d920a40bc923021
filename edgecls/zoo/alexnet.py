"""AlexNet in one column (Krizhevsky, 2014, https://arxiv.org/abs/1404.5997)."""

from __future__ import annotations

import math
from dataclasses import replace

from keras import initializers, layers

from edgecls.zoo.blocks import Head, Style, Taps, activation, classifier, conv
from edgecls.zoo.layers import Tensor

# Name, filters, kernel, stride, padding, and the stage that ends with 3x3 max pooling of stride 2.
LAYERS = (
    ("._conv1._conv", 64, 11, 4, 2, "stem"),
    ("._conv2._conv", 192, 5, 1, None, 1),
    ("._conv3", 384, 3, 1, None, None),
    ("._conv4", 256, 3, 1, None, None),
    ("._conv5._conv", 256, 3, 1, None, 2),
)
HIDDEN = ("._fc6", "._fc7")
WIDTH = 4096
MODELS = {"AlexNet": LAYERS}
STYLE = Style(uniform=1.0)


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build the network on NHWC input ``x``; returns its feature maps by stride and its logits."""
    taps = Taps(x)
    for part, filters, kernel, stride, padding, stage in MODELS[name]:
        x = conv(x, filters, kernel, stride, bias=True, padding=padding, style=STYLE, name=part)
        x = taps.add(activation(x, "relu", f"{part}.relu"))
        if stage is not None:
            x = taps.add(layers.MaxPooling2D(3, 2, name=f"{part}.pool")(x), stage)
    x = layers.Flatten(name="flatten")(x)
    for part in HIDDEN:
        if head.dropout:
            x = layers.Dropout(head.dropout, name=f"{part}.dropout")(x)
        bound = 1 / math.sqrt(x.shape[-1])
        init = [initializers.RandomUniform(-bound, bound) for _ in range(2)]
        x = layers.Dense(WIDTH, kernel_initializer=init[0], bias_initializer=init[1], name=part)(x)
        x = activation(x, "relu", f"{part}.relu")
    return taps, classifier(x, replace(head, dropout=0.0), name="._fc8")
