"""A data set: classes, and the training, validation and test split. No TensorFlow.

Every file is decoded once, or when it is met first if there are very many. Files that cannot be decoded are named, counted and left out. The test split depends only
on the data and ``test_fraction``, so every recipe and every seed is measured on the same images. Copies of one file
are never in two splits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecls import recipe
from edgecls.data import readers
from edgecls.data.sampling import UNLABELLED, stratified
from edgecls.data.split import Split, check, confirmed
from edgecls.errors import EdgeclsError, MissingError, UsageError

MEMORY_LIMIT = 3 * 2**29
"""The most bytes of decoded images, all splits together, that are kept in memory: 1.5 GiB."""


@dataclass(frozen=True)
class Dataset:
    """What ``load_dataset`` returns.

    Attributes:
        classes: Names, in the order of the labels.
        train: Images to learn from.
        val: Images to choose the best epoch by; may be empty.
        test: Images to report scores on, used for nothing else; may be empty.
        bad: (name, reason) of the files that were left out.
        duplicates: How many images are copies of another one.
        notes: What was assumed of the source and what the user should know, one line each.
    """

    classes: list[str]
    train: Split
    val: Split
    test: Split
    bad: list[tuple[str, str]]
    duplicates: int
    notes: list[str] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """The content of a run's ``split.json``."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {
            "schema": "edgecls.split/1",
            "classes": self.classes,
            "splits": {name: split.describe(len(self.classes)) for name, split in splits.items()},
            "bad": [list(pair) for pair in self.bad],
            "duplicates": self.duplicates,
            "notes": self.notes,
        }


def load_dataset(cfg: recipe.Data, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Read, check and split a data set.

    Args:
        cfg: The recipe's ``data`` section.
        progress: Called with (done, all) while files are checked for the first time.

    Raises:
        MissingError: A folder, file or package is not there, or there are no images.
        UsageError: One class only, a class too small to split, or a label outside ``classes``.
        EdgeclsError: More than ``max_bad_fraction`` of the files cannot be decoded.

    Example:
        >>> data = load_dataset(recipe.Data(path="photos"))  # doctest: +SKIP
        >>> data.classes, len(data.train), len(data.test)  # doctest: +SKIP
        (['cat', 'dog'], 62, 23)
    """
    classes, parts = readers.read(cfg)
    where = cfg.path or f"data.source: {cfg.source}"
    count = sum(len(part.names) for part in parts.values())
    if not count:
        raise MissingError(
            "no images found", where=where, fix="put the photos of each class into a folder of its own"
        )
    source = str(Path(cfg.path).absolute()) if cfg.path else cfg.source
    splits = {purpose: check(part, source, progress) for purpose, part in parts.items()}
    bad = [pair for split in splits.values() for pair in split.bad]
    undecodable = len(bad) - sum(len(part.left_out) for part in parts.values())
    if undecodable > cfg.max_bad_fraction * count:
        limit = f"data.max_bad_fraction {cfg.max_bad_fraction:g}"
        what = f"{undecodable} of {count} images cannot be used, more than {limit}: {_shown(bad)}"
        raise EdgeclsError(what, where=where, fix="remove or repair them, or raise the limit")

    fractions = {"test": cfg.test_fraction, "val": cfg.val_fraction}
    to_make = {purpose: f for purpose, f in fractions.items() if purpose not in splits}
    _check_classes(splits["train"], classes, 2 if any(to_make.values()) else 1, where)
    groups = np.array(_groups(splits["train"].names, splits["train"].digests), object)
    for purpose, fraction in to_make.items():
        rest = splits["train"]
        chosen = stratified(rest.labels, groups, fraction, f"edgecls {purpose} split")
        splits[purpose], splits["train"], groups = rest.subset(chosen), rest.subset(~chosen), groups[~chosen]

    splits, bad_there, notes = confirmed(splits, source, cfg.max_bad_fraction, progress)
    in_memory = cfg.cache and sum(int(s.sizes.sum()) for s in splits.values()) <= MEMORY_LIMIT
    splits = {purpose: replace(s, in_memory=in_memory) for purpose, s in splits.items()}
    digests = [digest for split in splits.values() for digest in split.digests]
    duplicates = len(digests) - len(set(digests))
    return Dataset(
        classes, splits["train"], splits["val"], splits["test"], bad + bad_there, duplicates, notes
    )


def load_for_scoring(
    path: Path,
    classes: list[str],
    split: str = "test",
    progress: Callable[[int, int], None] | None = None,
) -> Split:
    """Read labeled photos to score a model on.

    Args:
        path: A folder of class folders; a folder with ``train``, ``val`` and ``test`` inside, which have class folders;
            or a list file, one ``path label`` a line. Labels are names of ``classes``, or numbers in a list file.
        classes: The model's class names, in the order of its outputs. Photos of some classes may be missing.
        split: The folder to read of ``train``, ``val`` and ``test``.
        progress: Called with (done, all) while files are checked for the first time.

    Returns:
        The photos that can be read; those of a list file may be unlabeled. ``bad`` names the others.

    Raises:
        MissingError: There is no such file or folder, or it has no photos.
        UsageError: A label is no class of the model, no photo has a label, or the folder has no such split.
        EdgeclsError: No photo can be read.
    """
    part = readers.read_to_score(path, classes, split)
    if not part.names:
        raise MissingError(
            "no images found", where=str(path), fix="put the photos of each class into a folder of its own"
        )
    photos = check(part, str(path.absolute()), progress)
    if not (photos.labels != UNLABELLED).any():
        what = f"no labeled photo can be used, {len(photos.bad)} files are bad: {_shown(photos.bad)}"
        raise EdgeclsError(what, where=str(path), fix="repair them")
    return replace(photos, in_memory=False)  # every photo is read once


def _groups(names: list[str], digests: list[str]) -> list[str]:
    """For each image the alphabetically first name of those with its content."""
    first: dict[str, str] = {}
    for name, digest in zip(names, digests, strict=True):
        first[digest] = min(name, first.get(digest, name))
    return [first[digest] for digest in digests]


def _shown(bad: list[tuple[str, str]], most: int = 3) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in bad[:most]) + (
        "; ..." if len(bad) > most else ""
    )


def _check_classes(train: Split, classes: list[str], least: int, where: str) -> None:
    """Check that there are two classes, and ``least`` images of each class that has any.

    A class of ``data.classes`` may have no images: unlabeled images can be of it.
    """
    labelled = train.labels[train.labels != UNLABELLED]
    counts = np.bincount(labelled, minlength=len(classes))
    present = [name for name, n in zip(classes, counts, strict=True) if n] if len(labelled) else classes
    if len(present) < 2:
        if not present:
            fix = "name them in data.classes: unlabeled images do not tell"
            raise UsageError("there are no class names", where=where, fix=fix)
        what = f"two classes or more are needed, found only '{present[0]}'"
        raise UsageError(what, where=where, fix="add another class")
    few = [f"{name} ({n})" for name, n in zip(classes, counts, strict=True) if 0 < n < least]
    if few:
        shown = ", ".join(few[:3]) + (", ..." if len(few) > 3 else "")
        fix = f"add images or drop the class; the splits need {least}"
        raise UsageError(f"too few images of a class: {shown}", where=where, fix=fix)
