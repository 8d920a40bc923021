"""Layers kept in float: in the twin, in the file, and nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from quantization import EQUAL, SIZE, logits, photos, settled

import edgecls
from edgecls.errors import UsageError
from edgecls.export import inspect
from edgecls.quantize import fake_quantization, make_plan
from edgecls.zoo import blocks
from edgecls.zoo import layers as zoo_layers

IMAGES = photos(SIZE, 16)


def model() -> keras.Model:
    """A residual block between a stem and a head, so that what is kept has int8 before and behind it."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = blocks.conv_bn(
        zoo_layers.Normalize(**EQUAL, name="normalize")(image), 8, 3, 2, act="relu", name="stem"
    )
    y = blocks.conv_bn(x, 8, 3, act="hard_swish", name="a")
    y = blocks.conv_bn(y, 8, 3, groups=8, name="b")
    x = layers.Add(name="add")([x, y])
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Dense(8, activation="silu", name="mlp")(layers.GlobalAveragePooling2D(name="pool")(x))
    return settled(keras.Model(image, layers.Dense(5, name="fc")(x), name="small"), IMAGES)


@pytest.fixture(scope="module")
def floating() -> keras.Model:
    return model()


def export(network: keras.Model, folder: Path) -> Path:
    edgecls.calibrate(network, [IMAGES])
    return edgecls.export_tflite(network, folder / "kept.tflite", preprocess={"size": SIZE})


def float_ops(path: Path) -> Counter[str]:
    """The operations that make float tensors, without conversions."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    kinds = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    return Counter(
        op["op_name"]
        for op in interpreter._get_ops_details()
        if op["op_name"] not in ("DELEGATE", "DEQUANTIZE") and kinds[op["outputs"][0]] == np.float32
    )


NORM = Counter(MEAN=2, NEG=1, SQUARED_DIFFERENCE=1, ADD=3, RSQRT=1, MUL=3)  # and the sum that it reads
KEPT = {
    ("norm",): Counter(),
    ("norm", "a.conv"): Counter(CONV_2D=1, HARD_SWISH=1),  # what would be fused into it comes with it
    ("n*m", "b.*", "add", "fc"): Counter(DEPTHWISE_CONV_2D=1, FULLY_CONNECTED=1),
}


@pytest.mark.parametrize("patterns", KEPT, ids="+".join)
def test_what_is_kept_is_float_in_the_file_and_nothing_else(
    patterns: tuple[str, ...], floating: keras.Model, tmp_path: Path
) -> None:
    expected = logits(floating, IMAGES)
    network = edgecls.quantize_model(floating, keep_float=patterns)
    with fake_quantization(network, on=False):
        np.testing.assert_allclose(logits(network, IMAGES), expected, atol=1e-4 * np.ptp(expected))
    path = export(network, tmp_path)
    assert float_ops(path) == NORM + KEPT[patterns]
    file = inspect.describe(path)
    assert (file["partitions"], file["undelegated"]) == (1, ["QUANTIZE"])
    np.testing.assert_allclose(inspect.Runner(path)(IMAGES), logits(network, IMAGES), atol=1e-5)


def test_it_trains_and_is_saved(floating: keras.Model, tmp_path: Path) -> None:
    network = edgecls.quantize_model(floating, keep_float=["norm"])
    edgecls.calibrate(network, [IMAGES])
    before = [variable.numpy() for variable in network.trainable_variables]
    network.compile(keras.optimizers.SGD(0.1), "mse")
    network.fit(IMAGES.astype(np.float32), np.ones((len(IMAGES), 5)), verbose=0)
    assert not any(map(np.array_equal, before, [v.numpy() for v in network.trainable_variables]))
    network.save(tmp_path / "kept.keras")
    loaded = edgecls.load_model(tmp_path / "kept.keras")
    np.testing.assert_array_equal(logits(loaded, IMAGES), logits(network, IMAGES))


def test_the_plan_says_what_stays_and_a_wrong_pattern_is_an_error(floating: keras.Model) -> None:
    lines = make_plan(floating, keep_float=["norm", "a.conv"]).text().splitlines()
    notes = dict(line.split(": ", 1) for line in lines)
    assert notes["norm"] == "LayerNormalization, in float, as asked"
    assert notes["a.bn"].endswith("in float, with the operation before it")
    assert notes["fc"] == "Dense" and not any("Boundary" in line for line in lines)
    with pytest.raises(UsageError, match=r"keep_float: no layer is called nrom.*did you mean norm"):
        edgecls.quantize_model(floating, keep_float=["norm", "nrom"])
