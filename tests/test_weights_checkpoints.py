"""Weights files as people have them: in wrappers, beside an optimizer, averaged, in bfloat16, folded, of other suffixes."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
import struct
import zipfile

import exported
import keras
import numpy as np
import pytest

import edgecls
from edgecls.errors import UsageError
from edgecls.weights import checkpoint, formats, readers
from edgecls.weights.load import from_torch, state

SHAPES = {"conv.weight": (4, 3, 1, 1), "conv.bias": (4,), "fc.weight": (4, 2), "fc.bias": (2,)}


def network(classes=2):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 1, name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="fc")(x), name="tiny")


def numbers(shapes=None, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype("float32") for name, shape in (shapes or SHAPES).items()}


def under(prefix, arrays):
    return {f"{prefix}{name}": value for name, value in arrays.items()}


MINE, OTHER, LARGER = numbers(), numbers(seed=1), numbers({"conv.weight": (8, 3, 1, 1), "conv.bias": (8,)})
OPTIMIZER = {"state": {0: {"momentum": np.ones(4)}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
CHECKPOINTS = {  # what is in the file, and the prefix that the network is found behind
    "as it is": (MINE, ""),
    "a counter beside it": (MINE | {"epoch": 3}, ""),
    "PaddlePaddle's names": (MINE | {"StructuredToParameterName@@": {"fc.bias": "b_0"}}, ""),
    "data parallel": (under("_layers.", MINE), "_layers."),
    "wrapped twice": (under("module.model.", MINE), "module.model."),
    "a trainer's": ({"model": MINE, "optimizer": OPTIMIZER}, "model."),
    "an averaged one, too": ({"state_dict": MINE, "state_dict_ema": OTHER, "epoch": 7}, "state_dict_ema."),
    "a student and its larger teacher": (under("Student.", MINE) | under("Teacher.", LARGER), "Student."),
    "a teacher alone fits": (under("Student.", LARGER) | under("Teacher.", MINE), "Teacher."),
    "both fit": (under("Student.", MINE) | under("Teacher.", OTHER), "Student."),
    "a backbone": (under("backbone.", MINE) | {"neck.weight": np.ones((4, 9))}, "backbone."),
}


@pytest.mark.parametrize("suffix", [".pdparams", ".PDPARAMS"])
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_the_network_in_a_checkpoint(tmp_path, kind, suffix):
    content, prefix = CHECKPOINTS[kind]
    file = tmp_path / f"w{suffix}"
    file.write_bytes(pickle.dumps(content, 2))
    model = network()
    report = edgecls.load_weights(model, file, strict=True)
    expect = OTHER if "ema" in prefix else MINE
    assert report.taken == prefix and (not prefix or prefix.rstrip(".") in str(report))
    assert all(np.array_equal(value, expect[name]) for name, value in state(model).items())


def test_two_networks_that_fit_are_not_guessed(tmp_path):
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(under("a.", MINE) | under("b.", OTHER)))
    model = network()
    before = state(model)
    with pytest.raises(readers.WeightsError, match=r"w\.pdparams: several networks fit: a, b"):
        edgecls.load_weights(model, tmp_path / "w.pdparams")
    assert all(np.array_equal(value, before[name]) for name, value in state(model).items())


def test_the_options_of_a_trainer_are_not_looked_at():
    content = {"args": argparse.Namespace(lr=1, nested=argparse.Namespace(a=2)), "best": np.float64(0.5)}
    read = readers._TorchUnpickler(io.BytesIO(pickle.dumps(content, 2))).load()
    assert isinstance(read["args"], readers.Setting) and not readers.flat(read)


def test_a_prefix_of_too_few_arrays_is_no_network():
    arrays = {"head.fc.weight": np.ones((4, 2))}
    assert checkpoint.network_of(arrays, SHAPES | {"more": ()}, dict) == (arrays, "")


def test_bfloat16(tmp_path):
    upper = {name: (value.view(np.uint32) >> 16).astype(np.uint16) for name, value in MINE.items()}
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(upper))
    model = network()
    edgecls.load_weights(model, tmp_path / "w.pdparams", strict=True)
    for name, value in state(model).items():
        assert np.allclose(value, MINE[name], rtol=2**-7, atol=0) and not np.array_equal(value, MINE[name])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_quantized_kernels_are_refused(tmp_path, dtype):
    content = MINE | {"conv.weight": np.ones(SHAPES["conv.weight"], dtype)}
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(content))
    with pytest.raises(
        readers.WeightsError, match=rf"w\.pdparams: conv\.weight is of whole numbers \({dtype}\)"
    ):
        edgecls.load_weights(network(), tmp_path / "w.pdparams")


def safetensors(path, arrays, dtype="F32"):
    """Write a file as the format's page says."""
    contents, data = {"__metadata__": {"format": "pt"}}, b""
    for name, value in arrays.items():
        raw = value.tobytes()
        contents[name] = {
            "dtype": dtype,
            "shape": value.shape,
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    head = json.dumps(contents).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def test_safetensors(tmp_path):
    theirs = {
        name: np.ascontiguousarray(a.T) if a.ndim == 2 else a for name, a in under("model.", MINE).items()
    }
    file = tmp_path / "w.safetensors"
    safetensors(file, theirs)
    model = network()
    assert edgecls.load_weights(model, file, strict=True).taken == "model."
    assert all(np.array_equal(value, MINE[name]) for name, value in state(model).items())
    raw = file.read_bytes()
    for bad in (b"", raw[:5], raw[:40], raw[:-1], b"\xff" * 64):
        file.write_bytes(bad)
        with pytest.raises(readers.WeightsError, match=r"w\.safetensors"):
            edgecls.load_weights(model, file)
    safetensors(file, theirs, "F8_E4M3")
    with pytest.raises(readers.WeightsError, match="F8_E4M3"):
        edgecls.load_weights(model, file)


@pytest.mark.parametrize(
    "name", ["NET.PTH.TAR", "net.pth.tar", "net.Bin", "a.b.HDF5", "x.SafeTensors", "w.NPZ"]
)
def test_suffixes_in_any_case(name):
    assert formats.suffix(name) in formats.SUFFIXES


@pytest.mark.parametrize("suffix", formats.OTHERS)
def test_other_files_are_named_for_what_they_are(tmp_path, suffix):
    file = tmp_path / f"inference{suffix}"
    file.touch()
    with pytest.raises(UsageError) as caught:
        edgecls.load_weights(network(), file)
    what, fix = formats.OTHERS[suffix]
    assert what in str(caught.value) and fix in str(caught.value)


def test_a_checkpoint_named_as_the_manual_does(tmp_path):
    (tmp_path / "ppcls.pdparams").write_bytes(pickle.dumps(MINE))
    (tmp_path / "ppcls.pdopt").touch()
    assert len(edgecls.load_weights(network(), tmp_path / "ppcls", strict=True).loaded) == 4


# Folded normalizations


def normalized(epsilon=1e-3):
    """A convolution with a normalization behind it, one before a convolution, and one behind a sum."""
    inputs = keras.Input((8, 8, 3))
    x = first = keras.layers.Conv2D(4, 1, name="conv", use_bias=False)(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm", epsilon=epsilon)(first))
    y = keras.layers.Conv2D(4, 1, name="conv2")(x)
    y = keras.layers.BatchNormalization(name="norm2", scale=False)(y)
    y = keras.layers.BatchNormalization(name="late")(keras.layers.Add()([x, y]))
    y = keras.layers.GlobalAveragePooling2D()(y)
    return keras.Model(inputs, keras.layers.Dense(2, name="fc")(y), name="tiny")


def test_an_onnx_file_with_folded_norms_and_shared_arrays(tmp_path):
    rng = np.random.default_rng(3)
    original = normalized()
    for variable in original.variables:
        if variable.dtype == "float32":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    values = state(original)
    shared = np.float32([0.3, 0.1, 0.2, 0.4])
    values["late.bias"] = values["late._mean"] = shared
    edgecls.load_weights(original, values)

    def fold(conv, norm, epsilon):
        gain = values.get(f"{norm}.weight", 1) / np.sqrt(values[f"{norm}._variance"] + epsilon)
        bias = values.get(f"{conv}.bias", 0) - values[f"{norm}._mean"]
        return values[f"{conv}.weight"] * gain[:, None, None, None], bias * gain + values[f"{norm}.bias"]

    stored = {"shared": shared, "late.w": values["late.weight"], "late.v": values["late._variance"]}
    stored["a.w"], stored["a.b"] = fold("conv", "norm", 1e-3)
    stored["b.w"], stored["b.b"] = fold("conv2", "norm2", 1e-3)
    stored["fc.w"], stored["fc.b"] = values["fc.weight"], values["fc.bias"]

    def node(kind, inputs, output):
        return exported.message(*((1, name) for name in inputs), (2, output), (4, kind))

    nodes = [
        node("Identity", ["shared"], "shared.again"),
        node("Conv", ["x", "a.w", "a.b"], "1"),
        node("Relu", ["1"], "2"),
        node("Identity", ["2"], "2b"),
        node("Conv", ["2b", "b.w", "b.b"], "3"),
        node("Add", ["2b", "3"], "4"),
        node("BatchNormalization", ["4", "late.w", "shared", "shared.again", "late.v"], "5"),
        node("GlobalAveragePool", ["5"], "6"),
        node("Flatten", ["6"], "7"),
        node("Gemm", ["7", "fc.w", "fc.b"], "out"),
    ]
    tensors = [
        exported.message(*((1, n) for n in a.shape), (2, 1), (9, a.astype("f4").tobytes()), (8, name))
        for name, a in stored.items()
    ]
    graph = exported.message(*((1, n) for n in nodes), *((5, t) for t in tensors))
    (tmp_path / "net.onnx").write_bytes(exported.message((1, 8), (7, graph)))
    again = normalized()
    report = edgecls.load_weights(again, tmp_path / "net.onnx", strict=True)
    assert not report.differences()
    pixels = rng.normal(size=(2, 8, 8, 3)).astype("float32")
    assert np.allclose(again(pixels), original(pixels), rtol=1e-5, atol=1e-5)


def test_a_quantized_onnx_file_is_named(tmp_path):
    node = exported.message((1, "x"), (2, "y"), (4, "QLinearConv"))
    (tmp_path / "q.onnx").write_bytes(exported.message((7, exported.message((1, node)))))
    with pytest.raises(readers.WeightsError, match=r"a quantized network \(QLinearConv\)"):
        edgecls.load_weights(network(), tmp_path / "q.onnx")


def test_a_prefix_is_taken_off_before_names_are_translated():
    """``from_torch`` knows names of a whole network only."""
    arrays = {"module._conv_stem.weight": np.ones((4, 3, 2, 2)), "module._bn0.running_var": np.ones(4)}
    shapes = {"stem.conv.weight": (4, 3, 2, 2), "stem.bn._variance": (4,)}
    found, prefix = checkpoint.network_of(arrays, shapes, lambda a: from_torch(a, "EfficientNetLite0"))
    assert prefix == "module." and set(found) == set(shapes)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_that_are_views_of_others(tmp_path, protocol, axes):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(axes)
    file = tmp_path / "w.pdparams"
    file.write_bytes(pickle.dumps({"w": array}, protocol))
    np.testing.assert_array_equal(readers.read_pdparams(file)["w"], array)


def packed(name, content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


ARRAYS = pickle.dumps({"w": np.zeros(3, np.float32)}, 2)
NPY = io.BytesIO()
np.save(NPY, np.zeros(3, np.float32))
WRONG = {
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "page.pth": (b"\n<!DOCTYPE html>\n<html>", "a web page: download the file itself"),
    "empty.onnx": (b"", "it is empty"),
    "packed.pdparams": (gzip.compress(ARRAYS), "packed with gzip"),
    "archive.pth": (packed("readme.txt", "x"), "a zip archive: unpack it"),
    "paddle.pth": (ARRAYS, "it looks like a .pdparams file: give it that suffix"),
    "torch.pdparams": (packed("archive/data.pkl", b"\x80\x02}."), "it looks like a .pth file"),
    "safe.pth": (struct.pack("<Q", 2) + b"{}", "it looks like a .safetensors file"),
    "numpy.pdparams": (packed("w.npy", NPY.getvalue()), "it looks like a .npz file"),
    "h5.keras": (b"\x89HDF\r\n\x1a\n", "it looks like a .h5 file"),
    "lite.onnx": (b"\x1c\0\0\0TFL3", "it looks like a .tflite file"),
    "torn.npz": (b"PK\x03\x04", None),
    "torn.pth": (b"\x80\x02}", None),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_something_else_is_named_for_it(tmp_path, name):
    content, found = WRONG[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(readers.WeightsError) as caught:
        edgecls.load_weights(network(), tmp_path / name)
    text = str(caught.value)
    assert text.count(name) == 1 and "\n" not in text
    assert (found or "") in text and ("; it " in text) == bool(found)
