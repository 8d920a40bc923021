"""PP-LCNet in eight widths (Cui et al., 2021, https://arxiv.org/abs/2109.15099): separable convolutions for CPUs.

As PaddleClas has it: gates of slope 1/6, and the last 1x1 convolution is 1280 wide at every scale.
"""

from __future__ import annotations

from typing import NamedTuple

from edgecls.zoo.blocks import Head, Taps, conv_bn, divisible, squeeze_excite, wide_classifier
from edgecls.zoo.layers import Tensor


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
SCALES = (0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5)
MODELS = {f"PPLCNet_x{scale}".replace(".", "_"): scale for scale in SCALES}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    scale = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, divisible(STEM * scale), 3, 2, act="hard_swish", name="conv1"), "stem")
    for number, (part, stages) in enumerate(STAGES.items(), 1):
        blocks = [(stage, repeat) for stage in stages for repeat in range(stage.repeats)]
        for i, (stage, repeat) in enumerate(blocks):
            stride = 1 if repeat else stage.stride
            x = taps.add(_separable(x, stage, stride, divisible(stage.out * scale), f"{part}.{i}"), number)
    return taps, wide_classifier(x, LAST, "hard_swish", head, act_name="act")


def _separable(x: Tensor, stage: Stage, stride: int, out: int, name: str) -> Tensor:
    channels = x.shape[-1]
    x = conv_bn(x, channels, stage.kernel, stride, groups=channels, act="hard_swish", name=f"{name}.dw_conv")
    if stage.se:
        x = squeeze_excite(x, channels // 4, gate="hard_sigmoid6", name=f"{name}.se")
    return conv_bn(x, out, 1, act="hard_swish", name=f"{name}.pw_conv")
