"""The catalog: what every network is, costs and is known to achieve. Read from ``models.csv``; no TensorFlow.

``models.csv`` is written by ``scripts/make_catalog.py`` from the reference tables and from the networks themselves.
"""

from __future__ import annotations

import csv
import difflib
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


class UnknownModelError(ValueError):
    """No network has this name; the text carries the nearest names."""

    exit_code = 2


@dataclass(frozen=True)
class WeightSource:
    """Where pretrained weights come from: a file inside an installed package, or a URL."""

    file: str  # file name, or its path inside the package
    sha256: str  # hash of the file, hexadecimal
    package: str = ""  # distribution that carries the file, as pip names it; empty for a URL
    url: str = ""  # where to download it; empty for a package


@dataclass(frozen=True)
class Entry:
    """One network: evaluation preprocessing, cost and published figures (None where none is published)."""

    name: str  # the name it is built by
    architecture: str  # the network itself; several names may share one, with weights trained in other ways
    family: str  # the module that builds it
    input_size: int  # height and width, pixels
    resize_short: int  # the shorter side an image is resized to before the central crop, pixels
    crop: int  # the central crop, pixels
    interpolation: str  # ``bilinear`` or ``bicubic``
    mean: tuple[float, float, float]  # RGB mean as fractions of 255
    std: tuple[float, float, float]  # RGB standard deviation as fractions of 255
    dropout: float  # rate before the classifier
    dropout_scales: dict[str, float]  # layers to what PaddlePaddle multiplies their input by at inference
    auxiliary: tuple[str, ...]  # layers of the classifiers that only training uses
    params: int  # trainable parameters with 1000 classes, those of auxiliary classifiers too
    macs: int  # multiply-accumulates of convolutions and dense layers for one image, likewise
    memory_access: int  # scalars that those layers read and write for one image
    peak_activations: int  # most scalars of feature maps alive at once
    top1: float | None  # published ImageNet top-1 accuracy, fraction
    top5: float | None  # published ImageNet top-5 accuracy, fraction
    sd855_ms: dict[int, float]  # published fp32 latency on a Snapdragon 855, threads to milliseconds
    storage_mb: float | None  # published size of the fp32 file, MB
    source: str  # where the published figures stand
    weights: dict[str, WeightSource]  # name of a pretraining to its source


THREADS = (1, 2, 4)


def names(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern such as ``"MobileNetV3*"``, in the catalog's order; case is ignored."""
    return [name for name in _entries() if fnmatch.fnmatchcase(name.lower(), pattern.lower())]


def families() -> list[str]:
    """All families, in the catalog's order."""
    return list(dict.fromkeys(entry.family for entry in _entries().values()))


def get(name: str) -> Entry:
    """The entry of one network.

    Raises:
        UnknownModelError: No network has this name.
    """
    entry = _entries().get(name)
    if entry is None:
        folded = {known.lower(): known for known in _entries()}
        near = [folded[n] for n in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(near)}?" if near else "edgecls models lists the names"
        raise UnknownModelError(f"unknown model {name!r}; {hint}")
    return entry


@cache
def _entries() -> dict[str, Entry]:
    with (Path(__file__).parent / "models.csv").open(newline="", encoding="utf-8") as file:
        return {row["name"]: _entry(row) for row in csv.DictReader(file)}


def _entry(row: dict[str, str]) -> Entry:
    weights = {}
    if row["weights_package"]:
        weights["imagenet"] = WeightSource(row["weights_file"], row["weights_sha256"], row["weights_package"])
    latency = {t: float(row[f"sd855_ms_{t}"]) for t in THREADS if row[f"sd855_ms_{t}"]}
    fields = {column: convert(row[column]) for column, convert in COLUMNS.items()}
    return Entry(**fields, sd855_ms=latency, weights=weights)


# Readers of the table's columns.
COLUMNS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("name", "architecture", "family", "interpolation", "source"), str),
    **dict.fromkeys(("input_size", "resize_short", "crop"), int),
    **dict.fromkeys(("params", "macs", "memory_access", "peak_activations"), int),
    **dict.fromkeys(("top1", "top5", "storage_mb"), lambda text: float(text) if text else None),
    **dict.fromkeys(("mean", "std"), lambda text: tuple(map(float, text.split()))),
    "dropout": float,
    "dropout_scales": lambda text: {k: float(v) for k, v in (pair.split("=") for pair in text.split())},
    "auxiliary": lambda text: tuple(text.split()),
}
