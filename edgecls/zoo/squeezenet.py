"""SqueezeNet 1.0 and 1.1 (Iandola et al., 2016, https://arxiv.org/abs/1602.07360).

As PaddleClas has it: the classifier is a 1x1 convolution with ReLU before the pooling, so logits are never negative.
"""

from __future__ import annotations

from keras import layers

from edgecls.zoo.blocks import Head, Taps, activation, conv
from edgecls.zoo.layers import Tensor

# Filters, kernel and padding of the stem, and the fire modules before which maps are pooled, besides the first.
MODELS = {"SqueezeNet1_0": ((96, 7, 0), (4, 8)), "SqueezeNet1_1": ((64, 3, 1), (3, 5))}
FIRES = (16, 16, 32, 32, 48, 48, 64, 64)  # width of each squeeze; either expansion is four times as wide


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    (filters, kernel, padding), pools = MODELS[name]
    taps = Taps(x)
    x = taps.add(_conv_relu(x, filters, kernel, "._conv", stride=2, padding=padding), "stem")
    stage = 0
    for i, width in enumerate(FIRES, 1):
        if i == 1 or i in pools:
            stage += 1
            x = layers.MaxPooling2D(3, 2, name=f"._conv{i}.pool")(x)
        x = _conv_relu(x, width, 1, f"._conv{i}._conv._conv")
        paths = [_conv_relu(x, 4 * width, k, f"._conv{i}._conv_path{p}._conv") for p, k in ((1, 1), (2, 3))]
        x = taps.add(layers.Concatenate(name=f"._conv{i}.concat")(paths), stage)
    if head.embedding_dim:
        x = conv(x, head.embedding_dim, 1, bias=True, name="embedding")
    if head.dropout:
        x = layers.Dropout(head.dropout, name="dropout")(x)
    x = _conv_relu(x, head.classes, 1, "._conv9")
    x = layers.GlobalAveragePooling2D(keepdims=True, name="._avg_pool")(x)
    return taps, layers.Flatten(name="flatten")(x)


def _conv_relu(
    x: Tensor, filters: int, kernel: int, name: str, stride: int = 1, padding: int | None = None
) -> Tensor:
    x = conv(x, filters, kernel, stride, bias=True, padding=padding, name=name)
    return activation(x, "relu", f"{name}.relu")
