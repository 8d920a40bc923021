"""Inverted residuals (Sandler et al., 2018, https://arxiv.org/abs/1801.04381), of which mobile networks are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from keras import layers

from edgecls.zoo.blocks import PADDLE, Style, conv_bn
from edgecls.zoo.layers import Tensor


class Stage(NamedTuple):
    """A run of like blocks; only the first strides. The width is at scale 1."""

    kernel: int
    stride: int
    expansion: int
    out: int
    repeats: int


class Block(NamedTuple):
    """One block; widths at scale 1."""

    kernel: int
    expanded: int
    out: int
    stride: int
    se: bool
    act: str
    stage: int


def table(*rows: str) -> tuple[Block, ...]:
    """Blocks from texts ``kernel expanded out``, then ``/2`` for stride 2, ``se`` for a gate, ``hs`` for hard-swish.

    A row is a stage.
    """
    blocks = []
    for stage, row in enumerate(rows, 1):
        for text in row.split("|"):
            kernel, expanded, out, *marks = text.split()
            stride, act = 2 if "/2" in marks else 1, "hard_swish" if "hs" in marks else "relu"
            blocks.append(Block(int(kernel), int(expanded), int(out), stride, "se" in marks, act, stage))
    return tuple(blocks)


class Kind(NamedTuple):
    """What the blocks of a family share.

    Args:
        parts: Names of the 1x1 expansion, the depthwise convolution and the 1x1 projection.
        style: Style of all three convolutions.
        lean: Leave the expansion out where it would not widen the map.
    """

    parts: tuple[str, str, str]
    style: Style = PADDLE
    lean: bool = False


def inverted_residual(
    x: Tensor,
    expanded: int,
    out: int,
    kernel: int,
    stride: int,
    kind: Kind,
    *,
    name: str,
    act: str,
    gate: Callable[[Tensor], Tensor] | None = None,
    drop: float = 0.0,
) -> Tensor:
    """Widen to ``expanded`` channels, convolve each of them, gate, narrow to ``out``; add ``x`` if of the same shape.

    Args:
        x: Map [batch, height, width, channels].
        act: Activation of the first two convolutions.
        gate: What else becomes of the second one's result.
        drop: Share of the samples in training that get ``x`` alone.
    """
    style, (expand, depthwise, project) = kind.style, (f"{name}.{part}" for part in kind.parts)
    y = x
    if expanded > x.shape[-1] or not kind.lean:
        y = conv_bn(y, expanded, 1, act=act, style=style, name=expand)
    y = conv_bn(y, expanded, kernel, stride, groups=expanded, act=act, style=style, name=depthwise)
    y = conv_bn(gate(y) if gate else y, out, 1, style=style, name=project)
    if stride > 1 or x.shape[-1] != out:
        return y
    if drop:
        y = layers.Dropout(drop, (None, 1, 1, 1), name=f"{name}.drop_connect")(y)  # one choice a sample
    return layers.Add(name=f"{name}.add")([x, y])
