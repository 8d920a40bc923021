"""Read checkpoints of other frameworks into ``{state name: array}`` without those frameworks.

Checkpoints are pickles, and unpickling runs whatever a file names. So only the handful of globals that tensors are
made of are admitted; any other is refused with its name, and nothing of it is run.

A small file can also claim to be huge when it is unpacked, and so use up the memory. A file that unpacks to more than
``EXPANSION`` times its size is refused before it is unpacked: trained weights hardly compress.
"""

from __future__ import annotations

import collections
import itertools
import math
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgecls.weights import contents

State = dict[str, np.ndarray]

EXPANSION = 100  # largest size of the arrays, in sizes of the file
HARMLESS_BYTES = 2**26  # of this size, arrays are never refused
MEMO = 2**20  # most objects that a pickle may number; unpickling reserves memory for the highest number
ENTRIES = 2**16  # most arrays in a file; the largest networks have a few thousand


class WeightsError(ValueError):
    """A weights file is refused, torn or of another format."""

    exit_code = 2


def read_pdparams(path: str | Path) -> State:
    """Read a PaddlePaddle ``.pdparams`` file: a pickle of ``{state name: array}``, or of several in one dictionary.

    Raises:
        WeightsError: The pickle names anything but arrays, or is torn.
    """
    with reading(path), Path(path).open("rb") as file:
        content = _Unpickler(file, ARRAYS).load()
        if isinstance(content, dict):
            # Newer versions write a tensor as (internal name, array). The name table that goes along is no tensor.
            content = {
                key: value[1] if isinstance(value, tuple) and len(value) == 2 else value
                for key, value in content.items()
                if key != "StructuredToParameterName@@"
            }
        return plain(flat(content))


def read_torch(path: str | Path) -> State:
    """Read a PyTorch ``.pth`` checkpoint: the legacy stream of pickles, or the zip file of newer versions.

    Returns:
        Its tensors. Those of a state dictionary inside the checkpoint have its key before their names:
        ``state_dict.fc.weight``.

    Raises:
        WeightsError: A pickle names anything but tensors and their storages, or the file is torn.
    """
    with reading(path):
        content = (_torch_zip if zipfile.is_zipfile(path) else _torch_stream)(Path(path))
        return plain({k: v.array() if isinstance(v, _Tensor) else v for k, v in flat(content).items()})


def read_npz(path: str | Path) -> State:
    """Read a numpy ``.npz`` of plain arrays, as ``np.savez(path, **state(model))`` writes it.

    Raises:
        WeightsError: The file is torn or holds pickled objects.
    """
    with reading(path):
        check_zip(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}


def read_pickle(path: str | Path) -> State:
    """Read a ``.pkl`` of arrays in dictionaries and lists, nested in any way: ``{"fire2/squeeze1x1/0": array}``.

    Raises:
        WeightsError: The pickle names anything but arrays, or is torn.
    """
    with reading(path), Path(path).open("rb") as file:
        return plain(flat(_Unpickler(file, ARRAYS).load(), "/"))


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn whatever a torn file raises into a ``WeightsError`` that names the file, and what it is if not what it says."""

    def named(text: object) -> WeightsError:
        found = contents.hint(path)
        return WeightsError(f"{path}: {text}{found and f'; {found}'}")

    try:
        yield
    except WeightsError as error:
        if str(error).startswith(f"{path}: "):  # a reader within another one
            raise
        raise named(error) from None
    except Exception as error:  # a torn pickle raises nearly anything
        if isinstance(error, OSError) and error.errno:  # of the system, not of a format's library
            raise
        raise named(f"torn, or not a weights file ({type(error).__name__}: {error})") from error


def check_zip(path: str | Path) -> None:
    """Refuse a zip file that unpacks to far more than its size; see ``check_size``."""
    with zipfile.ZipFile(path) as archive:
        check_size(path, sum(member.file_size for member in archive.infolist()))


def check_size(path: str | Path, unpacked: int) -> None:
    """Refuse a file whose arrays would take far more memory than the file takes on disk.

    Raises:
        WeightsError: They would.
    """
    packed = Path(path).stat().st_size
    if unpacked > max(EXPANSION * packed, HARMLESS_BYTES):
        raise WeightsError(
            f"refused, {packed / 1e6:.1f} MB would unpack to {unpacked / 1e6:,.0f} MB, which weights never do"
        )


def flat(content: Any, separator: str = ".") -> dict[str, Any]:
    """What dictionaries and lists inside each other hold, by the joined names; an epoch's number and the like are left out.

    Args:
        content: What a pickle holds.
        separator: Stands between the names.

    Example:
        >>> list(flat({"epoch": 7, "state_dict": {"fc.bias": np.zeros(2)}}))
        ['state_dict.fc.bias']

    Raises:
        WeightsError: More than ``ENTRIES`` entries.
    """
    visits = itertools.count(1)

    def visit(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
        # A list may hold one list many times, and that one may do so, too: a few bytes for more than time can visit.
        if next(visits) > ENTRIES:
            raise WeightsError(f"refused, it has more than {ENTRIES:,} entries")
        if isinstance(value, dict | list | tuple):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                yield from visit(f"{prefix}{separator}{key}" if prefix else str(key), inner)
        elif not isinstance(value, SETTINGS):
            yield prefix, value

    return dict(visit("", content))


def plain(content: dict[str, Any]) -> State:
    """``content`` if it is nothing but arrays of numbers. NumPy has no bfloat16, so files hold it as uint16.

    Raises:
        WeightsError: It is anything else, or nothing.
    """
    if not content:
        raise WeightsError("no arrays in it")
    for key, value in content.items():
        if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "fiub":
            raise WeightsError(f"entry {key!r} is a {type(value).__name__}, not a named array of numbers")
    arrays = {key: np.asarray(value) for key, value in content.items()}
    return {key: _widened(a) if a.dtype == np.uint16 else a for key, a in arrays.items()}


def _widened(array: np.ndarray) -> np.ndarray:
    """bfloat16, the upper half of a float32, as float32."""
    return (array.astype(np.uint32) << 16).view(np.float32)


class _Unpickler(pickle.Unpickler):
    """Admits the listed globals only, and no reference to outside objects."""

    def __init__(self, file: Any, admitted: dict[str, Any]) -> None:
        super().__init__(file, encoding="latin1")
        self.file, self.admitted = file, admitted

    def load(self) -> Any:
        """The object, if the pickle numbers no more objects than ``MEMO``."""
        start = self.file.tell()
        for operation, argument, _ in pickletools.genops(self.file):
            if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > MEMO:
                raise WeightsError(f"refused, the pickle numbers an object {argument}")
        self.file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        if (full := f"{module}.{name}") not in self.admitted:
            raise WeightsError(f"refused, the pickle calls for {full}, which no weights need")
        return self.admitted[full]

    def persistent_load(self, pid: Any) -> Any:
        raise WeightsError(f"refused, the pickle refers to an outside object {pid!r}")


def _frombuffer(
    raw: bytes,
    dtype: np.dtype,
    shape: tuple[int, ...],
    order: Any,
    axes: Any = None,  # of NumPy 2.3 and newer, with the order "K"
) -> np.ndarray:
    flat = np.frombuffer(raw, dtype)
    return flat.reshape(shape).transpose(axes) if axes is not None else flat.reshape(shape, order=order)


class Setting:
    """Stands for an object that tells how a training was run; what it holds is not looked at."""


SETTINGS = (str, bytes, int, float, np.generic, type(None), Setting)

# What numpy's own functions do here, written out, because they are private and have moved between versions.
ARRAYS: dict[str, Any] = {
    "numpy.dtype": np.dtype,
    "numpy.ndarray": np.ndarray,
    "collections.OrderedDict": collections.OrderedDict,
    "builtins.tuple": tuple,
    "__builtin__.tuple": tuple,
    "_codecs.encode": lambda text, _encoding: text.encode("latin1"),  # how protocol 2 writes bytes
}
for _core in ("numpy.core", "numpy._core"):
    ARRAYS[f"{_core}.multiarray._reconstruct"] = lambda *_: np.ndarray((0,), np.int8)
    ARRAYS[f"{_core}.multiarray.scalar"] = lambda dtype, raw: np.frombuffer(raw, dtype)[0]
    ARRAYS[f"{_core}.numeric._frombuffer"] = _frombuffer

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL = 1001
TORCH_DTYPES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
    "torch.BFloat16Storage": "<u2",  # see ``plain``
}


class _Storage:
    """A flat block of numbers, filled after the pickle that refers to it has been read."""

    def __init__(self, dtype: str, size: int) -> None:
        self.dtype, self.size = np.dtype(dtype), size
        self.flat = np.empty(0, self.dtype)

    def fill(self, raw: bytes) -> None:
        self.flat = np.frombuffer(raw, self.dtype)
        if self.flat.size != self.size:
            raise WeightsError(f"torn, {self.size} numbers expected and {self.flat.size} found")


class _Tensor:
    """A view of a storage; offset and strides count elements."""

    def __init__(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
    ) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> np.ndarray:
        flat = self.storage.flat
        if math.prod(self.shape) > flat.size:
            raise WeightsError(f"refused, a tensor {list(self.shape)} has only {flat.size} numbers")
        strides = [s * flat.itemsize for s in self.strides]
        # This constructor, unlike as_strided, refuses a view that reaches outside its buffer.
        return np.ndarray(self.shape, flat.dtype, flat.data, self.offset * flat.itemsize, strides).copy()


class _TorchUnpickler(_Unpickler):
    """Admits tensors; their storages are collected in ``storages`` to be filled later."""

    def __init__(self, file: Any) -> None:
        admitted: dict[str, Any] = {
            **ARRAYS,
            **TORCH_DTYPES,
            "argparse.Namespace": Setting,
            "torch._utils._rebuild_tensor_v2": _Tensor,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
        }
        super().__init__(file, admitted)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, size, *view = pid
        if kind != "storage" or dtype not in TORCH_DTYPES.values() or any(v is not None for v in view):
            return super().persistent_load(pid)
        return self.storages.setdefault(key, _Storage(dtype, size))


def _torch_stream(path: Path) -> Any:
    with path.open("rb") as file:
        magic, protocol, system = (_Unpickler(file, {}).load() for _ in range(3))
        if (magic, protocol) != (TORCH_MAGIC, TORCH_PROTOCOL) or not system["little_endian"]:
            raise WeightsError("not a little-endian PyTorch checkpoint")
        unpickler = _TorchUnpickler(file)
        content = unpickler.load()
        for key in _Unpickler(file, {}).load():
            storage = unpickler.storages[key]
            if (size := int.from_bytes(file.read(8), "little")) != storage.size:
                raise WeightsError(f"torn, storage {key} has {size} numbers where {storage.size} belong")
            storage.fill(file.read(size * storage.dtype.itemsize))
    return content


def _torch_zip(path: Path) -> Any:
    check_zip(path)
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (n for n in archive.namelist() if n.endswith("data.pkl"))
        with archive.open(pickled) as file:
            unpickler = _TorchUnpickler(file)
            content = unpickler.load()
        for key, storage in unpickler.storages.items():
            storage.fill(archive.read(f"{pickled.removesuffix('data.pkl')}data/{key}"))
    return content
