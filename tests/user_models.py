"""Networks as users have them, and what holds for each when it is quantized."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from quantization import photos, settled

import edgecls
from edgecls.export import inspect, metadata, verify
from edgecls.export.gates import gates as judged
from edgecls.quantize import fake_quantization

CLASSES = 4
SIZE = 32

MODELS: dict[str, Callable[[], keras.Model]] = {}


def users_model(make: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    MODELS[make.__name__] = make
    return make


def body(
    block: Callable[..., Any], size: tuple[int, int] = (SIZE, SIZE), padding: str = "same"
) -> keras.Model:
    """Pixels, a stem, ``block``, a mean, a softmax. A stem that pads is half a pixel off at the border."""
    image = keras.Input((*size, 3), name="image")
    x = layers.Conv2D(8, 3, 2, padding=padding, name="stem")(layers.Rescaling(1 / 127.5, -1)(image))
    x = layers.GlobalAveragePooling2D()(block(x))
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax", name="fc")(x))


@users_model
def sequential() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(8, 3, activation="silu"),
            layers.SpatialDropout2D(0.1),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


@users_model
def transfer() -> keras.Model:
    base = keras.applications.MobileNet((SIZE, SIZE, 3), 0.25, include_top=False, weights=None)
    image = keras.Input((SIZE, SIZE, 3), name="photo")
    # Zero is a pixel's value, so that the border can be exact. Of 1 / 127.5 and -1 it is half a pixel off.
    x = layers.Rescaling(1 / 128, -127 / 128)(layers.RandomFlip("horizontal")(image))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(base(x)))
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax", name="top")(x))


@users_model
def prelu_and_leaky() -> keras.Model:
    def block(x):
        x = layers.PReLU("random_normal", shared_axes=[1, 2])(layers.BatchNormalization()(x))
        x = layers.LeakyReLU(0.2)(layers.Conv2D(8, 3)(x))
        return layers.Conv2D(8, 1, activation="leaky_relu")(x)

    return body(block)


@users_model
def transposed_convolution() -> keras.Model:
    def block(x):
        y = layers.Conv2DTranspose(8, 3, 2, padding="same", activation="relu")(layers.AveragePooling2D(2)(x))
        y = layers.BatchNormalization()(layers.Conv2DTranspose(8, 2, use_bias=False)(layers.Add()([x, y])))
        return layers.ReLU()(y)

    return body(block)


@users_model
def bare_operations() -> keras.Model:
    def block(x):
        low, high = keras.ops.split(keras.ops.relu6(x * 2 + 1), 2, axis=-1)
        y = keras.ops.concatenate([low, 1 - high / 4, x[:, :, :, 2:5]], axis=-1)
        y = keras.ops.silu(layers.Conv2D(8, 1)(y))[:, 1:, 2:-1]
        y = keras.ops.max_pool(keras.ops.pad(y, [[0, 0], [1, 0], [0, 1], [0, 0]]), 2) - np.linspace(
            0, 0.7, 8, dtype=np.float32
        )
        gate = keras.ops.mean(y, axis=(1, 2), keepdims=True)
        gate = keras.ops.relu6(layers.Conv2D(8, 1)(gate) + 3.0) * (1 / 6)
        y = keras.ops.transpose(keras.ops.reshape(y * gate, (-1, 7, 8, 8)), (0, 2, 1, 3))
        return keras.ops.maximum(layers.Conv2D(8, 3)(y), 0) + keras.ops.clip(layers.Conv2D(8, 3)(y), 0, 3)

    return body(block)


@users_model
def written_out_hard_swish() -> keras.Model:
    """As keras.applications.MobileNetV3 once was: one operation with the linear part folded, no tensor twice."""

    def block(x):
        x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
        return layers.Multiply()([x, layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])

    return body(block)


@users_model
def branches_of_separable_convolutions() -> keras.Model:
    def block(x):
        parts = [layers.SeparableConv2D(4, k, padding="same", activation="relu")(x) for k in (1, 3, 5)]
        parts.append(layers.Conv2D(4, 1)(layers.AveragePooling2D(3, 1, padding="same")(x)))
        parts.append(layers.Conv2D(4, 1)(layers.MaxPooling2D(3, 1, padding="same")(x)))
        y = layers.Activation("relu")(layers.BatchNormalization()(layers.Concatenate()(parts)))
        return layers.Conv2D(8, 3, dilation_rate=2, groups=2)(y)

    return body(block)


@users_model
def one_layer_twice() -> keras.Model:
    def block(x):
        conv, norm = layers.Conv2D(8, 3, padding="same"), layers.BatchNormalization()
        dense = layers.Dense(8, activation="relu")
        return dense(dense(layers.ReLU()(norm(conv(layers.ReLU()(norm(conv(x))))))))

    return body(block)


@users_model
def squeeze_and_excitation() -> keras.Model:
    def block(x):
        x = layers.Activation("swish")(layers.BatchNormalization()(x))
        gate = layers.Dense(2, activation="relu")(layers.GlobalAveragePooling2D()(x))
        gate = layers.Reshape((1, 1, 8))(layers.Dense(8, activation="sigmoid")(gate))
        return layers.Multiply()([x, gate])

    return body(block)


@users_model
def rectangle() -> keras.Model:
    def block(x):
        return layers.Conv2D(8, 3, 2, activation="gelu")(layers.Permute((2, 1, 3))(x))

    return body(block, (48, 80))


@users_model
def normalizations_of_flat_features() -> keras.Model:
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, 2, activation="relu")(layers.Rescaling(1 / 255)(image))
    mean = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
    top = layers.Activation("hard_silu")(layers.Rescaling(0.5, 0.1)(layers.GlobalMaxPooling2D()(x)))
    hidden = layers.Activation("tanh")(
        layers.BatchNormalization()(layers.Dense(8)(layers.Concatenate()([mean, top])))
    )
    hidden = layers.PReLU("random_normal")(layers.ActivityRegularization()(hidden))
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax")(hidden))


@users_model
def sums_and_products_of_several() -> keras.Model:
    def block(x):
        parts = [layers.Conv2D(8, 1, activation=name)(x) for name in ("relu", "relu6", "hard_silu")]
        y = layers.ReLU(3.0)(layers.Add()([*parts, x]))
        return layers.Multiply()([y, layers.Average()([x, y]), layers.Activation("sigmoid")(x)])

    return body(block)


@users_model
def attention_of_channels_and_places() -> keras.Model:
    """ECA, then CBAM, in Lambda layers made of keras.ops."""

    def block(x):
        gate = layers.Reshape((8, 1))(layers.GlobalAveragePooling2D()(x))
        gate = layers.Conv1D(1, 3, padding="same", use_bias=False, activation="sigmoid")(gate)
        x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(gate)])
        mean = layers.Lambda(lambda t: keras.ops.mean(t, axis=-1, keepdims=True))(x)
        top = keras.ops.expand_dims(keras.ops.max(x, axis=-1), -1)
        places = layers.Conv2D(1, 7, padding="same", activation="sigmoid")(layers.Concatenate()([mean, top]))
        return layers.BatchNormalization()(layers.Lambda(lambda pair: pair[0] * pair[1])([x, places]))

    return body(block)


@users_model
def sequences() -> keras.Model:
    def block(x):
        x = layers.DepthwiseConv1D(3, 2, depth_multiplier=2, activation="relu")(layers.Reshape((-1, 8))(x))
        x = layers.Conv1D(8, 3, padding="causal", dilation_rate=2, groups=2)(layers.MaxPooling1D(2)(x))
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.SeparableConv1D(8, 3, padding="same", activation="silu")(layers.AveragePooling1D(3, 2)(x))
        return layers.Reshape((1, -1, 8))(x)

    return body(block)


@users_model
def preprocessed_as_vgg() -> keras.Model:
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.applications.vgg16.preprocess_input(image)
    for width in (8, 16):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(16, activation=lambda t: t * keras.ops.sigmoid(t))(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax")(x))


@users_model
def choices_of_values_and_cells() -> keras.Model:
    def block(x):
        x = keras.ops.depth_to_space(keras.ops.space_to_depth(layers.Conv2D(8, 3, padding="same")(x), 2), 2)
        y = layers.Minimum()([keras.ops.maximum(x, layers.Conv2D(8, 1)(x)), keras.ops.abs(x)])
        x, y = x[:, ::2, ::2], y[:, ::2, ::2]
        y = y + keras.ops.stack([x[..., i] for i in (1, 5)] * 4, axis=-1) ** 2
        mean = keras.ops.sum(layers.Conv2D(1, 1)(y) / 64, axis=(1, 2), keepdims=True)
        return keras.ops.cast(y, "float32") * mean

    return body(block)


@users_model
def activations_in_float() -> keras.Model:
    def block(x):
        x = layers.Conv2D(8, 3, 2, activation="selu")(x)
        x = layers.Conv2D(8, 1, activation="mish")(layers.ELU(0.3)(layers.BatchNormalization()(x)))
        x = layers.Activation("softplus")(keras.ops.celu(layers.Conv2D(8, 1)(x), 2.0))
        return layers.UnitNormalization()(layers.Conv2D(8, 1)(x))

    return body(block, padding="valid")


IN_FLOAT = {
    "activations_in_float": {"ELU", "InFloat", "UnitNormalization"}
}  # what stays in float without being asked


def pictures(model: keras.Model, count: int) -> np.ndarray:
    """uint8 [count, height, width, 3] of the model's size."""
    height, width = model.input_shape[1:3]
    return photos(max(height, width), count)[:, :height, :width]


def check(
    model: keras.Model, folder: Path, in_float: Collection[str] = (), keep_float: Sequence[str] = ()
) -> None:
    """Quantize, train a step, export: int8 within a step of the trained network, one partition.

    Args:
        model: A classifier of ``CLASSES``.
        folder: For the file.
        in_float: Classes of the layers that stay in float.
        keep_float: Those that are asked to.
    """
    images = pictures(model, 8)
    pixels, labels = images.astype(np.float32), np.arange(8) % CLASSES
    settled(model, images)
    network = edgecls.quantize_model(model, keep_float=keep_float)
    with fake_quantization(network, on=False):
        np.testing.assert_allclose(network(pixels, training=False), model(pixels, training=False), atol=5e-3)
    edgecls.calibrate(network, [(pixels, labels)])
    network.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(pixels, labels, batch_size=4, epochs=1, verbose=0)
    sizes = {"size": model.input_shape[1], "resize_short": model.input_shape[1]}
    path = edgecls.export_tflite(network, folder / "user.tflite", labels=list("abcd"), preprocess=sizes)
    file = inspect.describe(path)
    ladder = verify.ladder(images, qat_model=network, int8=path)
    found = ladder["files"][path.name]["in_float"].values()
    assert {reason.split(",")[0] for reason in found} == set(in_float), found
    assert all(gate["ok"] for gate in judged(ladder)), judged(ladder)
    assert (bool(file["float_ops"]), file["partitions"], file["undelegated"]) == (
        bool(in_float),
        1,
        ["QUANTIZE"],
    )
    rung = ladder["rungs"][0]
    assert rung["ok"], rung
    assert np.ptp(inspect.Runner(path)(images), axis=0).max() > 10 * inspect.output_step(path)
    assert file["ops"]["SOFTMAX"] == 1
    assert metadata.read(path)["classes"] == list("abcd")
