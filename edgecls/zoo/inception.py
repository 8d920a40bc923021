"""Inception v3 (Szegedy et al., 2015, https://arxiv.org/abs/1512.00567) and v4 (2016,
https://arxiv.org/abs/1602.07261).

A block is a row of branches, a branch a chain of steps: ``name width kernel`` is a convolution, ``/2`` one of stride 2
and ``v`` one without padding; ``&`` runs two side by side on what came before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from keras import layers

from edgecls.zoo.blocks import PADDLE, Head, Style, Taps, Tensor, classifier, conv_bn
from edgecls.zoo.residual import FLUID

Block = tuple[str, ...]


class Network(NamedTuple):
    """One network of the family."""

    blocks: tuple[tuple[str, Block], ...]  # each with its name
    style: Style
    fc: str
    count_padding: bool  # average pools count the cells around the map as zeros


def _a3(pool: int) -> Block:
    return (
        "branch1x1 64 1",
        "branch5x5_1 48 1 | branch5x5_2 64 5",
        "branch3x3dbl_1 64 1 | branch3x3dbl_2 96 3 | branch3x3dbl_3 96 3",
        f"avg | branch_pool_conv {pool} 1",
    )


def _c3(w: int) -> Block:
    return (
        "branch1x1 192 1",
        f"branch7x7_1 {w} 1 | branch7x7_2 {w} 1x7 | branch7x7_3 192 7x1",
        f"branch7x7dbl_1 {w} 1 | branch7x7dbl_2 {w} 7x1 | branch7x7dbl_3 {w} 1x7 | branch7x7dbl_4 {w} 7x1 | "
        "branch7x7dbl_5 192 1x7",
        "avg | branch_pool_conv 192 1",
    )


STEM3 = (
    "conv_1a_3x3 32 3/2 | conv_2a_3x3 32 3v | conv_2b_3x3 64 3",
    "max | conv_3b_1x1 80 1 | conv_4a_3x3 192 3v",
    "max",
)
B3 = (
    "branch3x3 384 3/2",
    "branch3x3dbl_1 64 1 | branch3x3dbl_2 96 3 | branch3x3dbl_3 96 3/2",
    "max",
)
D3 = (
    "branch3x3_1 192 1 | branch3x3_2 320 3/2",
    "branch7x7x3_1 192 1 | branch7x7x3_2 192 1x7 | branch7x7x3_3 192 7x1 | branch7x7x3_4 192 3/2",
    "max",
)
E3 = (
    "branch1x1 320 1",
    "branch3x3_1 384 1 | branch3x3_2a 384 1x3 & branch3x3_2b 384 3x1",
    "branch3x3dbl_1 448 1 | branch3x3dbl_2 384 3 | branch3x3dbl_3a 384 1x3 & branch3x3dbl_3b 384 3x1",
    "avg | branch_pool_conv 192 1",
)
BLOCKS3 = (_a3(32), _a3(64), _a3(64), B3, _c3(128), _c3(160), _c3(160), _c3(192), D3, E3, E3)
STEM4: tuple[Block, ...] = (
    ("_conv_1 32 3/2 | _conv_2 32 3v | _conv_3 64 3",),
    ("max", "_conv2 96 3/2"),
    (
        "_conv1_1 64 1 | _conv1_2 96 3v",
        "_conv2_1 64 1 | _conv2_2 64 7x1 | _conv2_3 64 1x7 | _conv2_4 96 3v",
    ),
    ("_conv3 192 3/2", "max"),
)
A4 = (
    "avg | _conv1 96 1",
    "_conv2 96 1",
    "_conv3_1 64 1 | _conv3_2 96 3",
    "_conv4_1 64 1 | _conv4_2 96 3 | _conv4_3 96 3",
)
REDUCTION_A4 = ("max", "_conv2 384 3/2", "_conv3_1 192 1 | _conv3_2 224 3 | _conv3_3 256 3/2")
B4 = (
    "avg | _conv1 128 1",
    "_conv2 384 1",
    "_conv3_1 192 1 | _conv3_2 224 1x7 | _conv3_3 256 7x1",
    "_conv4_1 192 1 | _conv4_2 192 1x7 | _conv4_3 224 7x1 | _conv4_4 224 1x7 | _conv4_5 256 7x1",
)
REDUCTION_B4 = (
    "max",
    "_conv2_1 192 1 | _conv2_2 192 3/2",
    "_conv3_1 256 1 | _conv3_2 256 1x7 | _conv3_3 320 7x1 | _conv3_4 320 3/2",
)
C4 = (
    "avg | _conv1 256 1",
    "_conv2 256 1",
    "_conv3_0 384 1 | _conv3_1 256 1x3 & _conv3_2 256 3x1",
    "_conv4_0 384 1 | _conv4_00 448 1x3 | _conv4_000 512 3x1 | _conv4_1 256 1x3 & _conv4_2 256 3x1",
)
MODELS = {
    "InceptionV3": Network(
        (
            *(("inception_stem", (branch,)) for branch in STEM3),
            *((f"inception_block_list.{i}", block) for i, block in enumerate(BLOCKS3)),
        ),
        PADDLE,
        "fc",
        count_padding=True,
    ),
    "InceptionV4": Network(
        (
            *(("_inception_stem", block) for block in STEM4),
            *((f"_inceptionA_{i}", A4) for i in range(1, 5)),
            ("_reductionA", REDUCTION_A4),
            *((f"_inceptionB_{i}", B4) for i in range(1, 8)),
            ("_reductionB", REDUCTION_B4),
            *((f"_inceptionC_{i}", C4) for i in range(1, 4)),
        ),
        FLUID,
        "out",
        count_padding=False,
    ),
}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    network = MODELS[name]
    taps = Taps(x)
    for number, (part, block) in enumerate(network.blocks):
        ends = []
        for i, branch in enumerate(block):
            y = x
            *chain, fork = branch.split(" | ")
            for step in chain:
                y = _step(y, step, part, f"{part}.pool{number}_{i}", network)
            ends += [_step(y, step, part, f"{part}.pool{number}_{i}", network) for step in fork.split(" & ")]
        x = taps.add(layers.Concatenate(name=f"{part}.concat{number}")(ends) if len(ends) > 1 else ends[0])
    x = layers.GlobalAveragePooling2D(keepdims=True, name="avg_pool")(x)
    uniform = 1 / math.sqrt(head.embedding_dim or x.shape[-1])
    return taps, classifier(x, head, name=network.fc, uniform=uniform)


def _step(x: Tensor, step: str, part: str, pool: str, network: Network) -> Tensor:
    if step == "max":
        return layers.MaxPooling2D(3, 2, name=pool)(x)
    if step == "avg":
        if network.count_padding:
            x = layers.ZeroPadding2D(1, name=f"{pool}.pad")(x)
        return layers.AveragePooling2D(3, 1, padding="valid" if network.count_padding else "same", name=pool)(
            x
        )
    name, width, shape = step.split()
    height, _, length = shape.rstrip("v").removesuffix("/2").partition("x")
    kernel = (int(height), int(length or height))
    stride, part = 2 if "/2" in shape else 1, f"{part}.{name}"
    geometry = {"padding": 0} if "/2" in shape or "v" in shape else {}
    return conv_bn(x, int(width), kernel, stride, act="relu", style=network.style, name=part, **geometry)
