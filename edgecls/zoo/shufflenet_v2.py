"""ShuffleNetV2 in six widths and with swish (Ma et al., 2018, https://arxiv.org/abs/1807.11164).

``ShuffleNetV2_x2_0`` has the paper's 244 channels in its first stage; ``_x2_0_v1`` the 224 that PaddleClas had until
2022 by mistake and that its older figures and weights belong to.
"""

from __future__ import annotations

from keras import layers

from edgecls.zoo.blocks import Head, Style, Taps, classifier, conv_bn
from edgecls.zoo.layers import Channels, ChannelShuffle, Tensor
from edgecls.zoo.pooling import EdgeMaxPooling2D

MODELS = {  # width of each stage and of the last convolution, activation
    "ShuffleNetV2_x0_25": ((24, 48, 96), 512, "relu"),
    "ShuffleNetV2_x0_33": ((32, 64, 128), 512, "relu"),
    "ShuffleNetV2_x0_5": ((48, 96, 192), 1024, "relu"),
    "ShuffleNetV2": ((116, 232, 464), 1024, "relu"),
    "ShuffleNetV2_x1_5": ((176, 352, 704), 1024, "relu"),
    "ShuffleNetV2_x2_0": ((244, 488, 976), 2048, "relu"),
    "ShuffleNetV2_x2_0_v1": ((224, 488, 976), 2048, "relu"),
    "ShuffleNetV2_swish": ((116, 232, 464), 1024, "silu"),
}
STEM, REPEATS = 24, (4, 8, 4)
STYLE = Style(msra=True, conv="_conv", norm="_batch_norm")


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    widths, last, act = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, STEM, 3, 2, act=act, style=STYLE, name="._conv1"))
    x = taps.add(EdgeMaxPooling2D(name="._max_pool")(x), "stem")
    for stage, (width, repeats) in enumerate(zip(widths, REPEATS, strict=True), 2):
        x = _downsample(x, width // 2, act, f"{stage}_1")
        for repeat in range(2, repeats + 1):
            x = _unit(x, act, f"{stage}_{repeat}")
        taps.add(x, stage - 1)
    x = taps.add(conv_bn(x, last, 1, act=act, style=STYLE, name="._last_conv"), len(widths))
    return taps, classifier(x, head, name="._fc", init="msra")


def _unit(x: Tensor, act: str, name: str) -> Tensor:
    """Convolve one half of the channels."""
    kept, y = halves(x, name)
    half = y.shape[-1]
    y = conv_bn(y, half, 1, act=act, style=STYLE, name=f"{name}._conv_pw")
    y = conv_bn(y, half, 3, groups=half, style=STYLE, name=f"{name}._conv_dw")
    y = conv_bn(y, half, 1, act=act, style=STYLE, name=f"{name}._conv_linear")
    return shuffled([kept, y], name)


def _downsample(x: Tensor, half: int, act: str, name: str) -> Tensor:
    """Two convolved branches of half the width each, at half the resolution."""
    channels = x.shape[-1]
    short = conv_bn(x, channels, 3, 2, groups=channels, style=STYLE, name=f"{name}._conv_dw_1")
    short = conv_bn(short, half, 1, act=act, style=STYLE, name=f"{name}._conv_linear_1")
    y = conv_bn(x, half, 1, act=act, style=STYLE, name=f"{name}._conv_pw_2")
    y = conv_bn(y, half, 3, 2, groups=half, style=STYLE, name=f"{name}._conv_dw_2")
    y = conv_bn(y, half, 1, act=act, style=STYLE, name=f"{name}._conv_linear_2")
    return shuffled([short, y], name)


def halves(x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The first half of the channels, which is kept, and the second, which is convolved."""
    half = x.shape[-1] // 2
    return Channels(0, half, name=f"{name}.kept")(x), Channels(half, 2 * half, name=f"{name}.convolved")(x)


def shuffled(branches: list[Tensor], name: str) -> Tensor:
    """The channels of two branches in turns."""
    return ChannelShuffle(2, name=f"{name}.shuffle")(layers.Concatenate(name=f"{name}.concat")(branches))
