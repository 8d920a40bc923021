"""A recipe shrunk to about a minute, to see that it runs: few images, small input, a few steps, all else as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgecls.console import Console
from edgecls.errors import MissingError, UsageError
from edgecls.files import atomic
from edgecls.recipe import RANDOM, Data, Model, OtherTeacher, Recipe
from edgecls.text import plural
from edgecls.weights.sources import is_here
from edgecls.workflow.checking import networks, shapes_of
from edgecls.workflow.common import load_data, recipe_preprocess

ROOT = Path("runs/smoke")
"""Folder of the runs that were smoke tests; nothing finds them there by itself."""

IMAGES = 32  # of each split and each further source
BATCH = 8
SIZES = (64, 96, 128, 160, 224)  # sides of the input that are tried, pixels
CLASSES, SIDE = 4, 96  # of the images that are drawn where a recipe's own are absent


def shrink(recipe: Recipe, console: Console) -> Recipe:
    """The recipe for a smoke test.

    Its images are a few of the recipe's own. Where those are not on this computer, images are drawn: colored noise, a
    color for each class. Weights that are not on this computer are random.

    Args:
        recipe: Any recipe.
        console: Is told what stands in for images and weights.

    Example:
        >>> small = shrink(load_recipe("imagenet/ResNet50"), Console())  # doctest: +SKIP
        >>> small.train.epochs, small.train.batch_size, small.model.input_size  # doctest: +SKIP
        (1, 8, 64)
    """
    values = recipe.model_dump()
    values["name"] = f"{recipe.name[:90]}.smoke"
    _shrink_pixels(recipe, values)
    phases = [phase.get("train", {}) for phase in values["phases"]]
    teachers = _teachers(values)
    trained = [teacher["train"] for teacher in teachers if teacher["train"]]
    for section in (values["train"], values["quantize"]["train"], *trained, *phases):
        _shrink_training(section)
    values["quantize"]["calibration_images"] = BATCH
    for section, network in zip([values["model"], *teachers], networks(recipe), strict=True):
        if not _has_weights(network):
            console.log(f"{network.title}: {network.weights} is not on this computer; random weights")
            section["weights"] = RANDOM
    if values["distill"]:
        values["distill"]["store"] = None  # its answers are of the whole recipe
    _shrink_data(recipe, values, console)
    return Recipe.model_validate(values)


def _shrink_training(section: dict[str, Any]) -> None:
    """One epoch of small batches; a phase's section keeps to the keys that it has."""
    smaller = {"epochs": 1, "batch_size": BATCH, "accumulate": min(2, section.get("accumulate", 1))}
    section |= {key: value for key, value in smaller.items() if key in section}


def _shrink_pixels(recipe: Recipe, values: dict[str, Any]) -> None:
    """The smallest input that the networks take. Phases with larger ones keep their ratio."""
    parts = [recipe, *(part.recipe for part in recipe.parts)]
    sizes = [recipe_preprocess(each).size for each in parts]
    small = _smallest(recipe, min(sizes))
    for section, each, size in zip(
        [values["model"], *(phase.setdefault("model", {}) for phase in values["phases"])],
        parts if values["phases"] else parts[:1],
        sizes,
        strict=False,
    ):
        new = max(small, 32 * round(small * size / min(sizes) / 32)) if small < min(sizes) else size
        short = round(recipe_preprocess(each).resize_short * new / size)
        section |= {"input_size": new, "resize_short": max(new, short)}
    for teacher in _teachers(values):
        teacher["input_size"] = None


def _teachers(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The sections of all teachers."""
    return [values["teacher"], *values["teacher"]["others"]] if values["teacher"] else []


def _smallest(recipe: Recipe, size: int) -> int:
    """The first of ``SIZES`` that all networks can be built for with the same weights; ``size`` if there is none."""
    all_networks = networks(recipe)
    usual = [shapes_of(network, size) for network in all_networks]
    for small in (each for each in SIZES if each < size):
        try:
            if [shapes_of(network, small) for network in all_networks] == usual:
                return small
        except UsageError:
            continue
    return size


def _has_weights(network: Model | OtherTeacher) -> bool:
    """Whether the first weights are here, or none are asked for."""
    if network.name is None or network.weights in (None, RANDOM):
        return True
    return is_here(network.weights, network.name)


def _shrink_data(recipe: Recipe, values: dict[str, Any], console: Console) -> None:
    """A few of the recipe's own images, or drawn ones for all phases if those of one are absent."""
    sections = [recipe.data, *(part.recipe.data for part in recipe.parts)]
    values["data"]["max_images"] = IMAGES
    try:
        for section in {each.model_dump_json(): each for each in sections}.values():
            load_data(section.model_copy(update={"max_images": IMAGES}), Console(quiet=True))
    except MissingError as error:
        console.log(f"{error}; images are drawn in their place")
        values["data"] = _drawn(recipe.data)
        for phase in values["phases"]:
            if "data" in phase:
                phase["data"] = _of_phase(phase["data"])


_LEFT_ALONE = ("class_weights", "sampling", "antialias", "extra")  # all that is not about where images are


def _of_phase(changes: dict[str, Any]) -> dict[str, Any]:
    """What a phase changes of drawn images."""
    kept = {key: value for key, value in changes.items() if key in _LEFT_ALONE}
    return kept | ({"extra": _drawn_extra(kept["extra"])} if "extra" in kept else {})


def _drawn(data: Data) -> dict[str, Any]:
    """A ``data`` section of drawn images."""
    names = data.classes if isinstance(data.classes, list) else [f"class_{i}" for i in range(CLASSES)]
    folder = ROOT / "images" / "labeled"
    for number, name in enumerate(names[:CLASSES]):
        _draw(folder / str(name), number)
    kept = data.model_dump(include=set(_LEFT_ALONE))
    path = {"source": "folder", "path": str(folder.absolute()), "classes": names}
    return {**kept, **path, "extra": _drawn_extra(kept["extra"])}


def _drawn_extra(extra: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Further sources of images without labels."""
    folder = ROOT / "images" / "unlabeled"
    if extra:
        _draw(folder, CLASSES)
    return [
        {"path": str(folder.absolute()), "labels": False, "weight": each.get("weight", 1.0)}
        for each in extra[:1]
    ]


def _draw(folder: Path, number: int) -> None:
    """Colored noise, always the same: the color says the class."""
    rng = np.random.default_rng(number)
    color = np.array([number % 2, number // 2 % 2, number // 4 % 2]) * 130
    for i in range(IMAGES // CLASSES):
        pixels = rng.integers(0, 120, (SIDE, SIDE, 3)) + color
        with atomic(folder / f"{i}.png") as part:
            Image.fromarray(pixels.astype(np.uint8)).save(part)


def about(recipe: Recipe) -> str:
    """What a smoke test was, for a person."""
    of = plural(len(recipe.parts), "training")
    return f"smoke test: {of} of a few steps; its figures mean nothing, the recipe runs"
