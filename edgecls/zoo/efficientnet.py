"""EfficientNet B0 to B7 (Tan and Le, 2019, https://arxiv.org/abs/1905.11946) and PaddleClas' B0_small.

The stages are those of EfficientNet-Lite, with squeeze-excite and swish. TensorFlow's SAME padding, but in B0_small,
which has no squeeze-excite either, symmetric.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from keras import layers

from edgecls.zoo.blocks import Head, Style, Taps, Tensor, classifier, conv_bn, divisible, squeeze_excite
from edgecls.zoo.efficientnet_lite import HEAD, STAGES, STEM, Stage


class Variant(NamedTuple):
    """One network of the family; its input size and dropout stand in the catalog."""

    width: float
    depth: float
    small: bool = False


MODELS = {
    "EfficientNetB0_small": Variant(1.0, 1.0, True),
    "EfficientNetB0": Variant(1.0, 1.0),
    "EfficientNetB1": Variant(1.0, 1.1),
    "EfficientNetB2": Variant(1.1, 1.2),
    "EfficientNetB3": Variant(1.2, 1.4),
    "EfficientNetB4": Variant(1.4, 1.8),
    "EfficientNetB5": Variant(1.6, 2.2),
    "EfficientNetB6": Variant(1.8, 2.6),
    "EfficientNetB7": Variant(2.0, 3.1),
}
DROP_CONNECT = 0.2  # of the last block; it grows in proportion to depth


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    width, depth, small = MODELS[name]
    style = Style(1e-3, 0.99, same_padding=not small, kernel_std=0.02, conv="_conv._conv", norm="_bn")
    plan = [(stage, repeat) for stage in STAGES for repeat in range(math.ceil(stage.repeats * depth))]
    taps = Taps(x)
    x = taps.add(
        conv_bn(x, divisible(STEM * width), 3, 2, act="silu", style=style, name="_ef._conv_stem._conv")
    )
    for i, (stage, repeat) in enumerate(plan):
        part = f"_ef.{'block' if repeat else '_blocks'}.{i}."
        y = _branch(x, stage, repeat == 0, divisible(stage.out * width), style, part, gated=not small)
        if repeat:
            # One choice a sample: None is the batch.
            drop = layers.Dropout(DROP_CONNECT * i / len(plan), (None, 1, 1, 1), name=f"{part}.drop_connect")
            y = layers.Add(name=f"{part}.add")([x, drop(y)])
        x = taps.add(y)
    x = taps.add(conv_bn(x, divisible(HEAD * width), 1, act="silu", style=style, name="_conv"))
    x = layers.GlobalAveragePooling2D(keepdims=True, name="_pool")(x)
    return taps, classifier(x, head, name="_fc", uniform=1 / math.sqrt(head.classes))


def _branch(x: Tensor, stage: Stage, first: bool, out: int, style: Style, name: str, gated: bool) -> Tensor:
    channels = x.shape[-1]
    expanded = channels * stage.expansion
    if stage.expansion > 1:
        x = conv_bn(x, expanded, 1, act="silu", style=style, name=f"{name}._ecn._conv")
    stride = stage.stride if first else 1
    dcn = f"{name}._dcn._conv"
    x = conv_bn(x, expanded, stage.kernel, stride, groups=expanded, act="silu", style=style, name=dcn)
    if gated:
        parts = ("_conv1._conv", "_conv2._conv")
        x = squeeze_excite(
            x, channels // 4, act="silu", gate="sigmoid", parts=parts, style=style, name=f"{name}._se"
        )
    return conv_bn(x, out, 1, style=style, name=f"{name}._pcn._conv")
