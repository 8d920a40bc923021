"""Read Keras' files without building their models, so that nothing in them is run: arrays only."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from edgecls.weights.readers import State, WeightsError, plain, reading


def read_h5(path: str | Path) -> State:
    """Read a ``.weights.h5`` of Keras 3, or a ``.h5`` of weights or of a whole model as Keras 2 wrote them.

    Returns:
        ``{"layer/variable": array}`` in Keras' layouts; Keras 3 numbers a layer's variables, Keras 2 names them.

    Raises:
        WeightsError: The file is torn, of another kind or points outside itself.
    """
    with reading(path):
        return _read(path)


def read_keras(path: str | Path) -> State:
    """Read the weights of a ``.keras`` file, as ``read_h5`` gives them."""
    with reading(path), zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file:
        return _read(file)


def _read(source: Any) -> State:
    import h5py

    found: State = {}

    def visit(path: str, entry: Any) -> None:
        # Links to other files are never visited; arrays kept in other files are refused.
        no_weight = path.startswith("optimizer") or "/seed_generator/" in path
        if not isinstance(entry, h5py.Dataset) or no_weight:
            return
        if entry.external or entry.is_virtual:
            raise WeightsError(f"{path} points outside the file")
        *_, group, layer, variable = ("", "", *path.split("/"))
        if layer == "vars":  # Keras 3 numbers the groups and keeps the layer's name beside them
            layer = entry.parent.attrs.get("name", group)
        key = f"{layer}/{variable.removesuffix(':0')}"
        found[path if key in found else key] = np.asarray(entry)

    with h5py.File(source, "r") as file:
        file.visititems(visit)
    return plain(found)
