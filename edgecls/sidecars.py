"""What lies beside a ``.keras`` file that no run made, and says what the model does not say itself.

A JSON file of the same name, ``mine.json`` for ``mine.keras``, or else the files ``labels.txt`` and ``preprocess.json`` of
a run folder::

    {"labels": ["cat", "dog"], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize_short": 256}

Its keys are ``labels`` and those of ``preprocess.json``. No TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecls.errors import UsageError
from edgecls.files import read_json
from edgecls.labels import check_labels, read_labels

# Ranges of pixels that networks without a normalization take, as the mean and the deviation that lead to them.
PIXELS: dict[str, tuple[list[float], list[float]]] = {
    "0..255": ([0.0] * 3, [1 / 255] * 3),
    "0..1": ([0.0] * 3, [1.0] * 3),
    "-1..1": ([127.5 / 255] * 3, [127.5 / 255] * 3),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
SETTINGS = ("resize_short", "interpolation", "mean", "std", "antialias")


def read_settings(path: Path) -> dict[str, Any]:
    """What the JSON file beside a model says, or ``preprocess.json``; ``{}`` without either.

    Args:
        path: The ``.keras`` file.

    Raises:
        UsageError: It has a key that nobody knows, or a mean and deviation that are none.
    """
    own = path.with_suffix(".json")
    of_run = path.parent / "preprocess.json"
    where = own if own.is_file() else of_run
    if not where.is_file():
        return {}
    settings = read_json(where)
    unknown = set(settings) - {*SETTINGS, "labels", "size"} if isinstance(settings, dict) else None
    if unknown is None or unknown:
        raise UsageError(
            f"unknown key {min(unknown)!r}" if unknown else "not a JSON object",
            where=str(where),
            fix=f"keys are labels, {', '.join(SETTINGS)}",
        )
    given = [settings[key] for key in ("mean", "std") if key in settings]
    numbers = all(
        isinstance(values, list) and len(values) == 3 and all(isinstance(v, int | float) for v in values)
        for values in given
    )
    if not numbers or not all(value > 0 for value in settings.get("std", [])):
        raise UsageError("mean and std must be three numbers each, std above 0", where=str(where))
    return settings


def read_classes(path: Path, labels: Path | None = None) -> tuple[list[str] | None, Path]:
    """The labels of a model.

    Args:
        path: The ``.keras`` file.
        labels: A file with one label a line; None: what lies beside the model.

    Returns:
        The labels, or None where nothing says them, and the file that they are from.

    Raises:
        UsageError: The file is not there or has no labels.
    """
    own, beside = path.with_suffix(".json"), path.parent / "labels.txt"
    settings = {} if labels else read_settings(path)
    if "labels" in settings:
        classes = [str(label) for label in settings["labels"]]
        check_labels(classes, str(own))
        return classes, own
    where = labels or beside
    return (read_labels(where) if labels or beside.is_file() else None), where
