"""A new network is one file in ``zoo/``: written here into a folder of its own, with nothing else touched."""

from __future__ import annotations

import csv
import functools
import hashlib
import http.server
import sys
import textwrap
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

import edgecls
from edgecls import zoo
from edgecls.cli.main import main
from edgecls.errors import UsageError
from edgecls.weights import sources
from edgecls.weights.load import from_paddle, from_torch, state
from edgecls.zoo import catalog
from edgecls.zoo.entry import Published, WeightSource
from edgecls.zoo.families import family_module, unlisted_families
from edgecls.zoo.rows import published_names

FILE = '''
"""A network of one convolution, as a new family would be written."""

import keras
from keras import layers

from edgecls.zoo.blocks import Head, Taps, classifier, conv_bn
from edgecls.zoo.layers import Tensor
from edgecls.zoo.entry import Published
from edgecls.zoo.state import state_name

MODELS = {"TinyNet_x1": 8, "TinyNet_x2": 16}  # width
PUBLISHED = {
    "TinyNet_x1": Published(
        input_size=64, interpolation="bicubic", mean=(0.5, 0.5, 0.5), dropout=0.25, scales_at_inference=True,
        top1=0.123, sd855_ms={1: 0.5}, source="here",
        weights={"imagenet": "URL#sha256=DIGEST"},
    ),
    "TinyNet_x1_ssld": Published(architecture="TinyNet_x1", input_size=64, top1=0.234),
}


@keras.saving.register_keras_serializable(package="tests")
class Gain(layers.Layer):
    state_axes = None

    def build(self, shape):
        self.gain = self.add_weight((shape[-1],), initializer="ones", name="gain")

    def call(self, inputs):
        return inputs * self.gain

    def state_variables(self):
        return {f"{state_name(self)}.gain": self.gain}


def build(name: str, x: Tensor, head: Head) -> tuple[Taps, Tensor]:
    taps = Taps(x)
    x = taps.add(conv_bn(x, MODELS[name], 3, 2, act="relu", name="stem"))
    return taps, classifier(Gain(name="gain")(x), head)


def torch_name(name: str) -> str:
    return name.replace("features.0.", "stem.conv.")
'''
# Of a 3x3 convolution, its normalization, the gains and the classifier: trainable values, multiply-adds.
PARAMS = 9 * 3 * 8 + 2 * 8 + 8 + 8 * 1000 + 1000
MACS = 32 * 32 * 9 * 3 * 8 + 8 * 1000


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address and the folder of a server."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


@pytest.fixture
def family(served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder with the new file; the weights that it names are served."""
    url, folder = served
    rng = np.random.default_rng(0)
    shapes = {
        "stem.conv.weight": (8, 3, 3, 3),
        **{f"stem.bn.{part}": (8,) for part in ("weight", "bias", "_mean", "_variance")},
        "gain.gain": (8,),
        "fc.weight": (8, 1000),
        "fc.bias": (1000,),
    }
    arrays = {name: rng.uniform(0.5, 1, shape).astype("float32") for name, shape in shapes.items()}
    np.savez(folder / "tiny.npz", **arrays)  # type: ignore[arg-type]
    digest = hashlib.sha256((folder / "tiny.npz").read_bytes()).hexdigest()
    package = tmp_path / "more"
    package.mkdir()
    text = FILE.replace("URL", f"{url}/tiny.npz").replace("DIGEST", digest)
    (package / "tiny_net.py").write_text(textwrap.dedent(text))
    (package / "tiny_helpers.py").write_text("WIDTH = 8\n")
    monkeypatch.setattr(zoo, "__path__", [*zoo.__path__, str(package)])
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    catalog._entries.cache_clear()
    yield package
    catalog._entries.cache_clear()
    sys.modules.pop("edgecls.zoo.tiny_net", None)


def test_a_new_file_is_a_new_network(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["TinyNet_x1", "TinyNet_x1_ssld", "TinyNet_x2"]
    assert edgecls.list_models("TinyNet*") == names
    assert edgecls.list_models()[-3:] == names and catalog.families()[-1] == "TinyNet"

    entry = edgecls.model_info("TinyNet_x1")
    assert (entry.family, entry.params, entry.macs) == ("TinyNet", PARAMS, MACS)
    assert (entry.input_size, entry.resize_short, entry.crop) == (64, round(64 / 0.875), 64)
    assert (entry.interpolation, entry.mean, entry.std) == ("bicubic", (0.5,) * 3, (0.229, 0.224, 0.225))
    assert (entry.top1, entry.sd855_ms, entry.dropout_scales) == (0.123, {1: 0.5}, {"fc": 0.75})
    other = edgecls.model_info("TinyNet_x1_ssld")
    assert (other.architecture, other.top1, other.dropout) == ("TinyNet_x1", 0.234, 0)
    assert edgecls.model_info("TinyNet_x2").input_size == 224  # nothing is said of it
    assert edgecls.model_cost("TinyNet_x1", 32)["macs"] == 16 * 16 * 9 * 3 * 8 + 8 * 1000

    address = sources.identify("imagenet", "TinyNet_x1")
    assert address == {"sha256": entry.weights["imagenet"].sha256}
    with pytest.raises(UsageError, match=r"networks with them: TinyNet_x1,"):
        sources.identify("imagenet", "TinyNet_x2")
    model = edgecls.build_model("TinyNet_x1", weights="imagenet", include_preprocessing=True)
    file = sources.locate("imagenet", "TinyNet_x1")
    with np.load(file) as arrays:
        assert state(model).keys() == set(arrays.files)
        assert all(np.array_equal(value, arrays[name]) for name, value in state(model).items())
    assert edgecls.build_model("TinyNet_x2", 7, 32, features=True).output["stride_2"].shape == (
        None,
        16,
        16,
        16,
    )

    model.save(tmp_path / "tiny.keras")
    image = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    again = keras.models.load_model(tmp_path / "tiny.keras")
    assert np.array_equal(again(image), model(image))

    arrays = {"features.0.weight": np.ones((8, 3, 3, 3)), "fc.weight": np.ones((1000, 8))}
    assert {k: v.shape for k, v in from_torch(arrays, "TinyNet_x1").items()} == {
        "stem.conv.weight": (8, 3, 3, 3),
        "fc.weight": (8, 1000),
    }
    assert np.all(from_paddle({"fc.weight": np.ones((8, 1000))}, "TinyNet_x1")["fc.weight"] == 0.75)

    with pytest.raises(SystemExit) as ended:
        main(["models", "TinyNet_x1"])
    shown = capsys.readouterr().out
    assert not ended.value.code and f"{PARAMS:,}" in shown and "tiny.npz" in shown


def test_a_table_keeps_every_field(family: Path, tmp_path: Path) -> None:
    entries = [catalog.get(name) for name in catalog.names()]
    catalog.write_table(tmp_path / "models.csv", entries)
    assert catalog.read_table(tmp_path / "models.csv") == entries
    with (tmp_path / "models.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[-3]
    assert row["name"] == "TinyNet_x1" and row["weights"].startswith("imagenet=http://127.0.0.1")


def test_the_table_has_what_the_files_say() -> None:
    """Else: ``python scripts/make_catalog.py``."""
    assert not unlisted_families(catalog.families())
    for family in catalog.families():
        entries = {name: catalog.get(name) for name in catalog.names() if catalog.get(name).family == family}
        module = family_module(family)
        assert {entry.architecture for entry in entries.values()} == set(module.MODELS), family
        for name, published in getattr(module, "PUBLISHED", {}).items():
            entry, resized = entries[name], round((published.crop or published.input_size) / 0.875)
            filled = {"architecture": name, "crop": published.input_size, "resize_short": resized}
            for key, value in vars(published).items():
                if key != "scales_at_inference":
                    assert getattr(entry.published, key) == (value or filled.get(key, value)), (name, key)


def test_names_of_a_family_are_in_its_tables_order() -> None:
    module = types.ModuleType("family")
    vars(module)["MODELS"] = {"a": 1, "b": 2, "c": 3}
    vars(module)["PUBLISHED"] = {"b_ssld": Published(architecture="b"), "b": Published(top1=0.5)}
    others = {"c": Published(top1=0.25), "b": Published(top1=0.1)}
    names = published_names(module, others)
    assert list(names) == ["a", "b", "b_ssld", "c"]
    assert (names["a"], names["b"].top1, names["c"].top1) == (Published(), 0.5, 0.25)


@pytest.mark.parametrize(
    "address",
    ["https://host.example/a.npz", "ftp://host.example/a.npz#sha256=" + "0" * 64, "pip:a/b#sha256=1"],
)
def test_an_address_without_hash_or_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"host\.example|pip:a"):
        WeightSource.parse(address)


@pytest.mark.parametrize("place", ["https://host.example/v1/a%20b.npz?x=1", "pip:some-weights/folder/a.pth"])
def test_an_address_is_read_as_it_is_written(place: str) -> None:
    source = WeightSource.parse(f"{place}#sha256={'0' * 64}")
    assert source.address == f"{place}#sha256={'0' * 64}"
    assert source.file == ("a b.npz" if source.url else "folder/a.pth")
