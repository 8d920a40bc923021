"""Networks as users have them: Sequential, a base inside a model, keras.applications; trained with plain ``fit``."""

from __future__ import annotations

import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from quantization import photos
from user_models import CLASSES, IN_FLOAT, MODELS, SIZE, body, check, pictures, written_out_hard_swish

import edgecls
from edgecls.errors import UsageError
from edgecls.export import inspect, metadata, verify
from edgecls.quantize import fake_quantization, make_plan
from edgecls.quantize.rules import gates

GUIDE = (Path(__file__).parent.parent / "docs" / "quantize.md").read_text(encoding="utf-8")


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
