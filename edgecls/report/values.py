"""Values out of JSON that may be of any shape: a file of a run may be torn, edited or written by another version."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def at(tree: Any, *keys: str) -> Any:
    """The value at a path of keys, or None where the path ends early."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def mapping(value: Any) -> dict[str, Any]:
    """``value`` if it is a mapping, else ``{}``."""
    return dict(value) if isinstance(value, Mapping) else {}


def rows(value: Any) -> list[dict[str, Any]]:
    """The mappings in ``value`` if it is a list, else ``[]``."""
    return [dict(row) for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """``value``'s items as texts if it is a list, else ``[]``."""
    return [str(v) for v in value] if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """``value`` as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def pair(value: Any) -> tuple[float, float] | None:
    """An interval, (low, high), or None."""
    interval = [number(v) for v in value] if isinstance(value, list) else []
    return (
        (interval[0], interval[1])
        if len(interval) == 2 and interval[0] is not None and interval[1] is not None
        else None
    )
