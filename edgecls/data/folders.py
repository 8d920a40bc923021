"""Folders of photos: class folders, and ``train``, ``val`` and ``test`` with class folders inside. No TensorFlow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from edgecls.data.listing import (
    Listing,
    is_photo_name,
    list_files,
    list_folders,
    purpose_of,
    said_of_unread,
)
from edgecls.data.rows import Rows
from edgecls.errors import UsageError
from edgecls.text import escape


def split_folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders of a data set that has its own splits.

    The usual names are known in any case: ``Training`` and ``Testing``, ``train_data`` and ``test_data``, ``dev``,
    ``validate``. A folder called ``train`` among others that are no splits is a class (of vehicles).

    Args:
        root: A folder.

    Returns:
        Folders by purpose, and lines on what was assumed; no folders where ``root`` has no splits.

    Raises:
        UsageError: Two folders have one purpose, or the folders have no classes inside.
    """
    folders = list_folders(root)
    purposes = {folder: purpose_of(folder.name) for folder in folders}
    by_purpose = {
        purpose: same for purpose in _VERBS if (same := [f for f in folders if purposes[f] == purpose])
    }
    others = [folder.name for folder in folders if purposes[folder] is None]
    if not by_purpose or (len(by_purpose) == 1 and others):
        return {}, []
    with_classes = {folder for same in by_purpose.values() for folder in same if list_folders(folder)}
    if not with_classes:
        if len(by_purpose) == 1:
            return {}, []
        named = ", ".join(escape(folder.name) for same in by_purpose.values() for folder in same)
        what = f"the folders {named} are splits, but have no class folders inside"
        fix = "make a folder for each class in them, or name the classes in a list file (data.source: list)"
        raise UsageError(what, where=str(root), fix=fix)
    notes, chosen = [], {}
    for purpose, same in by_purpose.items():
        usable = [folder for folder in same if folder in with_classes]
        if len(usable) > 1:
            what = f"{' and '.join(escape(folder.name) for folder in usable)} are both folders to {_VERBS[purpose]}"
            key = "data.path" if purpose == "train" else f"data.{purpose}_path"
            raise UsageError(what, where=str(root), fix=f"rename one, or name the one to use in {key}")
        if usable:
            chosen[purpose] = usable[0]
    as_written = [f"{escape(folder.name)} to {_VERBS[purpose]}" for purpose, folder in chosen.items()]
    if any(purpose != folder.name for purpose, folder in chosen.items()):
        notes.append(f"folders taken for splits: {', '.join(as_written)}")
    flat = [f.name for same in by_purpose.values() for f in same if f not in with_classes]
    if flat:
        notes.append(f"not used, no class folders inside: {', '.join(map(escape, flat))}")
    if others:
        notes.append(f"not used, beside the splits: {', '.join(map(escape, others))}")
    return chosen, notes


_VERBS = {"train": "train", "val": "validate", "test": "test"}


def read_folder(root: Path) -> Rows:
    """The photos below a folder, with the names of its folders as labels; without class folders they have none."""
    folders: dict[str | None, Path] = {folder.name: folder for folder in list_folders(root)}
    listings = {label: list_files(folder) for label, folder in (folders or {None: root}).items()}
    return _rows(root, listings, _loose(root) if folders else [])


def read_unlabeled(root: Path) -> Rows:
    """The photos below a folder, at any depth, without labels."""
    return _rows(root, {None: list_files(root)}, [])


def _rows(root: Path, listings: dict[str | None, Listing], left_out: list[tuple[str, str]]) -> Rows:
    photos = [(label, photo) for label, listing in listings.items() for photo in listing.photos]
    unread: Counter[str] = sum((listing.unread for listing in listings.values()), Counter())
    return Rows(
        names=[escape(photo.relative_to(root).as_posix()) for _, photo in photos],
        files=[str(photo.absolute()) for _, photo in photos],
        labels=[label for label, _ in photos],
        where=lambda i: str(root / (photos[i][0] or "")),
        left_out=left_out,
        notes=list(filter(None, [said_of_unread(unread)])),
    )


def _loose(root: Path) -> list[tuple[str, str]]:
    """Photos that lie beside the class folders, with the reason why they are not used."""
    names = sorted(path.name for path in root.iterdir() if is_photo_name(path.name) and not path.is_dir())
    return [(escape(name), "in no class folder") for name in names]


def check_classes(root: Path, rows: Rows) -> None:
    """Check the class folders that images are trained on.

    Raises:
        UsageError: A class folder is empty, or the only folder holds the class folders.
    """
    folders = list_folders(root)
    with_photos = set(rows.labels)
    empty = [folder for folder in folders if folder.name not in with_photos]
    if empty:
        fix = "add images, or move the folder away if it is no class"
        name = escape(empty[0].name)
        unread = said_of_unread(list_files(empty[0]).unread)
        what = f"no images in the class folder '{name}'" + (f", {unread}" if unread else "")
        raise UsageError(what, where=str(empty[0]), fix=fix)
    if len(folders) == 1 and len(list_folders(folders[0])) > 1:
        what = f"the only folder, '{escape(folders[0].name)}', has the folders of the classes inside"
        raise UsageError(what, where=str(root), fix=f"set data.path: {escape(str(folders[0]))}")
