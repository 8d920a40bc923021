"""MobileNetV2 in six widths (Sandler et al., 2018, https://arxiv.org/abs/1801.04381).

As PaddleClas has it: the first block has its 1x1 expansion too, widths are cut to whole numbers, and the last 1x1
convolution is never narrower than 1280.
"""

from __future__ import annotations

from typing import NamedTuple

from keras import layers

from edgecls.zoo.blocks import Head, Style, Taps, Tensor, classifier, conv_bn


class Stage(NamedTuple):
    """A run of inverted residuals; only the first strides. Widths at scale 1."""

    expansion: int
    out: int
    repeats: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),  # resolution in: 112
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),  # 56
    Stage(6, 64, 4, 2),  # 28
    Stage(6, 96, 3, 1),  # 14
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),  # 7
)
STEM, LAST = 32, 1280
MODELS = {
    "MobileNetV2_x0_25": 0.25,
    "MobileNetV2_x0_5": 0.5,
    "MobileNetV2_x0_75": 0.75,
    "MobileNetV2": 1.0,
    "MobileNetV2_x1_5": 1.5,
    "MobileNetV2_x2_0": 2.0,
}
STYLE = Style(conv="_conv", norm="_batch_norm")


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    scale = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, int(STEM * scale), 3, 2, act="relu6", style=STYLE, name="conv1"))
    for number, stage in enumerate(STAGES, 2):
        for repeat in range(stage.repeats):
            part = f"conv{number}_{repeat + 1}" if repeat else "_first_block"
            x = taps.add(_inverted_residual(x, stage, repeat == 0, scale, f"conv{number}.{part}"))
    x = taps.add(conv_bn(x, int(LAST * max(1.0, scale)), 1, act="relu6", style=STYLE, name="conv9"))
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool2d_avg")(x)
    return taps, classifier(x, head, name="out")


def _inverted_residual(x: Tensor, stage: Stage, first: bool, scale: float, name: str) -> Tensor:
    expanded, stride = x.shape[-1] * stage.expansion, stage.stride if first else 1
    y = conv_bn(x, expanded, 1, act="relu6", style=STYLE, name=f"{name}._expand_conv")
    y = conv_bn(
        y, expanded, 3, stride, groups=expanded, act="relu6", style=STYLE, name=f"{name}._bottleneck_conv"
    )
    y = conv_bn(y, int(stage.out * scale), 1, style=STYLE, name=f"{name}._linear_conv")
    return y if first else layers.Add(name=f"{name}.add")([x, y])
