"""Is a measurement slower than an earlier one, by more than is allowed?"""

from __future__ import annotations

import re
from typing import Any

from android_bench.errors import BenchError, BenchUsageError


class Regression(BenchError):
    """A model is slower than the baseline by more than was allowed (exit code 4)."""

    exit_code = 4


def parse_share(text: str) -> float:
    """``"5%"`` or ``"0.05"`` as 0.05. Raises BenchUsageError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
    if not found or (not found[2] and float(found[1]) > 1):
        raise BenchUsageError(f"not a share: {text!r}", where="--max-regress", fix="use for example 5%")
    return float(found[1]) / (100 if found[2] else 1)


def compare(document: dict[str, Any], baseline: dict[str, Any]) -> list[dict[str, Any]]:
    """What both documents measured, matched by model name and thread count.

    Returns:
        ``model threads baseline_ms median_ms change`` (0.1: 10 % slower) and ``sure``, whether the two intervals of
        the median are apart.

    Raises:
        BenchUsageError: The documents are of different devices, or have nothing in common.
    """
    here, there = (d["device"].get("cpu") for d in (document, baseline))
    if here != there:
        raise BenchUsageError(f"the baseline is of another device: {there}, not {here}", where="--baseline")
    old = {(r["model"], r["threads"]): r for r in baseline["results"] if r["median_ms"] is not None}
    rows = []
    for new in document["results"]:
        before = old.get((new["model"], new["threads"]))
        if before is None or new["median_ms"] is None:
            continue
        low, high = new["ci95_ms"]
        rows.append(
            {
                "model": new["model"],
                "threads": new["threads"],
                "baseline_ms": before["median_ms"],
                "median_ms": new["median_ms"],
                "change": round(new["median_ms"] / before["median_ms"] - 1, 6),
                "sure": low > before["ci95_ms"][1] or high < before["ci95_ms"][0],
            }
        )
    if not rows:
        raise BenchUsageError("the baseline has none of these models and thread counts", where="--baseline")
    return rows


def check(document: dict[str, Any], baseline: dict[str, Any], allowed: float) -> list[dict[str, Any]]:
    """``compare``, and raises Regression for the worst median that is longer by more than ``allowed``."""
    rows = compare(document, baseline)
    worst = max(rows, key=lambda row: row["change"])
    if worst["change"] > allowed:
        sure = "" if worst["sure"] else " (the intervals overlap: measure again)"
        raise Regression(
            f"{worst['median_ms']:.4g} ms is {worst['change']:.1%} longer than the baseline's "
            f"{worst['baseline_ms']:.4g} ms, more than {allowed:.1%}{sure}",
            where=f"{worst['model']}, {worst['threads']} thread{'s' * (worst['threads'] != 1)}",
        )
    return rows
