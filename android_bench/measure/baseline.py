"""Compares two measurements: is the new one slower than is allowed, which of two is faster, and how sure is that?"""

from __future__ import annotations

import math
import re
from typing import Any

from android_bench.errors import BenchError, BenchUsageError
from android_bench.measure import history, stats
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
        ``model threads baseline_ms median_ms change`` (0.1: 10 % slower) and what ``stats.compare`` tells of two that
        were not measured by turns: ``ratio ci95 sure verdict``.

    Raises:
        BenchUsageError: The documents are of different devices, have nothing in common, or have an impossible median.
    """
    cpu, baseline_cpu = (d["device"].get("cpu") for d in (document, baseline))
    if cpu != baseline_cpu:
        what = f"the baseline is of another device: {baseline_cpu}, not {cpu}"
        raise BenchUsageError(what, where="--baseline")
    old = {(r["model"], r["threads"]): r for r in _measured(baseline)}
    drift = history.drift(document["device"])
    rows = []
    for new in _measured(document):
        before = old.get((new["model"], new["threads"]))
        if before is None:
            continue
        rows.append(
            {
                "model": new["model"],
                "threads": new["threads"],
                "baseline_ms": before["median_ms"],
                "median_ms": new["median_ms"],
                "change": round(new["median_ms"] / before["median_ms"] - 1, 6),
                **_apart(before, new, drift),
            }
        )
    if not rows:
        raise BenchUsageError("the baseline has none of these models and thread counts", where="--baseline")
    return rows


def _measured(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The results with figures. Raises BenchUsageError for a median that cannot be."""
    rows = [r for r in document["results"] if r.get("status") != "failed" and r["median_ms"] is not None]
    for row in rows:
        if not 0 < row["median_ms"] < math.inf:
            raise BenchUsageError(
                f"a median of {row['median_ms']} ms", where=case_name(row["model"], row["threads"])
            )
    return rows


def check(document: dict[str, Any], baseline: dict[str, Any], allowed: float) -> list[dict[str, Any]]:
    """``compare``, and raises Regression for the worst median that is longer by more than ``allowed``."""
    rows = compare(document, baseline)
    worst = max(rows, key=lambda row: row["change"])
    if worst["change"] > allowed:
        doubts = {
            stats.NO_DIFFERENCE: " (the intervals overlap: measure again)",
            stats.NOT_KNOWN: " (one round has no interval: measure at least two)",
        }
        raise Regression(
            f"{worst['median_ms']:.4g} ms is {worst['change']:.1%} longer than the baseline's "
            f"{worst['baseline_ms']:.4g} ms, more than {allowed:.1%}{doubts.get(worst['verdict'], '')}",
            where=case_name(worst["model"], worst["threads"]),
        )
    return rows


def duel(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Is B faster than A, by how much, and how sure is that?

    Two results of one session are compared turn by turn: what slows the whole device slows both. Two sessions may
    differ for no reason in the models, so their interval is wider by what sessions on this device differ.

    Args:
        a: A document of bench.json.
        b: Another, or a part of the same; results are matched by model name and thread count, or by thread count
            alone where each document has a single model. Rounds of the same ``session`` and ``turn`` were measured
            one right after the other.

    Returns:
        ``schema``, ``a`` and ``b`` (device and start of each), ``notes`` (what makes them hard to compare) and
        ``pairs``: ``model threads a_ms b_ms by_turns drift`` and what ``stats.compare`` tells: ``ratio`` (B / A: 0.8
        means that B needs 20 % less time), its ``ci95`` (an open end is None), ``sure`` (probability that B is faster)
        and ``verdict``. ``ci95`` and ``sure`` are None where they are not known. ``drift`` is the standard deviation
        between sessions that was allowed for, None where the two were measured by turns.

    Raises:
        BenchUsageError: The documents have nothing in common.
    """
    matched = _matched(a, b)
    if not matched:
        raise BenchUsageError("the two have no model and thread count in common", where="--compare")
    drift = max((history.drift(d["device"]) for d in (a, b)), key=lambda found: found.std)
    one_session = (a["started"], a["device"]) == (b["started"], b["device"])
    pairs = []
    for old, new in matched:
        renamed = old["model"] != new["model"]
        turns = _turns(old, new) if one_session else None
        known = stats.compare(*turns, by_turns=True) if turns else _apart(old, new, drift)
        pairs.append(
            {
                "model": f"{old['model']} / {new['model']}" if renamed else new["model"],
                "threads": new["threads"],
                "a_ms": old["median_ms"],
                "b_ms": new["median_ms"],
                "by_turns": bool(turns),
                "drift": None if turns else round(drift.std, 6),
                **known,
            }
        )
    about = [
        {"device": d["device"].get("name"), "cpu": d["device"].get("cpu"), "started": d["started"]}
        for d in (a, b)
    ]
    notes = _notes(a, b, matched, pairs, drift)
    return {"schema": "android_bench.compare/2", "a": about[0], "b": about[1], "notes": notes, "pairs": pairs}


_Match = tuple[dict[str, Any], dict[str, Any]]


def _matched(a: dict[str, Any], b: dict[str, Any]) -> list[_Match]:
    """Results of two documents with the same model and thread count."""
    measured = [_measured(d) for d in (a, b)]
    names = [{r["model"] for r in rows} for rows in measured]
    renamed = names[0] != names[1] and len(names[0]) == len(names[1]) == 1
    found = {("" if renamed else r["model"], r["threads"]): r for r in measured[0]}
    keys = [("" if renamed else r["model"], r["threads"]) for r in measured[1]]
    return [(found[key], new) for key, new in zip(keys, measured[1], strict=True) if key in found]


def _turns(a: dict[str, Any], b: dict[str, Any]) -> tuple[list[list[float]], list[list[float]]] | None:
    """The rounds of two results in pairs, each measured one right after the other; None if they took no turns."""
    by_turn = [
        {(r["session"], r["turn"]): r for r in result.get("rounds", []) if r["used"] and "turn" in r}
        for result in (a, b)
    ]
    both = [turn for turn in by_turn[0] if turn in by_turn[1]]
    if not both:
        return None
    first, second = ([_runs(rounds[turn]) for turn in both] for rounds in by_turn)
    return first, second


def _apart(a: dict[str, Any], b: dict[str, Any], drift: history.Drift) -> dict[str, Any]:
    """What ``stats.compare`` tells of two results that were not measured by turns."""
    rounds = [[_runs(r) for r in result.get("rounds", []) if r["used"]] for result in (a, b)]
    if not all(rounds):  # a file of others may have figures only
        ratio = round(b["median_ms"] / a["median_ms"], 6)
        return {"ratio": ratio, "ci95": None, "sure": None, "verdict": stats.NOT_KNOWN}
    return stats.compare(*rounds, drift=drift.std, drift_df=drift.df)


def _notes(
    a: dict[str, Any],
    b: dict[str, Any],
    matched: list[_Match],
    pairs: list[dict[str, Any]],
    drift: history.Drift,
) -> list[str]:
    """What makes the two hard to compare."""
    notes = []
    if a["device"].get("cpu") != b["device"].get("cpu"):
        notes.append(f"the devices differ: {a['device'].get('cpu')}, {b['device'].get('cpu')}")
    if not all(p["by_turns"] for p in pairs):
        notes.append(
            f"not measured by turns in one session: the interval is wider for that ({drift.text}); "
            "measure both together: bench A.tflite B.tflite --compare"
        )
    if doubtful := [r["model"] for pair in matched for r in pair if r["status"] == "unsure"]:
        notes.append(f"marked unsure when they were measured: {', '.join(dict.fromkeys(doubtful))}")
    if unknown := [p["model"] for p in pairs if p["verdict"] == stats.NOT_KNOWN]:
        notes.append(
            "no verdict from a single round, or from runs that all took the same time: "
            + ", ".join(dict.fromkeys(unknown))
        )
    if wide := [p["model"] for p in pairs if p["ci95"] and None in p["ci95"]]:
        notes.append(f"rounds differ so much that the interval is open: {', '.join(dict.fromkeys(wide))}")
    return notes


def _runs(row: dict[str, Any]) -> list[float]:
    """The runs of a round; only its median where no single run is known."""
    return row.get("samples_ms") or [row["median_ms"]]
