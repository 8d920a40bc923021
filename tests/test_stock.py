"""Networks in Keras' own layers alone: they open without edgecls and compute the same."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from quantization import BLOCKS, EQUAL, SIZE, logits, network, photos, settled

from edgecls.errors import UsageError
from edgecls.export.stock import to_stock
from edgecls.quantize import quantize_model
from edgecls.zoo import build_model, catalog

OPEN = """
import sys
import keras
import numpy
folder = sys.argv[1]
model = keras.models.load_model(folder + "/model.keras")
assert not [name for name in sys.modules if name.startswith("edgecls")]
outputs = model.predict(numpy.load(folder + "/images.npy"), verbose=0)
numpy.testing.assert_allclose(outputs, numpy.load(folder + "/logits.npy"), atol=1e-5)
"""
QUICK = ("MobileNetV3", "ShuffleNetV2", "GhostNet")


def smallest(family: str) -> catalog.Entry:
    entries = [catalog.get(name) for name in catalog.names()]
    return min((entry for entry in entries if entry.family == family), key=lambda entry: entry.macs)


def equal(model: keras.Model, folder: Path, images: np.ndarray, limit: float) -> None:
    """The file names nothing of ours, and the outputs are equal within ``limit`` of their range."""
    to_stock(model).save(folder / "model.keras")
    assert b"edgecls" not in zipfile.ZipFile(folder / "model.keras").read("config.json")
    expect = logits(model, images)
    found = logits(keras.models.load_model(folder / "model.keras"), images)
    assert np.ptp(expect) > 0
    np.testing.assert_allclose(found, expect, rtol=0, atol=limit * np.ptp(expect))


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks(block: str, tmp_path: Path) -> None:
    equal(network(BLOCKS[block], **EQUAL), tmp_path, photos(SIZE, 4), 1e-6)


@pytest.mark.parametrize(
    "family",
    [
        family if family in QUICK else pytest.param(family, marks=pytest.mark.slow)
        for family in catalog.families()
    ],
)
def test_families(family: str, tmp_path: Path) -> None:
    size, entry = 96, smallest(family)
    model = build_model(entry.name, classes=7, input_size=size, include_preprocessing=True)
    images = photos(size, 8)
    # Batch normalization is one operation in ours and several in Keras': roundings differ, and later layers amplify.
    equal(settled(model, images), tmp_path, images, 1e-4)


def test_it_opens_without_edgecls(tmp_path: Path) -> None:
    model, images = network(BLOCKS["hard_swish_chain"], **EQUAL), photos(SIZE, 4)
    to_stock(model).save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images.astype(np.float32))
    np.save(tmp_path / "logits.npy", logits(model, images))
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_layer_without_a_stock_form_is_refused() -> None:
    with pytest.raises(UsageError, match=r"layer '.*' \(\w+\) has no form in Keras' own layers") as error:
        to_stock(quantize_model(network(BLOCKS["conv"], **EQUAL)))
    assert "\n" not in str(error.value)
