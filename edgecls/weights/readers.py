"""Read checkpoints of other frameworks into ``{state name: array}`` without those frameworks.

Checkpoints are pickles, and unpickling runs whatever a file names. So only the handful of globals that tensors are
made of are admitted; any other is refused with its name, and nothing of it is run.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

State = dict[str, np.ndarray]


class WeightsError(ValueError):
    """A weights file is refused, torn or of another format."""

    exit_code = 2


TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL = 1001
TORCH_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
ARRAYS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): np._core.multiarray._reconstruct for core in ("core", "_core")},  # type: ignore[attr-defined]
    **{(f"numpy.{core}.multiarray", "scalar"): np._core.multiarray.scalar for core in ("core", "_core")},  # type: ignore[attr-defined]
}


def read_pdparams(path: str | Path) -> State:
    """Read a PaddlePaddle ``.pdparams`` file: a pickle of ``{state name: numpy array}``.

    Args:
        path: The file; the older static-graph format with one pickled pair per name reads the same.

    Raises:
        WeightsError: The pickle names anything but arrays, or is torn.
    """
    with Path(path).open("rb") as file:
        content = _load(_Unpickler(file, path, ARRAYS))
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a dictionary of arrays")
    # Newer Paddle writes each tensor as (internal name, array); the name table that goes along is no tensor.
    arrays = {
        key: value[1] if isinstance(value, tuple) and len(value) == 2 else value
        for key, value in content.items()
        if key != "StructuredToParameterName@@"
    }
    return _checked(arrays, path)


def read_torch(path: str | Path) -> State:
    """Read a PyTorch ``.pth`` state dictionary: the legacy stream of pickles, or the zip file of newer versions.

    Raises:
        WeightsError: A pickle names anything but tensors and their storages, or the file is torn.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            (pickled,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            prefix = pickled.removesuffix("data.pkl")
            with archive.open(pickled) as stream:
                table: dict[str, _Storage] = {}
                content = _load(_TorchUnpickler(stream, path, table))
            for key, storage in table.items():
                storage.fill(archive.read(f"{prefix}data/{key}"), path)
    else:
        with Path(path).open("rb") as file:
            header = [_load(_Unpickler(file, path, {})) for _ in range(3)]
            little_endian = isinstance(header[2], dict) and header[2].get("little_endian")
            if header[:2] != [TORCH_MAGIC, TORCH_PROTOCOL] or not little_endian:
                raise WeightsError(f"{path}: not a PyTorch checkpoint")
            table = {}
            content = _load(_TorchUnpickler(file, path, table))
            for key in _load(_Unpickler(file, path, {})):
                size = int.from_bytes(file.read(8), "little")
                if key not in table or size != table[key].size:
                    raise WeightsError(f"{path}: torn or inconsistent, storage {key} does not fit its table")
                table[key].fill(file.read(size * table[key].dtype.itemsize), path)
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state dictionary")
    return _checked({k: v.array() if isinstance(v, _Tensor) else v for k, v in content.items()}, path)


def read_npz(path: str | Path) -> State:
    """Read a numpy ``.npz`` of plain arrays; pickled objects in it are refused.

    Raises:
        WeightsError: The file is torn or holds objects.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path}: not a readable .npz of plain arrays ({error})") from error


READERS: dict[str, Callable[[str | Path], State]] = {
    ".pdparams": read_pdparams,
    ".pth": read_torch,
    ".pt": read_torch,
    ".npz": read_npz,
}


class _Unpickler(pickle.Unpickler):
    """Admits the listed globals only."""

    def __init__(self, file: Any, path: str | Path, admitted: dict[tuple[str, str], Any]) -> None:
        super().__init__(file, encoding="latin1")
        self.path, self.admitted = path, admitted

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.admitted:
            raise WeightsError(f"{self.path}: refused, the pickle calls for {module}.{name}, which no weights need")
        return self.admitted[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise WeightsError(f"{self.path}: refused, the pickle refers to an outside object")


class _Storage:
    """A flat block of numbers, filled after the pickle that refers to it has been read."""

    def __init__(self, dtype: str, size: int) -> None:
        self.dtype, self.size = np.dtype(dtype), size
        self.flat = np.empty(0, self.dtype)

    def fill(self, raw: bytes, path: str | Path) -> None:
        if len(raw) != self.size * self.dtype.itemsize:
            raise WeightsError(f"{path}: torn, a storage of {self.size} numbers has only {len(raw)} bytes")
        self.flat = np.frombuffer(raw, self.dtype)


class _Tensor:
    """A view of a storage: offset, shape and strides counted in elements."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> np.ndarray:
        # Bounds are checked here, because as_strided would happily read outside the storage.
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if min((self.offset, *self.shape, *self.strides)) < 0 or (0 not in self.shape and last >= self.storage.size):
            raise WeightsError(f"a tensor of shape {self.shape} reaches outside its storage")
        strides = [s * self.storage.dtype.itemsize for s in self.strides]
        view = np.lib.stride_tricks.as_strided(self.storage.flat[self.offset :], self.shape, strides)
        return np.ascontiguousarray(view).reshape(self.shape)


class _TorchUnpickler(_Unpickler):
    """Admits tensors; their storages are collected in ``table`` to be filled later."""

    def __init__(self, file: Any, path: str | Path, table: dict[str, _Storage]) -> None:
        admitted: dict[tuple[str, str], Any] = {("torch", name): dtype for name, dtype in TORCH_DTYPES.items()}
        admitted[("torch._utils", "_rebuild_tensor_v2")] = _Tensor
        admitted[("torch._utils", "_rebuild_parameter")] = lambda tensor, *_: tensor
        admitted[("collections", "OrderedDict")] = collections.OrderedDict
        super().__init__(file, path, admitted)
        self.table = table

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, size, *view = pid
        if kind != "storage" or dtype not in TORCH_DTYPES.values() or (view and view[0] is not None):
            raise WeightsError(f"{self.path}: refused, the pickle refers to an outside object {kind!r}")
        return self.table.setdefault(key, _Storage(dtype, size))


def _load(unpickler: pickle.Unpickler) -> Any:
    try:
        return unpickler.load()
    except WeightsError:
        raise
    except Exception as error:  # a torn pickle raises nearly anything
        raise WeightsError(f"{getattr(unpickler, 'path', '')}: torn or not a pickle ({error})") from error


def _checked(arrays: dict[Any, Any], path: str | Path) -> State:
    for key, value in arrays.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray | np.generic) or value.dtype == object:
            raise WeightsError(f"{path}: entry {key!r} is a {type(value).__name__}, not a named array")
    return {key: np.asarray(value) for key, value in arrays.items()}
