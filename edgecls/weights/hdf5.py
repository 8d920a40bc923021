"""Read Keras' files without building their models, so that nothing in them is run: arrays only."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from edgecls.weights.readers import State, WeightsError, check_size, check_zip, plain, reading


def read_h5(path: str | Path) -> State:
    """Read a ``.weights.h5`` of Keras 3, or a ``.h5`` of weights or of a whole model as Keras 2 wrote them.

    Returns:
        ``{"layer/variable": array}`` in Keras' layouts; Keras 3 numbers a layer's variables, Keras 2 names them.

    Raises:
        WeightsError: The file is torn, of another kind or points outside itself.
    """
    with reading(path):
        return _read(path, path)


def read_keras(path: str | Path) -> State:
    """Read the weights of a ``.keras`` file, as ``read_h5`` gives them."""
    with reading(path):
        check_zip(path)
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file:
            return _read(file, path)


def _read(source: Any, path: str | Path) -> State:
    """Read the arrays of ``source``, which is the file ``path`` or a part of it."""
    import h5py

    found: State = {}
    unpacked = 0

    def visit(place: str, entry: Any) -> None:
        nonlocal unpacked
        # Links to other files are never visited; arrays kept in other files are refused.
        no_weight = place.startswith("optimizer") or "/seed_generator/" in place
        if not isinstance(entry, h5py.Dataset) or no_weight:
            return
        if entry.external or entry.is_virtual:
            raise WeightsError(f"{place} points outside the file")
        unpacked += entry.nbytes
        check_size(path, unpacked)  # an array may be compressed, or be nothing but a fill value
        *_, group, layer, variable = ("", "", *place.split("/"))
        if layer == "vars":  # Keras 3 numbers the groups and keeps the layer's name beside them
            layer = entry.parent.attrs.get("name", group)
        key = f"{layer}/{variable.removesuffix(':0')}"
        found[place if key in found else key] = np.asarray(entry)

    with h5py.File(source, "r") as file:
        file.visititems(visit)
    return plain(found)
