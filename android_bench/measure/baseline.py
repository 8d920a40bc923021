"""Compares two measurements: is the new one slower than is allowed, which of two is faster, and how sure is that?"""

from __future__ import annotations

import re
from typing import Any

from android_bench.errors import BenchError, BenchUsageError
from android_bench.measure import stats
from android_bench.words import case_name


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
    """The results that are in both documents, matched by model name and thread count.

    Returns:
        ``model threads baseline_ms median_ms change`` (0.1: 10 % slower) and ``sure``, whether the two intervals of
        the median are apart; None where one of them has no interval because it comes from a single round.

    Raises:
        BenchUsageError: The documents are of different devices, or have nothing in common.
    """
    cpu, baseline_cpu = (d["device"].get("cpu") for d in (document, baseline))
    if cpu != baseline_cpu:
        what = f"the baseline is of another device: {baseline_cpu}, not {cpu}"
        raise BenchUsageError(what, where="--baseline")
    old = {(r["model"], r["threads"]): r for r in baseline["results"] if r["median_ms"] is not None}
    rows = []
    for new in document["results"]:
        before = old.get((new["model"], new["threads"]))
        if before is None or new["median_ms"] is None:
            continue
        rows.append(
            {
                "model": new["model"],
                "threads": new["threads"],
                "baseline_ms": before["median_ms"],
                "median_ms": new["median_ms"],
                "change": round(new["median_ms"] / before["median_ms"] - 1, 6),
                "sure": _apart(new["ci95_ms"], before["ci95_ms"]),
            }
        )
    if not rows:
        raise BenchUsageError("the baseline has none of these models and thread counts", where="--baseline")
    return rows


def _apart(a: list[float] | None, b: list[float] | None) -> bool | None:
    """Whether two intervals have no value in common; None when one is not known."""
    return None if a is None or b is None else a[0] > b[1] or a[1] < b[0]


def check(document: dict[str, Any], baseline: dict[str, Any], allowed: float) -> list[dict[str, Any]]:
    """``compare``, and raises Regression for the worst median that is longer by more than ``allowed``."""
    rows = compare(document, baseline)
    worst = max(rows, key=lambda row: row["change"])
    if worst["change"] > allowed:
        doubts = {
            True: "",
            False: " (the intervals overlap: measure again)",
            None: " (one round has no interval: measure at least two)",
        }
        raise Regression(
            f"{worst['median_ms']:.4g} ms is {worst['change']:.1%} longer than the baseline's "
            f"{worst['baseline_ms']:.4g} ms, more than {allowed:.1%}{doubts[worst['sure']]}",
            where=case_name(worst["model"], worst["threads"]),
        )
    return rows


def duel(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Is B faster than A, by how much, and how sure is that?

    Args:
        a: A document of bench.json.
        b: Another; results are matched by model name and thread count, or by thread count alone where each document
            has a single model.

    Returns:
        ``schema``, ``a`` and ``b`` (device and start of each), ``notes`` (what makes them hard to compare) and
        ``pairs``: ``model threads a_ms b_ms`` and what ``stats.compare`` tells: ``ratio`` (B / A: 0.8 means that B
        needs 20 % less time), its ``ci95``, ``sure`` (share of resamples in which B is faster) and ``verdict``.
        ``ci95`` and ``sure`` are None for a single round.

    Raises:
        BenchUsageError: The documents have nothing in common.
    """
    measured = [[r for r in d["results"] if r["status"] != "failed"] for d in (a, b)]
    names = [{r["model"] for r in rows} for rows in measured]
    renamed = names[0] != names[1] and len(names[0]) == len(names[1]) == 1
    found = {("" if renamed else r["model"], r["threads"]): r for r in measured[0]}
    pairs = []
    for new in measured[1]:
        old = found.get(("" if renamed else new["model"], new["threads"]))
        if old is not None:
            model = f"{old['model']} / {new['model']}" if renamed else new["model"]
            figures = {"a_ms": old["median_ms"], "b_ms": new["median_ms"]}
            result = stats.compare(_rounds(old), _rounds(new))
            pairs.append({"model": model, "threads": new["threads"], **figures, **result})
    if not pairs:
        raise BenchUsageError("the two have no model and thread count in common", where="--compare")
    notes = []
    if a["device"].get("cpu") != b["device"].get("cpu"):
        notes.append(f"the devices differ: {a['device'].get('cpu')}, {b['device'].get('cpu')}")
    if doubtful := [r["model"] for rows in measured for r in rows if r["status"] == "unsure"]:
        notes.append(f"marked unsure when they were measured: {', '.join(dict.fromkeys(doubtful))}")
    if alone := [p["model"] for p in pairs if p["ci95"] is None]:
        notes.append(f"measured in one round only, which has no interval: {', '.join(dict.fromkeys(alone))}")
    about = [
        {"device": d["device"].get("name"), "cpu": d["device"].get("cpu"), "started": d["started"]}
        for d in (a, b)
    ]
    return {"schema": "android_bench.compare/1", "a": about[0], "b": about[1], "notes": notes, "pairs": pairs}


def _rounds(result: dict[str, Any]) -> list[list[float]]:
    """The runs of the rounds used; only the medians of rounds of which no single run is known."""
    return [r["samples_ms"] or [r["median_ms"]] for r in result["rounds"] if r["used"]]
