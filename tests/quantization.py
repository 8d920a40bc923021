"""Small networks with the shapes of the zoo's blocks, and photos: shared by the quantization and export tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

from edgecls.zoo import blocks
from edgecls.zoo import layers as zoo_layers

SIZE = 32
EQUAL = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def _residual(x):
    y = blocks.conv_bn(x, 8, 3, act="relu", name="a")
    return layers.ReLU(name="out")(layers.Add(name="add")([x, blocks.conv_bn(y, 8, 3, name="b")]))


def _scaled_residual(x):
    """MobileNetV3's first block: a hard-swish, six times too large, meets a plain branch."""
    y = layers.ReLU(name="mid")(blocks.conv_bn(x := blocks.activation(x, "hard_swish", "hs"), 8, 1, name="a"))
    return layers.Add(name="add")([x, blocks.conv_bn(y, 8, 1, name="b")])


def _hard_swish_chain(x):
    y = blocks.conv_bn(x, 16, 1, act="hard_swish", name="expand")
    y = blocks.conv_bn(y, 16, 5, 2, groups=16, act="hard_swish", name="depthwise")
    y = blocks.squeeze_excite(y, 4, name="se")
    return blocks.conv_bn(y, 8, 1, name="project")


def _vd(x):
    pooled = layers.MaxPooling2D(3, 2, padding="same", name="max")(x)
    y = layers.AveragePooling2D(2, 2, padding="same", name="average")(pooled)
    short = blocks.conv_bn(y, 16, 1, name="short")
    return layers.ReLU(name="out")(
        layers.Add(name="add")([blocks.conv_bn(pooled, 16, 3, 2, name="a"), short])
    )


def _norm_first(x):
    y = zoo_layers.BatchNormalization(name="norm")(
        layers.Add(name="sum")([x, blocks.conv_bn(x, 8, 3, name="a")])
    )
    return layers.Conv2D(8, 3, padding="same", groups=2, name="grouped")(layers.ReLU(name="r")(y))


BLOCKS: dict[str, Callable] = {
    "conv": lambda x: blocks.conv_bn(x, 8, 3, 2, act="relu", name="a"),
    "relu6_depthwise": lambda x: blocks.conv_bn(x, 8, 3, 2, groups=8, act="relu6", name="a"),
    "hard_swish": lambda x: blocks.conv_bn(x, 8, 3, act="hard_swish", name="a"),
    "squeeze_excite": lambda x: blocks.squeeze_excite(x, 4, name="se"),
    "steep_gate": lambda x: zoo_layers.HardSigmoid(1 / 6, name="gate")(blocks.conv_bn(x, 8, 1, name="a")),
    "residual": _residual,
    "scaled_residual": _scaled_residual,
    "hard_swish_chain": _hard_swish_chain,
    "pools": _vd,
    "norm_first": _norm_first,
}


def network(block: Callable, mean, std, classes: int = 5) -> keras.Model:
    """Pixels, normalization, stem, ``block``, head, with batch statistics of the photos."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = zoo_layers.Normalize(mean, std, name="normalize")(image)
    x = block(blocks.conv_bn(x, 8, 3, 2, act="relu", name="stem"))
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    model = keras.Model(image, layers.Dense(classes, name="fc")(x), name="small")
    return settled(model, photos(SIZE, 16))


def settled(model: keras.Model, images: np.ndarray) -> keras.Model:
    """``model`` with running statistics that are exactly those of ``images``: values of a healthy size everywhere."""
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(images.astype(np.float32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


def photos(size: int, count: int) -> np.ndarray:
    """uint8 [count, size, size, 3]: smooth colored blobs with noise, always the same."""
    rng = np.random.default_rng(7)
    coarse = rng.uniform(0, 255, (count, 5, 5, 3))
    at = np.linspace(0, 3.999, size)
    low, part = at.astype(int), (at % 1)
    rows = coarse[:, low] * (1 - part)[None, :, None, None] + coarse[:, low + 1] * part[None, :, None, None]
    image = rows[:, :, low] * (1 - part)[:, None] + rows[:, :, low + 1] * part[:, None]
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def ranges(model: keras.Model) -> dict[str, tuple[float, float]]:
    return {layer.name: layer.range for layer in model.layers if hasattr(layer, "set_range")}


def logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images.astype(np.float32), training=False))


def file(folder: Path, name: str) -> Path:
    return folder / f"{name}.tflite"
