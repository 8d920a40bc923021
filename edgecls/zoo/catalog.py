"""The catalog: what every network is, costs and is known to achieve. No TensorFlow.

``models.csv`` has the rows of all families, so that reading it imports nothing heavy. ``scripts/make_catalog.py``
writes it from the families' files. A family whose file is there and whose rows are not yet is built when the catalog
is first read, which takes a second a network.
"""

from __future__ import annotations

import csv
import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from edgecls.zoo.entry import Entry, WeightSource
from edgecls.zoo.families import unlisted_families

TABLE = Path(__file__).with_name("models.csv")
THREADS = (1, 2, 4)


class UnknownModelError(ValueError):
    """No network has this name; the text carries the nearest names."""

    exit_code = 2


def names(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, in the catalog's order; case is ignored.

    Example:
        >>> names("squeezenet*")
        ['SqueezeNet1_0', 'SqueezeNet1_1']
    """
    return [name for name in _entries() if fnmatch.fnmatchcase(name.lower(), pattern.lower())]


def families() -> list[str]:
    """All families, in the catalog's order."""
    return list(dict.fromkeys(entry.family for entry in _entries().values()))


def get(name: str) -> Entry:
    """The entry of one network.

    Example:
        >>> get("ResNet50_vd").params
        25576264

    Raises:
        UnknownModelError: No network has this name.
    """
    entry = _entries().get(name)
    if entry is None:
        folded = {other.lower(): other for other in _entries()}
        near = [folded[n] for n in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(near)}?" if near else "edgecls models lists the names"
        raise UnknownModelError(f"unknown model {name!r}; {hint}")
    return entry


def find(name: str) -> Entry | None:
    """The entry of one network, or None."""
    return _entries().get(name)


@cache
def _entries() -> dict[str, Entry]:
    entries = {entry.name: entry for entry in read_table(TABLE)}
    for family in unlisted_families({entry.family for entry in entries.values()}):
        from edgecls.zoo.rows import family_entries  # imports TensorFlow

        entries |= family_entries(family)
    return entries


def read_table(path: Path) -> list[Entry]:
    """The entries of a table that ``write_table`` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_entry(row) for row in csv.DictReader(file)]


def write_table(path: Path, entries: Iterable[Entry]) -> None:
    """Write a table of entries, one a line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *LATENCIES.values()], lineterminator="\n")
        writer.writeheader()
        for entry in entries:
            cells = {column: write(getattr(entry, column)) for column, (_, write) in COLUMNS.items()}
            writer.writerow(cells | {LATENCIES[t]: repr(ms) for t, ms in entry.sd855_ms.items()})


def _entry(row: dict[str, str]) -> Entry:
    fields = {column: read(row[column]) for column, (read, _) in COLUMNS.items()}
    latency = {threads: float(row[column]) for threads, column in LATENCIES.items() if row[column]}
    return Entry(**fields, sd855_ms=latency)


def _pairs(text: str) -> dict[str, str]:
    """``a=1 b=2``."""
    return dict(pair.split("=", 1) for pair in text.split())


def _read_ends(text: str) -> dict[str, tuple[str, ...]]:
    """``stem=pool 1=a|b``."""
    return {stage: tuple(layers.split("|")) for stage, layers in _pairs(text).items()}


def _write_ends(ends: Mapping[str, Iterable[str]]) -> str:
    return " ".join(f"{stage}={'|'.join(layers)}" for stage, layers in ends.items())


# Reader and writer of each column's cells.
COLUMNS: dict[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    **dict.fromkeys(("name", "architecture", "family"), (str, str)),
    **dict.fromkeys(("input_size", "resize_short", "crop"), (int, str)),
    "interpolation": (str, str),
    **dict.fromkeys(
        ("mean", "std"), (lambda text: tuple(map(float, text.split())), lambda v: " ".join(map(repr, v)))
    ),
    "dropout": (float, repr),
    "dropout_scales": (
        lambda text: {layer: float(scale) for layer, scale in _pairs(text).items()},
        lambda scales: " ".join(f"{layer}={scale:g}" for layer, scale in scales.items()),
    ),
    **dict.fromkeys(("stages", "lr_groups"), (_read_ends, _write_ends)),
    "auxiliary": (lambda text: tuple(text.split()), " ".join),
    **dict.fromkeys(("params", "macs", "memory_access", "peak_activations"), (int, str)),
    **dict.fromkeys(
        ("top1", "top5", "storage_mb"),
        (lambda text: float(text) if text else None, lambda v: "" if v is None else repr(v)),
    ),
    "source": (str, str),
    "weights": (
        lambda text: {
            name: WeightSource.parse(address, needs_hash=False) for name, address in _pairs(text).items()
        },
        lambda weights: " ".join(f"{name}={source.address}" for name, source in weights.items()),
    ),
}
LATENCIES = {threads: f"sd855_ms_{threads}" for threads in THREADS}
