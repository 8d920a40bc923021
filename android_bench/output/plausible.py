"""Which figures can be: the one place that says so, for what programs print and for every bench.json that is read.

A program that prints nonsense, a clock that stands still or a file that was edited gives figures that look like any
others. So figures have to be positive, in order, and in agreement with each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from android_bench.errors import BenchUsageError
from android_bench.words import case_name

LONGEST_MS = 86_400_000.0  # of one inference: a day
SHORTEST_MS = 1e-6  # a nanosecond: the step of every clock, and the last digit that a bench.json keeps
MOST_RUNS = 1_000_000_000
_MOST_MIB = 10_000_000.0
_ORDER = ("min_ms", "p5_ms", "median_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")
_DIGITS = 1e-5  # the programs print six digits of a mean


def problem(figures: Mapping[str, Any], *, step_ms: float = 0.001, one_round: bool = True) -> str:
    """Why figures cannot be; empty where they can.

    Args:
        figures: Some of ``count`` or ``n``; ``init_ms first_ms mean_ms std_ms``; ``min_ms p5_ms median_ms p90_ms p95_ms
            p99_ms max_ms``. One that is None or missing is not looked at.
        step_ms: The figures are rounded, or cut off, to multiples of this.
        one_round: All are of the same runs. The median of several rounds may be that of their medians.

    Example:
        >>> problem({"count": 30, "min_ms": 1.0, "median_ms": 1e9, "max_ms": 1.1})
        'median_ms=1e+09 is impossible'
        >>> problem({"min_ms": 1.0, "median_ms": 1.2, "max_ms": 1.1})
        'median_ms=1.2 is above max_ms=1.1'
    """
    known = {name: value for name, value in figures.items() if value is not None}
    for name in ("count", "n"):
        if name in known and not (_is_number(known[name], int) and 1 <= known[name] <= MOST_RUNS):
            return f"{name}={_text(known[name])} is impossible"
    for name in (*_ORDER, "first_ms", "mean_ms"):
        if name in known and not (_is_number(known[name]) and SHORTEST_MS <= known[name] <= LONGEST_MS):
            return f"{name}={_text(known[name])} is impossible"
    for name in ("init_ms", "std_ms"):
        if name in known and not (_is_number(known[name]) and 0 <= known[name] <= LONGEST_MS):
            return f"{name}={_text(known[name])} is impossible"
    for low, high in itertools.pairwise(name for name in _ORDER if name in known):
        if known[low] > known[high]:
            return f"{low}={_text(known[low])} is above {high}={_text(known[high])}"
    return _disagreement(known, step_ms, one_round)


def _disagreement(known: dict[str, Any], step_ms: float, one_round: bool) -> str:
    """Why a mean and a deviation are not those of runs with this minimum, median and maximum; else empty."""
    if not {"min_ms", "max_ms", "mean_ms"} <= known.keys():
        return ""
    low, high, mean = (known[name] for name in ("min_ms", "max_ms", "mean_ms"))
    slack = _DIGITS * mean + step_ms
    if not low - slack <= mean <= high + slack:
        return f"mean_ms={_text(mean)} is not between min_ms={_text(low)} and max_ms={_text(high)}"
    if (std := known.get("std_ms")) is None:
        return ""
    # Bhatia & Davis 2000; the deviation may be that of a sample, with n - 1.
    runs = known.get("count", known.get("n", 2))
    most = math.sqrt((high - mean + slack) * (mean - low + slack) * runs / max(1, runs - 1))
    if std > most + slack:
        return f"std_ms={_text(std)} is more than runs from {_text(low)} to {_text(high)} ms can differ"
    median = known.get("median_ms")
    if one_round and median is not None and abs(mean - median) > std + slack:
        return f"mean_ms={_text(mean)} and median_ms={_text(median)} differ by more than std_ms={_text(std)}"
    return ""


def is_memory(mib: float) -> bool:
    """Whether an amount of memory in MiB can be."""
    return 0 <= mib <= _MOST_MIB


def check_document(document: dict[str, Any], where: str) -> None:
    """Makes sure that the figures of a bench.json can be.

    Args:
        document: The content of the file.
        where: The file, for the error.

    Raises:
        BenchUsageError: The document has no results, or one of them has figures that cannot be.
    """
    results = document.get("results")
    if not isinstance(results, list) or not isinstance(document.get("device"), dict):
        raise BenchUsageError("no results of a device", where=where)
    for number, row in enumerate(results):
        if why := row_problem(row):
            named = (
                isinstance(row, dict) and isinstance(row.get("model"), str) and _is_number(row.get("threads"))
            )
            name = case_name(row["model"], row["threads"]) if named else f"result {number + 1}"
            raise BenchUsageError(f"figures that cannot be: {name}: {why}", where=where)


def row_problem(row: Any) -> str:
    """Why a result of a bench.json cannot be; empty where it can."""
    if not isinstance(row, dict) or not isinstance(row.get("model"), str):
        return "no model"
    if not (_is_number(row.get("threads"), int) and row["threads"] >= 1):
        return f"threads={_text(row.get('threads'))} is impossible"
    if row.get("status") not in ("ok", "unsure", "failed"):
        return f"status={_text(row.get('status'))} is unknown"
    if row["status"] == "failed":
        return "a failed result has a median" if row.get("median_ms") is not None else ""
    if row.get("median_ms") is None:
        return "no median_ms"
    return problem(row, one_round=False) or _interval_problem(row) or _rounds_problem(row)


def _interval_problem(row: dict[str, Any]) -> str:
    ends = row.get("ci95_ms")
    if ends is None:
        return ""
    ordered = isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends))
    if not ordered or not 0 <= ends[0] <= row["median_ms"] <= ends[1] <= 1000 * LONGEST_MS:
        return f"ci95_ms={_text(ends)} is no interval of median_ms={_text(row['median_ms'])}"
    return ""


def _rounds_problem(row: dict[str, Any]) -> str:
    """Why the rounds of a result cannot be, or are not those of its figures; else empty."""
    rounds = row.get("rounds", [])
    if not isinstance(rounds, list):
        return "rounds is no list"
    for number, one in enumerate(rounds, 1):
        if not isinstance(one, dict) or not isinstance(one.get("used"), bool):
            return f"round {number} does not say whether it is used"
        samples = one.get("samples_ms", [])
        if not isinstance(samples, list) or not all(
            _is_number(ms) and SHORTEST_MS <= ms <= LONGEST_MS for ms in samples
        ):
            return f"round {number} has a run that is impossible"
        if one.get("median_ms") is None:
            return f"round {number}: no median_ms"
        bounds = {name: row.get(name) for name in ("min_ms", "max_ms")} if one["used"] else {}
        stat = one.get("stat")
        why = problem({"median_ms": one["median_ms"], "n": one.get("n"), **bounds})
        if isinstance(stat, dict):
            why = why or problem(stat)
        if why:
            return f"round {number}: {why}"
    return ""


def _is_number(value: Any, kind: Any = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _text(value: Any) -> str:
    """A figure as an error shows it, however long it is."""
    if isinstance(value, float):
        return f"{value:g}"
    text = (
        str(value) if not isinstance(value, int) or abs(value) < 10**18 else f"10^{len(str(abs(value))) - 1}"
    )
    return text if len(text) <= 40 else text[:37] + "..."
