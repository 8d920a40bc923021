"""ResNet 18 to 152 and their vd forms (He et al., 2015, https://arxiv.org/abs/1512.03385; 2018,
https://arxiv.org/abs/1812.01187).

As PaddleClas has it: the stride sits on the 3x3 convolution, and ResNet18 and 34 project even the first shortcut.
The vd form has a stem of three 3x3 convolutions and shortcuts that average before a 1x1 convolution.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from keras import layers

from edgecls.zoo.blocks import Head, Taps, Tensor, activation, classifier, conv_bn


class Variant(NamedTuple):
    """One network of the family."""

    repeats: tuple[int, int, int, int]  # blocks in each stage
    bottleneck: bool  # 1x1, 3x3, 1x1 with four times the width out, else two 3x3
    vd: bool


MODELS = {
    "ResNet18": Variant((2, 2, 2, 2), False, False),
    "ResNet18_vd": Variant((2, 2, 2, 2), False, True),
    "ResNet34": Variant((3, 4, 6, 3), False, False),
    "ResNet34_vd": Variant((3, 4, 6, 3), False, True),
    "ResNet50": Variant((3, 4, 6, 3), True, False),
    "ResNet50_vd": Variant((3, 4, 6, 3), True, True),
}
WIDTHS = (64, 128, 256, 512)


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    variant = MODELS[name]
    taps = Taps(x)
    stem = ((32, 3, 2), (32, 3, 1), (64, 3, 1)) if variant.vd else ((64, 7, 2),)
    for i, (filters, kernel, stride) in enumerate(stem):
        x = taps.add(conv_bn(x, filters, kernel, stride, act="relu", name=f"stem.{i}"))
    # Zero padding equals the reference's -inf padding here, because the map is never negative after ReLU.
    x = layers.MaxPooling2D(3, 2, name="max_pool")(layers.ZeroPadding2D(1, name="max_pool.pad")(x))
    block = 0
    for stage, (width, repeats) in enumerate(zip(WIDTHS, variant.repeats, strict=True)):
        for repeat in range(repeats):
            stride = 2 if stage > 0 and repeat == 0 else 1
            x = taps.add(_residual(x, width, stride, repeat == 0, variant, f"blocks.{block}"))
            block += 1
    x = layers.GlobalAveragePooling2D(keepdims=True, name="avg_pool")(x)
    return taps, classifier(x, head, uniform=1 / math.sqrt(head.embedding_dim or x.shape[-1]))


def _residual(x: Tensor, width: int, stride: int, project: bool, variant: Variant, name: str) -> Tensor:
    if variant.bottleneck:
        y = conv_bn(x, width, 1, act="relu", name=f"{name}.conv0")
        y = conv_bn(y, width, 3, stride, act="relu", name=f"{name}.conv1")
        y = conv_bn(y, 4 * width, 1, name=f"{name}.conv2")
    else:
        y = conv_bn(x, width, 3, stride, act="relu", name=f"{name}.conv0")
        y = conv_bn(y, width, 3, name=f"{name}.conv1")
    if project:
        if variant.vd and stride > 1:
            # SAME with stride 2 is the reference's ceil mode: odd edges average over the cells that exist.
            x = layers.AveragePooling2D(2, stride, padding="same", name=f"{name}.short.avg_pool")(x)
            stride = 1
        x = conv_bn(x, y.shape[-1], 1, stride, name=f"{name}.short")
    return activation(layers.Add(name=f"{name}.add")([y, x]), "relu", f"{name}.relu")
