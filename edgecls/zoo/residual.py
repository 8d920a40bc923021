"""The plan that ResNet's descendants share: a stem, four stages of residual blocks, pooling and a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from keras import layers

from edgecls.zoo.blocks import PADDLE, Head, Style, Taps, activation, classifier, conv_bn, squeeze_excite
from edgecls.zoo.layers import Tensor

FLUID = Style(conv="_conv", norm="_batch_norm")


class Names(NamedTuple):
    """What the parts are called in the state; patterns know stage, repeat, block (all from 0) and the next numbers."""

    stem: str = "conv"
    stems: str = "conv1_{next}"
    block: str = "bb_{stage}_{repeat}"
    parts: str = "conv{}"
    short: str = "short"
    fc: str = "out"
    style: Style = FLUID


STAGED = Names()
LISTED = Names("stem.0", "stem.{index}", "blocks.{block}", fc="fc", style=PADDLE)


class Plan(NamedTuple):
    """One network.

    Args:
        repeats: Blocks in each stage.
        bottleneck: Blocks of 1x1, 3x3 and 1x1 convolutions, else of two 3x3.
        deep: A stem of three 3x3 convolutions, else of one 7x7.
        vd: Shortcuts average before their 1x1 convolution.
        width: Of the 3x3 convolutions in the first stage; each next stage doubles it.
        out: Of the first stage's result, likewise.
        groups: Of the 3x3 convolutions in bottlenecks.
        stem: Width of the stem.
        reduction: Of the squeeze-excite gate on each branch; 0 is none.
        names: What the parts are called.
    """

    repeats: tuple[int, int, int, int]
    bottleneck: bool = True
    deep: bool = False
    vd: bool = False
    width: int = 64
    out: int = 256
    groups: int = 1
    stem: int = 64
    reduction: int = 0
    names: Names = STAGED


class Place(NamedTuple):
    """Where a block stands."""

    stage: int
    repeat: int
    stride: int
    name: str


Branch = Callable[[Tensor, Plan, Place], Tensor]


def branch(x: Tensor, plan: Plan, place: Place) -> Tensor:
    """The convolutions of one block, before the sum."""
    style, name = plan.names.style, f"{place.name}.{plan.names.parts}"
    width, out = plan.width * 2**place.stage, plan.out * 2**place.stage
    if plan.bottleneck:
        x = conv_bn(x, width, 1, act="relu", style=style, name=name.format(0))
        x = conv_bn(
            x, width, 3, place.stride, groups=plan.groups, act="relu", style=style, name=name.format(1)
        )
        x = conv_bn(x, out, 1, style=style, name=name.format(2))
    else:
        x = conv_bn(x, width, 3, place.stride, act="relu", style=style, name=name.format(0))
        x = conv_bn(x, out, 3, style=style, name=name.format(1))
    if plan.reduction:
        parts = ("squeeze", "excitation")
        squeezed, scale = out // plan.reduction, f"{place.name}.scale"
        x = squeeze_excite(x, squeezed, gate="sigmoid", parts=parts, dense=True, name=scale)
    return x


def build(plan: Plan, x: Tensor, head: Head, branch: Branch = branch) -> tuple[Taps, Tensor]:
    """Build ``plan`` on NHWC input ``x`` of blocks with this ``branch``; returns feature maps and logits."""
    names, taps = plan.names, Taps(x)
    half, whole = plan.stem // 2, plan.stem
    convolutions = ((half, 3, 2), (half, 3, 1), (whole, 3, 1)) if plan.deep else ((whole, 7, 2),)
    called = [names.stems.format(index=i, next=i + 1) if plan.deep else names.stem for i in range(3)]
    x = stem(x, taps, convolutions, called, names.style)
    places = [(stage, repeat) for stage in range(4) for repeat in range(plan.repeats[stage])]
    for block, (stage, repeat) in enumerate(places):
        name = names.block.format(stage=stage, next=stage + 1, repeat=repeat, block=block)
        place = Place(stage, repeat, 2 if stage > 0 and repeat == 0 else 1, name)
        y = branch(x, plan, place)
        if repeat == 0:
            x = _project(x, plan, place)
        x = taps.add(activation(layers.Add(name=f"{name}.add")([y, x]), "relu", f"{name}.relu"), stage + 1)
    return taps, classifier(x, head, name=names.fc)


def builder(plans: Mapping[str, Plan]) -> Callable[[str, Tensor, Head], tuple[Taps, Tensor]]:
    """The ``build`` of a family with this table."""
    return lambda name, x, head: build(plans[name], x, head)


def stem(
    x: Tensor, taps: Taps, convolutions: Sequence[tuple[int, int, int]], names: Sequence[str], style: Style
) -> Tensor:
    """Convolutions of (width, kernel, stride) with ReLU, then 3x3 max pooling of stride 2."""
    for name, (filters, kernel, stride) in zip(names, convolutions, strict=False):
        x = taps.add(conv_bn(x, filters, kernel, stride, act="relu", style=style, name=name))
    # Zero padding equals the reference's -inf padding here, because the map is never negative after ReLU.
    x = layers.MaxPooling2D(3, 2, name="max_pool")(layers.ZeroPadding2D(1, name="max_pool.pad")(x))
    taps.end("stem", x)
    return x


def _project(x: Tensor, plan: Plan, place: Place) -> Tensor:
    name, stride = f"{place.name}.{plan.names.short}", place.stride
    if plan.vd and stride > 1:
        # SAME with stride 2 is the reference's ceil mode: odd edges average over the cells that exist.
        x = layers.AveragePooling2D(2, stride, padding="same", name=f"{name}.avg_pool")(x)
        stride = 1
    return conv_bn(x, plan.out * 2**place.stage, 1, stride, style=plan.names.style, name=name)
