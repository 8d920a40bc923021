"""EfficientNet B0 to B7 (Tan and Le, 2019, https://arxiv.org/abs/1905.11946) and PaddleClas' B0_small.

The stages are those of EfficientNet-Lite, with squeeze-excite and swish. TensorFlow's SAME padding, but in B0_small,
which has no squeeze-excite either, symmetric.
"""

from __future__ import annotations

import math
from functools import partial

from edgecls.zoo.blocks import Head, Style, Taps, classifier, conv_bn, divisible, squeeze_excite
from edgecls.zoo.efficientnet_lite import HEAD, STAGES, STEM
from edgecls.zoo.inverted import Kind, inverted_residual
from edgecls.zoo.layers import Tensor

# Multiples of width and depth, and whether it is small; input size and dropout stand in the catalog.
MODELS = {
    "EfficientNetB0_small": (1.0, 1.0, True),
    "EfficientNetB0": (1.0, 1.0, False),
    "EfficientNetB1": (1.0, 1.1, False),
    "EfficientNetB2": (1.1, 1.2, False),
    "EfficientNetB3": (1.2, 1.4, False),
    "EfficientNetB4": (1.4, 1.8, False),
    "EfficientNetB5": (1.6, 2.2, False),
    "EfficientNetB6": (1.8, 2.6, False),
    "EfficientNetB7": (2.0, 3.1, False),
}
PARTS, SE = ("_ecn._conv", "_dcn._conv", "_pcn._conv"), ("_conv1._conv", "_conv2._conv")
DROP_CONNECT = 0.2  # of the last block; it grows in proportion to depth


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    width, depth, small = MODELS[name]
    style = Style(1e-3, 0.99, same_padding=not small, kernel_std=0.02, conv="_conv._conv", norm="_bn")
    plan = [
        (number, stage, repeat)
        for number, stage in enumerate(STAGES, 1)
        for repeat in range(math.ceil(stage.repeats * depth))
    ]
    taps = Taps(x)
    x = conv_bn(x, divisible(STEM * width), 3, 2, act="silu", style=style, name="._ef._conv_stem._conv")
    taps.add(x, "stem")
    kind = Kind(PARTS, style, lean=True)
    gate = partial(squeeze_excite, act="silu", gate="sigmoid", parts=SE, style=style)
    for i, (number, stage, repeat) in enumerate(plan):
        part, channels = f"._ef.{'block' if repeat else '_blocks'}.{i}.", x.shape[-1]
        sizes = (channels * stage.expansion, divisible(stage.out * width), stage.kernel)
        gated = None if small else partial(gate, squeezed=channels // 4, name=f"{part}._se")
        stride, drop = 1 if repeat else stage.stride, DROP_CONNECT * i / len(plan)
        x = inverted_residual(x, *sizes, stride, kind, name=part, act="silu", gate=gated, drop=drop)
        taps.add(x, number)
    x = taps.add(conv_bn(x, divisible(HEAD * width), 1, act="silu", style=style, name="._conv"), len(STAGES))
    return taps, classifier(x, head, name="._fc", init=1 / math.sqrt(head.classes))
