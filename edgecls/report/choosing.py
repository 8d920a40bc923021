"""The page of ``edgecls choose``: accuracy against latency, size and MACs, a curve for each family, names on hover.

It is one file without a script: hovering and the boxes that hide families are CSS.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecls.report.html import render, write_page
from edgecls.report.units import fixed, milliseconds, percent

_WIDTH, _HEIGHT = 760, 440  # of a plot, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 16, 48  # of the frame
_GOLDEN = 137.508  # degrees: neighbors in the list of families get colors far apart
_LABELLED_RIGHT = 0.6  # points beyond this share of the width have their name on the left


@dataclass(frozen=True)
class Axis:
    """What a plot has below: the field of a candidate, its title, its factor, and the field of the budget."""

    field: str
    title: str
    factor: float = 1.0
    limit: str = ""


AXES = (
    Axis("ms", "latency, ms", limit="max_ms"),
    Axis("mb", "file, MB", limit="max_mb"),
    Axis("macs", "multiply-accumulates, millions", 1e-6),
)


def write_choice(result: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page of what ``edgecls choose`` found.

    Args:
        result: The content of schema ``edgecls.choose/1``.
        path: The page.

    Returns:
        Its path.

    Raises:
        MissingError: No space on the disk.
    """
    return write_page(Path(path), choice_page(result))


def choice_page(result: Mapping[str, Any]) -> str:
    """The page as HTML."""
    drawn = [c for c in result["candidates"] if c["top1"] is not None and not c["own"]]
    families = list(dict.fromkeys(sorted(c["family"] for c in drawn)))
    return render(
        "choose.html",
        device=result["device"],
        threads=result["threads"],
        precision=result["precision"],
        classes=result["classes"],
        input_size=result["input_size"],
        budget=_budget(result["budget"]),
        predicted=any(not c["measured"] for c in result["candidates"]),
        families=[{"name": f, "key": i, "hue": _hue(i)} for i, f in enumerate(families)],
        plots=[_plot(axis, drawn, families, result["budget"]) for axis in AXES] if drawn else [],
        rows=[_row(c) for c in result["candidates"]],
        refused=result["refused"],
    )


def _budget(budget: Mapping[str, Any]) -> str:
    """The limits as text; "" where there is none.

    Example:
        >>> _budget({"max_ms": 15.0, "max_mb": None, "max_memory_mib": 60.0})
        '15 ms, 60 MiB of memory'
    """
    units = {"max_ms": "ms", "max_mb": "MB", "max_memory_mib": "MiB of memory"}
    return ", ".join(f"{budget[key]:g} {unit}" for key, unit in units.items() if budget.get(key))


def _hue(index: int) -> float:
    return round(index * _GOLDEN % 360, 1)


def _row(candidate: Mapping[str, Any]) -> dict[str, Any]:
    interval = candidate["interval"]
    return {
        **candidate,
        "top1_text": percent(candidate["top1"]),
        "ms_text": milliseconds(candidate["ms"]),
        "interval_text": f"{interval[0]:.3g}–{interval[1]:.3g}" if interval else "–",
        "mb_text": fixed(candidate["mb"], 1),
        "memory_text": fixed(candidate["memory_mib"], 0),
        "macs_text": fixed(candidate["macs"] / 1e6, 0),
        "weights_text": ", ".join(candidate["weights"]) or "–",
    }


def _plot(
    axis: Axis, candidates: Sequence[Mapping[str, Any]], families: Sequence[str], budget: Mapping[str, Any]
) -> dict[str, Any]:
    """What the template draws: ticks, curves and points in the plot's units."""
    xs = [c[axis.field] * axis.factor for c in candidates]
    limit = budget.get(axis.limit)
    across = _Logarithmic(min([*xs, limit or xs[0]]), max([*xs, limit or xs[0]]))
    down = _Linear(min(100 * c["top1"] for c in candidates), max(100 * c["top1"] for c in candidates))
    points = [_point(c, axis, across, down, families) for c in candidates]
    series: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for point in points:
        if "ssld" not in point["name"] and not point["name"].startswith("Fix_"):
            series.setdefault((point["key"], _series(point["name"])), []).append(point)
    curves = [
        {"key": key, "line": " ".join(f"{p['x']},{p['y']}" for p in sorted(own, key=lambda p: p["x"]))}
        for (key, _), own in series.items()
    ]
    front = sorted((p for p in points if p["front"]), key=lambda p: p["x"]) if axis.field == "ms" else []
    return {
        "title": axis.title,
        "width": _WIDTH,
        "height": _HEIGHT,
        "frame": {"left": _LEFT, "right": _WIDTH - _RIGHT, "top": _TOP, "bottom": _HEIGHT - _BOTTOM},
        "x_ticks": [{"at": across(v), "text": f"{v:g}"} for v in across.ticks()],
        "y_ticks": [{"at": down(v), "text": f"{v:g}"} for v in down.ticks()],
        "limit": across(limit) if limit else None,
        "limit_text": f"{limit:g}" if limit else "",
        "curves": curves,
        "front": " ".join(f"{p['x']},{p['y']}" for p in front),
        "points": points,
    }


def _series(name: str) -> str:
    """The networks of one curve: the same but for width and depth, which are the numbers in their names.

    Example:
        >>> _series("MobileNetV3_large_x0_35"), _series("ResNet34_vd")
        ('MobileNetV_large', 'ResNet_vd')
    """
    return re.sub(r"\d+", "", name.partition("_x")[0])


def _point(
    candidate: Mapping[str, Any], axis: Axis, across: _Logarithmic, down: _Linear, families: Sequence[str]
) -> dict[str, Any]:
    x, y = across(candidate[axis.field] * axis.factor), down(100 * candidate["top1"])
    figures = [
        milliseconds(candidate["ms"]),
        f"{candidate['mb']:.1f} MB",
        f"{candidate['macs'] / 1e6:.0f} MMACs",
    ]
    interval = candidate["interval"] if axis.field == "ms" and not candidate["measured"] else None
    left = x > _LEFT + _LABELLED_RIGHT * (_WIDTH - _LEFT - _RIGHT)
    return {
        "family": candidate["family"],
        "key": families.index(candidate["family"]),
        "x": x,
        "y": y,
        "name": candidate["name"],
        "text": f"{percent(candidate['top1'])}, {', '.join(figures)}",
        "measured": candidate["measured"],
        "front": candidate["front"],
        "ends": [max(_LEFT, across(interval[0])), min(_WIDTH - _RIGHT, across(interval[1]))]
        if interval
        else None,
        "anchor": "end" if left else "start",
        "label_x": x - 10 if left else x + 10,
    }


class _Logarithmic:
    """From values to positions along the lower edge."""

    def __init__(self, least: float, most: float) -> None:
        self._low, self._high = math.log10(least / 1.15), math.log10(most * 1.15)

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten; of more than three powers only those themselves."""
        steps = (1, 2, 5) if self._high - self._low < 3 else (1,)
        powers = range(math.floor(self._low), math.ceil(self._high) + 1)
        values = [step * 10.0**power for power in powers for step in steps]
        return [v for v in values if self._low <= math.log10(v) <= self._high]


class _Linear:
    """From percents to positions along the left edge."""

    def __init__(self, least: float, most: float) -> None:
        self._low, self._high = math.floor(least) - 0.5, math.ceil(most) + 0.5

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def ticks(self) -> list[float]:
        """Whole percents, about six of them."""
        span = self._high - self._low
        step = next(s for s in (1, 2, 5, 10, 20) if span / s <= 8)
        return [v for v in range(math.ceil(self._low), math.floor(self._high) + 1) if v % step == 0]
