"""MobileNetV3 large and small in five widths (Howard et al., 2019, https://arxiv.org/abs/1905.02244).

As PaddleClas has it: every block has its 1x1 expansion, squeeze-excite gates have slope 0.2, widths are rounded to
multiples of 8 and the last 1x1 convolution is 1280 wide at every scale.
"""

from __future__ import annotations

from functools import partial

from edgecls.zoo.blocks import Head, Taps, conv_bn, divisible, squeeze_excite, wide_classifier
from edgecls.zoo.inverted import Block, Kind, inverted_residual, table
from edgecls.zoo.layers import Tensor

LARGE = table(
    "3 16 16",  # resolution in: 112
    "3 64 24 /2 | 3 72 24",
    "5 72 40 /2 se | 5 120 40 se | 5 120 40 se",  # 56
    "3 240 80 /2 hs | 3 200 80 hs | 3 184 80 hs | 3 184 80 hs",  # 28
    "3 480 112 se hs | 3 672 112 se hs",  # 14
    "5 672 160 /2 se hs | 5 960 160 se hs | 5 960 160 se hs",
)
SMALL = table(
    "3 16 16 /2 se",  # 112
    "3 72 24 /2 | 3 88 24",  # 56
    "5 96 40 /2 se hs | 5 240 40 se hs | 5 240 40 se hs",  # 28
    "5 120 48 se hs | 5 144 48 se hs",  # 14
    "5 288 96 /2 se hs | 5 576 96 se hs | 5 576 96 se hs",
)
LR_GROUPS = 5  # of PaddleClas' lr_mult_list: three blocks each in large networks, two in small ones, the rest in the last
KIND = Kind(("expand_conv", "bottleneck_conv", "linear_conv"))


MODELS = {
    f"MobileNetV3_{size}_x{scale}".replace(".", "_"): (blocks, scale)
    for size, blocks in (("large", LARGE), ("small", SMALL))
    for scale in (0.35, 0.5, 0.75, 1.0, 1.25)
}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    blocks, scale = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, divisible(16 * scale), 3, 2, act="hard_swish", name="conv"), "stem")
    for i, block in enumerate(blocks):
        x = taps.add(_block(x, block, scale, f"blocks.{i}"), block.stage)
        taps.end_lr_group(min(i // (len(blocks) // LR_GROUPS) + 1, LR_GROUPS), x)
    last = divisible(6 * blocks[-1].out * scale)
    x = taps.add(conv_bn(x, last, 1, act="hard_swish", name="last_second_conv"), blocks[-1].stage)
    taps.end_lr_group(LR_GROUPS, x)
    return taps, wide_classifier(x, 1280, "hard_swish", head, act_name="hardswish")


def _block(x: Tensor, block: Block, scale: float, name: str) -> Tensor:
    expanded, out = divisible(block.expanded * scale), divisible(block.out * scale)
    gate = partial(squeeze_excite, squeezed=expanded // 4, name=f"{name}.mid_se") if block.se else None
    kernel, stride, act = block.kernel, block.stride, block.act
    return inverted_residual(x, expanded, out, kernel, stride, KIND, name=name, act=act, gate=gate)
