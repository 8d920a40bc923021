"""Xception as DeepLab's backbone (Chen et al., 2018, https://arxiv.org/abs/1802.02611): strides in place of pools,
separable convolutions depthwise first, and dilation at the end.

Keras' layer names hold no slash: where the published names have one, these have ``>``.
"""

from __future__ import annotations

import dataclasses

from keras import layers

from edgecls.zoo.blocks import Head, Style, Taps, activation, classifier, conv_bn
from edgecls.zoo.layers import Tensor

MODELS = {"Xception41_deeplab": 8, "Xception65_deeplab": 16}  # blocks in the middle
PLAIN = Style(1e-3, 0.99, kernel_std=0.09, conv="_conv", norm="_bn")
DEPTHWISE = dataclasses.replace(PLAIN, kernel_std=0.33, conv="_conv1", norm="_bn1")
POINTWISE = dataclasses.replace(PLAIN, kernel_std=0.06, conv="_conv2", norm="_bn2")


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    taps, root = Taps(x), name.lower().removesuffix("_deeplab").replace("xception", "xception_")
    for i, (width, stride) in enumerate(((32, 2), (64, 1)), 1):
        x = taps.add(conv_bn(x, width, 3, stride, act="relu", style=PLAIN, name=f"._conv{i}"), "stem")
    for i, width in enumerate((128, 256, 728), 1):
        x = taps.add(_block(x, (width,) * 3, 2, f"{root}>entry_flow>block{i}"), 1)
    for i in range(1, MODELS[name] + 1):
        x = taps.add(_block(x, (728,) * 3, 1, f"{root}>middle_flow>block{i}"), 2)
    x = taps.add(_block(x, (728, 1024, 1024), 2, "._exit_flow_1"))
    for i, width in enumerate((1536, 1536, 2048), 1):
        x = _separable(x, width, 1, f"._exit_flow_2._conv{i}", act="relu", dilation=2)
    taps.add(x, 3)
    if head.dropout:
        x = layers.Dropout(head.dropout, name="dropout")(x)
    return taps, classifier(x, dataclasses.replace(head, dropout=0.0), name="._fc")


def _block(x: Tensor, widths: tuple[int, ...], stride: int, name: str) -> Tensor:
    y = x
    for i, width in enumerate(widths, 1):
        y = activation(y, "relu", f"{name}.relu{i}")
        y = _separable(y, width, stride if i == 3 else 1, f"{name}._conv{i}")
    if stride > 1:
        x = conv_bn(x, widths[-1], 1, stride, style=PLAIN, name=f"{name}._short")
    return layers.Add(name=f"{name}.add")([y, x])


def _separable(
    x: Tensor, width: int, stride: int, name: str, act: str | None = None, dilation: int = 1
) -> Tensor:
    groups = x.shape[-1]
    style = DEPTHWISE
    x = conv_bn(x, groups, 3, stride, groups=groups, style=style, dilation=dilation, name=name)
    x = activation(x, act, f"{name}.relu1")
    return activation(conv_bn(x, width, 1, style=POINTWISE, name=name), act, f"{name}.relu2")
