"""ESNet in four widths (Yu et al., 2021, PP-PicoDet, https://arxiv.org/abs/2111.00902): ShuffleNetV2's split with
squeeze-excite, hard-swish and a separable convolution where branches join.
"""

from __future__ import annotations

from keras import layers

from edgecls.zoo.blocks import Head, Taps, conv_bn, divisible, squeeze_excite, wide_classifier
from edgecls.zoo.layers import Tensor
from edgecls.zoo.pooling import EdgeMaxPooling2D
from edgecls.zoo.shufflenet_v2 import halves, shuffled

# Width at scale 1 and number of blocks, of which the first halves the resolution.
STAGES = ((116, 3), (232, 7), (464, 3))  # resolution in: 56, 28, 14
STEM, FEATURES, LAST = 24, 1024, 1280
MODELS = {"ESNet_x0_25": 0.25, "ESNet_x0_5": 0.5, "ESNet_x0_75": 0.75, "ESNet_x1_0": 1.0}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    scale = MODELS[name]
    taps = Taps(x)
    x = taps.add(conv_bn(x, STEM, 3, 2, act="hard_swish", name="conv1"))
    x = taps.add(EdgeMaxPooling2D(name="max_pool")(x), "stem")
    block = 0
    for stage, (width, repeats) in enumerate(STAGES, 1):
        half = divisible(width * scale) // 2
        for repeat in range(repeats):
            x = taps.add((_unit if repeat else _downsample)(x, half, f"blocks.{block}"), stage)
            block += 1
    x = taps.add(conv_bn(x, FEATURES, 1, act="hard_swish", name="conv2"), len(STAGES))
    return taps, wide_classifier(x, LAST, "hard_swish", head, act_name="hardswish")


def _unit(x: Tensor, half: int, name: str) -> Tensor:
    kept, y = halves(x, name)
    y = conv_bn(y, half, 1, act="hard_swish", name=f"{name}.pw_1_1")
    z = conv_bn(y, half, 3, groups=half, name=f"{name}.dw_1")
    y = layers.Concatenate(name=f"{name}.branch_concat")([y, z])
    y = squeeze_excite(y, half // 2, gate="hard_sigmoid6", name=f"{name}.se")
    y = conv_bn(y, half, 1, act="hard_swish", name=f"{name}.pw_1_2")
    return shuffled([kept, y], name)


def _downsample(x: Tensor, half: int, name: str) -> Tensor:
    channels = x.shape[-1]
    left = conv_bn(x, channels, 3, 2, groups=channels, name=f"{name}.dw_1")
    left = conv_bn(left, half, 1, act="hard_swish", name=f"{name}.pw_1")
    y = conv_bn(x, half, 1, act="hard_swish", name=f"{name}.pw_2_1")
    y = conv_bn(y, half, 3, 2, groups=half, name=f"{name}.dw_2")
    y = squeeze_excite(y, half // 4, gate="hard_sigmoid6", name=f"{name}.se")
    y = conv_bn(y, half, 1, act="hard_swish", name=f"{name}.pw_2_2")
    x = layers.Concatenate(name=f"{name}.concat")([left, y])
    x = conv_bn(x, 2 * half, 3, groups=2 * half, act="hard_swish", name=f"{name}.concat_dw")
    return conv_bn(x, 2 * half, 1, act="hard_swish", name=f"{name}.concat_pw")
