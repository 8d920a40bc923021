"""One call that checks a layer, and one that checks a network: that it trains, is saved and reaches a phone.

    check_layer(HardSwish(), (16, 16, 8), int8=True)
    check_network(edgecls.build_model("MobileNetV3_small_x0_35", classes=5, input_size=64, include_preprocessing=True))

Each part can be called on its own, and switched off in the call of all. ``tests/test_layers.py`` uses both.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from quantization import EQUAL, SIZE, network, photos, settled

from edgecls import quantize
from edgecls.export import inspect, verify
from edgecls.export.tflite import to_tflite

Shape = tuple[int, ...]

FLOAT_LIMIT = 1e-4  # of the outputs' range, between Keras and a float file
HALF_LIMIT = 0.02  # of the outputs' range, between float32 and mixed float16


def check_layer(
    layer: keras.layers.Layer,
    input_shape: Shape | list[Shape],
    output_shape: Shape | None = None,
    weights: tuple[int, int] = (0, 0),
    *,
    trains: bool = True,
    mixed: bool = True,
    fp32: bool = True,
    int8: bool = False,
) -> None:
    """Check everything that a layer of ours must do.

    Args:
        layer: A layer that was not called yet. Give it arguments that are not its defaults: only then a forgotten
            key of ``get_config`` shows.
        input_shape: Without the batch axis; a list for a layer that takes several tensors.
        output_shape: Without the batch axis; None: that of the (first) input.
        weights: How many trainable and other numbers its variables hold.
        trains: Its input and each trainable variable get a gradient.
        mixed: It computes in float16 with float32 variables under Keras' policy mixed_float16.
        fp32: TFLite computes the same, in one delegate partition.
        int8: ``quantize_model`` has a rule for it; it then takes maps of (16, 16, 8).

    Raises:
        AssertionError: A check fails; the text says which.
    """
    shapes = input_shape if isinstance(input_shape, list) else [input_shape]
    images = [keras.Input(shape) for shape in shapes]
    model = keras.Model(one_or_all(images), layer(one_or_all(images)), name=layer.name)
    model.set_weights([values + 0.1 * np.abs(noise(values.shape, 9)) for values in model.get_weights()])
    inputs = [noise((2, *shape), seed) for seed, shape in enumerate(shapes)]
    check_shapes(model, layer, inputs, output_shape or shapes[0])
    check_weights(model, weights)
    check_saving(model, inputs)
    if trains:
        check_training(model, inputs)
    if mixed:
        check_mixed_precision(model, inputs)
    if fp32:
        check_float_conversion(model, inputs)
    if int8:
        copy = type(layer).from_config(layer.get_config())
        check_int8_file(network(copy, **EQUAL), photos(SIZE, 8))


def check_network(
    model: keras.Model,
    weights: tuple[int, int] | None = None,
    *,
    trains: bool = True,
    mixed: bool = False,
    fp32: bool = True,
    int8: bool = True,
) -> dict[str, Any]:
    """Check everything that a network from pixels [batch, size, size, 3] to logits [batch, classes] must do.

    Batch statistics become those of some photos, so that values have a healthy size in every layer.

    Args:
        model: Fresh, or with any weights.
        weights: How many trainable and other numbers its variables hold; None is not checked.
        trains: Each trainable variable gets a gradient.
        mixed: It computes in float16 with float32 variables under Keras' policy mixed_float16.
        fp32: The float file computes the same.
        int8: The int8 file is one partition of int8 operations, and within one step of the QAT network.

    Returns:
        ``inspect.describe`` of each file by precision.

    Raises:
        AssertionError: A check fails; the text says which.
    """
    images = photos(model.input_shape[1], 8)
    pixels = [images.astype(np.float32)]
    settled(model, images)
    outputs = np.asarray(model(pixels[0], training=False))
    assert outputs.shape == (len(images), model.output_shape[-1]), f"{model.name}: outputs {outputs.shape}"
    assert outputs.dtype == np.float32, f"{model.name}: outputs are {outputs.dtype}"
    assert np.isfinite(outputs).all(), f"{model.name}: outputs are not finite"
    if weights is not None:
        check_weights(model, weights)
    check_saving(model, pixels)
    if trains:
        check_training(model, pixels, of_input=False)
    if mixed:
        check_mixed_precision(model, pixels)
    files = {"fp32": check_float_file(model, images)} if fp32 else {}
    return files | ({"int8": check_int8_file(model, images)} if int8 else {})


def check_shapes(
    model: keras.Model, layer: keras.layers.Layer, inputs: list[np.ndarray], output_shape: Shape
) -> None:
    """The graph's shape, the layer's own inference of it and the outputs agree; the dtype is the policy's."""
    outputs = compute(model, inputs)
    found = {"of the graph": model.output_shape[1:], "of the outputs": tuple(outputs.shape[1:])}
    if type(layer).compute_output_shape is not keras.layers.Layer.compute_output_shape:
        inferred = layer.compute_output_shape(one_or_all([(None, *values.shape[1:]) for values in inputs]))
        found["of compute_output_shape"] = tuple(inferred)[1:]
    for kind, shape in found.items():
        assert shape == output_shape, f"{layer.name}: the shape {kind} is {shape}, expected {output_shape}"
    dtype = outputs.dtype.name
    assert dtype == layer.compute_dtype, f"{layer.name}: outputs are {dtype}, not {layer.compute_dtype}"


def check_weights(model: keras.Model, expected: tuple[int, int]) -> None:
    """Trainable variables, and others such as running statistics and ranges, hold this many numbers."""
    kinds = model.trainable_weights, model.non_trainable_weights
    sizes = [sum(int(np.prod(v.shape)) for v in kind) for kind in kinds]
    assert tuple(sizes) == expected, f"{model.name}: {sizes} trainable and other weights, not {expected}"


def check_saving(model: keras.Model, inputs: list[np.ndarray]) -> None:
    """A copy made from the configuration, and the network in a .keras file, compute the same bits."""
    expected = compute(model, inputs)
    config = model.get_config()
    json.dumps(config)
    copy = type(model).from_config(config)
    copy.set_weights(model.get_weights())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
    for kind, again in (("from get_config", copy), ("from a .keras file", loaded)):
        same = np.array_equal(compute(again, inputs), expected)
        assert same, f"{model.name}: the copy {kind} computes something else"


def check_training(model: keras.Model, inputs: list[np.ndarray], *, of_input: bool = True) -> None:
    """A step of SGD on a copy: each gradient is there, finite and not all zero, and the loss stays finite."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    tensors, variables = [tf.constant(values) for values in inputs], copy.trainable_variables

    def loss() -> tf.Tensor:
        outputs = compute(copy, tensors, training=True)
        return tf.reduce_mean(outputs * noise(outputs.shape, 1))

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        before = loss()
    gradients = tape.gradient(before, [*variables, *(tensors if of_input else [])])
    names = [*(variable.path for variable in variables), *(f"input {i}" for i in range(len(tensors)))]
    for name, gradient in zip(names, gradients, strict=False):
        assert gradient is not None, f"{model.name}: {name} gets no gradient"
        values = gradient.numpy()
        assert np.isfinite(values).all(), f"{model.name}: the gradient of {name} is not finite"
        assert np.any(values), f"{model.name}: the gradient of {name} is zero"
    if variables:
        keras.optimizers.SGD(0.01).apply(gradients[: len(variables)], variables)
    assert np.isfinite(loss()), f"{model.name}: the loss is not finite after a step"


def check_mixed_precision(model: keras.Model, inputs: list[np.ndarray]) -> None:
    """Under mixed_float16, outputs are float16 and close to float32's, and variables stay float32."""

    def in_half(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(layer.get_config() | {"dtype": "mixed_float16"})

    copy = keras.models.clone_model(model, clone_function=in_half)
    copy.set_weights(model.get_weights())
    outputs, expected = compute(copy, inputs), compute(model, inputs)
    assert outputs.dtype == tf.float16, f"{model.name}: outputs of mixed_float16 are {outputs.dtype.name}"
    wide = [v.path for v in copy.weights if v.dtype == "float16"]
    assert not wide, f"{model.name}: {wide} are float16 under mixed_float16"
    error = np.abs(np.asarray(outputs, np.float32) - expected).max() / np.ptp(expected)
    assert error <= HALF_LIMIT, f"{model.name}: mixed_float16 is {error:.2g} of the range off"


def answer(content: bytes, values: np.ndarray) -> np.ndarray:
    """What a file of one input and one output gives for ``values``."""
    runtime = Interpreter(model_content=content, num_threads=1)
    runtime.allocate_tensors()
    runtime.set_tensor(runtime.get_input_details()[0]["index"], values)
    runtime.invoke()
    return runtime.get_tensor(runtime.get_output_details()[0]["index"])


def check_float_conversion(model: keras.Model, inputs: list[np.ndarray]) -> None:
    """TFLite computes the network's outputs from the same float inputs, all in one delegate partition."""
    specs = [tf.TensorSpec((1, *values.shape[1:])) for values in inputs]
    function = tf.function(lambda *tensors: compute(model, list(tensors)), autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(*specs)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.tflite"
        path.write_bytes(converter.convert())
        file, run = inspect.describe(path), inspect.Runner(path).interpreter
    names = sorted(run.get_input_details(), key=lambda detail: detail["name"])
    for detail, values in zip(names, inputs, strict=True):
        run.set_tensor(detail["index"], values[:1])
    run.invoke()
    expected = np.asarray(compute(model, [values[:1] for values in inputs]))
    error = np.abs(run.get_tensor(run.get_output_details()[0]["index"]) - expected).max()
    assert error <= FLOAT_LIMIT * np.ptp(expected), f"{model.name}: TFLite is {error:.2g} off Keras"
    alone = file["undelegated"]
    assert file["partitions"] <= 1 and not alone, (
        f"{model.name}: outside of the delegate's partition: {alone}"
    )


def check_float_file(model: keras.Model, images: np.ndarray) -> dict[str, Any]:
    """The fp32 file computes the logits of Keras; returns ``inspect.describe`` of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = export(model, folder, "fp32")
        (rung,) = verify.ladder(images, float_model=model, fp32=path)["rungs"]
        assert rung["ok"], f"{model.name}: {rung}"
        return inspect.describe(path)


def check_int8_file(model: keras.Model, images: np.ndarray) -> dict[str, Any]:
    """The int8 file is int8 in one partition and within a step of QAT; returns ``inspect.describe`` of the file."""
    twin = quantize.quantize_model(model)
    quantize.calibrate(twin, [images.astype(np.float32)])
    with tempfile.TemporaryDirectory() as folder:
        path = export(twin, folder, "int8")
        (rung,) = verify.ladder(images, qat_model=twin, int8=path)["rungs"]
        file = inspect.describe(path)
    assert rung["ok"], f"{model.name}: {rung}"
    assert not file["float_ops"], f"{model.name}: {file['float_ops']} are left in float"
    assert file["partitions"] == 1, f"{model.name}: {file['partitions']} delegate partitions"
    alone = set(file["undelegated"]) - {"QUANTIZE", "DEQUANTIZE"}
    assert not alone, f"{model.name}: {alone} are left to the interpreter"
    return file


def export(model: keras.Model, folder: str, precision: Any) -> Path:
    """The network's file, with labels 0, 1, 2 ..."""
    labels = [str(i) for i in range(model.output_shape[-1])]
    return to_tflite(
        model, Path(folder) / f"{precision}.tflite", precision, labels, {"size": model.input_shape[1]}
    )


def compute(model: keras.Model, inputs: list[Any], training: bool = False) -> tf.Tensor:
    """The network's outputs of one tensor or several."""
    return model(one_or_all(inputs), training=training)


def one_or_all(values: list[Any]) -> Any:
    """What Keras takes for the inputs of a layer: one tensor, or a list of several."""
    return values[0] if len(values) == 1 else values


def noise(shape: Shape, seed: int) -> np.ndarray:
    """float32, of deviation 2: it reaches both ends of relu6 and hard-swish."""
    return np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32)
