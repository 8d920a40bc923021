"""The zoo: networks as tables, built of shared blocks. Importing it does not import TensorFlow."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgecls.zoo import catalog

if TYPE_CHECKING:
    import keras

FAMILIES = {
    "MobileNetV3": "edgecls.zoo.mobilenet_v3",
    "ResNet": "edgecls.zoo.resnet",
    "EfficientNetLite": "edgecls.zoo.efficientnet_lite",
    "MobileNetV1": "edgecls.zoo.mobilenet_v1",
    "MobileNetV2": "edgecls.zoo.mobilenet_v2",
    "ShuffleNetV2": "edgecls.zoo.shufflenet_v2",
    "GhostNet": "edgecls.zoo.ghostnet",
    "SqueezeNet": "edgecls.zoo.squeezenet",
    "AlexNet": "edgecls.zoo.alexnet",
    "VGG": "edgecls.zoo.vgg",
    "DarkNet": "edgecls.zoo.darknet",
    "PPLCNet": "edgecls.zoo.pplcnet",
    "PPLCNetV2": "edgecls.zoo.pplcnet_v2",
    "ESNet": "edgecls.zoo.esnet",
    "RepVGG": "edgecls.zoo.repvgg",
    "EfficientNet": "edgecls.zoo.efficientnet",
    "ResNeXt": "edgecls.zoo.resnext",
    "SENet": "edgecls.zoo.senet",
    "Res2Net": "edgecls.zoo.res2net",
    "DenseNet": "edgecls.zoo.densenet",
    "DPN": "edgecls.zoo.dpn",
    "Xception": "edgecls.zoo.xception",
    "XceptionDeepLab": "edgecls.zoo.xception_deeplab",
    "Inception": "edgecls.zoo.inception",
    "HRNet": "edgecls.zoo.hrnet",
    "ACNet": "edgecls.zoo.acnet",
}


def build_model(
    name: str,
    classes: int = 1000,
    input_size: int | None = None,
    *,
    dropout: float | None = None,
    embedding_dim: int | None = None,
    include_preprocessing: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    features: bool = False,
) -> keras.Model:
    """Build a network of the catalog with fresh weights.

    Args:
        name: A name of ``catalog.names()``, e.g. ``"MobileNetV3_large_x1_0"``.
        classes: Number of logits.
        input_size: Height and width of the input in pixels; the catalog's by default.
        dropout: Rate before the classifier; the catalog's by default.
        embedding_dim: Width of a linear layer before the classifier, which keeps very many classes affordable.
        include_preprocessing: Take pixels (0..255) and normalise them in a first layer.
        mean: Channel means for that layer as fractions of 255; the catalog's by default.
        std: Channel standard deviations, likewise.
        features: Return feature maps ``{"stride_4": [batch, h, w, channels], ...}`` in place of logits.

    Returns:
        A functional model from float32 RGB [batch, size, size, 3], normalised or pixels, to logits
        [batch, classes] or to the feature maps.

    Raises:
        catalog.UnknownModelError: The name is not in the catalog.
        ValueError: An argument is out of its range.
    """
    entry = catalog.get(name)
    size = entry.input_size if input_size is None else input_size
    rate = entry.dropout if dropout is None else dropout
    if size < 32 or classes < 1 or not 0 <= rate < 1:
        raise ValueError(
            f"{name}: input_size must be at least 32, classes at least 1 and dropout in [0, 1), "
            f"got {size}, {classes} and {rate}"
        )
    import keras

    from edgecls.zoo.blocks import Head, Normalize

    image = keras.Input((size, size, 3), name="image")
    x = image
    if include_preprocessing:
        x = Normalize(mean or entry.mean, std or entry.std, name="normalize")(x)
    family = importlib.import_module(FAMILIES[entry.family])
    taps, logits = family.build(entry.architecture, x, Head(classes, rate, embedding_dim))
    return keras.Model(image, taps.outputs() if features else logits, name=name)
