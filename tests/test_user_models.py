"""Networks as users have them: Sequential, a base inside a model, keras.applications; trained with plain ``fit``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from quantization import photos, settled

import edgecls
from edgecls.errors import UsageError
from edgecls.export import inspect, metadata, verify
from edgecls.export.gates import gates as judged
from edgecls.quantize import fake_quantization, make_plan
from edgecls.quantize.rules import gates

GUIDE = (Path(__file__).parent.parent / "docs" / "quantize.md").read_text(encoding="utf-8")
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


def check_named(name: str, folder: Path) -> None:
    keras.utils.set_random_seed(0)
    check(MODELS[name](), folder, IN_FLOAT.get(name, ()))


@pytest.mark.parametrize("name", MODELS)
def test_models_of_users(name: str, tmp_path) -> None:
    check_named(name, tmp_path)


@pytest.mark.slow
def test_the_guide_runs_as_it_stands(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"<!-- guide -->\n```python\n(.*?)```", GUIDE, re.DOTALL)
    keras.utils.set_random_seed(0)
    labels, images = ["cat", "dog", "fox"], photos(SIZE, 6)
    given = {"SIZE": SIZE, "WEIGHTS": None, "LABELS": labels, "EPOCHS": 1}
    exec(code, given | {"PIXELS": images.astype(np.float32), "CLASSES": np.arange(6) % 3})
    file = inspect.describe("model.tflite")
    assert (file["float_ops"], file["partitions"], file["undelegated"]) == ([], 1, ["QUANTIZE"]), file
    assert metadata.read("model.tflite")["classes"] == labels
    scores = np.exp(inspect.Runner("model.tflite")(images))
    assert scores.shape == (6, 3)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)


def test_how_far_gelu_is_off() -> None:
    """The docs name the largest error, rounded up; the normal distribution is the C library's."""
    xs = np.linspace(-8, 8, 160_001)
    exact = xs * [0.5 * (1 + math.erf(x / math.sqrt(2))) for x in xs]
    error = float(np.abs(exact - xs / (1 + np.exp(-gates.GELU_SLOPE * xs))).max())
    for text in (GUIDE, gates.__doc__ or ""):
        (stated,) = re.findall(r"at most (0\.\d+) off", text)
        assert 0 <= float(stated) - error < 1e-4, error


@pytest.mark.slow
def test_keras_applications(tmp_path) -> None:
    """One with a normalization, SiLU and gates of its own; scripts/verify_int8.py goes over the others."""
    keras.utils.set_random_seed(0)
    size = (64, 64, 3)
    check(keras.applications.EfficientNetB0(input_shape=size, weights=None, classes=CLASSES), tmp_path)


def small(block) -> keras.Model:
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = block(layers.Conv2D(4, 3, name="stem")(layers.Rescaling(1 / 255)(image)))
    return keras.Model(image, layers.Dense(CLASSES, name="fc")(layers.Flatten()(x)))


class Doubled(layers.Conv2D):
    """A subclass with a call of its own."""

    def call(self, inputs):
        return 2 * super().call(inputs)


class OfTwoLayers(layers.Layer):
    """A layer of a user's own, of two layers with variables of one name."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Conv2D(4, 3, padding="same"), layers.Conv2D(4, 3, padding="same")

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    def call(self, x):
        return x + self.second(keras.ops.relu(self.first(x)))


class Renamed(layers.Conv2D):
    """A subclass that computes the same."""


def test_what_is_not_exactly_known_is_refused() -> None:
    assert edgecls.quantize_model(small(Renamed(4, 1, name="odd"))).get_layer("odd")
    refused = {
        r"Doubled is a Conv2D with call of its own.*odd.*lowers": Doubled(4, 1, name="odd"),
        r"class OfTwoLayers.*odd.*lowers": OfTwoLayers(name="odd"),
        r"activation 'sparse_plus'; there.*odd.act": layers.Conv2D(
            4, 1, activation="sparse_plus", name="odd"
        ),
        r"batch normalization on axis 1.*odd.*axis=-1": layers.BatchNormalization(axis=1, name="odd"),
        r"nearest upsampling by 3 x 3.*odd": layers.UpSampling2D(3, name="odd"),
        r"a PReLU with a slope for each position; shared_axes.*odd": layers.PReLU(name="odd"),
        r"a division by a tensor; multiply.*divide": lambda x: x / x,
        r"division by a tensor; multiply.*divide": lambda x: 1 / x,
        r"mean over axes \[1\]; over height and width": lambda x: (
            x * keras.ops.mean(x, axis=1, keepdims=True)
        ),
        r"steps; runs of rows, columns and channels": lambda x: x[:, ::-1],
        r"strides \(2, 1\)": layers.AveragePooling2D((2, 1), name="odd"),
        r"a resize of 30 x 30 to 45 x 45; whole multiples": layers.Resizing(45, 45, name="odd"),
        r"clip to -1 .* 1; to 0": lambda x: keras.ops.clip(x, -1, 1),
        r"bare operations of class Log ": keras.ops.log,
        r"a Lambda whose function.*keras.ops alone.*odd": layers.Lambda(tf.nn.relu, name="odd"),
        r"channels come first.*odd.*channels_last": layers.Conv2D(
            4, 1, data_format="channels_first", name="odd"
        ),
    }
    for text, layer in refused.items():
        with pytest.raises(UsageError, match=text):
            edgecls.quantize_model(small(layer))


def kept_in_float(x):
    """What has no rule, of every kind: layers of layers, of several arguments, of TensorFlow; bare operations."""
    x = OfTwoLayers(name="mine")(layers.Conv2D(4, 1)(x))
    x = layers.Lambda(lambda t: tf.sigmoid(t) * tf.reduce_mean(t, [1, 2], keepdims=True), name="tf")(x)
    x = layers.Conv2D(4, 3, 2, "same", activation="sparse_plus", name="conv")(x)
    low, high = keras.ops.split(layers.Conv2D(4, 1)(x), 2, axis=1)
    x = keras.ops.log(keras.ops.abs(low - high) + 1.0)
    flat = layers.Reshape((-1, 4))(x)
    return layers.Reshape(x.shape[1:])(layers.MultiHeadAttention(2, 2, name="heads")(flat, flat))


def test_an_error_names_what_to_keep_in_float_and_that_holds(tmp_path) -> None:
    keras.utils.set_random_seed(0)
    model, kept = body(kept_in_float), list[str]()
    while True:
        try:
            make_plan(model, keep_float=kept)
            break
        except UsageError as error:
            (name,) = re.findall(r"keep_float=\['(.*?)'\]", str(error))
            assert name not in kept, error
            kept.append(name)
    assert {"mine", "tf", "conv.act"} < set(kept) and len(kept) == 5, kept
    network = edgecls.quantize_model(model, keep_float=[*kept, "heads"])
    pixels = pictures(model, 4).astype(np.float32)
    with fake_quantization(network, on=False):
        np.testing.assert_allclose(network(pixels, training=False), model(pixels, training=False), atol=1e-4)
    edgecls.calibrate(network, [pixels])
    path = edgecls.export_tflite(network, tmp_path / "kept.tflite")
    ladder = verify.ladder(pixels.astype(np.uint8), qat_model=network, int8=path)
    assert ladder["rungs"][0]["ok"], ladder["rungs"]
    assert {"mine", "tf", "conv.act", "heads"} < ladder["files"][path.name]["in_float"].keys()


def test_a_classifier_in_float_is_compared_without_a_grid(tmp_path) -> None:
    keras.utils.set_random_seed(0)
    model = small(layers.ReLU())
    pixels = pictures(model, 4)
    network = edgecls.quantize_model(model, keep_float=["fc"])
    edgecls.calibrate(network, [pixels])
    path = edgecls.export_tflite(network, tmp_path / "head.tflite")
    (rung,) = verify.ladder(pixels, qat_model=network, int8=path)["rungs"]
    assert rung["ok"] and rung["of_range"] < 1e-4, rung
    network.get_layer("fc").bias.assign_add([0.0, 0.0, 0.0, 10.0])
    (rung,) = verify.ladder(pixels, qat_model=network, int8=path)["rungs"]
    assert not rung["ok"], rung


def test_models_that_are_no_graphs() -> None:
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UsageError, match=r"not a functional or Sequential.*keras.Input"):
        edgecls.quantize_model(Subclassed())


def test_sizes_and_precisions_that_a_model_leaves_open(tmp_path) -> None:
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, dtype="mixed_float16")(image)
    model = keras.Model(image, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(UsageError, match=r"is open.*input_size=224"):
        edgecls.quantize_model(model)
    network = edgecls.quantize_model(model, input_size=(SIZE, 24))
    assert network.input_shape == (None, SIZE, 24, 3)
    assert {variable.dtype for variable in network.variables} == {"float32"}
    with pytest.raises(UsageError, match=r"images of shape .*takes \[batch, 32, 24, 3\]"):
        edgecls.calibrate(network, [photos(SIZE, 2)])
    edgecls.calibrate(network, [photos(SIZE, 2)[:, :, :24]])
    with pytest.raises(UsageError, match="32 x 24 pixels"):
        edgecls.export_tflite(network, tmp_path / "rectangle.tflite")


def test_pixels_of_another_range_are_noticed() -> None:
    network = edgecls.quantize_model(small(layers.ReLU()))
    with pytest.raises(UsageError, match=r"from 0 to 1.*0 to 255"):
        edgecls.calibrate(network, [photos(SIZE, 2) / 255])


def test_a_hard_swish_that_is_written_out_is_one_operation() -> None:
    lines = make_plan(written_out_hard_swish()).text().splitlines()
    assert [line.split(": ")[1].split(",")[0] for line in lines[3:6]] == [
        "DepthwiseConv2D + FreezableBatchNormalization",
        "ScaledHardSwish",
        "Mean",
    ], lines


def test_the_plan_can_be_read() -> None:
    def block(x):
        y = layers.Concatenate(name="join")([x, layers.Conv2D(4, 1, activation="hard_silu", name="side")(x)])
        return layers.Conv2D(4, 1, name="next")(y)

    lines = dict(line.split(": ", 1) for line in make_plan(small(block)).text().splitlines())
    assert lines["side.act"] == "ScaledHardSwish, on the grid of stem.rescale"
    assert lines["join"].endswith("on the grid of stem.rescale")
    assert lines["next"].startswith("Conv2D") and "its kernel divides by 6" in lines["next"]
