"""What the files beside a model say of it: its labels, and how photos become its pixels. Imports no TensorFlow.

A model that no run made has a JSON file of its own name, ``mine.json`` for ``mine.keras``::

    {"labels": ["cat", "dog"], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize_short": 256}

Its keys are ``labels`` and those of ``preprocess.json``. A model of a run has the run's ``labels.txt``, ``preprocess.json``
and ``recipe.yaml``. What the JSON file leaves out is taken from those.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from edgecls.errors import UsageError
from edgecls.labels import check_labels, read_labels
from edgecls.text import first_line

SETTINGS = ("size", "resize_short", "interpolation", "mean", "std", "antialias")
"""Keys of ``preprocess.json``."""
_OF_RUN = ("labels.txt", "preprocess.json", "recipe.yaml")
_TEACHER = "teacher.keras"


class Beside(NamedTuple):
    """What is known of a model from the files beside it."""

    labels: list[str] | None
    """None: no file has them."""
    settings: dict[str, Any]
    """Keys of ``SETTINGS``: those that are given. Empty: no file has any."""
    own: Path | None
    """The JSON file of the model's name, if there is one."""


def read_beside(path: Path) -> Beside:
    """Read the files beside a model.

    Args:
        path: The model: a file, or the folder of a SavedModel.

    Raises:
        UsageError: A file cannot be read; the JSON file has an unknown key, or a value of another kind.

    Example:
        >>> read_beside(Path("mine.keras")).labels  # doctest: +SKIP
        ['cat', 'dog']
    """
    own = path.with_suffix(".json")
    if not own.is_file():
        return Beside(*_of_run(path), None)
    content = _json(own, "correct or remove it")
    fix = f"keys are labels, {', '.join(SETTINGS)}"
    if not isinstance(content, dict):
        raise UsageError("not a JSON object", where=str(own), fix=fix)
    unknown = sorted(set(content) - {"labels", *SETTINGS})
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r}", where=str(own), fix=fix)
    labels, settings = _of_run(path)
    if "labels" in content:
        if not isinstance(content["labels"], list):
            raise UsageError("labels must be a list of names", where=str(own))
        labels = [str(label) for label in content.pop("labels")]
        check_labels(labels, str(own))
    _check(content, own)
    return Beside(labels, {**settings, **content}, own)


def _of_run(path: Path) -> tuple[list[str] | None, dict[str, Any]]:
    """Labels and settings from the run folder that a model lies in, from ``export/`` there, or from inside of it."""
    folders = [path, path.parent, *([path.parent.parent] if path.parent.name == "export" else [])]
    folder = next((f for f in folders if any((f / name).is_file() for name in _OF_RUN)), path.parent)
    labels, settings, recipe = (folder / name for name in _OF_RUN)
    classes = read_labels(labels) if labels.is_file() else None
    if path.name == _TEACHER and recipe.is_file():
        return classes, _of_teacher(recipe, settings)
    if settings.is_file():
        return classes, _preprocess(settings)
    return classes, _of_recipe(recipe) if recipe.is_file() else {}


def _of_teacher(recipe: Path, settings: Path) -> dict[str, Any]:
    """A run's teacher has the pixels of the recipe without phases; those of the last one are in ``preprocess.json``."""
    from edgecls.recipe import load_recipe

    whole = load_recipe(recipe)
    of_last = _preprocess(settings) if settings.is_file() else {}
    if of_last and not whole.phases:
        return of_last
    if whole.model.name is not None:
        return _of_recipe(recipe, with_phases=False)
    # A file need not say all that the run found out about it.
    kept = {key: value for key, value in of_last.items() if key not in ("size", "resize_short")}
    return kept | _of_recipe(recipe, with_phases=False)


def _preprocess(path: Path) -> dict[str, Any]:
    from edgecls.data.preprocess import Preprocess

    fix = "train or export again"
    try:
        return Preprocess.from_dict(_json(path, fix)).to_dict()
    except TypeError as error:
        raise UsageError(f"cannot read it: {first_line(error)}", where=str(path), fix=fix) from error


def _json(path: Path, fix: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read it: {first_line(error)}", where=str(path), fix=fix) from None


def _of_recipe(path: Path, with_phases: bool = True) -> dict[str, Any]:
    from edgecls.data.preprocess import Preprocess
    from edgecls.recipe import load_recipe
    from edgecls.zoo import catalog

    recipe = load_recipe(path)
    recipe = recipe.final if with_phases else recipe
    if recipe.model.name is None:  # the network of a file, with what lies beside that
        settings = read_beside(Path(str(recipe.model.file))).settings
        given = {"size": recipe.model.input_size, "resize_short": recipe.model.resize_short}
        return settings | {key: value for key, value in given.items() if value is not None}
    entry = catalog.get(recipe.model.name)
    return Preprocess.from_recipe(entry, recipe.model, recipe.data.antialias).to_dict()


def _check(settings: dict[str, Any], own: Path) -> None:
    """The kinds of the values; which ones are possible together is for ``Preprocess`` to say."""
    kinds = {"size": _is_count, "resize_short": _is_count, "antialias": lambda v: isinstance(v, bool)}
    for key, value in settings.items():
        if key in kinds and not kinds[key](value):
            kind = "true or false" if key == "antialias" else "a whole number of pixels, at least 1"
            raise UsageError(f"{key} must be {kind}", where=str(own))
        if key in ("mean", "std") and not _is_triple(value, positive=key == "std"):
            above = ", all above 0" if key == "std" else ""
            raise UsageError(
                f"{key} must be three numbers{above}: fractions of 255 for red, green, blue", where=str(own)
            )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_triple(value: Any, positive: bool) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
        and (not positive or min(value) > 0)
    )
