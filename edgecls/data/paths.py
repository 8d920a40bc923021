"""Paths of a recipe, and where the files are that a list names: paths of another folder, computer or system.

No TensorFlow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgecls.data.listing import EXTENSIONS
from edgecls.errors import MissingError, UsageError
from edgecls.text import escape

SAMPLE = 50
DEEPEST = 8
"""Leading folders of a foreign path that may be dropped."""

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".7z", ".rar")

Change = Callable[[str], str]


def locate(names: list[str], list_file: Path) -> tuple[list[str], list[str], list[str]]:
    """The files of a list.

    Paths start from the list's folder. If none of a sample is there, one change for all of them is looked for:
    backslashes of Windows, the folder above the list's, an ending that was left out, folders of another computer.

    Args:
        names: Paths as they are written.
        list_file: The list.

    Returns:
        Names to print, absolute paths, and a line on what was changed.

    Raises:
        MissingError: No change makes the sample exist.
    """
    folder = list_file.parent.absolute()
    sample = names[:: max(1, len(names) // SAMPLE)]
    root, note = folder, ""
    change: Change = _same
    if sample and not _hits(folder, _same, sample):
        found = next(
            (
                (r, c, said)
                for r, c, said in _changes(folder, sample)
                if _hits(r, c, sample) >= 0.9 * len(sample)
            ),
            None,
        )
        if found is None:
            none = (
                f"none of the {len(names):,} images is there"
                if len(names) > 1
                else "the only image is not there"
            )
            raise MissingError(
                f"{none}, for example {escape(sample[0])}",
                where=str(list_file),
                fix=f"paths start from the folder of the list, {escape(str(folder))}",
            )
        root, change, note = found
    changed = names if change is _same else [change(name) for name in names]
    shown = changed if all(map(str.isprintable, changed)) else [escape(name) for name in changed]
    start = str(root).rstrip("/") + "/"
    files = [name if name.startswith("/") else start + name for name in changed]
    return shown, files, [note] if note else []


def _same(name: str) -> str:
    return name


def _hits(root: Path, change: Change, sample: Sequence[str]) -> int:
    start = str(root)
    return sum(os.path.lexists(os.path.join(start, change(name))) for name in sample)  # noqa: PTH118


def _changes(folder: Path, sample: Sequence[str]) -> Iterator[tuple[Path, Change, str]]:
    """Changes to try, the mildest first: the folder that paths start from, the change, and what to say."""
    slashes = any("\\" in name for name in sample)
    turn: Change = (lambda name: name.replace("\\", "/")) if slashes else _same
    turned = "backslashes are read as slashes" if slashes else ""
    if slashes:
        yield folder, turn, turned
    above = ", ".join(filter(None, [turned, f"paths start from {escape(str(folder.parent))}"]))
    yield folder.parent, turn, above
    for suffix in sorted(EXTENSIONS):
        for ending in (suffix, suffix.upper()):
            said = ", ".join(filter(None, [turned, f"{ending} was added to the names"]))
            yield folder, lambda name, ending=ending: turn(name) + ending, said  # type: ignore[misc]
    for count in range(1, DEEPEST + 1):
        dropped = "/".join(_parts(turn(sample[0]))[:count])
        first = (
            "the first folder of each path is"
            if count == 1
            else f"the first {count} folders of each path are"
        )
        said = f"{first} left out ({escape(dropped)})"
        yield folder, lambda name, count=count: "/".join(_parts(turn(name))[count:]) or name, said  # type: ignore[misc]


def _parts(path: str) -> list[str]:
    return [part for part in re.split("/+", path) if part]


def existing_path(text: str | None, what: str) -> Path:
    """A path of the recipe.

    Raises:
        MissingError: It is not given, or nothing is there.
        UsageError: It is an archive.
    """
    path = Path(text or "").expanduser()
    if not text or not path.exists():
        fix = "set data.path to where your images are (data.source: elpv needs none)"
        raise MissingError(f"no such {what}", where=str(path) if text else "data.path", fix=fix)
    refuse_archive(path)
    return path


def refuse_archive(path: Path) -> None:
    """Say what to do about a file that has the photos packed.

    Raises:
        UsageError: It is an archive.
    """
    if path.name.lower().endswith(_ARCHIVES) and path.is_file():
        raise UsageError("archives are not read", where=str(path), fix="unpack it and name the folder")
