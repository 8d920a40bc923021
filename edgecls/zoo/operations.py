"""The operations of the catalog's networks, read from ``operations.csv``. No TensorFlow.

``scripts/make_operations.py`` writes the table with ``edgecls.zoo.executed``. A network that it does not have is built,
which takes a second and TensorFlow.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgecls.zoo import catalog

TABLE = Path(__file__).with_name("operations.csv")


@dataclass(frozen=True)
class Kept:
    """The operations of a network for images of one size.

    Attributes:
        input_size: Height and width of the image, pixels.
        text: The operations, as ``android_bench.predict.operations.parse`` reads them.
    """

    input_size: int
    text: str


def operations(name: str) -> Kept:
    """What a runtime executes for a network of the catalog.

    Example:
        >>> operations("MobileNetV1").text[:39]
        'conv3x3 224x224x3>112x112x32;depthwise3'

    Raises:
        UnknownModelError: No network has this name.
    """
    entry = catalog.get(name)
    return _table().get(entry.architecture) or _built(name, entry.input_size)


def write_table(path: Path, rows: Mapping[str, Kept]) -> None:
    """Write a table of networks, one a line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("architecture", "input_size", "operations"))
        writer.writerows((name, kept.input_size, kept.text) for name, kept in rows.items())


@cache
def _table() -> dict[str, Kept]:
    csv.field_size_limit(1 << 24)
    with TABLE.open(newline="", encoding="utf-8") as file:
        return {
            row["architecture"]: Kept(int(row["input_size"]), row["operations"])
            for row in csv.DictReader(file)
        }


@cache
def _built(name: str, input_size: int) -> Kept:
    from edgecls.zoo.executed import catalog_operations  # imports TensorFlow

    return Kept(input_size, catalog_operations(name))
