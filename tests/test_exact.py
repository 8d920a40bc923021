"""A finalized network computes the integers of its file: every tensor between layers, not only the logits."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from quantization import BLOCKS, EQUAL, IMAGENET, SIZE, logits, network, photos, settled

from edgecls import quantize
from edgecls.errors import UsageError
from edgecls.export import flatbuffer, verify
from edgecls.export.tflite import to_tflite
from edgecls.quantize.exact import added
from edgecls.quantize.layers import Quantize
from edgecls.quantize.rules.gates import TABLES, Table
from edgecls.zoo import blocks, build_model
from edgecls.zoo import layers as zoo_layers

CALIBRATION, IMAGES = np.split(photos(SIZE, 80), [16])


def final(model: keras.Model, images: np.ndarray = CALIBRATION) -> keras.Model:
    network = quantize.quantize_model(model)
    quantize.calibrate(network, [images.astype(np.float32)])
    quantize.finalize(network)
    return network


def exported(model: keras.Model, folder: Path) -> Path:
    classes = [str(i) for i in range(model.output_shape[-1])]
    return to_tflite(model, folder / "int8.tflite", "int8", classes, {"size": model.input_shape[1]})


def assert_equal_integers(model: keras.Model, path: Path, images: np.ndarray) -> None:
    """For each grid of ``model`` the file has one tensor with exactly its integers, on all images."""
    grids = {
        layer.name: layer.output[0] if isinstance(layer.output, list) else layer.output
        for layer in model.layers
        if isinstance(layer, Quantize)
    }
    expected = keras.Model(model.input, grids)(images.astype(np.float32), training=False)
    expected = {
        name: np.rint(np.asarray(values) / (np.ptp(model.get_layer(name).range) / 255))
        for name, values in expected.items()
    }
    file = Interpreter(str(path), experimental_preserve_all_tensors=True)
    file.allocate_tensors()
    assert any(op["op_name"] == "DELEGATE" for op in file._get_ops_details())
    candidates: dict[str, set[int]] = {}
    for i, image in enumerate(images):
        file.set_tensor(file.get_input_details()[0]["index"], image[None])
        file.invoke()
        found = {}
        for tensor in file.get_tensor_details():
            if tensor["dtype"] == np.int8 and tensor["shape"].size in (2, 4):
                try:
                    values = file.get_tensor(tensor["index"])
                except ValueError:  # inside a fused op
                    continue
                found[tensor["index"]] = values.ravel().astype(int) - tensor["quantization"][1]
        for name, values in expected.items():
            equal = {index for index, own in found.items() if np.array_equal(own, values[i].ravel())}
            candidates[name] = candidates.get(name, equal) & equal
            assert candidates[name], f"{name}: image {i} differs"


@pytest.mark.parametrize("block", BLOCKS)
def test_every_tensor_of_a_block(block: str, tmp_path) -> None:
    model = final(network(BLOCKS[block], **(IMAGENET if len(block) % 2 else EQUAL)))
    path = exported(model, tmp_path)
    assert_equal_integers(model, path, IMAGES)
    assert verify.ladder(IMAGES, qat_model=model, int8=path)["rungs"][0]["max_steps"] == 0


def test_mobilenet_v3(tmp_path) -> None:
    keras.utils.set_random_seed(0)
    images = photos(64, 24)
    model = build_model("MobileNetV3_small_x0_35", classes=5, input_size=64, include_preprocessing=True)
    model = final(settled(model, images), images)
    path = exported(model, tmp_path)
    assert_equal_integers(model, path, images)
    assert verify.ladder(images, qat_model=model, int8=path)["rungs"][0]["max_steps"] == 0


def test_means_of_many_sizes(tmp_path) -> None:
    """Sums of few steps lie halfway between two results: any other order of the float32 operations shows."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((42, 42, 3), name="image")
    x = blocks.conv_bn(zoo_layers.Normalize(**EQUAL, name="normalize")(x), 64, 3, name="stem")
    ends = [
        layers.GlobalAveragePooling2D(name=f"mean{n}")(layers.MaxPooling2D(n, name=f"max{n}")(x))
        for n in (2, 3, 6, 7, 14)
    ]
    flat = layers.Add(name="sum")([layers.Add(name="first")(ends[:2]), ends[2]])
    for end, name in zip(ends[3:], ("third", "fourth"), strict=True):
        flat = layers.Add(name=name)([flat, end])
    model = keras.Model(image, layers.Dense(5, name="fc")(flat))
    pictures = photos(42, 48)
    model = final(settled(model, pictures), pictures)
    assert_equal_integers(model, exported(model, tmp_path), pictures)


def test_pixels_from_minus_one_to_one(tmp_path) -> None:
    """Each lies halfway between two steps."""
    model = final(network(BLOCKS["conv"], [0.5] * 3, [0.5] * 3))
    assert_equal_integers(model, exported(model, tmp_path), IMAGES)


def test_sums_round_halves_up() -> None:
    a, b = tf.constant([1.0, -1.0, 3.0, -3.0, 255.0]), tf.constant([0.0, 0.0, 0.0, 0.0, 255.0])
    np.testing.assert_array_equal(added(a, b, (0.5, 0.25, 1.0)), [1.0, 0.0, 2.0, -1.0, 191.0])


def logistic_steps() -> list[float]:
    """Steps of which one or several make a sigmoid in steps of 1/256 a half, and the floats beside them."""
    halves, counts = np.meshgrid(np.arange(0.5, 128), [-120, -97, -61, -33])
    exact = (np.log(256 / halves - 1) / -counts).astype(np.float32).ravel()
    steps = np.concatenate([np.nextafter(exact, np.float32(0)), exact, np.nextafter(exact, np.float32(1))])
    return steps[(steps > 1e-3) & (steps < 0.5)].tolist()


STEPS = {  # the runtime's tanh is that of the C library, whose last digit no other has: no halves there
    "sigmoid": logistic_steps(),
    "tanh": np.geomspace(1e-3, 0.3, 300, dtype=np.float32).tolist(),
}


@pytest.mark.parametrize("function", TABLES)
def test_tables_are_those_of_the_runtime(function: str) -> None:
    (low, high), compute = TABLES[function]
    concrete = tf.function(compute).get_concrete_function(tf.TensorSpec((1, 256), tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: [[np.linspace(-5, 5, 256, dtype=np.float32)[None]]]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    file = flatbuffer.unpack(converter.convert())
    grid, target = file.subgraphs[0].tensors[file.subgraphs[0].inputs[0]].quantization, (high - low) / 255
    grid.zeroPoint = [zero := 5]
    counts = np.arange(-128, 128)[None]
    for step in STEPS[function]:
        grid.scale = [step]
        runtime = Interpreter(model_content=flatbuffer.pack(file, 4096), num_threads=1)
        runtime.allocate_tensors()
        runtime.set_tensor(runtime.get_input_details()[0]["index"], counts.astype(np.int8))
        runtime.invoke()
        (output,) = runtime.get_output_details()
        expected = (runtime.get_tensor(output["index"]).astype(int) - output["quantization"][1]) * target
        ours = Table(function, steps=(step, target))(tf.constant((counts - zero) * np.float32(step)))
        np.testing.assert_array_equal(np.clip(ours, low, high), expected, err_msg=f"step {step}")


def test_graph_and_loaded_network_compute_the_same(tmp_path) -> None:
    model = final(network(BLOCKS["hard_swish_chain"], **IMAGENET))
    expected = logits(model, IMAGES)
    model.save(tmp_path / "qat.keras")
    loaded = keras.models.load_model(tmp_path / "qat.keras")
    np.testing.assert_array_equal(logits(loaded, IMAGES), expected)
    graph = tf.function(lambda pixels: loaded(pixels, training=False))
    np.testing.assert_array_equal(graph(tf.constant(IMAGES, tf.float32)), expected)
    singly = np.concatenate([logits(loaded, image[None]) for image in IMAGES[:8]])
    np.testing.assert_array_equal(singly, expected[:8])
    before = [variable.numpy() for variable in loaded.variables]
    quantize.finalize(loaded)  # nothing is left to do
    for variable, value in zip(loaded.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_finalizing_changes_little_and_ends_training() -> None:
    model = quantize.quantize_model(network(BLOCKS["residual"], **EQUAL))
    quantize.calibrate(model, [CALIBRATION.astype(np.float32)])
    before = logits(model, IMAGES)
    quantize.finalize(model)
    after, step = logits(model, IMAGES), np.ptp(model.layers[-1].range) / 255
    with quantize.exact_arithmetic(model, on=False):
        in_float = logits(model, IMAGES)
    for other in (before, in_float):
        assert np.abs(after - other).max() < 4 * step
    with pytest.raises(UsageError, match="does not train"):
        model(IMAGES.astype(np.float32), training=True)
