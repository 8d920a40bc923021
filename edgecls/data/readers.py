"""Lists of images and labels from the source that a recipe's ``data`` section names. Each source has one function.

========  =====================================================================================================
folder    Each subfolder is a class; its photos may lie at any depth. Or ``train``, ``val`` and ``test`` with class
          folders inside, under their usual names. Photos beside class folders are named and left out. Without any
          class folder, the photos in ``path`` are unlabeled.
list      A text file, one ``path label`` a line, or a CSV file (``edgecls.data.lists``). Or a folder with list files
          called ``train``, ``val`` and ``test``. Labels are numbers or names; an image with the label -1 or without
          one is unlabeled. Paths start from the file's folder. File names are bytes, as on disk; labels are UTF-8.
tfrecord  Files of encoded images and labels (``edgecls.data.tfrecord``): one, a pattern such as
          ``train-*.tfrecord``, or a folder of them.
idx       The MNIST format, gzipped or not: a folder with the files' usual names, or an images file.
elpv      2,624 photographs of solar cells of the package elpv-dataset (Deitsch et al., 2019, Buerhop-Lutz et al.,
          2018; CC BY-NC-SA): "defective" where the experts' probability of a defect is above 1/2, else "ok".
========  =====================================================================================================
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from edgecls import recipe
from edgecls.data import folders, lists, tfrecord
from edgecls.data.idx import read_idx
from edgecls.data.labelling import check_parts, number_rows, numbering, parse_names
from edgecls.data.listing import list_folders, purpose_of
from edgecls.data.paths import existing_path, refuse_archive
from edgecls.data.rows import Part, Rows
from edgecls.data.sampling import UNLABELLED
from edgecls.errors import MissingError, UsageError
from edgecls.labels import check_labels, read_labels
from edgecls.text import escape

__all__ = ["Contents", "Part", "guess_source", "read", "read_extra", "read_to_score"]


@dataclass(frozen=True)
class Contents:
    """What a source has.

    Attributes:
        classes: The class names.
        parts: A part named ``"train"``, and parts named ``"val"`` and ``"test"`` if the source has them.
        notes: What was assumed, one line each.
    """

    classes: list[str]
    parts: dict[str, Part]
    notes: list[str] = field(default_factory=list)


def read(cfg: recipe.Data) -> Contents:
    """The class names and the images of a ``data`` section, without its extra sources.

    Raises:
        MissingError: A file, folder or package is not there.
        UsageError: A label outside ``classes``, a class name that no text file can hold, or a file of the wrong form.
    """
    contents = _READERS[cfg.source](cfg)
    check_labels(contents.classes, where=cfg.path or f"data.source: {cfg.source}")
    return contents


def read_extra(extra: recipe.Extra, classes: Sequence[str]) -> tuple[Part, list[str]]:
    """The images of a further source, and what was assumed of it.

    Raises:
        MissingError: There is no such file or folder.
        UsageError: A label is none of ``classes``.
    """
    path = Path(extra.path).expanduser()
    if extra.source != "tfrecord":  # which may be a pattern
        path = existing_path(extra.path, "file or folder of data.extra")
    if not extra.labels and extra.source == "folder":
        rows = folders.read_unlabeled(path)
    else:
        rows = _rows_of(extra.source, path)
    if not extra.labels:
        part = Part(rows.names, np.full(len(rows.names), UNLABELLED, np.int64), rows.files, bad=rows.bad)
        return part, rows.notes
    by = numbering(Counter(_words(rows)), classes, numbers_allowed=extra.source != "folder")
    fix = "rename it to a class of the main source, or set labels: false"
    return number_rows({"train": rows}, by, fix)["train"], rows.notes


def read_to_score(path: Path, classes: Sequence[str], split: str) -> tuple[Part, list[str]]:
    """The images of a folder or list file with the labels of a model, and what was assumed.

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
    refuse_archive(path)
    notes: list[str] = []
    if path.is_dir():
        splits, notes = folders.split_folders(path)
        if splits and split not in splits:
            fix = f"choose with --split: {', '.join(splits)}"
            raise UsageError(f"the folder has no {split} split", where=str(path), fix=fix)
        rows = folders.read_folder(splits.get(split, path))
    else:
        rows = _rows_of(guess_source(path), path)
    words = Counter(_words(rows))
    by = numbering(words, classes, numbers_allowed=path.is_file())
    twice = sorted(name for name, n in Counter(classes).items() if n > 1 and name in words)
    if twice and not by.by_number:
        fix = "give a list file whose labels are class numbers"
        raise UsageError(f"the model has two classes called '{twice[0]}'", where=str(path), fix=fix)
    fix = "rename it to a class of the model, or leave it out"
    part = number_rows({split: rows}, by, fix)[split]
    if rows.names and not (part.labels != UNLABELLED).any():
        fix = "scores need photos in class folders, or a list file with labels"
        raise UsageError("no photo has a label", where=str(path), fix=fix)
    return part, [*notes, *rows.notes, *(note for note in by.notes if by.by_number)]


# Sources with labels as they are written -------------------------------------------------------------------------


def _read_folder(cfg: recipe.Data) -> Contents:
    root = existing_path(cfg.path, "data folder")
    if not root.is_dir():
        raise UsageError("not a folder", where=str(root), fix="data.source: list reads a text file")
    roots, notes = folders.split_folders(root)
    if roots and "train" not in roots:
        what = (
            f"there is no folder to train from beside {' and '.join(escape(f.name) for f in roots.values())}"
        )
        raise UsageError(what, where=str(root), fix="call it train, or name it in data.path")
    roots = roots or {"train": root}
    for purpose, text in (("val", cfg.val_path), ("test", cfg.test_path)):
        if text is not None:
            roots[purpose] = existing_path(text, f"{purpose} folder")
    rows = {purpose: folders.read_folder(folder) for purpose, folder in roots.items()}
    folders.check_classes(roots["train"], rows["train"])
    return _numbered(rows, cfg, notes)


def _read_list(cfg: recipe.Data) -> Contents:
    path = existing_path(cfg.path, "list file")
    found = _lists_in(path) if path.is_dir() else {"train": path}
    notes = [f"lists: {', '.join(f'{p.name} to {purpose}' for purpose, p in found.items())}"]
    for purpose, text in (("val", cfg.val_path), ("test", cfg.test_path)):
        if text is not None:
            found[purpose] = existing_path(text, f"{purpose} list file")
    rows = {
        purpose: lists.read_list(file, cfg.image_column, cfg.label_column) for purpose, file in found.items()
    }
    return _numbered(rows, cfg, notes if path.is_dir() else [])


_LIST_SUFFIXES = frozenset((".txt", ".csv", ".tsv", ".lst", ".list"))


def _lists_in(folder: Path) -> dict[str, Path]:
    """The list files of a folder by purpose: ``train.txt``, ``val_list.txt``, ``Test.csv``.

    Raises:
        UsageError: There is none to train from, or two have one purpose.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        purpose = purpose_of(path.stem) if path.suffix.lower() in _LIST_SUFFIXES and path.is_file() else None
        if purpose in found:
            what = f"{found[purpose].name} and {path.name} are both lists to {purpose}"
            raise UsageError(what, where=str(folder), fix="name the one to use in data.path")
        if purpose is not None:
            found[purpose] = path
    if "train" not in found:
        fix = "name the list file in data.path; class folders are data.source: folder"
        raise UsageError("a folder without a list file such as train.txt", where=str(folder), fix=fix)
    return found


def _read_tfrecord(cfg: recipe.Data) -> Contents:
    path = Path(cfg.path or "").expanduser()
    found = _shards_in(path) if path.is_dir() else {"train": path}
    for purpose, text in (("val", cfg.val_path), ("test", cfg.test_path)):
        if text is not None:
            found[purpose] = Path(text).expanduser()
    columns = (cfg.image_column, cfg.label_column)
    if any(isinstance(column, int) for column in columns):
        raise UsageError(
            "features of TFRecord files have names", where="data.image_column, data.label_column"
        )
    image, label = (column if isinstance(column, str) else None for column in columns)
    rows = {purpose: tfrecord.read_tfrecords(each, image, label) for purpose, each in found.items()}
    return _numbered(rows, cfg, [])


def _shards_in(folder: Path) -> dict[str, Path]:
    """Patterns of the shards in a folder by purpose; all of them to train from where their names say nothing."""
    names = [file.name for file in tfrecord.tfrecord_files(folder)]
    stems = {re.split(r"[-_.]", name)[0]: purpose_of(re.split(r"[-_.]", name)[0]) for name in names}
    found = {purpose: folder / f"{stem}[-_.]*" for stem, purpose in stems.items() if purpose is not None}
    return found if len(found) == len(stems) and "train" in found else {"train": folder}


def _rows_of(source: str, path: Path) -> Rows:
    """All images of a path, as an extra source has them."""
    if source == "folder":
        return folders.read_folder(path)
    return tfrecord.read_tfrecords(path) if source == "tfrecord" else lists.read_list(path)


def guess_source(path: Path) -> Literal["folder", "list", "tfrecord"]:
    """Which ``data.source`` reads a file or folder.

    Example:
        >>> guess_source(Path("train.tfrecord")), guess_source(Path("photos.csv"))  # doctest: +SKIP
        ('tfrecord', 'list')
    """
    if path.is_file():
        return "tfrecord" if tfrecord.is_tfrecord_name(path.name) else "list"
    if list_folders(path):
        return "folder"
    names = [file.name for file in path.iterdir()]
    if any(map(tfrecord.is_tfrecord_name, names)):
        return "tfrecord"
    lists_there = any(purpose_of(Path(name).stem) and Path(name).suffix in _LIST_SUFFIXES for name in names)
    return "list" if lists_there else "folder"


def _words(rows: Rows) -> list[str]:
    return [word for word in rows.labels if word is not None]


def _numbered(rows: dict[str, Rows], cfg: recipe.Data, notes: list[str]) -> Contents:
    """Class names and numbered images of a recipe's source."""
    words = Counter(word for part in rows.values() for word in _words(part))
    names = _class_names(cfg)
    classes = names if names is not None else cfg.classes
    by = numbering(words, classes, numbers_allowed=cfg.source != "folder" or not words)
    notes = [
        *notes,
        *(note for part in rows.values() for note in part.notes),
        *by.notes,
        *check_parts(rows, by),
    ]
    return Contents(
        by.classes, number_rows(rows, by, "change it or data.classes"), list(dict.fromkeys(notes))
    )


def _class_names(cfg: recipe.Data) -> list[str] | None:
    """Names the recipe gives, in the order of their numbers."""
    if isinstance(cfg.classes, list):
        return list(cfg.classes)
    if cfg.labels is None:
        return None
    path = existing_path(cfg.labels, "label file")
    names = parse_names(read_labels(path))
    if len(set(names)) < len(names):
        raise UsageError("a class name appears twice", where=str(path))
    if isinstance(cfg.classes, int) and len(names) != cfg.classes:
        raise UsageError(f"{len(names)} names, but data.classes is {cfg.classes}", where=str(path))
    return names


# Sources with class numbers --------------------------------------------------------------------------------------


def _read_elpv(cfg: recipe.Data) -> Contents:
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
    return Contents(classes, {"train": part})


_READERS: dict[str, Callable[[recipe.Data], Contents]] = {
    "folder": _read_folder,
    "list": _read_list,
    "tfrecord": _read_tfrecord,
    "idx": lambda cfg: Contents(*read_idx(cfg)),
    "elpv": _read_elpv,
}
