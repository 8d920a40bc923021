"""What an int8 file promises is checked: operations in float, partitions and other answers fail with a reason."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from edgecls.export import inspect
from edgecls.export.gates import gates
from edgecls.export.reasons import PIXELS, Tensor, reason

FILE = "model_int8.tflite"


def stock(folder, function, shape=(1, 8, 8, 4)):
    """What TensorFlow's own converter makes of a function in int8: it quantizes what it can."""
    rng = np.random.default_rng(0)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32))]
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([rng.normal(size=shape).astype(np.float32)] for _ in range(4))
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    (folder / FILE).write_bytes(converter.convert())
    return inspect.describe(folder / FILE)


def reasons(about, **options):
    result = {"rungs": [], "files": {FILE: about}}
    return [text for rung in gates(result, **options) for text in rung.get("reasons", [])]


def test_kinds_that_leave_the_delegate_are_named(tmp_path) -> None:
    kernel = tf.constant(np.random.default_rng(1).normal(size=(3, 3, 4, 4)), tf.float32)

    def hard_swish(x):
        x = tf.nn.conv2d(x, kernel, 1, "SAME")
        return tf.nn.conv2d(x * tf.nn.relu6(x + 3) * (1 / 6), kernel, 1, "SAME")

    about = stock(tmp_path, hard_swish)
    (outside,) = [op for op in about["outside"] if op["op"] == "HARD_SWISH"]
    assert outside["reason"] == "kind: XNNPACK has no int8 kernel for it"
    found = reasons(about)
    assert found[0] == "2 partitions"
    assert any(text.startswith("HARD_SWISH ") and "outside of the delegate" in text for text in found)
    assert not reasons(about, max_partitions=2)


def test_sums_of_three_are_found_in_float(tmp_path) -> None:
    def three(x):
        return tf.add_n([x, tf.nn.relu(x), tf.nn.sigmoid(x)])

    about = stock(tmp_path, three)
    assert any("ADD_N" in text and "float" in text for text in reasons(about)), about


def test_concatenations_of_too_many_are_counted(tmp_path) -> None:
    about = stock(tmp_path, lambda x: tf.concat([tf.nn.relu(x + float(i)) for i in range(6)], -1))
    (outside,) = [op for op in about["outside"] if op["op"] == "CONCATENATION"]
    assert outside["reason"] == "inputs: 6 of them, and XNNPACK takes 2 to 5"


def test_grids() -> None:
    fine, coarse, other = Tensor(np.int8, 1e-4, 0), Tensor(np.int8, 1.0, 0), Tensor(np.int8, 1.0, 3)
    assert reason("ADD", [fine, coarse], [coarse]).startswith("grid: an input's step is 0.0001 of")
    assert reason("MUL", [fine, fine], [coarse]).startswith("grid: the inputs' steps make 1e-08")
    assert reason("RESHAPE", [coarse], [other]).startswith("grid: 2 grids")
    assert "zero is 3" in reason("BATCH_MATMUL", [coarse, other], [coarse])
    assert reason("ADD", [coarse, other], [coarse]).startswith("unknown")
    assert reason("QUANTIZE", [Tensor(np.uint8, 1.0, 0)], [coarse]) == PIXELS


def test_other_answers_are_counted_in_percent() -> None:
    rung = {"name": "float.keras ~ model_int8.tflite", "top1_agreement": 0.97}
    result = {"rungs": [rung], "files": {}}
    assert [g["ok"] for g in gates(result, max_drop=3)] == [True]
    assert [g["reasons"] for g in gates(result, max_drop=2.5)] == [["3.0 % of the answers differ"]]
    assert gates(result) == []


def test_what_was_asked_to_stay_in_float_may() -> None:
    about = {"float_ops": ["CONV_2D"], "partitions": 1, "quantized": True, "outside": [], "kept_float": True}
    assert not reasons(about)
    assert reasons(about | {"kept_float": False}) == ["CONV_2D computes in float"]
    assert not reasons(about | {"quantized": False})
