"""The first recipe for a folder of photos: look at the photos, choose settings, write a short file with comments."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecls import _yaml
from edgecls.errors import MissingError, UsageError
from edgecls.files import expand_user, write_text
from edgecls.recipe import Data, Recipe, load_recipe
from edgecls.text import escape, plural
from edgecls.weights.sources import identify

BASE = "base"  # the recipe that the new one starts from


@dataclass(frozen=True)
class Survey:
    """What was found in a folder of photos, or in a list file.

    Attributes:
        path: The folder or file.
        source: ``data.source`` that reads it: ``"folder"``, ``"list"`` or ``"tfrecord"``.
        classes: Images of each class, all splits together.
        splits: Images of ``train``, ``val`` and ``test``, as the default fractions split them.
        unlabeled: Images without a label.
        short_sides: Shorter side of each image, pixels, int [N], sorted.
        gray: Images without color.
        bad: (name, reason) of the files that cannot be used.
        duplicates: Images that are copies of another one.
        notes: What was assumed of the folder or list, one line each.
    """

    path: Path
    source: str
    classes: dict[str, int]
    splits: dict[str, int]
    unlabeled: int
    short_sides: np.ndarray
    gray: int
    bad: list[tuple[str, str]]
    duplicates: int
    notes: list[str]

    @property
    def images(self) -> int:
        """Images that can be used."""
        return len(self.short_sides)

    @property
    def short_side(self) -> int:
        """Median of the shorter sides, pixels."""
        return int(np.median(self.short_sides))


def survey(path: str | Path, progress: Callable[[int, int], None] | None = None) -> Survey:
    """Look at every photo of a folder with one folder for each class, or of a list file.

    Args:
        path: The folder or file.
        progress: Called with (done, all) while the files are decoded.

    Example:
        >>> survey("photos/flowers").classes  # doctest: +SKIP
        {'daisy': 633, 'tulip': 799}

    Raises:
        MissingError: There is no such folder or file, or no image in it.
        UsageError: There are fewer than two classes, or a class has one image only.
    """
    from edgecls.data.listing import list_folders
    from edgecls.data.readers import guess_source
    from edgecls.data.sources import load_dataset

    path = expand_user(path)
    if not path.exists():
        raise MissingError(
            "no such folder or list file", where=str(path), fix="name the folder of your photos"
        )
    source = guess_source(path)
    if source == "folder" and not list_folders(path):
        fix = "make a folder for each class and move its photos there"
        raise UsageError("there are no class folders inside", where=str(path), fix=fix)
    data = load_dataset(Data(source=source, path=str(path), max_bad_fraction=1.0), progress)
    splits = {"train": data.train, "val": data.val, "test": data.test}
    labels = np.concatenate([split.labels for split in splits.values()])
    shapes = np.concatenate([split.shapes for split in splits.values()])
    counts = np.bincount(labels[labels >= 0], minlength=len(data.classes))
    return Survey(
        path=path,
        source=source,
        classes=dict(zip(data.classes, counts.tolist(), strict=True)),
        splits={name: len(split) for name, split in splits.items()},
        unlabeled=int((labels < 0).sum()),
        short_sides=np.sort(shapes[:, :2].min(axis=1)),
        gray=int((shapes[:, 2] == 1).sum()),
        bad=data.bad,
        duplicates=data.duplicates,
        notes=data.notes,
    )


@dataclass(frozen=True)
class Choice:
    """A key of the new recipe: its value, and why. Keys of which ``value`` is the base's are not written."""

    key: str
    value: Any
    why: str


BATCHES = (32, 16, 8)
LEAST_BATCHES = 10
"""Batches in an epoch from which a batch size is taken: fewer make a training of few steps."""
STEPS = 600
"""Steps that a fine-tuning should have; a small folder needs more epochs for them."""
MOST_EPOCHS = 60
IMBALANCE = 3.0
"""Ratio of the largest class to the smallest one from which classes are weighted."""
SMALLEST_INPUT = 64
FEW_IMAGES = 20
"""Images of a class below which its accuracy says little."""


def choose(found: Survey, base: Recipe) -> list[Choice]:
    """Settings that fit the photos, where the base's do not."""
    choices = []
    published = base.model.input_size or 224
    if found.short_side < published:
        size = max(SMALLEST_INPUT, 32 * round(found.short_side / 32))
        why = f"the photos' shorter side is {found.short_side} pixels (median)"
        choices.append(Choice("model.input_size", min(size, published), why))
    train = found.splits["train"]
    batch = next((b for b in BATCHES if train >= LEAST_BATCHES * b), min(BATCHES[-1], train))
    why = f"{plural(train, 'training image')}: {plural(train // batch, 'step')} in an epoch"
    choices.append(Choice("train.batch_size", batch, why))
    choices.append(Choice("quantize.train.batch_size", batch, ""))
    epochs = min(MOST_EPOCHS, max(base.train.epochs, math.ceil(STEPS * batch / train)))
    choices.append(Choice("train.epochs", epochs, "few images need more passes"))
    most, least = max(found.classes.values()), min(n for n in found.classes.values() if n)
    if most >= IMBALANCE * least:
        why = f"the largest class has {most / least:.1f} times the images of the smallest"
        choices.append(Choice("data.class_weights", "balanced", why))
    allowed = base.data.max_bad_fraction
    bad = len(found.bad) / (len(found.bad) + found.images)
    if bad > allowed:
        why = f"{plural(len(found.bad), 'file')} cannot be read; repair or remove them, then remove this line"
        choices.append(Choice("data.max_bad_fraction", math.ceil(100 * bad) / 100, why))
    return [choice for choice in choices if choice.value != _value(base, choice.key)]


def _value(recipe: Recipe, dotted: str) -> Any:
    value: Any = recipe
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def notes(found: Survey, recipe: Recipe) -> list[str]:
    """What the user should know or do before training with the recipe that was written."""
    lines = list(found.notes)
    few = [name for name, count in found.classes.items() if count < FEW_IMAGES]
    if few:
        shown = ", ".join(map(escape, few[:3])) + (", ..." if len(few) > 3 else "")
        lines.append(f"fewer than {FEW_IMAGES} images of {shown}: add more, the scores will be uncertain")
    if found.duplicates:
        lines.append(f"{plural(found.duplicates, 'image is a copy', 'images are copies')} of another one")
    if found.unlabeled:
        lines.append(f"{plural(found.unlabeled, 'image')} without a label: only a teacher can use them")
    if recipe.model.weights is not None and recipe.model.name is not None:
        try:
            identify(recipe.model.weights, recipe.model.name)
        except MissingError as error:
            lines.append(str(error))
    return lines


def write_recipe(found: Survey, output: Path) -> dict[str, Any]:
    """Write a short recipe for the photos.

    Args:
        found: What ``survey`` found.
        output: The file to write.

    Returns:
        The keys and values that were written, besides ``base``, ``name`` and ``data.path``.

    Raises:
        UsageError: The file exists.
    """
    refuse_to_overwrite(output)
    base = load_recipe(BASE, ["data.path=photos"])
    choices = choose(found, base)
    write_text(output, _recipe_text(found, output, base, choices))
    return {choice.key: choice.value for choice in choices}


def refuse_to_overwrite(output: Path) -> None:
    """Raise UsageError if ``output`` exists."""
    if output.exists():
        raise UsageError("this file exists already", where=str(output), fix="name another one with -o FILE")


def recipe_name(path: Path) -> str:
    """A name for the run: that of the folder, with the characters that a recipe's name may have."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.resolve().stem).strip("_.-")[:80]
    return name if name and name != "latest" else "photos"


def _recipe_text(found: Survey, output: Path, base: Recipe, choices: list[Choice]) -> str:
    sections: dict[str, list[Choice]] = {}
    for choice in choices:
        sections.setdefault(choice.key.split(".")[0], []).append(choice)
    folder, path = output.absolute().parent.resolve(), found.path.resolve()
    shown = path.relative_to(folder) if path.is_relative_to(folder) else path
    data = [Choice("data.path", str(shown), "")]
    if found.source != base.data.source:
        data.insert(0, Choice("data.source", found.source, ""))
    lines = [
        f"# edgecls train {escape(str(output))} && edgecls quantize && edgecls bench --device host",
        "#",
        f"# {plural(len(found.classes), 'class', 'classes')}, {plural(found.images, 'image')}."
        " With --dry-run, edgecls train prints every key that a recipe has, with its value.",
        f"base: {BASE} # {base.model.name} with {base.model.weights} weights, {base.model.input_size} pixels",
        _yaml.line("name", recipe_name(found.path)),
        "",
        *_section("data", data + sections.pop("data", [])),
    ]
    for name, keys in sections.items():
        lines += ["", *_section(name, keys)]
    lines += [
        "",
        "augment:",
        "  flip: horizontal # none, if left and right matter: text, digits, arrows",
        "",
    ]
    return "\n".join(lines)


def _section(name: str, choices: list[Choice]) -> list[str]:
    """Lines of a section: ``train:`` and its keys, sections inside as ``train: {batch_size: 8}``."""
    lines = [f"{name}:"]
    for choice in choices:
        first, *rest = choice.key.split(".")[1:]
        value = choice.value
        for key in reversed(rest):
            value = {key: value}
        lines.append(f"  {_yaml.line(first, value)}" + (f" # {choice.why}" if choice.why else ""))
    return lines
