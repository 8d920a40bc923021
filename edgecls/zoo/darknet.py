"""DarkNet53, the backbone of YOLOv3 (Redmon and Farhadi, 2018, https://arxiv.org/abs/1804.02767).

As PaddleClas has it: plain ReLU where the paper has leaky ones.
"""

from __future__ import annotations

from keras import layers

from edgecls.zoo.blocks import Head, Style, Taps, classifier, conv_bn
from edgecls.zoo.layers import Tensor

STEM = 32
MODELS = {"DarkNet53": (1, 2, 8, 8, 4)}  # residual blocks in each stage, which doubles the width
STYLE = Style(conv="_conv", norm="_bn")


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build the network on NHWC input ``x``; returns its feature maps by stride and its logits."""
    taps = Taps(x)
    x = taps.add(conv_bn(x, STEM, 3, act="relu", style=STYLE, name="._conv1"), "stem")
    for stage, repeats in enumerate(MODELS[name]):
        down = f"._downsample_{stage - 1}" if stage else "._conv2"
        x = conv_bn(x, 2 * x.shape[-1], 3, 2, act="relu", style=STYLE, name=down)
        for i in range(1, repeats + 1):
            x = taps.add(_residual(x, f"._basic_block_{stage}{i}"), stage + 1)
    return taps, classifier(x, head, name="._out")


def _residual(x: Tensor, name: str) -> Tensor:
    channels = x.shape[-1]
    y = conv_bn(x, channels // 2, 1, act="relu", style=STYLE, name=f"{name}._conv1")
    y = conv_bn(y, channels, 3, act="relu", style=STYLE, name=f"{name}._conv2")
    return layers.Add(name=f"{name}.add")([x, y])
