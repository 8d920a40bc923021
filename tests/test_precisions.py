"""TFLite files with rounded weights: what is in them, what they compute, and that a run treats them like the others."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from quantization import SIZE, photos, settled

import edgecls
from edgecls import precisions
from edgecls.errors import UsageError
from edgecls.export import inspect, metadata
from edgecls.recipe import load_recipe

IMAGES = photos(SIZE, 8)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Kernels of every kind, each of more values than stay float."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(48, 3, strides=2, activation="relu", name="conv")(layers.Rescaling(1 / 255)(image))
    x = layers.DepthwiseConv2D(5, activation="relu", name="depthwise")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(64, 1, name="point")(x))
    return settled(keras.Model(image, layers.Dense(20, name="fc")(x)), IMAGES)


def write(model: keras.Model, folder: Path, precision: str) -> Path:
    settings = {"size": SIZE}
    return edgecls.export_tflite(model, folder / f"m_{precision}.tflite", None, settings, precision)


def kernel_types(path: Path) -> dict[str, set[str]]:
    """For each operation with a kernel the types of its kernels, as the operation takes them."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    types = {tensor["index"]: np.dtype(tensor["dtype"]).name for tensor in interpreter.get_tensor_details()}
    found: dict[str, set[str]] = {}
    for op in interpreter._get_ops_details():
        if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            found.setdefault(op["op_name"], set()).add(types[int(op["inputs"][1])])
    return found


def test_int8_weights_and_float_arithmetic(model: keras.Model, tmp_path: Path) -> None:
    """The same as the Keras model with kernels rounded here."""
    path = write(model, tmp_path, "weight_only_wi8")
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    for name, axes in {"conv": (0, 1, 2), "depthwise": (0, 1, 3), "point": (0, 1, 2), "fc": 0}.items():
        kernel = twin.get_layer(name).kernel
        step = np.abs(kernel.numpy()).max(axis=axes, keepdims=True) / 127
        kernel.assign(np.rint(kernel.numpy() / step) * step)
    expected = np.asarray(twin(IMAGES.astype(np.float32)))
    found = inspect.Runner(path)(IMAGES)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.ptp(expected))
    kinds = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    assert kernel_types(path) == {kind: {"float32"} for kind in kinds}


@pytest.mark.parametrize("precision", ["fp16", "dynamic_wi8_afp32", "weight_only_wi8"])
def test_they_are_small_whole_and_close_to_float(precision: str, model: keras.Model, tmp_path: Path) -> None:
    path = write(model, tmp_path, precision)
    expected = np.asarray(model(IMAGES.astype(np.float32)))
    assert np.abs(inspect.Runner(path)(IMAGES) - expected).max() < 0.03 * np.ptp(expected)
    file = inspect.describe(path)
    assert file["partitions"] == 1
    weights = precisions.KINDS[precision].weight_bytes * model.count_params()
    assert file["bytes"] < 1.1 * weights + 8000  # the rest is graph, labels and metadata
    content = metadata.read(path)
    assert content["precision"] == precision and len(content["classes"]) == 20
    if precision == "dynamic_wi8_afp32":
        wanted = {"CONV_2D": {"int8"}, "DEPTHWISE_CONV_2D": {"float32"}, "FULLY_CONNECTED": {"int8"}}
        assert kernel_types(path) == wanted


def test_names() -> None:
    assert tuple(precisions.KINDS) == precisions.NAMES
    recipe = load_recipe("mv3_ssld", ["export.precisions=[static_wi8_ai8, weight_only_wi8]"])
    assert recipe.export.precisions == ["int8", "weight_only_wi8"]
    with pytest.raises(UsageError, match=r"export\.precisions.*weight_only_wi8"):
        load_recipe("mv3_ssld", ["export.precisions=[weights]"])


def test_an_unknown_precision(model: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown precision 'w8'"):
        write(model, tmp_path, "w8")
