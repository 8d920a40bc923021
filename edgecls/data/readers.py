"""Lists of images and labels from the source that a recipe's ``data`` section names. Each source has one function.

========  =====================================================================================================
folder    Each subfolder is a class; its photos may lie at any depth. Or ``train``, ``val`` and ``test`` with class
          folders inside. Photos beside class folders are named and left out. Without any class folder, the photos in
          ``path`` are unlabeled.
list      A text file, one ``path label`` a line. The label is the last word, so paths may contain spaces. Labels are
          numbers or names; an image with the label -1 or without one is unlabeled. Paths start from the file's
          folder. File names are bytes, as on disk; labels are UTF-8.
idx       The MNIST format, gzipped or not: a folder with the files' usual names, or an images file.
elpv      2,624 photographs of solar cells of the package elpv-dataset (Deitsch et al., 2019, Buerhop-Lutz et al.,
          2018; CC BY-NC-SA): "defective" where the experts' probability of a defect is above 1/2, else "ok".
========  =====================================================================================================
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecls import recipe
from edgecls.data.labelling import Labels, Part, Row, number_rows
from edgecls.data.listing import EXTENSIONS, is_photo_name, list_folders, list_photos
from edgecls.data.sampling import UNLABELLED
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.labels import check_labels, read_labels
from edgecls.text import escape

Parts = dict[str, Part]
"""A part named ``"train"``, and parts named ``"val"`` and ``"test"`` if the source has them."""


def read(cfg: recipe.Data) -> tuple[list[str], Parts]:
    """The class names and the images of a ``data`` section.

    Raises:
        MissingError: A file, folder or package is not there.
        UsageError: A label outside ``classes``, a class name that no text file can hold, or a file of the wrong form.
    """
    classes, parts = _READERS[cfg.source](cfg)
    check_labels(classes, where=cfg.path or f"data.source: {cfg.source}")
    return classes, parts


def read_to_score(path: Path, classes: Sequence[str], split: str) -> Part:
    """The images of a folder or list file, with the labels of a model.

    Args:
        path: A folder of class folders, a folder with ``train``, ``val`` and ``test`` inside, or a list file.
        classes: The model's class names, in the order of its outputs.
        split: Which of ``train``, ``val`` and ``test`` is read where the folder has them.

    Raises:
        MissingError: There is no such file or folder.
        UsageError: A label is no class of the model, no photo has a label, or the split is not there.
    """
    if not path.exists():
        raise MissingError("no such folder or list file", where=str(path), fix="check the path")
    if path.is_dir():
        folders = _split_folders(path)
        if folders and split not in folders:
            fix = f"choose with --split: {', '.join(folders)}"
            raise UsageError(f"the folder has no {split} split", where=str(path), fix=fix)
        root = folders.get(split, path)
        rows, left_out = _folder_rows(root), _loose(root)
    else:
        rows, left_out = _list_rows(path), []
    words = {row.label for row in rows}
    fix = "rename it to a class of the model, or leave it out"
    labels = Labels(words, classes, numbers_allowed=path.is_file(), fix=fix)
    twice = sorted(name for name, n in Counter(classes).items() if n > 1 and name in words)
    if twice and not labels.by_number:
        fix = "give a list file whose labels are class numbers"
        raise UsageError(f"the model has two classes called '{twice[0]}'", where=str(path), fix=fix)
    part = number_rows(rows, labels)
    if rows and not (part.labels != UNLABELLED).any():
        fix = "scores need photos in class folders, or a list file with labels"
        raise UsageError("no photo has a label", where=str(path), fix=fix)
    return replace(part, left_out=left_out)


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
    roots = _split_folders(root)
    if "train" not in roots or not list_folders(roots["train"]):
        roots = {"train": root}
    for purpose, text in (("val", cfg.val_path), ("test", cfg.test_path)):
        if text is not None:
            roots[purpose] = _path(text, f"{purpose} folder")
    rows = {purpose: _folder_rows(folder) for purpose, folder in roots.items()}
    with_photos = {row.label for row in rows["train"]}
    empty = [c for c in list_folders(roots["train"]) if c.name not in with_photos]
    if empty:
        fix = "add images, or move the folder away if it is no class"
        name = escape(empty[0].name)
        raise UsageError(f"no images in the class folder '{name}'", where=str(empty[0]), fix=fix)
    classes, parts = _label(rows, cfg)
    return classes, {
        purpose: replace(part, left_out=_loose(roots[purpose])) for purpose, part in parts.items()
    }


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders ``train``, ``val`` and ``test`` of ``root``; none where no class folders are inside."""
    folders = {
        purpose: folder
        for purpose, names in _PURPOSES.items()
        if (folder := next((root / name for name in names if (root / name).is_dir()), None)) is not None
    }
    return folders if any(map(list_folders, folders.values())) else {}


def _loose(root: Path) -> list[tuple[str, str]]:
    """Photos that lie beside the class folders of ``root``, with the reason why they are not used."""
    if not list_folders(root):
        return []
    names = sorted(path.name for path in root.iterdir() if is_photo_name(path.name) and not path.is_dir())
    return [(escape(name), "in no class folder") for name in names]


def _folder_rows(root: Path) -> list[Row]:
    """The photos below ``root``; without class folders they are unlabeled."""
    folders: dict[str | None, Path] = {folder.name: folder for folder in list_folders(root)}
    return [
        Row(escape(photo.relative_to(root).as_posix()), str(photo), label, where=str(folder))
        for label, folder in (folders or {None: root}).items()
        for photo in list_photos(folder)
    ]


# List files ------------------------------------------------------------------------------------------------------


def read_list(cfg: recipe.Data) -> tuple[list[str], Parts]:
    paths = {"train": _path(cfg.path, "list file")}
    for purpose, text in (("val", cfg.val_path), ("test", cfg.test_path)):
        if text is not None:
            paths[purpose] = _path(text, f"{purpose} list file")
    return _label({purpose: _list_rows(path) for purpose, path in paths.items()}, cfg)


def _list_rows(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(_lines(path), 1):
        line = line.strip(" \t")
        if not line:
            continue
        name, _, label = line.replace("\t", " ").rpartition(" ")
        if not name or Path(label).suffix.lower() in EXTENSIONS:
            name, label = line, ""
        name = name.strip(" ")
        rows.append(Row(escape(name), str(path.parent / name), label or None, f"{path}:{number}"))
    return rows


def _lines(path: Path) -> list[str]:
    """Lines of a list file. Bytes that are not UTF-8 become surrogates, as in all file names of Python."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        fix = "a list file has one `path label` a line; a folder is data.source: folder"
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), fix=fix) from None
    if "\0" in text:
        raise UsageError("not a UTF-8 text file", where=str(path), fix="save it as UTF-8")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")


# Labels of folders and lists -------------------------------------------------------------------------------------


def _label(rows: dict[str, list[Row]], cfg: recipe.Data) -> tuple[list[str], Parts]:
    """Class names and numbered images of a recipe's folder or list."""
    words = {row.label for part in rows.values() for row in part}
    labels = Labels(
        words,
        _class_names(cfg),
        cfg.classes if isinstance(cfg.classes, int) else None,
        numbers_allowed=cfg.source == "list" or words <= {None, "-1"},
        fix="change it or data.classes",
    )
    return labels.classes, {purpose: number_rows(part, labels) for purpose, part in rows.items()}


def _class_names(cfg: recipe.Data) -> list[str] | None:
    """Names the recipe gives, in the order of their numbers."""
    if isinstance(cfg.classes, list):
        return list(cfg.classes)
    if cfg.labels is None or cfg.source == "idx":
        return None
    path = _path(cfg.labels, "label file")
    names = [name.strip() for name in read_labels(path) if name.strip()]
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
