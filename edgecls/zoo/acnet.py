"""ResNet50 of asymmetric convolutions (Ding et al., 2019, https://arxiv.org/abs/1908.03930): as it is trained, each
convolution larger than 1x1 is the sum of a square, a vertical and a horizontal one, each normalized; deployed, they
are one convolution with a bias.
"""

from __future__ import annotations

from keras import layers

from edgecls.zoo.blocks import PADDLE, Head, Taps, activation, classifier, conv
from edgecls.zoo.layers import BatchNormalization, Tensor
from edgecls.zoo.resnet import R50

MODELS = {"ResNet50_ACNet": False, "ResNet50_ACNet_deploy": True}  # whether the sums are fused


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    fused, taps = MODELS[name], Taps(x)
    x = taps.add(_cross(x, 64, 7, 2, fused, "conv1", "bn_conv1"))
    # Zero padding equals the reference's -inf padding here, because the map is never negative after ReLU.
    x = layers.MaxPooling2D(3, 2, name="max_pool")(layers.ZeroPadding2D(1, name="max_pool.pad")(x))
    taps.end("stem", x)
    for stage, repeats in enumerate(R50):
        for repeat in range(repeats):
            width, stride = 64 * 2**stage, 2 if stage > 0 and repeat == 0 else 1
            part = f"{stage + 2}{chr(ord('a') + repeat)}_branch"
            y = activation(_plain(x, width, 1, f"{part}2a"), "relu", f"res{part}2a.act")
            y = _cross(y, width, 3, stride, fused, f"res{part}2b", f"bn{part}2b")
            y = _plain(y, 4 * width, 1, f"{part}2c")
            if repeat == 0:
                x = _plain(x, 4 * width, stride, f"{part}1")
            x = layers.Add(name=f"res{part}.add")([y, x])
            x = taps.add(activation(x, "relu", f"res{part}.relu"), stage + 1)
    return taps, classifier(x, head)


def _plain(x: Tensor, width: int, stride: int, name: str) -> Tensor:
    return _norm(conv(x, width, 1, stride, name=f"res{name}"), f"bn{name}")


def _cross(x: Tensor, width: int, kernel: int, stride: int, fused: bool, name: str, norm: str) -> Tensor:
    if fused:
        y = conv(x, width, kernel, stride, bias=True, name=f"{name}_acsquare")
    else:
        shapes = {"acsquare": (kernel, kernel), "acver": (kernel, 1), "achor": (1, kernel)}
        terms = (
            _norm(conv(x, width, s, stride, name=f"{name}_{part}"), f"{norm}_{part}")
            for part, s in shapes.items()
        )
        y = layers.Add(name=f"{name}.add")(list(terms))
    return activation(y, "relu", f"{name}.act")


def _norm(x: Tensor, name: str) -> Tensor:
    return BatchNormalization(momentum=PADDLE.momentum, epsilon=PADDLE.epsilon, name=name)(x)
