"""What a recipe's ``data`` section points to, as lists of images and labels: one function a source.

========  =====================================================================================================
folder    A subfolder a class, at any depth below it; or ``train``, ``val`` and ``test`` with class folders inside.
          Images directly in ``path``, without any class folder, are unlabelled.
list      A text file, one ``path label`` a line; the label is the last word, so paths may contain spaces. Labels are
          numbers or names; -1 or none is unlabelled. Paths start from the file's folder.
idx       The MNIST format, gzipped or not: a folder with the files' usual names, or an images file.
elpv      2,624 photographs of solar cells of the package elpv-dataset (Deitsch et al., 2019, Buerhop-Lutz et al.,
          2018; CC BY-NC-SA): "defective" where the experts' probability of a defect is above 1/2, else "ok".
========  =====================================================================================================
"""

from __future__ import annotations

import gzip
import importlib.util
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecls import recipe
from edgecls.data.images import EXTENSIONS
from edgecls.data.sampling import UNLABELLED
from edgecls.errors import EdgeclsError, MissingError, UsageError


@dataclass(frozen=True)
class Part:
    """Images of one purpose, before bad ones are dropped and splits are made.

    Attributes:
        names: Stable names: of a file below the source's folder, or the number of an image in an IDX file.
        labels: int64 [N].
        files: Paths, or None.
        images: uint8 [N, H, W, 1], or None.
    """

    names: list[str]
    labels: np.ndarray
    files: list[str] | None = None
    images: np.ndarray | None = None


Parts = dict[str, Part]
"""``"train"`` and, where the source has them, ``"val"`` and ``"test"``."""


@dataclass(frozen=True)
class Row:
    """One image of a text or folder source: its label is still the user's word for it."""

    name: str
    file: str
    label: str | None
    where: str


def read(cfg: recipe.Data) -> tuple[list[str], Parts]:
    """Class names and parts of a ``data`` section.

    Raises:
        MissingError: A file, folder or package is not there.
        UsageError: A label outside ``classes``, or a file of the wrong form.
    """
    return _READERS[cfg.source](cfg)


def _path(text: str | None, what: str) -> Path:
    path = Path(text or "").expanduser()
    if not text or not path.exists():
        fix = "set data.path to where your images are (data.source: elpv needs none)"
        raise MissingError(f"no such {what}", where=str(path) if text else "data.path", fix=fix)
    return path


# Folders ---------------------------------------------------------------------------------------------------------

_PURPOSES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def read_folder(cfg: recipe.Data) -> tuple[list[str], Parts]:
    root = _path(cfg.path, "data folder")
    if not root.is_dir():
        raise UsageError("not a folder", where=str(root), fix="data.source: list reads a text file")
    roots = {"train": root}
    inner = {purpose: _first_folder(root, names) for purpose, names in _PURPOSES.items()}
    if inner["train"] is not None and _folders(inner["train"]):
        roots = {purpose: folder for purpose, folder in inner.items() if folder is not None}
    for purpose, text in (("val", cfg.val_path), ("test", cfg.test_path)):
        if text is not None:
            roots[purpose] = _path(text, f"{purpose} folder")
    empty = [c for c in _folders(roots["train"]) if not any(_images(c))]
    if empty:
        fix = "add images, or move the folder away if it is no class"
        raise UsageError(f"no images in the class folder {empty[0].name!r}", where=str(empty[0]), fix=fix)
    return _label({purpose: _folder_rows(folder) for purpose, folder in roots.items()}, cfg)


def _first_folder(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / n for n in names if (root / n).is_dir()), None)


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _images(folder: Path) -> Iterator[Path]:
    """Image files at any depth, sorted within each folder."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _images(path)
        elif path.suffix.lower() in EXTENSIONS:
            yield path


def _folder_rows(root: Path) -> list[Row]:
    classes = _folders(root)
    if not classes:
        return [Row(p.name, str(p), None, str(p)) for p in _images(root)]
    return [
        Row(p.relative_to(root).as_posix(), str(p), folder.name, str(p))
        for folder in classes
        for p in _images(folder)
    ]


# List files ------------------------------------------------------------------------------------------------------


def read_list(cfg: recipe.Data) -> tuple[list[str], Parts]:
    paths = {"train": _path(cfg.path, "list file")}
    for purpose, text in (("val", cfg.val_path), ("test", cfg.test_path)):
        if text is not None:
            paths[purpose] = _path(text, f"{purpose} list file")
    return _label({purpose: _list_rows(path) for purpose, path in paths.items()}, cfg)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise UsageError("not a UTF-8 text file", where=str(path)) from None
    except OSError as error:
        fix = "a list file has one `path label` a line; a folder is data.source: folder"
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), fix=fix) from None


def _list_rows(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(_lines(path), 1):
        line = line.strip()
        if not line:
            continue
        name, _, label = line.replace("\t", " ").rpartition(" ")
        if not name or Path(label).suffix.lower() in EXTENSIONS:
            name, label = line, ""
        rows.append(Row(name.strip(), str(path.parent / name.strip()), label or None, f"{path}:{number}"))
    return rows


# Labels of folders and lists -------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?\d+")


def _label(rows: dict[str, list[Row]], cfg: recipe.Data) -> tuple[list[str], Parts]:
    """Turn the users' labels into class numbers."""
    words = {row.label for part in rows.values() for row in part if row.label not in (None, "-1")}
    named = _class_names(cfg)
    numbers = (cfg.source == "list" or not words) and all(_NUMBER.fullmatch(w) for w in words if w)
    if named is not None and numbers and words & set(named):
        numbers = False  # classes that are called "0", "7", ...
    if numbers:
        top = max((int(w) for w in words if w), default=-1)
        classes = named or [str(i) for i in range(cfg.classes if isinstance(cfg.classes, int) else top + 1)]
        index = {str(i): i for i in range(len(classes))}
    else:
        classes = named or sorted(w for w in words if w)
        index = {name: i for i, name in enumerate(classes)}
        if isinstance(cfg.classes, int) and len(classes) != cfg.classes:
            raise UsageError(
                f"{len(classes)} classes found, {cfg.classes} expected",
                where="data.classes",
                fix=_head(classes),
            )

    def number(row: Row) -> int:
        if row.label is None or row.label == "-1":
            return UNLABELLED
        found = index.get(str(int(row.label)) if numbers else row.label)
        if found is None:
            known = f"0 to {len(classes) - 1}" if numbers else _head(classes)
            raise UsageError(
                f"label {row.label!r} is not among the {len(classes)} classes",
                where=row.where,
                fix=f"known are {known}; change it or data.classes",
            )
        return found

    parts = {
        purpose: Part(
            names=[row.name for row in part],
            labels=np.array([number(row) for row in part], np.int64),
            files=[row.file for row in part],
        )
        for purpose, part in rows.items()
    }
    return list(classes), parts


def _head(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _class_names(cfg: recipe.Data) -> list[str] | None:
    """Names the recipe gives, in the order of their numbers."""
    if isinstance(cfg.classes, list):
        return list(cfg.classes)
    if cfg.labels is None or cfg.source == "idx":
        return None
    path = _path(cfg.labels, "label file")
    names = [line.strip() for line in _lines(path) if line.strip()]
    if len(set(names)) < len(names):
        raise UsageError("a class name appears twice", where=str(path))
    if isinstance(cfg.classes, int) and len(names) != cfg.classes:
        raise UsageError(f"{len(names)} names, but data.classes is {cfg.classes}", where=str(path))
    return names


# IDX -------------------------------------------------------------------------------------------------------------

_IDX_IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}


def read_idx(cfg: recipe.Data) -> tuple[list[str], Parts]:
    files: dict[str, Path] = {}
    root = _path(cfg.path, "IDX file or folder")
    if root.is_dir():
        files = {p: f for p, name in _IDX_IMAGES.items() if (f := _either(root / name)) is not None}
        if "train" not in files:
            raise MissingError(f"no {_IDX_IMAGES['train']}[.gz]", where=str(root), fix="set data.path")
    else:
        files["train"] = root
    for purpose, text in (("val", cfg.val_path), ("test", cfg.test_path)):
        if text is not None:
            files[purpose] = _path(text, f"{purpose} images file")
    raw = {}
    for purpose, path in files.items():
        given = cfg.labels if purpose == "train" and not root.is_dir() else None
        raw[purpose] = _idx_part(path, given)
    top = max((int(part.labels.max(initial=-1)) for part in raw.values()), default=-1)
    count = cfg.classes if isinstance(cfg.classes, int) else top + 1
    classes = list(cfg.classes) if isinstance(cfg.classes, list) else [str(i) for i in range(count)]
    if top >= len(classes):
        raise UsageError(
            f"label {top} is beyond the {len(classes)} classes", where=str(root), fix="set data.classes"
        )
    return classes, raw


def _either(path: Path) -> Path | None:
    """The file, or its gzipped twin."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _idx_part(path: Path, labels: str | None) -> Part:
    plain = path.name.removesuffix(".gz")
    if labels is not None:
        label_path: Path | None = _path(labels, "label file")
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
    """An IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist: two zeros, type 8, rank, big-endian sizes)."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise EdgeclsError(f"torn or unreadable file: {error}", where=str(path)) from None
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise UsageError("not an IDX file of unsigned bytes", where=str(path))
    start = 4 + 4 * data[3]
    shape = np.frombuffer(data[4:start], ">u4").astype(int)
    if len(shape) != data[3] or len(data) != start + int(np.prod(shape)):
        raise EdgeclsError(f"torn file: its header says {'x'.join(map(str, shape))} bytes", where=str(path))
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


# The built-in photographs ----------------------------------------------------------------------------------------


def read_elpv(cfg: recipe.Data) -> tuple[list[str], Parts]:
    spec = importlib.util.find_spec("elpv_dataset")
    root = Path(spec.origin).parent / "data" if spec is not None and spec.origin else None
    if root is None or not (root / "labels.csv").is_file():
        fix = "pip install 'edgecls[demo]'"
        raise MissingError(
            "the built-in photographs need the package elpv-dataset", where="data.source: elpv", fix=fix
        )
    rows = [line.split() for line in (root / "labels.csv").read_text("utf-8").splitlines() if line.strip()]
    part = Part(
        names=[row[0] for row in rows],
        labels=np.array([int(float(row[1]) > 0.5) for row in rows], np.int64),
        files=[str(root / row[0]) for row in rows],
    )
    classes = ["ok", "defective"]
    if cfg.classes not in (None, 2, classes):
        raise UsageError(
            "elpv has the classes ok and defective", where="data.classes", fix="leave the key out"
        )
    return classes, {"train": part}


_READERS: dict[str, Callable[[recipe.Data], tuple[list[str], Parts]]] = {
    "folder": read_folder,
    "list": read_list,
    "idx": read_idx,
    "elpv": read_elpv,
}
