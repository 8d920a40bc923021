"""MobileNetV2 in six widths (Sandler et al., 2018, https://arxiv.org/abs/1801.04381).

As PaddleClas has it: the first block has its 1x1 expansion too, widths are cut to whole numbers, and the last 1x1
convolution is never narrower than 1280.
"""

from __future__ import annotations

from edgecls.zoo.blocks import Head, Style, Taps, classifier, conv_bn
from edgecls.zoo.inverted import Kind, Stage, inverted_residual
from edgecls.zoo.layers import Tensor

STAGES = (
    Stage(3, 1, 1, 16, 1),  # resolution in: 112
    Stage(3, 2, 6, 24, 2),
    Stage(3, 2, 6, 32, 3),  # 56
    Stage(3, 2, 6, 64, 4),  # 28
    Stage(3, 1, 6, 96, 3),  # 14
    Stage(3, 2, 6, 160, 3),
    Stage(3, 1, 6, 320, 1),  # 7
)
STEM, LAST = 32, 1280
SCALES = (0.25, 0.5, 0.75, 1.5, 2.0)
MODELS = {"MobileNetV2": 1.0} | {f"MobileNetV2_x{scale}".replace(".", "_"): scale for scale in SCALES}
STYLE = Style(conv="_conv", norm="_batch_norm")
KIND = Kind(("_expand_conv", "_bottleneck_conv", "_linear_conv"), STYLE)


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    scale = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, int(STEM * scale), 3, 2, act="relu6", style=STYLE, name="conv1"), "stem")
    for number, stage in enumerate(STAGES, 2):
        for repeat in range(stage.repeats):
            part = f"conv{number}." + (f"conv{number}_{repeat + 1}" if repeat else "_first_block")
            expanded, out = x.shape[-1] * stage.expansion, int(stage.out * scale)
            stride = 1 if repeat else stage.stride
            x = inverted_residual(x, expanded, out, 3, stride, KIND, name=part, act="relu6")
            taps.add(x, number - 1)
    x = conv_bn(x, int(LAST * max(1.0, scale)), 1, act="relu6", style=STYLE, name="conv9")
    taps.add(x, len(STAGES))
    return taps, classifier(x, head, name="out", init="xavier")
