"""MobileNetV3 large and small in five widths (Howard et al., 2019, https://arxiv.org/abs/1905.02244).

As PaddleClas has it: every block has its 1x1 expansion, squeeze-excite gates have slope 0.2, widths are rounded to
multiples of 8 and the last 1x1 convolution is 1280 wide at every scale.
"""

from __future__ import annotations

from typing import NamedTuple

from keras import layers

from edgecls.zoo.blocks import Head, Taps, Tensor, conv_bn, divisible, squeeze_excite, wide_classifier


class Block(NamedTuple):
    """One inverted residual; widths at scale 1."""

    kernel: int
    expanded: int
    out: int
    se: bool
    act: str
    stride: int


LARGE = (
    Block(3, 16, 16, False, "relu", 1),  # resolution in: 112
    Block(3, 64, 24, False, "relu", 2),
    Block(3, 72, 24, False, "relu", 1),  # 56
    Block(5, 72, 40, True, "relu", 2),
    Block(5, 120, 40, True, "relu", 1),  # 28
    Block(5, 120, 40, True, "relu", 1),
    Block(3, 240, 80, False, "hard_swish", 2),
    Block(3, 200, 80, False, "hard_swish", 1),  # 14
    Block(3, 184, 80, False, "hard_swish", 1),
    Block(3, 184, 80, False, "hard_swish", 1),
    Block(3, 480, 112, True, "hard_swish", 1),
    Block(3, 672, 112, True, "hard_swish", 1),
    Block(5, 672, 160, True, "hard_swish", 2),
    Block(5, 960, 160, True, "hard_swish", 1),  # 7
    Block(5, 960, 160, True, "hard_swish", 1),
)
SMALL = (
    Block(3, 16, 16, True, "relu", 2),  # 112
    Block(3, 72, 24, False, "relu", 2),  # 56
    Block(3, 88, 24, False, "relu", 1),  # 28
    Block(5, 96, 40, True, "hard_swish", 2),
    Block(5, 240, 40, True, "hard_swish", 1),  # 14
    Block(5, 240, 40, True, "hard_swish", 1),
    Block(5, 120, 48, True, "hard_swish", 1),
    Block(5, 144, 48, True, "hard_swish", 1),
    Block(5, 288, 96, True, "hard_swish", 2),
    Block(5, 576, 96, True, "hard_swish", 1),  # 7
    Block(5, 576, 96, True, "hard_swish", 1),
)


class Variant(NamedTuple):
    """One network of the family."""

    blocks: tuple[Block, ...]
    scale: float


MODELS = {
    f"MobileNetV3_{size}_x{scale}".replace(".", "_"): Variant(blocks, scale)
    for size, blocks in (("large", LARGE), ("small", SMALL))
    for scale in (0.35, 0.5, 0.75, 1.0, 1.25)
}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    blocks, scale = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, divisible(16 * scale), 3, 2, act="hard_swish", name="conv"))
    for i, block in enumerate(blocks):
        x = taps.add(_inverted_residual(x, block, scale, f"blocks.{i}"))
    x = taps.add(
        conv_bn(x, divisible(6 * blocks[-1].out * scale), 1, act="hard_swish", name="last_second_conv")
    )
    return taps, wide_classifier(x, 1280, "hard_swish", head, act_name="hardswish")


def _inverted_residual(x: Tensor, block: Block, scale: float, name: str) -> Tensor:
    expanded, out = divisible(block.expanded * scale), divisible(block.out * scale)
    y = conv_bn(x, expanded, 1, act=block.act, name=f"{name}.expand_conv")
    y = conv_bn(
        y,
        expanded,
        block.kernel,
        block.stride,
        groups=expanded,
        act=block.act,
        name=f"{name}.bottleneck_conv",
    )
    if block.se:
        y = squeeze_excite(y, expanded // 4, name=f"{name}.mid_se")
    y = conv_bn(y, out, 1, name=f"{name}.linear_conv")
    return layers.Add(name=f"{name}.add")([x, y]) if block.stride == 1 and x.shape[-1] == out else y
