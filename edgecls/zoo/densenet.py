"""DenseNet (Huang et al., 2016, https://arxiv.org/abs/1608.06993): each layer takes the outputs of all layers
before it in its block, concatenated.
"""

from __future__ import annotations

from keras import layers

from edgecls.zoo.blocks import Head, Taps, activation, classifier, conv
from edgecls.zoo.layers import BatchNormalization, Tensor
from edgecls.zoo.residual import FLUID, stem

MODELS = {  # layers in each block, channels that a layer adds, width of the stem
    "DenseNet121": ((6, 12, 24, 16), 32, 64),
    "DenseNet161": ((6, 12, 36, 24), 48, 96),
    "DenseNet169": ((6, 12, 32, 32), 32, 64),
    "DenseNet201": ((6, 12, 48, 32), 32, 64),
    "DenseNet264": ((6, 12, 64, 48), 32, 64),
}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    repeats, growth, width = MODELS[name]
    taps = Taps(x)
    x = stem(x, taps, ((width, 7, 2),), ("conv1_func",), FLUID)
    for number, count in enumerate(repeats, 2):
        for layer in range(1, count + 1):
            part = f"db_conv_{number}.conv{number}_{layer}"
            y = norm_conv(x, 4 * growth, 1, name=f"{part}.bn_ac_func1")
            y = norm_conv(y, growth, 3, name=f"{part}.bn_ac_func2")
            x = layers.Concatenate(name=f"{part}.concat")([x, y])
        taps.add(x, number - 1)
        if number < 5:
            x = norm_conv(x, x.shape[-1] // 2, 1, name=f"tr_conv{number}_blk.conv_ac_func")
            x = layers.AveragePooling2D(2, name=f"tr_conv{number}_blk.avg_pool")(x)
    x = taps.add(norm(x, "batch_norm", "batch_norm.act"), len(repeats))
    return taps, classifier(x, head, name="out")


def norm_conv(x: Tensor, filters: int, kernel: int, stride: int = 1, groups: int = 1, *, name: str) -> Tensor:
    """Batch normalization and ReLU, then a convolution."""
    x = norm(x, f"{name}._batch_norm", f"{name}.act")
    return conv(x, filters, kernel, stride, groups=groups, style=FLUID, name=f"{name}._conv")


def norm(x: Tensor, name: str, act: str) -> Tensor:
    """Batch normalization and ReLU."""
    x = BatchNormalization(momentum=FLUID.momentum, epsilon=FLUID.epsilon, name=name)(x)
    return activation(x, "relu", act)
