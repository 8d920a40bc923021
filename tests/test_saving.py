"""Saved networks open in Keras after ``import edgecls``, whichever is imported first."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from quantization import BLOCKS, EQUAL, SIZE, network, photos

import edgecls
from edgecls import quantize, saving
from edgecls.errors import MissingError, UsageError

LATE = """
import sys
import edgecls
assert not {"keras", "tensorflow"} & set(sys.modules), "import edgecls imports them"
import keras
"""
EARLY = """
import keras
import edgecls
"""
PART = """
import edgecls.zoo.blocks
import keras
"""
OPEN = """
import numpy
import sys
folder = sys.argv[1]
images = numpy.load(folder + "/images.npy")
for name in ("float", "qat"):
    model = keras.models.load_model(f"{folder}/{name}.keras")
    numpy.testing.assert_array_equal(model.predict(images, verbose=0), numpy.load(f"{folder}/{name}.npy"))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """float.keras and qat.keras with the layers of the zoo's blocks, and what they compute."""
    folder = tmp_path_factory.mktemp("saved")
    images = photos(SIZE, 4).astype(np.float32)
    model = network(BLOCKS["hard_swish_chain"], **EQUAL)
    qat = quantize.quantize_model(model)
    quantize.calibrate(qat, [images])
    quantize.finalize(qat)
    np.save(folder / "images.npy", images)
    for name, net in (("float", model), ("qat", qat)):
        net.save(folder / f"{name}.keras")
        np.save(folder / f"{name}.npy", net.predict(images, verbose=0))
    return folder


@pytest.mark.parametrize("imports", [LATE, EARLY, PART], ids=["edgecls first", "keras first", "a part"])
def test_keras_opens_them(imports: str, saved: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", imports + OPEN, str(saved)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_load_model(saved: Path, tmp_path: Path) -> None:
    images = np.load(saved / "images.npy")
    model = edgecls.load_model(saved / "float.keras")
    np.testing.assert_array_equal(model.predict(images, verbose=0), np.load(saved / "float.npy"))
    with pytest.raises(MissingError, match=r"no such file.*none\.keras"):
        edgecls.load_model(tmp_path / "none.keras")
    (tmp_path / "torn.keras").write_bytes((saved / "float.keras").read_bytes()[:3000])
    with pytest.raises(UsageError, match=r"cannot load the network: .*torn\.keras") as error:
        edgecls.load_model(tmp_path / "torn.keras")
    assert "\n" not in str(error.value)


def test_every_layer_is_found() -> None:
    """The names that are read from the sources are those that the modules register when they are imported."""
    for module in pkgutil.walk_packages(edgecls.__path__, "edgecls."):
        if module.name.rpartition(".")[2] not in ("__main__", "fresh"):
            importlib.import_module(module.name)
    registered = {
        (item.__module__, item.__name__)
        for name, item in keras.saving.get_custom_objects().items()
        if name.startswith("edgecls>")
    }
    assert set(saving._serializable_classes()) == registered
