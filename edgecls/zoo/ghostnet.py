"""GhostNet in three widths (Han et al., 2020, https://arxiv.org/abs/1911.11907).

As PaddleClas has it: widths are rounded to multiples of 4, gates are clipped to [0, 1] without slope or offset, and
the last 1x1 convolution is 1280 wide at every scale.
"""

from __future__ import annotations

from keras import layers

from edgecls.zoo.blocks import Head, Style, Taps, classifier, conv_bn, divisible, squeeze_excite
from edgecls.zoo.inverted import Block, table
from edgecls.zoo.layers import Tensor

BLOCKS = table(
    "3 16 16",  # resolution in: 112
    "3 48 24 /2 | 3 72 24",
    "5 72 40 /2 se | 5 120 40 se",  # 56
    "3 240 80 /2 | 3 200 80 | 3 184 80 | 3 184 80 | 3 480 112 se | 3 672 112 se",  # 28
    "5 672 160 /2 se | 5 960 160 | 5 960 160 se | 5 960 160 | 5 960 160 se",  # 14
)
STEM, LAST = 16, 1280
MODELS = {"GhostNet_x0_5": 0.5, "GhostNet_x1_0": 1.0, "GhostNet_x1_3": 1.3}
STYLE = Style(msra=True, conv="_conv", norm="_batch_norm")


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    scale = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, divisible(STEM * scale, 4), 3, 2, act="relu", style=STYLE, name="conv1"), "stem")
    for i, block in enumerate(BLOCKS):
        x = taps.add(_bottleneck(x, block, scale, f"._ghostbottleneck_{i}"), block.stage)
    expanded = divisible(BLOCKS[-1].expanded * scale, 4)
    x = taps.add(conv_bn(x, expanded, 1, act="relu", style=STYLE, name="conv_last"), BLOCKS[-1].stage)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool2d_gap")(x)
    x = conv_bn(x, LAST, 1, act="relu", style=STYLE, name="fc_0")
    return taps, classifier(x, head, name="fc_1")


def _ghost(x: Tensor, filters: int, act: str | None, name: str) -> Tensor:
    """Half of the maps by a 1x1 convolution, the other half cheaply from the first."""
    half = filters // 2
    primary = conv_bn(x, half, 1, act=act, style=STYLE, name=f"{name}.primary_conv")
    cheap = conv_bn(primary, half, 3, groups=half, act=act, style=STYLE, name=f"{name}.cheap_operation")
    return layers.Concatenate(name=f"{name}.concat")([primary, cheap])


def _bottleneck(x: Tensor, block: Block, scale: float, name: str) -> Tensor:
    channels, kernel, stride = x.shape[-1], block.kernel, block.stride
    expanded, out = divisible(block.expanded * scale, 4), divisible(block.out * scale, 4)
    y = _ghost(x, expanded, "relu", f"{name}.ghost_module_1")
    if stride > 1:
        y = conv_bn(y, expanded, kernel, stride, groups=expanded, style=STYLE, name=f"{name}.depthwise_conv")
    if block.se:
        parts = ("squeeze", "excitation")
        y = squeeze_excite(y, expanded // 4, gate="clip", parts=parts, dense=True, name=f"{name}.se_block")
    y = _ghost(y, out, None, f"{name}.ghost_module_2")
    if stride > 1 or channels != out:
        x = conv_bn(
            x, channels, kernel, stride, groups=channels, style=STYLE, name=f"{name}.shortcut_depthwise"
        )
        x = conv_bn(x, out, 1, style=STYLE, name=f"{name}.shortcut_conv")
    return layers.Add(name=f"{name}.add")([y, x])
