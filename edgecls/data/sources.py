"""A data set: classes, and the training, validation and test split. No TensorFlow.

Every file is decoded once. Files that cannot be decoded are named, counted and left out. The test split depends only
on the data and ``test_fraction``, so every recipe and every seed is measured on the same images. Copies of one file
are never in two splits.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgecls import recipe
from edgecls.data import readers
from edgecls.data.copies import Copies, held_out
from edgecls.data.rows import Part, at_most
from edgecls.data.sampling import UNLABELLED, make_sampling, stratified
from edgecls.data.split import Split, check, confirmed, join
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.text import escape, plural

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
        near_duplicates: Counts of near-copies: ``pairs`` and ``in_two_splits``; None: nobody looked.
        notes: What was assumed of the source and what the user should know, one line each.
    """

    classes: list[str]
    train: Split
    val: Split
    test: Split
    bad: list[tuple[str, str]]
    duplicates: int
    near_duplicates: dict[str, int] | None = None
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
            "near_duplicates": self.near_duplicates,
            "notes": self.notes,
        }


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Leave out Python's search for circles of objects: it would visit millions of names again and again.

    Reading and decoding make no circles, so nothing is kept that would be freed.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_collector_paused()
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
    contents = readers.read(cfg)
    classes = contents.classes
    parts = {purpose: at_most(part, cfg.max_images) for purpose, part in contents.parts.items()}
    where = cfg.path or f"data.source: {cfg.source}"
    count = sum(len(part.names) + len(part.bad) for part in parts.values())
    if not count:
        raise MissingError(
            "no images found", where=where, fix=_to_do(contents, _NO_IMAGES.get(cfg.source, _IN_FOLDERS))
        )
    source = str(Path(cfg.path).absolute()) if cfg.path else cfg.source
    splits = {purpose: check(part, source, progress) for purpose, part in parts.items()}
    bad = _check_bad(cfg, parts, splits, where)
    if not classes:
        fix = "name the classes in data.classes: unlabeled images do not tell"
        raise UsageError("no image has a label", where=where, fix=_to_do(contents, fix))
    splits, left_out = _split(cfg, splits, classes, source, where)
    splits, extra_left_out, notes = _with_extra(cfg, splits, classes, source, progress)
    splits, bad_there, assumed = confirmed(splits, source, cfg.max_bad_fraction, progress)

    in_memory = cfg.cache and sum(int(s.sizes.sum()) for s in splits.values()) <= MEMORY_LIMIT
    splits = {purpose: replace(s, in_memory=in_memory) for purpose, s in splits.items()}
    copies = Copies(splits, source, cfg.near_duplicates, progress)
    return Dataset(
        classes,
        splits["train"],
        splits["val"],
        splits["test"],
        bad + left_out + extra_left_out + bad_there,
        duplicates=copies.duplicates,
        near_duplicates=copies.describe(),
        notes=[*contents.notes, *notes, *assumed, *copies.notes(), *_said_of_sampling(cfg, splits["train"])],
    )


_IN_FOLDERS = "put the photos of each class into a folder of its own"
_NO_IMAGES = {
    "list": "a list has a line `path label` for each image",
    "tfrecord": "write records with images",
}


def _to_do(contents: readers.Contents, fix: str) -> str:
    """What to do about a source; its notes tell of what is not read."""
    return "; ".join([*contents.notes, fix])


def _check_bad(
    cfg: recipe.Data, parts: Mapping[str, Part], splits: Mapping[str, Split], where: str
) -> list[tuple[str, str]]:
    """(name, reason) of all that is left out.

    Raises:
        EdgeclsError: More than ``max_bad_fraction`` of the entries cannot be used.
    """
    bad = [pair for purpose in parts for pair in (*parts[purpose].bad, *splits[purpose].bad)]
    count = sum(len(part.names) + len(part.bad) for part in parts.values())
    unusable = len(bad) - sum(len(part.left_out) for part in parts.values())
    if unusable > cfg.max_bad_fraction * count:
        limit = f"data.max_bad_fraction {cfg.max_bad_fraction:g}"
        what = f"{unusable} of {count} images cannot be used, more than {limit}: {_shown(bad)}"
        raise EdgeclsError(what, where=where, fix="remove or repair them, or raise the limit")
    return bad


def _split(
    cfg: recipe.Data, splits: dict[str, Split], classes: list[str], source: str, where: str
) -> tuple[dict[str, Split], list[tuple[str, str]]]:
    """Split off what the source does not have, near-copies together or left out."""
    fractions = {"test": cfg.test_fraction, "val": cfg.val_fraction}
    to_make = {purpose: f for purpose, f in fractions.items() if purpose not in splits}
    left_out: list[tuple[str, str]] = []
    if cfg.near_duplicates == "drop":
        splits, left_out = Copies(splits, source, "drop").dropped()
    _check_classes(splits["train"], classes, 2 if any(to_make.values()) else 1, where)
    if not to_make:
        return splits, left_out
    how: Literal["group", "off"] = "group" if cfg.near_duplicates == "group" else "off"
    groups = Copies({"train": splits["train"]}, source, how).groups()["train"]
    for purpose, fraction in to_make.items():
        rest = splits["train"]
        chosen = stratified(rest.labels, groups, fraction, f"edgecls {purpose} split")
        splits[purpose], splits["train"], groups = rest.subset(chosen), rest.subset(~chosen), groups[~chosen]
    return splits, left_out


def _with_extra(
    cfg: recipe.Data,
    splits: dict[str, Split],
    classes: list[str],
    source: str,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, Split], list[tuple[str, str]], list[str]]:
    """The splits with the extra sources among the training images, what was left out of those, and notes."""
    trains, weights = [splits["train"]], [1.0]
    left_out: list[tuple[str, str]] = []
    notes: list[str] = []
    if cfg.extra and splits["train"].images is not None:
        fix = "make TFRecord files or a folder of the images"
        raise UsageError("IDX images cannot be joined with other sources", where="data.extra", fix=fix)
    for number, extra in enumerate(cfg.extra):
        part, said = readers.read_extra(extra, classes)
        part = at_most(part, cfg.max_images)
        prefix = f"extra {number + 1}"
        part = replace(part, names=[f"{prefix}/{name}" for name in part.names])
        if not part.names:
            raise MissingError("no images found", where=extra.path, fix="check data.extra")
        name = str(Path(extra.path).absolute())
        found = check(part, name, progress)
        bad = [*part.bad, *found.bad]
        if len(bad) - len(part.left_out) > cfg.max_bad_fraction * (len(part.names) + len(part.bad)):
            what = f"{len(bad)} of {len(part.names)} images cannot be used: {_shown(bad)}"
            raise EdgeclsError(what, where=extra.path, fix="remove or repair them, or raise the limit")
        found, copied = held_out(found, splits, name, near=cfg.near_duplicates in ("group", "drop"))
        left_out += bad + copied
        notes += [f"{prefix}: {line}" for line in said]
        notes.append(
            f"{prefix}: {plural(len(found), 'image')} from {escape(extra.path)}, weight {extra.weight:g}"
            + (f"; {len(copied):,} copies of validation and test images left out" if copied else "")
        )
        trains.append(found)
        weights.append(extra.weight)
    train = join(trains)
    each = np.repeat(weights, [len(split) for split in trains])
    splits["train"] = replace(train, sampling=make_sampling(train.labels, each, cfg.sampling))
    return splits, left_out, notes


def _said_of_sampling(cfg: recipe.Data, train: Split) -> list[str]:
    sampling = train.sampling
    if sampling is None:
        return []
    times = sampling.last[train.labels >= 0] if (train.labels >= 0).any() else sampling.last
    how = "" if cfg.sampling == "none" else f"data.sampling {cfg.sampling}: "
    least, most = f"{times.min():.2g}", f"{times.max():.2g}"
    span = f"{least} to {most} times" if least != most else "once" if most == "1" else f"{most} times"
    return [f"{how}each labeled image comes {span}, {plural(sampling.size, 'image')} in an epoch"]


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
        ``notes`` say what was assumed.

    Raises:
        MissingError: There is no such file or folder, or it has no photos.
        UsageError: A label is no class of the model, no photo has a label, or the folder has no such split.
        EdgeclsError: No photo can be read.
    """
    part, notes = readers.read_to_score(path, classes, split)
    if not part.names:
        raise MissingError("no images found", where=str(path), fix=_IN_FOLDERS)
    photos = check(part, str(path.absolute()), progress)
    if not (photos.labels != UNLABELLED).any():
        what = f"no labeled photo can be used, {len(photos.bad)} files are bad: {_shown(photos.bad)}"
        raise EdgeclsError(what, where=str(path), fix="repair them")
    return replace(photos, in_memory=False, notes=notes)  # every photo is read once


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
        what = f"two classes or more are needed, found only '{present[0]}'"
        raise UsageError(what, where=where, fix="add another class")
    few = [f"{name} ({n})" for name, n in zip(classes, counts, strict=True) if 0 < n < least]
    if few:
        shown = ", ".join(few[:3]) + (", ..." if len(few) > 3 else "")
        fix = f"add images or drop the class; the splits need {least}"
        raise UsageError(f"too few images of a class: {shown}", where=where, fix=fix)
