"""MobileNetV1 in four widths (Howard et al., 2017, https://arxiv.org/abs/1704.04861).

As PaddleClas has it: plain ReLU, and widths are cut to whole numbers, not rounded to multiples of 8.
"""

from __future__ import annotations

from edgecls.zoo.blocks import Head, Style, Taps, classifier, conv_bn
from edgecls.zoo.layers import Tensor

MODELS = {"MobileNetV1_x0_25": 0.25, "MobileNetV1_x0_5": 0.5, "MobileNetV1_x0_75": 0.75, "MobileNetV1": 1.0}
STEM = 32
# Width and stride of each separable convolution; widths at scale 1.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
STYLE = Style(msra=True)


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    scale = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, int(STEM * scale), 3, 2, act="relu", style=STYLE, name="conv"), "stem")
    stage = 1
    for i, (width, stride) in enumerate(BLOCKS):
        stage += stride > 1
        channels, part = x.shape[-1], f"blocks.{i}"
        x = conv_bn(
            x, channels, 3, stride, groups=channels, act="relu", style=STYLE, name=f"{part}.depthwise_conv"
        )
        x = conv_bn(x, int(width * scale), 1, act="relu", style=STYLE, name=f"{part}.pointwise_conv")
        taps.add(x, stage)
    return taps, classifier(x, head, init="msra")
