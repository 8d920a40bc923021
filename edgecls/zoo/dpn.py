"""Dual Path Networks (Chen et al., 2017, https://arxiv.org/abs/1707.01629): one path adds its output to its input as
ResNeXt does, the other concatenates them as DenseNet does. Each block takes both paths.
"""

from __future__ import annotations

from typing import NamedTuple

from keras import layers

from edgecls.zoo.blocks import Head, Taps, classifier
from edgecls.zoo.densenet import norm, norm_conv
from edgecls.zoo.layers import Channels, Tensor
from edgecls.zoo.residual import FLUID, stem


class Variant(NamedTuple):
    """One network of the family."""

    repeats: tuple[int, int, int, int]  # blocks in each stage
    growth: tuple[int, int, int, int]  # channels that a block collects
    width: int  # of the first stage's 3x3 convolutions
    groups: int
    stem: tuple[int, int]  # width and kernel
    added: int = 256  # channels of the path that adds, in the first stage


MODELS = {
    "DPN68": Variant((3, 4, 12, 3), (16, 32, 32, 64), 128, 32, (10, 3), added=64),
    "DPN92": Variant((3, 4, 20, 3), (16, 32, 24, 128), 96, 32, (64, 7)),
    "DPN98": Variant((3, 6, 20, 3), (16, 32, 32, 128), 160, 40, (96, 7)),
    "DPN107": Variant((4, 8, 20, 3), (20, 64, 64, 128), 200, 50, (128, 7)),
    "DPN131": Variant((4, 8, 28, 3), (16, 32, 32, 128), 160, 40, (128, 7)),
}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    variant = MODELS[name]
    taps = Taps(x)
    x = stem(x, taps, ((*variant.stem, 2),), ("conv1_x_1_func",), FLUID)
    number, paths = 0, (x, x)
    for stage, repeats in enumerate(variant.repeats):
        added, growth, width = variant.added * 2**stage, variant.growth[stage], variant.width * 2**stage
        for repeat in range(repeats):
            number, part = number + 1, f"dpn{number + 1}"
            stride = 2 if stage > 0 and repeat == 0 else 1
            if repeat == 0:
                both = norm_conv(x, added + 2 * growth, 1, stride, name=f"{part}.c1x1_w_func")
                paths = _split(both, added, f"{part}.w")
            y = norm_conv(x, width, 1, name=f"{part}.c1x1_a_func")
            y = norm_conv(y, width, 3, stride, variant.groups, name=f"{part}.c3x3_b_func")
            y = norm_conv(y, added + growth, 1, name=f"{part}.c1x1_c_func")
            more = _split(y, added, f"{part}.c")
            paths = (
                layers.Add(name=f"{part}.add")([paths[0], more[0]]),
                layers.Concatenate(name=f"{part}.collect")([paths[1], more[1]]),
            )
            x = taps.add(layers.Concatenate(name=f"{part}.concat")(list(paths)), stage + 1)
    x = taps.add(norm(x, "conv5_x_x_bn", "conv5_x_x_bn.act"), len(variant.repeats))
    return taps, classifier(x, head, name="out", init=0.01)


def _split(x: Tensor, at: int, name: str) -> tuple[Tensor, Tensor]:
    parts = ((0, at), (at, x.shape[-1]))
    first, second = (Channels(*part, name=f"{name}{i + 1}")(x) for i, part in enumerate(parts))
    return first, second
