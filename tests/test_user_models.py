"""Networks as users have them: Sequential, a base inside a model, keras.applications; trained with plain ``fit``."""

from __future__ import annotations

import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from quantization import photos, settled

import edgecls
from edgecls.errors import UsageError
from edgecls.export import inspect, metadata, verify
from edgecls.quantize import fake_quantization, make_plan
from edgecls.quantize.rules import gates

GUIDE = (Path(__file__).parent.parent / "docs" / "quantize.md").read_text(encoding="utf-8")
CLASSES = 4
SIZE = 32


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


def transfer() -> keras.Model:
    base = keras.applications.MobileNet((SIZE, SIZE, 3), 0.25, include_top=False, weights=None)
    image = keras.Input((SIZE, SIZE, 3), name="photo")
    x = layers.Rescaling(1 / 127.5, -1)(layers.RandomFlip("horizontal")(image))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(base(x)))
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax", name="top")(x))


def check(model: keras.Model, folder: Path, steps: int = 2) -> None:
    """Quantize, train a few steps, export: int8 within a step of the trained network, one partition."""
    images = photos(model.input_shape[1], 8)
    pixels, labels = images.astype(np.float32), np.arange(8) % CLASSES
    settled(model, images)
    network = edgecls.quantize_model(model)
    with fake_quantization(network, on=False):
        np.testing.assert_allclose(network(pixels, training=False), model(pixels, training=False), atol=2e-4)
    edgecls.calibrate(network, [(pixels, labels)])
    network.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(pixels, labels, batch_size=4, epochs=steps // 2, verbose=0)
    path = edgecls.export_tflite(network, folder / "user.tflite", labels=list("abcd"))
    file = inspect.describe(path)
    assert (file["float_ops"], file["partitions"], file["undelegated"]) == ([], 1, ["QUANTIZE"]), file
    rung = verify.ladder(images, qat_model=network, int8=path)["rungs"][0]
    assert rung["ok"], rung
    assert file["ops"]["SOFTMAX"] == 1
    assert metadata.read(path)["classes"] == list("abcd")


@pytest.mark.parametrize("make", [sequential, transfer])
def test_ordinary_models(make, tmp_path) -> None:
    keras.utils.set_random_seed(0)
    check(make(), tmp_path)


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


class Renamed(layers.Conv2D):
    """A subclass that computes the same."""


def test_what_is_not_exactly_known_is_refused() -> None:
    assert edgecls.quantize_model(small(Renamed(4, 1, name="odd"))).get_layer("odd")
    refused = {
        r"Doubled is a Conv2D with call of its own.*odd.*lowers": Doubled(4, 1, name="odd"),
        r"UnitNormalization.*odd.*lowers": layers.UnitNormalization(name="odd"),
        r"activation 'mish'.*odd": layers.Conv2D(4, 1, activation="mish", name="odd"),
        r"softmax inside the network.*odd.*end the network": layers.Softmax(name="odd"),
        r"batch normalization on axis 1.*odd.*axis=-1": layers.BatchNormalization(axis=1, name="odd"),
        r"nearest upsampling by 3 x 3.*odd": layers.UpSampling2D(3, name="odd"),
    }
    for text, layer in refused.items():
        with pytest.raises(UsageError, match=text):
            edgecls.quantize_model(small(layer))


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


def test_the_plan_can_be_read() -> None:
    def block(x):
        y = layers.Concatenate(name="join")([x, layers.Conv2D(4, 1, activation="hard_silu", name="side")(x)])
        return layers.Conv2D(4, 1, name="next")(y)

    lines = dict(line.split(": ", 1) for line in make_plan(small(block)).text().splitlines())
    assert lines["side.act"] == "ScaledHardSwish, on the grid of stem.rescale"
    assert lines["join"].endswith("on the grid of stem.rescale")
    assert lines["next"].startswith("Conv2D") and "its kernel divides by 6" in lines["next"]
