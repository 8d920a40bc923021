"""RepVGG as it is trained (Ding et al., 2021, https://arxiv.org/abs/2101.03697): every convolution is the sum of a
3x3, a 1x1 and an identity branch, each normalized, which fuse into one plain 3x3 convolution for deployment.
"""

from __future__ import annotations

from keras import layers

from edgecls.zoo.blocks import PADDLE, Head, Taps, activation, classifier, conv_bn
from edgecls.zoo.layers import BatchNormalization, Tensor

A, B = (2, 4, 14, 1), (4, 6, 16, 1)
MODELS = {  # blocks of each stage; widths times 64, 128, 256 and 512; groups of every second convolution
    "RepVGG_A0": (A, (0.75, 0.75, 0.75, 2.5), 1),
    "RepVGG_A1": (A, (1, 1, 1, 2.5), 1),
    "RepVGG_A2": (A, (1.5, 1.5, 1.5, 2.75), 1),
    "RepVGG_B0": (B, (1, 1, 1, 2.5), 1),
    "RepVGG_B1": (B, (2, 2, 2, 4), 1),
    "RepVGG_B1g2": (B, (2, 2, 2, 4), 2),
    "RepVGG_B1g4": (B, (2, 2, 2, 4), 4),
    "RepVGG_B2": (B, (2.5, 2.5, 2.5, 5), 1),
    "RepVGG_B2g4": (B, (2.5, 2.5, 2.5, 5), 4),
    "RepVGG_B3": (B, (3, 3, 3, 5), 1),
    "RepVGG_B3g4": (B, (3, 3, 3, 5), 4),
}
WIDTHS = (64, 128, 256, 512)


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    repeats, scales, groups = MODELS[name]
    taps = Taps(x)
    x = taps.add(_block(x, min(64, int(64 * scales[0])), 2, 1, "stage0"), "stem")
    number = 1
    for stage in range(4):
        width = int(WIDTHS[stage] * scales[stage])
        for repeat in range(repeats[stage]):
            part = f"stage{stage + 1}.{repeat}"
            x = taps.add(_block(x, width, 1 if repeat else 2, 1 if number % 2 else groups, part), stage + 1)
            number += 1
    return taps, classifier(x, head, name="linear", init="xavier")


def _block(x: Tensor, out: int, stride: int, groups: int, name: str) -> Tensor:
    terms = [
        conv_bn(x, out, kernel, stride, groups=groups, name=f"{name}.rbr_{branch}")
        for branch, kernel in (("dense", 3), ("1x1", 1))
    ]
    if stride == 1 and x.shape[-1] == out:
        norm = BatchNormalization(
            momentum=PADDLE.momentum, epsilon=PADDLE.epsilon, name=f"{name}.rbr_identity"
        )
        terms.append(norm(x))
    return activation(layers.Add(name=f"{name}.add")(terms), "relu", f"{name}.nonlinearity")
