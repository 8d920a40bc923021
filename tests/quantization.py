"""Small networks with the shapes of the zoo's blocks, and photos: shared by the quantization and export tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from edgecls.graph import rebuild
from edgecls.zoo import blocks, hrnet, pooling
from edgecls.zoo import layers as zoo_layers

SIZE = 32
WITH_KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")  # operations of TFLite
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


def _concatenations(x):
    """At different scales, more than XNNPACK joins at once, and one with a ReLU behind it, which goes before it."""
    parts = [blocks.conv_bn(x, 4, 1, name=f"part{i}") for i in range(6)]
    y = layers.ReLU(name="after")(layers.Concatenate(name="six")(parts))
    return layers.Concatenate(name="scales")([x, blocks.conv_bn(x, 4, 3, act="hard_swish", name="hs"), y])


def _dense_block(x):
    y = layers.Concatenate(name="first")([x, blocks.conv_bn(x, 4, 3, name="a")])
    z = layers.ReLU(name="r")(zoo_layers.BatchNormalization(name="norm")(y))
    return layers.Concatenate(name="second")([y, blocks.conv_bn(z, 4, 3, name="b")])


def _shuffle(x):
    kept, y = zoo_layers.Channels(0, 4, name="kept")(x), zoo_layers.Channels(4, 8, name="convolved")(x)
    y = layers.Concatenate(name="join")([kept, blocks.conv_bn(y, 4, 1, act="relu", name="a")])
    return zoo_layers.ChannelShuffle(2, name="shuffle")(y)


def _gates(x):
    y = blocks.conv_bn(x, 8, 3, act="silu", name="a")
    y = blocks.squeeze_excite(y, 4, name="se", act="silu", gate="sigmoid")
    y = layers.Multiply(name="three")([x, y, layers.Activation("tanh", name="t")(x)])
    return blocks.conv_bn(layers.LeakyReLU(0.1, name="leaky")(y), 8, 1, name="b")


def _sums(x):
    terms = [blocks.conv_bn(x, 8, 1, act=act, name=f"{act}") for act in ("relu", "hard_swish")]
    y = layers.ReLU(4.0, name="relu4")(layers.Add(name="four")([x, *terms, layers.Conv2D(8, 1, name="c")(x)]))
    y = layers.Average(name="average")([x, y, layers.Subtract(name="minus")([y, terms[0]])])
    return layers.Add(name="again")([layers.ReLU(6.0, name="six")(terms[1]), terms[1], y])


def _average_pools(x):
    same = layers.AveragePooling2D(3, 2, padding="same", name="same")(x)
    padded = layers.AveragePooling2D(3, 2, name="padded")(layers.ZeroPadding2D(1, name="pad")(x))
    edges = pooling.EdgeAveragePooling2D(name="edge")(x), pooling.EdgeMaxPooling2D(name="edge_max")(x)
    some = layers.MaxPooling2D(1, 2, name="some")(x)
    return layers.Concatenate(name="pools")([same, padded, *edges, some])


def _upsampling(x):
    bilinear = layers.UpSampling2D(2, interpolation="bilinear", name="bilinear")
    coarse = layers.MaxPooling2D(4, name="quarter")(x)
    half = layers.AveragePooling2D(2, name="half")(x)
    maps = [
        hrnet.Repeat(4, name="repeat")(coarse),
        bilinear(half),
        layers.UpSampling2D(2, name="nearest")(half),
    ]
    return layers.Add(name="sum")([x, *maps])


def _separable(x):
    y = layers.Conv2D(8, 3, activation="relu", dilation_rate=2, name="dilated")(
        layers.Cropping2D(1, name="crop")(x)
    )
    y = layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", depth_multiplier=2, name="depthwise")(y)
    y = layers.Dense(8, activation="relu6", name="on_a_map")(y)
    return layers.SeparableConv2D(8, 3, padding="same", activation="hard_silu", name="separable")(y)


def _flat(x):
    y = layers.Dense(8, activation="relu", name="hidden")(layers.GlobalMaxPooling2D(name="highest")(x))
    y = zoo_layers.BatchNormalization(name="second")(y)
    return layers.Rescaling(0.5, 0.1, name="affine")(layers.Reshape((1, 1, 8), name="map")(y))


def _shared(x):
    conv, act = layers.Conv2D(8, 3, padding="same", name="shared"), layers.ReLU(name="act")
    return conv(act(conv(x)))


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
    "concatenations": _concatenations,
    "dense_block": _dense_block,
    "shuffle": _shuffle,
    "gates": _gates,
    "sums": _sums,
    "average_pools": _average_pools,
    "upsampling": _upsampling,
    "separable": _separable,
    "flat": _flat,
    "shared": _shared,
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


def with_border(model: keras.Model, mean, std, pad: str = "stem.conv.pad") -> keras.Model:
    """``model`` with pixels of one color as padding of its first convolution, the mean of the channels' means."""
    color = (round(255 * float(np.mean(mean))) / 255 - np.array(mean)) / np.array(std)

    def padded(layer, x):
        if layer.name != pad:
            return None
        x = layers.ZeroPadding2D(layer.padding)(layers.Rescaling(1.0, (-color).tolist())(x))
        return layers.Rescaling(1.0, color.tolist())(x)

    assert model.get_layer(pad)
    return rebuild(model, padded)


def settled(model: keras.Model, images: np.ndarray) -> keras.Model:
    """``model`` with running statistics that are exactly those of ``images``: values of a healthy size everywhere."""
    parts = [model, *(layer for layer in model.layers if isinstance(layer, keras.Model))]
    norms = [n for part in parts for n in part.layers if isinstance(n, layers.BatchNormalization)]
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


def scales_of_kernels(path: Path) -> dict[str, list[int]]:
    """For each kind of operation how many scales its kernels have."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    tensors = {t["index"]: t["quantization_parameters"]["scales"] for t in interpreter.get_tensor_details()}
    found: dict[str, list[int]] = {}
    for op in interpreter._get_ops_details():
        if op["op_name"] in WITH_KERNELS:
            found.setdefault(op["op_name"], []).append(len(tensors[int(op["inputs"][1])]))
    return found


def file(folder: Path, name: str) -> Path:
    return folder / f"{name}.tflite"
