"""The files of MNIST: IDX arrays of unsigned bytes, gzipped or not. No TensorFlow."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from edgecls.data.paths import existing_path
from edgecls.data.rows import Part
from edgecls.data.settings import Data
from edgecls.errors import EdgeclsError, MissingError, UsageError

_IDX_IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}


def read_idx(cfg: Data) -> tuple[list[str], dict[str, Part]]:
    """The class names and the images of each purpose."""
    files: dict[str, Path] = {}
    root = existing_path(cfg.path, "IDX file or folder")
    if root.is_dir():
        files = {p: f for p, name in _IDX_IMAGES.items() if (f := _either(root / name)) is not None}
        if "train" not in files:
            raise MissingError(f"no {_IDX_IMAGES['train']}[.gz]", where=str(root), fix="set data.path")
    else:
        files["train"] = root
    for purpose, text in (("val", cfg.val_path), ("test", cfg.test_path)):
        if text is not None:
            files[purpose] = existing_path(text, f"{purpose} images file")
    raw = {}
    for purpose, path in files.items():
        labels = cfg.labels if purpose == "train" and not root.is_dir() else None
        raw[purpose] = _idx_part(path, labels)
    top = max((int(part.labels.max(initial=-1)) for part in raw.values()), default=-1)
    count = cfg.classes if isinstance(cfg.classes, int) else top + 1
    classes = list(cfg.classes) if isinstance(cfg.classes, list) else [str(i) for i in range(count)]
    if top >= len(classes):
        raise UsageError(
            f"label {top} is beyond the {len(classes)} classes", where=str(root), fix="set data.classes"
        )
    return classes, raw


def _either(path: Path) -> Path | None:
    """The file, or else the gzipped file beside it."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _idx_part(path: Path, labels: str | None) -> Part:
    plain = path.name.removesuffix(".gz")
    if labels is not None:
        label_path: Path | None = existing_path(labels, "label file")
    else:
        label_path = _either(path.with_name(plain.replace("images-idx3", "labels-idx1")))
        if label_path is None or label_path == path:
            raise MissingError(f"no labels beside {path.name}", where=str(path.parent), fix="set data.labels")
    assert label_path is not None
    pixels, numbers = read_idx_array(path), read_idx_array(label_path)
    if pixels.ndim != 3 or numbers.ndim != 1:
        raise UsageError(
            f"expected images of 3 and labels of 1 dimension, got {pixels.ndim} and {numbers.ndim}",
            where=str(path),
        )
    if len(pixels) != len(numbers):
        raise UsageError(f"{len(pixels)} images but {len(numbers)} labels", where=str(label_path))
    names = [f"{plain}/{i}" for i in range(len(pixels))]
    return Part(names=names, labels=numbers.astype(np.int64), images=pixels[..., None])


def read_idx_array(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not.

    The header is two zeros, the type (8), the number of dimensions, and each dimension as a big-endian uint32
    (http://yann.lecun.com/exdb/mnist).
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise EdgeclsError(f"damaged or unreadable file: {error}", where=str(path)) from None
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise UsageError("not an IDX file of unsigned bytes", where=str(path))
    start = 4 + 4 * data[3]
    shape = np.frombuffer(data[4:start], ">u4").astype(int)
    if len(shape) != data[3] or len(data) != start + int(np.prod(shape)):
        raise EdgeclsError(
            f"damaged file: its header says {'x'.join(map(str, shape))} bytes", where=str(path)
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
