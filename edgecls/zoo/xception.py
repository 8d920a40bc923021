"""Xception (Chollet, 2016, https://arxiv.org/abs/1610.02357) in three depths.

As PaddleClas has it: separable convolutions are pointwise first, with a norm after each half, and the shortcuts' 1x1
convolutions have none.
"""

from __future__ import annotations

from keras import layers

from edgecls.zoo.blocks import Head, Taps, activation, classifier, conv, conv_bn
from edgecls.zoo.layers import Tensor
from edgecls.zoo.pooling import EdgeMaxPooling2D
from edgecls.zoo.residual import FLUID

ENTRY = ((128, 2), (256, 2), (728, 2))  # width and stride of each block
ENTRY71 = ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2))
# The entry's blocks, and the number of blocks in the middle.
MODELS = {"Xception41": (ENTRY, 8), "Xception65": (ENTRY, 16), "Xception71": (ENTRY71, 16)}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    entry, middle = MODELS[name]
    taps = Taps(x)
    for i, (width, stride) in enumerate(((32, 2), (64, 1)), 1):
        x = conv_bn(x, width, 3, stride, act="relu", style=FLUID, name=f"._entry_flow._conv{i}")
        taps.add(x, "stem")
    for i, (width, stride) in enumerate(entry):
        part = f"._entry_flow._conv_{i}"
        x = taps.add(_block(x, (width, width), stride, part, "_conv{}", active=i > 0), 1)
    for i in range(middle):
        y, part = x, f"._middle_flow._conv_{i}"
        for j in range(3):
            y = _separable(activation(y, "relu", f"{part}.relu{j}"), y.shape[-1], f"{part}._conv_{j}")
        x = taps.add(layers.Add(name=f"{part}.add")([y, x]), 2)
    x = taps.add(_block(x, (x.shape[-1], 1024), 2, "._exit_flow._conv_0", "_conv_{}"))
    for i, width in ((1, 1536), (2, 2048)):
        x = _separable(x, width, f"._exit_flow._conv_{i}")
        x = taps.add(activation(x, "relu", f"._exit_flow.relu{i}"), 3)
    return taps, classifier(x, head, name="._exit_flow._out")


def _block(
    x: Tensor, widths: tuple[int, int], stride: int, name: str, part: str, active: bool = True
) -> Tensor:
    short = conv(x, widths[-1], 1, stride, style=FLUID, name=f"{name}._short")
    for i, width in enumerate(widths, 1):
        if active or i > 1:
            x = activation(x, "relu", f"{name}.relu{i}")
        x = _separable(x, width, f"{name}.{part.format(i)}")
    if stride > 1:
        x = EdgeMaxPooling2D(name=f"{name}._pool")(x)  # the map may be negative
    else:
        x = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}._pool")(x)
    return layers.Add(name=f"{name}.add")([x, short])


def _separable(x: Tensor, width: int, name: str) -> Tensor:
    x = conv_bn(x, width, 1, style=FLUID, name=f"{name}._pointwise_conv")
    return conv_bn(x, width, 3, groups=width, style=FLUID, name=f"{name}._depthwise_conv")
