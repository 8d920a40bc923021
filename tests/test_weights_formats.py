"""Files of other kinds: Keras' own, PaddlePaddle's inference models, ONNX; torn and hostile ones; ``convert``."""

from __future__ import annotations

import json
import pickle
import random
import zipfile

import exported
import h5py
import keras
import numpy as np
import pytest

import edgecls
from edgecls.cli.main import main
from edgecls.errors import UsageError
from edgecls.weights import hdf5, onnx, paddle, program, readers, structure
from edgecls.weights.load import state
from edgecls.zoo import catalog

SMALL = "MobileNetV3_small_x0_35"


def randomized(name, **options):
    """A network with another number in every array."""
    model = edgecls.build_model(name, **options)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype == "float32":
            variable.assign(rng.uniform(0, 0.1, variable.shape))
    return model


@pytest.fixture(scope="module")
def small():
    return randomized(SMALL, input_size=64, classes=7)


def same(states, others):
    return states.keys() == others.keys() and all(np.array_equal(states[key], others[key]) for key in states)


# Keras' files


def keras2(model, path):
    """Weights as Keras 2 wrote them."""
    with h5py.File(path, "w") as file:
        names = []
        for layer in model.layers:
            group = file.create_group(layer.name)
            names.append(layer.name.encode())
            kind = "depthwise_kernel" if isinstance(layer, keras.layers.DepthwiseConv2D) else "kernel"
            variables = {f"{layer.name}/{kind if v.name == 'kernel' else v.name}:0": v for v in layer.weights}
            for name, variable in variables.items():
                group[name] = variable.numpy()
            group.attrs["weight_names"] = [name.encode() for name in variables]
        file.attrs["layer_names"] = names
        file.attrs["keras_version"] = b"2.4.0"


WRITERS = {
    "model.keras": lambda model, path: model.save(path),
    "model.h5": lambda model, path: model.save(path),
    "model.weights.h5": lambda model, path: model.save_weights(path),
    "keras2.h5": keras2,
}


@pytest.mark.parametrize("file", WRITERS)
def test_keras_files(small, tmp_path, file):
    WRITERS[file](small, tmp_path / file)
    again = edgecls.build_model(SMALL, input_size=64, classes=7)
    report = edgecls.load_weights(again, tmp_path / file, strict=True)
    assert len(report.loaded) == 214 and same(state(again), state(small))
    other = edgecls.build_model(SMALL, input_size=64, classes=3)
    before = other.get_layer("fc").kernel.numpy()
    report = edgecls.load_weights(other, tmp_path / file)
    assert [text.split(":")[0] for text in report.mismatched] == ["fc.weight", "fc.bias"]
    assert not report.missing and np.array_equal(other.get_layer("fc").kernel, before)
    with pytest.raises(UsageError, match="MobileNetV3_small_x0_5"):
        edgecls.load_weights(edgecls.build_model("MobileNetV3_small_x0_5", input_size=64), tmp_path / file)


def test_kernels_of_flattened_maps_keep_their_rows(tmp_path):
    model = randomized("AlexNet", input_size=64, classes=2)
    model.save_weights(tmp_path / "model.weights.h5")
    again = edgecls.build_model("AlexNet", input_size=64, classes=2, weights=tmp_path / "model.weights.h5")
    assert same(state(again), state(model))


def test_keras_files_are_not_run(tmp_path):
    inputs = keras.Input((2,))
    doubled = keras.layers.Lambda(lambda x: 2 * x)(inputs)
    keras.Model(inputs, keras.layers.Dense(3, name="fc")(doubled)).save(tmp_path / "code.keras")
    with pytest.raises(ValueError, match="Lambda"):
        keras.models.load_model(tmp_path / "code.keras")  # because it carries code
    assert set(hdf5.read_keras(tmp_path / "code.keras")) == {"fc/0", "fc/1"}


def test_h5_files_cannot_point_outside(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(16))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["fc/kernel:0"] = np.zeros(4)
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["fc"] = h5py.ExternalLink(tmp_path / "other.h5", "/fc")
        file["own/kernel:0"] = np.ones(2)
    assert set(hdf5.read_h5(tmp_path / "links.h5")) == {"own/kernel"}
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("fc/kernel:0", (4,), "f4", external=[(str(tmp_path / "secret"), 0, 16)])
    with pytest.raises(readers.WeightsError, match="points outside"):
        hdf5.read_h5(tmp_path / "external.h5")


# Exported programs


@pytest.mark.parametrize(
    ("name", "dropout"),
    [
        ("PPLCNet_x0_25", "downgrade_in_infer"),
        ("PPLCNet_x0_25", "upscale_in_train"),
        ("SqueezeNet1_1", "downgrade_in_infer"),
        ("AlexNet", "downgrade_in_infer"),
        ("ResNet18_vd", ""),
    ],
)
def test_inference_models(tmp_path, name, dropout):
    values = exported.write_paddle(randomized(name, input_size=64), tmp_path / "inference.pdmodel", dropout)
    model = edgecls.build_model(name, input_size=64)
    report = edgecls.load_weights(model, tmp_path / "inference.pdiparams", strict=True)
    assert len(report.loaded) == len(values)
    got, entry = state(model), catalog.get(name)
    # The program says whether it scales at inference; it happens once, not again by what the catalog knows.
    factor = 1 - entry.dropout if dropout == "downgrade_in_infer" else 1
    scaled = {f"{layer}.weight" for layer in entry.dropout_scales}
    assert bool(scaled) == bool(dropout)
    for key, value in values.items():
        assert np.allclose(got[key], (factor if key in scaled else 1) * value, rtol=1e-6, atol=0), key


NETWORKS = ["InceptionV4", "Res2Net50_vd_26w_4s", "DenseNet121", "DPN68", "ShuffleNetV2_x0_25"]


@pytest.mark.parametrize("name", NETWORKS)
def test_arrays_are_told_apart_whatever_order_they_come_in(name):
    with keras.StatelessScope(initialize_variables=False):
        _, ours = structure.places_of(edgecls.build_model(name))
    rng, order, left = random.Random(1), [], set(range(len(ours)))
    while left:
        ready = [i for i in sorted(left) if not {j for j, _ in ours[i].before} & left]
        order.append(rng.choice(ready))
        left.remove(order[-1])
    position = {i: k for k, i in enumerate(order)}
    theirs = [
        program.Node(ours[i].shapes, frozenset((position[j], part) for j, part in ours[i].before), {})
        for i in order
    ]
    assert program.match(ours, theirs, classifier=True) == position
    # Nothing is guessed: behind another stem, all is another thing.
    theirs[0] = program.Node({"weight": (1, 1)}, frozenset(), {})
    assert len(program.match(ours, theirs, classifier=True)) == 1, "only the classifier is sure then"


def test_another_program_is_refused_with_what_differs(tmp_path):
    exported.write_paddle(randomized("PPLCNet_x0_25", input_size=64), tmp_path / "lcnet.pdmodel")
    with pytest.raises(UsageError, match=f"not {SMALL}'s"):
        edgecls.load_weights(edgecls.build_model(SMALL, input_size=64), tmp_path / "lcnet.pdmodel")
    (tmp_path / "lcnet.pdiparams").unlink()
    with pytest.raises(readers.WeightsError, match=r"lcnet\.pdiparams belongs beside it"):
        edgecls.load_weights(edgecls.build_model("PPLCNet_x0_25", input_size=64), tmp_path / "lcnet.pdmodel")


def tensor(name, array, field):
    """An ONNX tensor, its numbers as raw bytes or in a field of their own."""
    dims = [(1, size) for size in array.shape]
    return exported.message(*dims, (2, 1), (field, array.tobytes()), (8, name))


def test_onnx_dense_layers(tmp_path):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 4)).astype("float32"), rng.normal(size=(3, 5)).astype("float32")
    biases = [rng.normal(size=n).astype("float32") for n in (5, 3)]
    constant = exported.message((1, "value"), (5, tensor("", biases[0][None], 4)), (20, 4))
    nodes = [
        exported.message((2, "b0"), (4, "Constant"), (5, constant)),
        exported.message((1, "x"), (1, "w0"), (2, "y"), (4, "MatMul")),
        exported.message((1, "y"), (1, "b0"), (2, "z"), (4, "Add")),
        exported.message((1, "z"), (1, "half"), (2, "h"), (4, "Mul")),
        exported.message((1, "h"), (1, "w1"), (1, "b1"), (2, "out"), (4, "Gemm"),
                         (5, exported.message((1, "transB"), (3, 1), (20, 2)))),
    ]  # fmt: skip
    stored = {"w0": np.ascontiguousarray(first.T), "w1": second, "b1": biases[1], "half": np.float32([0.5])}
    graph = [(1, n) for n in nodes] + [(5, tensor(name, a, 9)) for name, a in stored.items()]
    (tmp_path / "model.onnx").write_bytes(exported.message((1, 8), (7, exported.message(*graph))))
    x = inputs = keras.Input((4,))
    x = keras.layers.Dense(5, name="hidden")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="fc")(x))
    edgecls.load_weights(model, tmp_path / "model.onnx", strict=True)
    expect = {
        "hidden.weight": first.T,
        "hidden.bias": biases[0],
        "fc.weight": 0.5 * second.T,
        "fc.bias": biases[1],
    }
    assert same(state(model), expect)


def test_torn_and_damaged_files(small, tmp_path):
    exported.write_paddle(edgecls.build_model("PPLCNet_x0_25", input_size=64), tmp_path / "a.pdmodel")
    small.save_weights(tmp_path / "a.weights.h5")
    small.save(tmp_path / "a.keras")
    graph = exported.message(
        (1, exported.message((1, "x"), (2, "y"), (4, "Relu"))), (5, tensor("w", np.ones((2, 2), "f"), 9))
    )
    (tmp_path / "a.onnx").write_bytes(exported.message((7, graph)))
    read = {".pdmodel": paddle.read_program, ".pdiparams": paddle.read_program, ".onnx": onnx.read_onnx}
    read |= {".h5": hdf5.read_h5, ".keras": hdf5.read_keras}
    rng = random.Random(0)
    for file in [f for f in sorted(tmp_path.iterdir()) if f.suffix in read]:
        raw = file.read_bytes()
        cuts = [raw[: rng.randrange(len(raw))] for _ in range(3)] + [b"", b"text"]
        damaged = []
        for _ in range(10):
            bad = bytearray(raw)
            for _ in range(4):
                bad[rng.randrange(min(len(raw), 4000))] = rng.randrange(256)
            damaged.append(bytes(bad))
        for content in cuts + damaged:
            file.write_bytes(content)
            try:
                read[file.suffix](file)
            except readers.WeightsError as error:
                assert str(tmp_path) in str(error)
            else:
                assert content in damaged, f"{file.name}: a torn file was taken for a whole one"
        file.write_bytes(raw)


def test_a_pickle_of_nested_arrays(tmp_path):
    file = tmp_path / "weights.pkl"
    file.write_bytes(pickle.dumps({"conv1": [np.ones(2), np.zeros(1)], "fc": {"kernel": np.ones(3)}}, 2))
    assert set(readers.read_pickle(file)) == {"conv1/0", "conv1/1", "fc/kernel"}
    file.write_bytes(b"cbuiltins\neval\n(S'1'\ntR.")
    with pytest.raises(readers.WeightsError, match=r"builtins\.eval"):
        readers.read_pickle(file)


# edgecls convert


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        with pytest.raises(SystemExit) as exit_:
            main(["convert", *args])
        return int(exit_.value.code or 0), *capsys.readouterr()

    return call


def test_convert(call, small, tmp_path):
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(state(small)))
    code, out, _ = call("w.pdparams", "--model", SMALL, "--input-size", "64", "--dry-run")
    assert code == 0 and "loaded: 214 arrays" in out and "would write w.keras" in out
    assert not (tmp_path / "w.keras").exists()
    code, out, _ = call("w.pdparams", "--model", SMALL, "--input-size", "64", "--json", "--normalize")
    result = json.loads(out)
    assert code == 0 and (result["classes"], result["loaded"], result["output"]) == (7, 214, "w.keras")
    assert result["bytes"] == (tmp_path / "w.keras").stat().st_size
    model = keras.models.load_model(tmp_path / "w.keras")
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("float32")
    expect = edgecls.build_model(SMALL, 7, 64, tmp_path / "w.pdparams", include_preprocessing=True)
    assert np.array_equal(model.predict_on_batch(images), expect.predict_on_batch(images))

    code, out, _ = call(
        "w.pdparams", "--model", SMALL, "--input-size", "64", "--classes", "3", "-o", "out/three.keras"
    )
    assert code == 0 and "new classifier (7 -> 3 classes), trained from scratch\nwhat the" in out
    assert zipfile.is_zipfile(tmp_path / "out" / "three.keras")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "w.keras", "w.pdparams"]


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["w.pdparams", "--model", "ResNet18"], "not ResNet18's"),
        (["w.pdparams", "--model", SMALL, "--classes", "3", "--strict"], "fc.weight"),
        (["w.pdparams", "--model", SMALL, "-o", "w.tflite"], ".keras"),
        (["w.txt", "--model", SMALL], "formats: .pdparams"),
        (["none.pdparams", "--model", SMALL], "no such weights file"),
        (["evil.pdparams", "--model", SMALL], "posix.system"),
    ],
)
def test_convert_refuses(call, small, tmp_path, args, what):
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(state(small)))
    (tmp_path / "w.txt").write_text("text")
    (tmp_path / "evil.pdparams").write_bytes(b"cposix\nsystem\n(S'touch created'\ntR.")
    before = sorted(tmp_path.iterdir())
    code, out, err = call(*args)
    assert code == 2 and not out and what in err and err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
