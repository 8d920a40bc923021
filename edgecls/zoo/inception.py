"""GoogLeNet (Szegedy et al., 2014, https://arxiv.org/abs/1409.4842), Inception v3 (2015,
https://arxiv.org/abs/1512.00567) and v4 (2016, https://arxiv.org/abs/1602.07261).

A block is a row of branches, a branch a chain of steps: ``name width kernel`` is a convolution, ``/2`` one of stride 2
and ``v`` one without padding; ``max`` halves the map and ``top`` does not; ``&`` runs two side by side on what came
before. As PaddleClas has it, GoogLeNet's convolutions have no bias, and only the ends of branches have ReLU.
"""

from __future__ import annotations

from typing import NamedTuple

from keras import layers

from edgecls.zoo.blocks import PADDLE, Head, Style, Taps, activation, classifier, conv, conv_bn, join
from edgecls.zoo.layers import Tensor
from edgecls.zoo.residual import FLUID

Block = tuple[str, ...]


class Network(NamedTuple):
    """One network of the family."""

    blocks: tuple[tuple[str, Block], ...]  # each with its name
    style: Style
    fc: str
    stages: tuple[int, ...]  # blocks in the stem and in each stage
    count_padding: bool = False  # average pools count the cells around the map as zeros
    normed: bool = True
    auxiliary: tuple[str, ...] = ()  # blocks whose output has a classifier of its own in training


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


def _a1(one: int, before3: int, three: int, before5: int, five: int, pooled: int) -> Block:
    return (
        f"_conv1 {one} 1",
        f"_conv3r {before3} 1 | _conv3 {three} 3",
        f"_conv5r {before5} 1 | _conv5 {five} 5",
        f"top | _convprj {pooled} 1",
    )


STYLE1 = Style(uniform=3.0, conv="_conv")
BLOCKS1: tuple[tuple[str, Block], ...] = (
    ("", ("_conv 64 7/2",)),
    ("", ("max | _conv_1 64 1 | _conv_2 192 3",)),
    ("", ("max",)),
    ("._ince3a", _a1(64, 96, 128, 16, 32, 32)),
    ("._ince3b", _a1(128, 128, 192, 32, 96, 64)),
    ("._pool3", ("max",)),
    ("._ince4a", _a1(192, 96, 208, 16, 48, 64)),
    ("._ince4b", _a1(160, 112, 224, 24, 64, 64)),
    ("._ince4c", _a1(128, 128, 256, 24, 64, 64)),
    ("._ince4d", _a1(112, 144, 288, 32, 64, 64)),
    ("._ince4e", _a1(256, 160, 320, 32, 128, 128)),
    ("._pool4", ("max",)),
    ("._ince5a", _a1(256, 160, 320, 32, 128, 128)),
    ("._ince5b", _a1(384, 192, 384, 48, 128, 128)),
)
STEM3 = (
    "conv_1a_3x3 32 3/2v | conv_2a_3x3 32 3v | conv_2b_3x3 64 3",
    "max | conv_3b_1x1 80 1 | conv_4a_3x3 192 3v",
    "max",
)
B3 = (
    "branch3x3 384 3/2v",
    "branch3x3dbl_1 64 1 | branch3x3dbl_2 96 3 | branch3x3dbl_3 96 3/2v",
    "max",
)
D3 = (
    "branch3x3_1 192 1 | branch3x3_2 320 3/2v",
    "branch7x7x3_1 192 1 | branch7x7x3_2 192 1x7 | branch7x7x3_3 192 7x1 | branch7x7x3_4 192 3/2v",
    "max",
)
E3 = (
    "branch1x1 320 1",
    "branch3x3_1 384 1 | branch3x3_2a 384 1x3 & branch3x3_2b 384 3x1",
    "branch3x3dbl_1 448 1 | branch3x3dbl_2 384 3 | branch3x3dbl_3a 384 1x3 & branch3x3dbl_3b 384 3x1",
    "avg | branch_pool_conv 192 1",
)
BLOCKS3 = (
    *(("inception_stem", (branch,)) for branch in STEM3),
    *(
        (f"inception_block_list.{i}", block)
        for i, block in enumerate(
            (_a3(32), _a3(64), _a3(64), B3, _c3(128), _c3(160), _c3(160), _c3(192), D3, E3, E3)
        )
    ),
)
STEM4: tuple[Block, ...] = (
    ("_conv_1 32 3/2v | _conv_2 32 3v | _conv_3 64 3",),
    ("max", "_conv2 96 3/2v"),
    (
        "_conv1_1 64 1 | _conv1_2 96 3v",
        "_conv2_1 64 1 | _conv2_2 64 7x1 | _conv2_3 64 1x7 | _conv2_4 96 3v",
    ),
    ("_conv3 192 3/2v", "max"),
)
A4 = (
    "avg | _conv1 96 1",
    "_conv2 96 1",
    "_conv3_1 64 1 | _conv3_2 96 3",
    "_conv4_1 64 1 | _conv4_2 96 3 | _conv4_3 96 3",
)
REDUCTION_A4 = ("max", "_conv2 384 3/2v", "_conv3_1 192 1 | _conv3_2 224 3 | _conv3_3 256 3/2v")
B4 = (
    "avg | _conv1 128 1",
    "_conv2 384 1",
    "_conv3_1 192 1 | _conv3_2 224 1x7 | _conv3_3 256 7x1",
    "_conv4_1 192 1 | _conv4_2 192 1x7 | _conv4_3 224 7x1 | _conv4_4 224 1x7 | _conv4_5 256 7x1",
)
REDUCTION_B4 = (
    "max",
    "_conv2_1 192 1 | _conv2_2 192 3/2v",
    "_conv3_1 256 1 | _conv3_2 256 1x7 | _conv3_3 320 7x1 | _conv3_4 320 3/2v",
)
C4 = (
    "avg | _conv1 256 1",
    "_conv2 256 1",
    "_conv3_0 384 1 | _conv3_1 256 1x3 & _conv3_2 256 3x1",
    "_conv4_0 384 1 | _conv4_00 448 1x3 | _conv4_000 512 3x1 | _conv4_1 256 1x3 & _conv4_2 256 3x1",
)
BLOCKS4 = (
    *(("._inception_stem", block) for block in STEM4),
    *((f"._inceptionA_{i}", A4) for i in range(1, 5)),
    ("._reductionA", REDUCTION_A4),
    *((f"._inceptionB_{i}", B4) for i in range(1, 8)),
    ("._reductionB", REDUCTION_B4),
    *((f"._inceptionC_{i}", C4) for i in range(1, 4)),
)
MODELS = {
    "GoogLeNet": Network(
        BLOCKS1, STYLE1, "._fc_out", (3, 3, 6, 2), normed=False, auxiliary=("._ince4a", "._ince4d")
    ),
    "InceptionV3": Network(BLOCKS3, PADDLE, "fc", (3, 3, 5, 3), count_padding=True),
    "InceptionV4": Network(BLOCKS4, FLUID, "out", (4, 4, 8, 4)),
}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits, the main ones first."""
    network, taps = MODELS[name], Taps(x)
    auxiliary: list[Tensor] = []
    stages = [stage or "stem" for stage, count in enumerate(network.stages) for _ in range(count)]
    for number, (stage, (part, block)) in enumerate(zip(stages, network.blocks, strict=True)):
        ends = []
        for i, branch in enumerate(block):
            y, pool = x, f"{part}.pool{number}_{i}"
            *chain, fork = branch.split(" | ")
            for step in chain:
                y = _step(y, step, part, pool, network)
            ends += [_step(y, step, part, pool, network) for step in fork.split(" & ")]
        if not network.normed and len(ends) > 1:
            ends = [activation(end, "relu", f"{part}.relu{i}") for i, end in enumerate(ends)]
        x = taps.add(join(ends, f"{part}.concat{number}") if len(ends) > 1 else ends[0], stage)
        if head.auxiliary and part in network.auxiliary and x.shape[1] >= 5:
            auxiliary.append(_auxiliary(x, head, len(auxiliary) + 1, network.style))
    logits = classifier(x, head, name=network.fc, init="uniform" if network.normed else "lecun")
    return taps, [logits, *auxiliary] if auxiliary else logits


def _step(x: Tensor, step: str, part: str, pool: str, network: Network) -> Tensor:
    if step == "max":
        return layers.MaxPooling2D(3, 2, name=pool)(x)
    if step == "top":
        return layers.MaxPooling2D(3, 1, "same", name=pool)(x)
    if step == "avg" and not network.count_padding:
        return layers.AveragePooling2D(3, 1, "same", name=pool)(x)
    if step == "avg":
        return layers.AveragePooling2D(3, 1, name=pool)(layers.ZeroPadding2D(1, name=f"{pool}.pad")(x))
    name, width, shape = step.split()
    height, _, length = shape.rstrip("v").removesuffix("/2").partition("x")
    kernel, stride = (int(height), int(length or height)), 2 if "/2" in shape else 1
    name, padding, style = f"{part}.{name}", 0 if "v" in shape else None, network.style
    if network.normed:
        return conv_bn(x, int(width), kernel, stride, act="relu", padding=padding, style=style, name=name)
    return conv(x, int(width), kernel, stride, padding=padding, style=style, name=f"{name}.{style.conv}")


def _auxiliary(x: Tensor, head: Head, number: int, style: Style) -> Tensor:
    """An auxiliary classifier on an inner map; it only serves the gradients of the layers below it."""
    x = layers.AveragePooling2D(5, 3, name=f"._pool_o{number}")(x)
    x = conv(x, 128, 1, style=style, name=f"._conv_o{number}._conv")
    x = layers.Flatten(name=f"._flatten_o{number}")(x)
    x = layers.Dense(1024, kernel_initializer="lecun_uniform", name=f"._fc_o{number}")(x)
    x = activation(x, "relu" if number == 1 else None, f"._fc_o{number}.relu")  # as PaddleClas has it
    out = f"._out{number}"
    return classifier(x, Head(head.classes, 0.7), name=out, init="lecun", prefix=f"{out}.")
