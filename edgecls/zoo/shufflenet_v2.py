"""ShuffleNetV2 in six widths and with swish (Ma et al., 2018, https://arxiv.org/abs/1807.11164).

``ShuffleNetV2_x2_0`` has the paper's 244 channels in its first stage; ``_x2_0_v1`` the 224 that PaddleClas had until
2022 by mistake and that its older figures and weights belong to.
"""

from __future__ import annotations

from typing import NamedTuple

from keras import layers

from edgecls.zoo.blocks import (
    Channels,
    ChannelShuffle,
    EdgeMaxPooling2D,
    Head,
    Style,
    Taps,
    Tensor,
    classifier,
    conv_bn,
)


class Variant(NamedTuple):
    """One network of the family."""

    widths: tuple[int, int, int]  # of each stage
    last: int
    act: str = "relu"


MODELS = {
    "ShuffleNetV2_x0_25": Variant((24, 48, 96), 512),
    "ShuffleNetV2_x0_33": Variant((32, 64, 128), 512),
    "ShuffleNetV2_x0_5": Variant((48, 96, 192), 1024),
    "ShuffleNetV2": Variant((116, 232, 464), 1024),
    "ShuffleNetV2_x1_5": Variant((176, 352, 704), 1024),
    "ShuffleNetV2_x2_0": Variant((244, 488, 976), 2048),
    "ShuffleNetV2_x2_0_v1": Variant((224, 488, 976), 2048),
    "ShuffleNetV2_swish": Variant((116, 232, 464), 1024, "silu"),
}
STEM, REPEATS = 24, (4, 8, 4)
STYLE = Style(msra=True, conv="_conv", norm="_batch_norm")


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    widths, last, act = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, STEM, 3, 2, act=act, style=STYLE, name="_conv1"))
    x = taps.add(EdgeMaxPooling2D(name="_max_pool")(x))
    for stage, (width, repeats) in enumerate(zip(widths, REPEATS, strict=True), 2):
        x = _downsample(x, width // 2, act, f"{stage}_1")
        for repeat in range(2, repeats + 1):
            x = _unit(x, act, f"{stage}_{repeat}")
        taps.add(x)
    x = taps.add(conv_bn(x, last, 1, act=act, style=STYLE, name="_last_conv"))
    x = layers.GlobalAveragePooling2D(keepdims=True, name="_pool2d_avg")(x)
    return taps, classifier(x, head, name="_fc", msra=True)


def _unit(x: Tensor, act: str, name: str) -> Tensor:
    """Convolve one half of the channels."""
    half = x.shape[-1] // 2
    kept = Channels(0, half, name=f"{name}.kept")(x)
    y = Channels(half, 2 * half, name=f"{name}.convolved")(x)
    y = conv_bn(y, half, 1, act=act, style=STYLE, name=f"{name}._conv_pw")
    y = conv_bn(y, half, 3, groups=half, style=STYLE, name=f"{name}._conv_dw")
    y = conv_bn(y, half, 1, act=act, style=STYLE, name=f"{name}._conv_linear")
    return _shuffled([kept, y], name)


def _downsample(x: Tensor, half: int, act: str, name: str) -> Tensor:
    """Two convolved branches of half the width each, at half the resolution."""
    channels = x.shape[-1]
    short = conv_bn(x, channels, 3, 2, groups=channels, style=STYLE, name=f"{name}._conv_dw_1")
    short = conv_bn(short, half, 1, act=act, style=STYLE, name=f"{name}._conv_linear_1")
    y = conv_bn(x, half, 1, act=act, style=STYLE, name=f"{name}._conv_pw_2")
    y = conv_bn(y, half, 3, 2, groups=half, style=STYLE, name=f"{name}._conv_dw_2")
    y = conv_bn(y, half, 1, act=act, style=STYLE, name=f"{name}._conv_linear_2")
    return _shuffled([short, y], name)


def _shuffled(branches: list[Tensor], name: str) -> Tensor:
    x = layers.Concatenate(name=f"{name}.concat")(branches)
    return ChannelShuffle(2, name=f"{name}.shuffle")(x)
