"""Exported files: int8 throughout, one delegate partition, the numbers of Keras, and everything a phone must know."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from quantization import BLOCKS, EQUAL, IMAGENET, SIZE, network, photos, settled

from edgecls import quantize
from edgecls.errors import EdgeclsError, UsageError
from edgecls.export import inspect, metadata, tflite, verify
from edgecls.export.tflite import convert, to_tflite
from edgecls.zoo import build_model
from edgecls.zoo.layers import Normalize

IMAGES = photos(SIZE, 16)
CLASSES = ["cell", "crack", "größe", "d", "e"]
PREPROCESS = {
    "size": SIZE,
    "resize_short": 36,
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


def twin(model: keras.Model, images: np.ndarray = IMAGES) -> keras.Model:
    network = quantize.quantize_model(model)
    quantize.calibrate(network, [images.astype(np.float32)])
    return network


@pytest.mark.parametrize("shape", [(1, 6, 6, 3), (1, 4, 7, 3), (1, 5, 3, 1)])
def test_pixels_are_normalized_by_rows_to_the_bit(shape) -> None:
    layer = Normalize([0.485, 0.456, 0.406][: shape[-1]], [0.229, 0.224, 0.225][: shape[-1]])
    pixels = np.random.default_rng(1).integers(0, 256, shape).astype(np.float32)
    np.testing.assert_array_equal(tflite._normalized(tf.constant(pixels), layer), layer(pixels))


def test_more_than_a_file_holds(tmp_path, monkeypatch) -> None:
    model = network(BLOCKS["residual"], **EQUAL)
    monkeypatch.setattr(tflite, "MAX_BYTES", 4 * model.count_params())
    with pytest.raises(EdgeclsError, match=r"at most 2 GB.*in fp32"):
        to_tflite(model, tmp_path / "model.tflite", "fp32", CLASSES, PREPROCESS)
    assert not list(tmp_path.iterdir())
    to_tflite(model, tmp_path / "half.tflite", "fp16", CLASSES, PREPROCESS)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_int8_in_one_partition(block: str, tmp_path) -> None:
    model = network(BLOCKS[block], **(EQUAL if len(block) % 2 else IMAGENET))
    qat = twin(model)
    fp32, int8 = (
        to_tflite(net, tmp_path / f"{precision}.tflite", precision, CLASSES, PREPROCESS)
        for net, precision in ((model, "fp32"), (qat, "int8"))
    )
    result = verify.ladder(IMAGES, model, fp32, qat, int8)
    exact, steps, _ = result["rungs"]
    assert exact["ok"], exact
    assert steps["ok"], steps
    file = result["files"]["int8.tflite"]
    assert file["float_ops"] == []
    assert file["partitions"] == 1, file
    assert set(file["undelegated"]) <= {"QUANTIZE", "DEQUANTIZE"}
    assert "HARD_SWISH" not in file["ops"]


def test_mobilenet_v3(tmp_path) -> None:
    images = photos(64, 12)
    keras.utils.set_random_seed(0)
    model = build_model("MobileNetV3_small_x0_35", classes=5, input_size=64, include_preprocessing=True)
    qat = twin(settled(model, images), images)
    int8 = to_tflite(qat, tmp_path / "int8.tflite", "int8", CLASSES, PREPROCESS)
    fp32 = to_tflite(model, tmp_path / "fp32.tflite", "fp32", CLASSES, PREPROCESS)
    file = inspect.describe(int8)
    assert (file["partitions"], file["float_ops"], file["undelegated"]) == (1, [], ["QUANTIZE"])
    assert inspect.describe(fp32)["ops"]["HARD_SWISH"] == 19  # the textbook form, which float kernels have
    rung = verify.ladder(images, model, fp32, qat, int8)["rungs"][0]
    assert rung["ok"], rung


@pytest.mark.parametrize("dead", ["kernel", "gamma", "activation"])
def test_dead_channels(dead: str, tmp_path) -> None:
    """XNNPACK crashes on scales that are out of its bounds."""
    model = network(BLOCKS["hard_swish_chain"], **EQUAL)
    if dead == "kernel":
        for name in ("expand.conv", "project.conv"):
            kernel = model.get_layer(name).kernel
            kernel.assign(kernel * (np.arange(kernel.shape[-1]) % 2))
    elif dead == "gamma":
        model.get_layer("depthwise.bn").gamma.assign(np.arange(16) % 2)
        model.get_layer("project.bn").gamma.assign(np.arange(8) % 2)
    else:
        model.get_layer("se.conv1").bias.assign(np.full(4, -100.0))  # nothing comes through the ReLU
    qat = twin(model)
    int8 = to_tflite(qat, tmp_path / "int8.tflite", "int8", CLASSES, PREPROCESS)
    file = inspect.describe(int8)
    assert (file["partitions"], file["float_ops"]) == (1, [])
    rung = verify.ladder(IMAGES, qat_model=qat, int8=int8)["rungs"][0]
    assert rung["ok"], rung


def test_input_output_and_signature(tmp_path) -> None:
    qat = twin(network(BLOCKS["conv"], **EQUAL))
    for output, dtype in (("float", np.float32), ("uint8", np.uint8)):
        path = to_tflite(qat, tmp_path / f"{output}.tflite", "int8", CLASSES, PREPROCESS, output=output)
        run = inspect.Runner(path)
        assert (run.input["dtype"], list(run.input["shape"])) == (np.uint8, [1, SIZE, SIZE, 3])
        assert (run.output["dtype"], list(run.output["shape"])) == (dtype, [1, 5])
        assert run.input["quantization"] == (pytest.approx(1 / 128), 127)
        assert not [t["name"] for t in run.interpreter.get_tensor_details() if ";" in t["name"]]
        serve = Interpreter(str(path)).get_signature_runner("serving_default")
        assert serve(image=IMAGES[:1])["logits"].shape == (1, 5)
    files = [inspect.Runner(tmp_path / f"{output}.tflite")(IMAGES) for output in ("float", "uint8")]
    np.testing.assert_allclose(*files, atol=1e-5)
    assert inspect.output_step(tmp_path / "float.tflite") == inspect.output_step(tmp_path / "uint8.tflite")


def test_fp16_halves_the_file(tmp_path) -> None:
    model = build_model("MobileNetV3_small_x0_35", classes=5, input_size=32, include_preprocessing=True)
    sizes = {
        p: to_tflite(model, tmp_path / f"{p}.tflite", p, CLASSES, PREPROCESS).stat().st_size
        for p in ("fp32", "fp16")
    }
    assert sizes["fp16"] < 0.6 * sizes["fp32"]


def test_metadata_comes_back(tmp_path) -> None:
    model = network(BLOCKS["conv"], **EQUAL)
    preprocess = SimpleNamespace(to_dict=lambda: PREPROCESS)
    fp32 = metadata.read(to_tflite(model, tmp_path / "a.tflite", "fp32", CLASSES, preprocess))
    int8 = metadata.read(to_tflite(twin(model), tmp_path / "b.tflite", "int8", CLASSES, PREPROCESS))
    for found in (fp32, int8):
        assert found["classes"] == CLASSES
        assert found["preprocess"] == PREPROCESS
        assert found["signatures"] == ["serving_default"]
        assert found["name"] == "small"
    assert fp32["normalization"] == {"mean": [0.0], "std": [1.0]}  # uint8 pixels are taken as they are
    assert int8["normalization"] == {
        "mean": [127.0],
        "std": [128.0],
    }  # and come back to themselves when quantized
    assert zipfile.ZipFile(tmp_path / "a.tflite").namelist() == ["labels.txt", "edgecls.json"]


def test_the_resize_is_named_exactly(tmp_path) -> None:
    """In the standard table, which any tool shows, and in our JSON."""
    model = network(BLOCKS["conv"], **EQUAL)
    path = to_tflite(model, tmp_path / "a.tflite", "fp32", CLASSES, PREPROCESS)
    exact = "bilinear, half-pixel centers, no anti-aliasing; OpenCV INTER_LINEAR"
    details = json.loads(zipfile.ZipFile(path).read("edgecls.json"))
    assert exact in details["preprocess_text"]
    assert f"RGB photo: {details['preprocess_text']}".encode() in path.read_bytes()
    path = to_tflite(model, tmp_path / "b.tflite", "fp32", CLASSES, PREPROCESS | {"antialias": True})
    assert b"anti-aliasing; PIL resize(BILINEAR)" in path.read_bytes()
    assert metadata.read(path)["preprocess"]["antialias"] is True


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("labels.txt", b"a\n" * 50_000_000, r"labels\.txt is larger than 8 MB"),
        ("edgecls.json", b" " * 200_000_000, r"edgecls\.json is larger than 8 MB"),
        ("labels.txt", b"gr\xf6\xdfe", "utf-8"),
        ("edgecls.json", b"[" * 100_000, "recursion"),
        ("edgecls.json", b"[]", "not a JSON object"),
    ],
)
def test_metadata_of_strangers(name: str, content: bytes, reason: str, tmp_path) -> None:
    """A zip bomb, or another fault, is one line, and no more than the limit is unpacked."""
    path = tmp_path / "bomb.tflite"
    path.write_bytes(convert(network(BLOCKS["conv"], **EQUAL), "fp32"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    del content
    tracemalloc.start()
    with pytest.raises(UsageError, match=reason) as error:
        metadata.read(path)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert "\n" not in str(error.value) and "bomb.tflite" in str(error.value)


def test_only_a_line_feed_ends_a_label(tmp_path) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(convert(network(BLOCKS["conv"], **EQUAL), "fp32"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "one\u2028label\nvertical\x0btab\n")
    assert metadata.read(path)["classes"] == ["one\u2028label", "vertical\x0btab"]


def test_same_model_same_bytes(tmp_path) -> None:
    model = network(BLOCKS["conv"], **EQUAL)
    files = [to_tflite(model, tmp_path / f"{i}.tflite", "fp32", CLASSES, PREPROCESS) for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_equal_vectors_are_in_a_file_once() -> None:
    """Of one type: the same bytes as weights and as zero points are two, since weights are aligned."""
    content = np.arange(64, dtype=np.int64)
    builder = metadata._Builder(64)
    vectors = [builder.CreateNumpyVector(content), builder.CreateNumpyVector(content.copy())]
    vectors += [builder.aligned(content.view(np.uint8)), builder.aligned(content.view(np.uint8).tolist())]
    assert vectors[0] == vectors[1] != vectors[2] == vectors[3]
    assert (vectors[2] - 4) % metadata._Builder.ALIGNMENT == 0
    assert builder.Offset() < 2.2 * content.nbytes


def test_errors_leave_nothing_behind(tmp_path) -> None:
    model = network(BLOCKS["conv"], **EQUAL)
    path = tmp_path / "x.tflite"
    with pytest.raises(UsageError, match="quantization-aware"):
        to_tflite(model, path, "int8", CLASSES, PREPROCESS)
    with pytest.raises(UsageError, match="float network"):
        to_tflite(twin(model), path, "fp32", CLASSES, PREPROCESS)
    with pytest.raises(UsageError, match="4 labels for 5"):
        to_tflite(model, path, "fp32", CLASSES[:4], PREPROCESS)
    with pytest.raises(UsageError, match="line break"):
        to_tflite(model, path, "fp32", ["a\nb", *CLASSES[1:]], PREPROCESS)
    dense = next(layer for layer in model.layers if isinstance(layer, layers.Dense))
    dense.bias.assign(np.full(5, np.nan))
    with pytest.raises(EdgeclsError, match="not finite"):
        to_tflite(model, path, "fp32", CLASSES, PREPROCESS)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "text.tflite").write_text("hello, this is no model")
    with pytest.raises(UsageError, match="not a TFLite file"):
        metadata.read(tmp_path / "text.tflite")


def test_scores(tmp_path) -> None:
    """Probabilities are the softmax of the logits, computed in the delegate; the ladder holds with both."""
    model = network(BLOCKS["residual"], **EQUAL)
    qat, runs = twin(model), {}
    for scores in ("softmax", "logits"):
        fp32, int8 = (
            to_tflite(net, tmp_path / f"{p}.tflite", p, CLASSES, PREPROCESS, scores=scores)
            for net, p in ((model, "fp32"), (qat, "int8"))
        )
        result = verify.ladder(IMAGES, model, fp32, qat, int8)
        assert [rung.get("ok") for rung in result["rungs"]] == [True, True, None], result["rungs"]
        assert (result["files"]["int8.tflite"]["partitions"], inspect.describe(int8)["float_ops"]) == (1, [])
        runs[scores] = [inspect.Runner(path) for path in (fp32, int8)]
        name = "probabilities" if scores == "softmax" else "logits"
        assert list(Interpreter(str(int8)).get_signature_runner().get_output_details()) == [name]
        assert name.encode() + b", one a class" in int8.read_bytes()
    for with_softmax, without in zip(*runs.values(), strict=True):
        exp = np.exp(without.outputs(IMAGES).astype(float))
        np.testing.assert_allclose(
            with_softmax.outputs(IMAGES), exp / exp.sum(1, keepdims=True), rtol=1e-5, atol=1e-7
        )
        np.testing.assert_array_equal(with_softmax(IMAGES).argmax(1), without(IMAGES).argmax(1))
    raw = to_tflite(qat, tmp_path / "raw.tflite", "int8", CLASSES, PREPROCESS, "uint8", "softmax")
    assert inspect.Runner(raw).head is None
