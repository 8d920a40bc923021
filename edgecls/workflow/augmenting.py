"""What training sees: the images of a recipe, each augmentation on its own and all together, as one picture."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecls.augment.registry import OFF, OPERATIONS, Operation
from edgecls.augment.settings import Augment, only
from edgecls.console import Console
from edgecls.errors import UsageError
from edgecls.files import atomic
from edgecls.recipe import Recipe
from edgecls.workflow.common import load_data, recipe_preprocess, spread

if TYPE_CHECKING:
    from edgecls.report.grid import Column

_NAMED = 2  # classes that a caption names, those with the largest shares


def preview(
    recipe: Recipe,
    console: Console,
    out: Path,
    images: int = 4,
    epoch: int | None = None,
    every: bool = False,
) -> dict[str, Any]:
    """Draw training images of a recipe as each augmentation changes them, through the pipeline of the training.

    Args:
        recipe: Gives images, augmentation and seed; of phases the first does.
        console: Is told of bad images.
        out: The picture; its suffix says the format.
        images: Photos to show, from different classes. Operations on a batch mix these.
        epoch: Number of the epoch, from 0; None: the last one before ``off_epochs``, when everything is at its full
            strength.
        every: Show also operations that the recipe has not on, with their defaults.

    Returns:
        ``{"schema", "preview", "epoch", "images", "columns"}``: the titles of the columns, and for each the targets
        of its images.

    Raises:
        UsageError: Pillow does not write files of this suffix, the epoch is none of the training, or there are too
            few training images.
    """
    recipe = recipe.parts[0].recipe
    epochs = recipe.train.epochs
    if epoch is None:
        epoch = max(0, epochs - recipe.augment.off_epochs - 1)
    _check(out, epoch, epochs)
    data = load_data(recipe.data, console)
    split = spread(data.train, images)
    if len(split) < 2:
        raise UsageError("a preview needs at least two training images", where="data")
    from edgecls.data.pipeline import batches
    from edgecls.report.grid import draw

    batch = partial(
        batches, split, recipe_preprocess(recipe), len(split), training=True, seed=recipe.seed, epoch=epoch,
        epochs=epochs, classes=len(data.classes),
    )  # fmt: skip
    seen = {}
    for title, settings in _columns(recipe.augment, every).items():
        pixels, targets = next(iter(batch(augment=settings)))
        seen[title] = (np.rint(pixels).astype(np.uint8), targets.numpy())
    original = seen["original"][0]
    columns = [_column(title, *values, original, data.classes) for title, values in seen.items()]
    note = f"epoch {epoch + 1} of {epochs}, seed {recipe.seed}, {original.shape[1]} pixels"
    with atomic(out) as temporary:
        draw(columns, f"{recipe.name}: what training sees", note).save(temporary, optimize=True)
    return {
        "schema": "edgecls.augment/1",
        "preview": str(out),
        "epoch": epoch,
        "images": len(split),
        "columns": {title: np.round(targets, 4).tolist() for title, (_, targets) in seen.items()},
    }


def _check(out: Path, epoch: int, epochs: int) -> None:
    from PIL import Image

    if out.suffix.lower() not in Image.registered_extensions():
        raise UsageError(f"no picture can be written as {out.suffix or 'a file without a suffix'!r}",
                         where=str(out), fix="end its name with .png")  # fmt: skip
    if not 0 <= epoch < epochs:
        raise UsageError(f"the training has the epochs 0 to {epochs - 1}, not {epoch}", where="--epoch")


def _columns(augment: Augment, every: bool) -> dict[str, Augment]:
    """The title of each column, and the recipe's section with only that on."""
    settings = {"original": only()}
    if augment.crop_scale is not None:
        settings["crop"] = only(crop_scale=augment.crop_scale, crop_ratio=augment.crop_ratio)
    for op in (
        OPERATIONS[name] for name in Augment.model_fields if name in OPERATIONS
    ):  # as they are applied
        value = getattr(augment, op.name)
        if value in OFF and every:
            value = _switched_on(op)
        if value not in OFF:
            settings[op.name] = only(**{op.name: value})
    return {title: Augment.model_validate(values) for title, values in settings.items()} | {
        "together": augment
    }


def _switched_on(op: Operation) -> Any:
    """A value that switches an operation on: its options as published."""
    if op.default not in OFF:
        return op.default
    return True if op.annotation is bool else {}


def _column(
    title: str, pixels: np.ndarray, targets: np.ndarray, original: np.ndarray, classes: list[str]
) -> Column:
    """A column with captions: the classes; their shares where images are mixed; that an image is as it was."""
    from edgecls.report.grid import Column

    captions = []
    for image, target, before in zip(pixels, targets, original, strict=True):
        largest = [i for i in np.argsort(-target)[:_NAMED] if target[i] > 0]
        if len(largest) > 1:
            captions.append([f"{target[i]:.2f} {classes[i]}" for i in largest])
        elif title == "original":
            captions.append([classes[i] for i in largest])
        else:
            captions.append(["unchanged"] if np.array_equal(image, before) else [])
    return Column(title, pixels, captions)
