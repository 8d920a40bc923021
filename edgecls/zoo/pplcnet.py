"""PP-LCNet in eight widths (Cui et al., 2021, https://arxiv.org/abs/2109.15099): separable convolutions for CPUs.

As PaddleClas has it: gates of slope 1/6, and the last 1x1 convolution is 1280 wide at every scale.
"""

from __future__ import annotations

from typing import NamedTuple

from keras import layers

from edgecls.zoo.blocks import (
    Head,
    Taps,
    Tensor,
    activation,
    classifier,
    conv,
    conv_bn,
    divisible,
    squeeze_excite,
)


class Stage(NamedTuple):
    """A run of separable convolutions; only the first strides. The width is at scale 1."""

    kernel: int
    out: int
    repeats: int
    stride: int
    se: bool = False


STAGES = {
    "blocks2": (Stage(3, 32, 1, 1),),  # resolution in: 112
    "blocks3": (Stage(3, 64, 2, 2),),
    "blocks4": (Stage(3, 128, 2, 2),),  # 56
    "blocks5": (Stage(3, 256, 1, 2), Stage(5, 256, 5, 1)),  # 28
    "blocks6": (Stage(5, 512, 2, 2, True),),  # 14
}
STEM, LAST = 16, 1280
MODELS = {
    "PPLCNet_x0_25": 0.25,
    "PPLCNet_x0_35": 0.35,
    "PPLCNet_x0_5": 0.5,
    "PPLCNet_x0_75": 0.75,
    "PPLCNet_x1_0": 1.0,
    "PPLCNet_x1_5": 1.5,
    "PPLCNet_x2_0": 2.0,
    "PPLCNet_x2_5": 2.5,
}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    scale = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, divisible(STEM * scale), 3, 2, act="hard_swish", name="conv1"))
    for part, stages in STAGES.items():
        blocks = [(stage, repeat) for stage in stages for repeat in range(stage.repeats)]
        for i, (stage, repeat) in enumerate(blocks):
            stride = 1 if repeat else stage.stride
            x = taps.add(_separable(x, stage, stride, divisible(stage.out * scale), f"{part}.{i}"))
    x = layers.GlobalAveragePooling2D(keepdims=True, name="avg_pool")(x)
    x = activation(conv(x, LAST, 1, name="last_conv"), "hard_swish", "act")
    return taps, classifier(x, head)


def _separable(x: Tensor, stage: Stage, stride: int, out: int, name: str) -> Tensor:
    channels = x.shape[-1]
    x = conv_bn(x, channels, stage.kernel, stride, groups=channels, act="hard_swish", name=f"{name}.dw_conv")
    if stage.se:
        x = squeeze_excite(x, channels // 4, gate="hard_sigmoid6", name=f"{name}.se")
    return conv_bn(x, out, 1, act="hard_swish", name=f"{name}.pw_conv")
