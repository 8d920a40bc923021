"""VGG 11 to 19 without batch normalization (Simonyan and Zisserman, 2014, https://arxiv.org/abs/1409.1556).

As PaddleClas has it: the convolutions have no bias.
"""

from __future__ import annotations

from keras import layers

from edgecls.zoo.blocks import Head, Taps, activation, classifier, conv
from edgecls.zoo.layers import Tensor

WIDTHS = (64, 128, 256, 512, 512)
HIDDEN = 4096
# Convolutions in each stage; a pooling ends it.
MODELS = {
    "VGG11": (1, 1, 2, 2, 2),
    "VGG13": (2, 2, 2, 2, 2),
    "VGG16": (2, 2, 3, 3, 3),
    "VGG19": (2, 2, 4, 4, 4),
}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    """Build variant ``name`` on NHWC input ``x``; returns its feature maps by stride and its logits."""
    taps = Taps(x)
    for stage, (width, repeats) in enumerate(zip(WIDTHS, MODELS[name], strict=True), 1):
        for i in range(1, repeats + 1):
            part = f"conv_block_{stage}.conv{i}"
            x = activation(conv(x, width, 3, name=part), "relu", f"{part}.relu")
        x = taps.add(layers.MaxPooling2D(2, name=f"conv_block_{stage}.max_pool")(x), stage)
    x = layers.Flatten(name="flatten")(x)
    x = activation(layers.Dense(HIDDEN, name="fc1")(x), "relu", "fc1.relu")
    if head.dropout:
        x = layers.Dropout(head.dropout, name="fc2.dropout")(x)
    x = activation(layers.Dense(HIDDEN, name="fc2")(x), "relu", "fc2.relu")
    return taps, classifier(x, head, name="fc3", init="xavier")
