"""Res2Net (Gao et al., 2019, https://arxiv.org/abs/1904.01169): the 3x3 convolution of a bottleneck becomes a chain of
small ones, each on its own share of the channels plus what the one before made of its share.
"""

from __future__ import annotations

from keras import layers

from edgecls.zoo import residual
from edgecls.zoo.blocks import Head, Taps, conv_bn, join
from edgecls.zoo.layers import Channels, Tensor
from edgecls.zoo.pooling import EdgeAveragePooling2D
from edgecls.zoo.residual import Names, Place, Plan
from edgecls.zoo.resnet import R50, R101, R200

NAMES = Names(stem="conv1")
SHARES = {"26w_4s": 4, "14w_8s": 8}
MODELS = {
    "Res2Net50_26w_4s": Plan(R50, width=4 * 26, names=NAMES),
    "Res2Net50_14w_8s": Plan(R50, width=8 * 14, names=NAMES),
    "Res2Net50_vd_26w_4s": Plan(R50, width=4 * 26, deep=True, vd=True),
    "Res2Net101_vd_26w_4s": Plan(R101, width=4 * 26, deep=True, vd=True),
    "Res2Net200_vd_26w_4s": Plan(R200, width=4 * 26, deep=True, vd=True),
}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    shares = SHARES[name[-6:]]
    return residual.build(MODELS[name], x, head, lambda x, plan, place: _branch(x, plan, place, shares))


def _branch(x: Tensor, plan: Plan, place: Place, shares: int) -> Tensor:
    style, (stage, repeat, stride, name) = plan.names.style, place
    # Deep networks count the third stage's blocks a, b1, b2, ...
    letter = f"b{repeat}" if plan.repeats[2] > 6 and stage == 2 and repeat else chr(ord("a") + repeat)
    x = conv_bn(x, plan.width * 2**stage, 1, act="relu", style=style, name=f"{name}.conv0")
    width = x.shape[-1] // shares
    parts: list[Tensor] = []
    for i in range(shares):
        part = Channels(i * width, (i + 1) * width, name=f"{name}.share{i + 1}")(x)
        if i < shares - 1:
            if parts and stride == 1:
                part = layers.Add(name=f"{name}.join{i + 1}")([part, parts[-1]])
            chain = f"{name}.res{stage + 2}{letter}_branch2b_{i + 1}"
            part = conv_bn(part, width, 3, stride, act="relu", style=style, name=chain)
        elif stride > 1:
            part = EdgeAveragePooling2D(name=f"{name}.avg_pool")(part)
        parts.append(part)
    x = join(parts, f"{name}.concat")
    return conv_bn(x, plan.out * 2**stage, 1, style=style, name=f"{name}.conv2")
