"""The page of ``edgecls tune``: how the search went, which keys mattered, and each key against the score."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecls.report.html import render, write_page
from edgecls.report.plots import Line, Point, bars, scatter, svg
from edgecls.report.units import duration, percent

_SCORE = "balanced accuracy on validation, %"
_BEST = "best balanced accuracy on validation, %"


def write_tuning(result: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page of a search.

    Args:
        result: The content of schema ``edgecls.tune/1``.
        path: The page.

    Returns:
        Its path.

    Raises:
        MissingError: No space on the disk.
    """
    return write_page(Path(path), tuning_page(result))


def tuning_page(result: Mapping[str, Any]) -> str:
    """The page as HTML."""
    scored = [row for row in result["trials"] if row["score"] is not None]
    return render(
        "tune.html",
        result=result,
        states=states(result["trials"]),
        history=_history(scored),
        importance=bars({k: 100 * v for k, v in result["importance"].items()}, "importance, % of all"),
        keys=[{"name": key, "plot": _against(key, spec, scored)} for key, spec in result["space"].items()],
        rows=[_row(row, result) for row in result["trials"]],
    )


def states(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many trials are in which state: ``12 complete, 7 pruned``."""
    counts = {
        name: sum(row["state"] == name for row in rows)
        for name in ("complete", "pruned", "failed", "running")
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def value_text(value: Any) -> str:
    """A value of a recipe key, short."""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _history(scored: Sequence[Mapping[str, Any]]) -> str:
    if not scored:
        return ""
    x, y = [row["number"] for row in scored], [100 * row["score"] for row in scored]
    lines = [Line("trial", x, y), Line("best so far", x, list(itertools.accumulate(y, max)))]
    return svg(lines, _SCORE, "trial")


def _against(key: str, spec: Any, scored: Sequence[Mapping[str, Any]]) -> str:
    """A key's values against the score: points for numbers, the best score of each choice."""
    if isinstance(spec, Mapping):
        points = [Point(str(row["number"]), row["values"][key], 100 * row["score"]) for row in scored]
        return scatter({"complete trials": points}, _SCORE, key) if len(points) > 1 else ""
    best: dict[str, float] = {}
    for value in spec:
        own = [100 * row["score"] for row in scored if row["values"][key] == value]
        if own:
            best[value_text(value)] = max(own)
    return bars(best, _BEST)


def _row(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    best = result["best"]
    return {
        "number": row["number"],
        "score": percent(row["score"], 2),
        "best": best is not None and row["number"] == best["number"],
        "state": row["state"],
        "why": row.get("error", ""),
        "epochs": row["epochs"],
        "seconds": duration(row["seconds"]) if "seconds" in row else "–",
        "texts": [value_text(row["values"][key]) if key in row["values"] else "–" for key in result["space"]],
    }
