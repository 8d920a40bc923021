"""One-file checkpoints: every variable of model and optimizer, written whole or not at all."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecls.errors import UsageError
from edgecls.files import atomic


def save(path: Path, variables: Sequence[Any], state: dict[str, Any]) -> None:
    """Write variables and a JSON state.

    Args:
        path: An ``.npz`` file; an older one is replaced only when the new one is complete.
        variables: Keras variables, in an order that :func:`restore` repeats.
        state: JSON-serialisable progress: epochs done, best value, ...

    Raises:
        MissingError: The disk is full.
    """
    arrays: dict[str, Any] = {f"{i:05d}": value_of(v) for i, v in enumerate(variables)}
    meta = {"state": state, "names": [getattr(v, "path", v.name) for v in variables]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part, part.open("wb") as file:
        np.savez(file, meta=np.array(json.dumps(meta)), **arrays)


def value_of(variable: Any) -> np.ndarray:
    """What a variable of Keras or TensorFlow holds; TensorFlow's mirrored scalars cannot become arrays by themselves."""
    return np.asarray(variable.numpy())


def restore(path: Path, variables: Sequence[Any]) -> dict[str, Any]:
    """Read what :func:`save` wrote into the same variables and return the state.

    Raises:
        UsageError: The file is torn, or belongs to another architecture.
    """
    meta, arrays = _read(path, with_arrays=True)
    odd = _first_difference(arrays, meta["names"], variables)
    if odd:
        raise UsageError(
            "checkpoint of another architecture", where=f"{path}: {odd}", fix="use --fresh for a new run"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return meta["state"]


def read_state(path: Path) -> dict[str, Any]:
    """The JSON state in a checkpoint, without its variables.

    Raises:
        UsageError: The file is missing or torn.
    """
    return _read(path, with_arrays=False)[0]["state"]


def _read(path: Path, with_arrays: bool) -> tuple[dict[str, Any], list[np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            count = len(meta["names"]) if with_arrays else 0
            return meta, [file[f"{i:05d}"] for i in range(count)]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(
            "checkpoint cannot be read", where=f"{path}: {error}", fix="delete it to train anew"
        ) from error


def _first_difference(arrays: Sequence[np.ndarray], names: Sequence[str], variables: Sequence[Any]) -> str:
    for variable, array, name in zip(variables, arrays, names, strict=False):
        if tuple(variable.shape) != array.shape:
            return f"{name} has shape {array.shape}, the model has {tuple(variable.shape)}"
    if len(arrays) != len(variables):
        return f"{len(arrays)} variables, the model has {len(variables)}"
    return ""
