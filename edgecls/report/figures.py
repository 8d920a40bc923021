"""The headline figures of a run, and which of them may be judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgecls.report.facts import MODELS, Facts
from edgecls.report.units import fixed, interval_text, megabytes, milliseconds, percent, points
from edgecls.report.values import number, pair
from edgecls.text import plural


@dataclass(frozen=True)
class Figure:
    """One headline number.

    Attributes:
        label: What it is.
        text: The number with its unit, or "–".
        detail: Interval, count or parts it was made of; without a number, why there is none.
        source: The file of the run it comes from.
        tone: "good" or "bad" where the intervals leave no doubt, else "".
    """

    label: str
    text: str
    detail: str
    source: str
    tone: str = ""


def headline(facts: Facts) -> list[Figure]:
    """The figures at the top of the page, in reading order."""
    with_teacher = bool(facts.teacher or facts.scores("teacher"))
    models = ["teacher", "float", "int8"] if with_teacher else ["float", "int8"]
    return [*(_accuracy(facts, model) for model in models), _change(facts), _size(facts), _latency(facts)]


def _accuracy(facts: Facts, model: str) -> Figure:
    value, interval = facts.balanced(model), facts.balanced_interval(model)
    parts = [f"{interval_text(interval)} (95 %)"] if interval else []
    if value is not None and facts.eval.get("count"):
        parts.append(f"{facts.eval['count']} {facts.eval.get('split', 'test')} images")
    warned = facts.scores(model).get("warnings")
    detail = " · ".join(parts) if value is not None else "not measured yet"
    tone = "bad" if warned else ""
    return Figure(f"Balanced accuracy, {MODELS[model]}", percent(value), detail, "eval.json", tone)


def _change(facts: Facts) -> Figure:
    drop = facts.drop()
    if drop is None:
        return Figure("int8 minus float", "–", "not measured yet", "eval.json")
    low, high = facts.change_interval() or (-1.0, 1.0)
    tone = "good" if low > 0 else "bad" if high < 0 else ""
    detail = (
        f"95 %: {points(100 * low)} to {points(100 * high)}" if facts.change_interval() else "no interval"
    )
    return Figure("int8 minus float", points(-drop), f"{detail}, same images", "eval.json", tone)


def _size(facts: Facts) -> Figure:
    ratio = facts.size_ratio()
    sizes = [megabytes(facts.bytes(precision)) for precision in ("int8", "fp32")]
    detail = f"{sizes[0]} of {sizes[1]}" if "–" not in sizes else ""
    if ratio is None:
        detail = "not measured yet" if sizes == ["–", "–"] else "only one of the files is there"
    source = "verify.json" if facts.verify else "bench.json"
    return Figure("Size, int8 / fp32", fixed(ratio), detail, source)


def _latency(facts: Facts) -> Figure:
    threads = facts.threads("int8", "fp32")
    if threads is None:
        detail = "only one of the files was measured" if facts.results() else "not measured yet"
        return Figure("Latency, int8 / fp32", "–", detail, "bench.json")
    int8, fp32 = (facts.result(precision, threads) for precision in ("int8", "fp32"))
    detail = f"{milliseconds(int8['median_ms'])} of {milliseconds(fp32['median_ms'])}"
    tone = compared(_certain(int8), _certain(fp32), more_is_better=False)
    if "unsure" in (int8.get("status"), fp32.get("status")):
        detail += ", unsure"
    elif not tone:
        detail += "; the intervals overlap" if _certain(int8) and _certain(fp32) else "; no interval"
    ratio = int8["median_ms"] / fp32["median_ms"] if fp32["median_ms"] else None
    return Figure(
        f"Latency, int8 / fp32, {plural(threads, 'thread')}", fixed(ratio), detail, "bench.json", tone
    )


def compared(
    new: tuple[float, float] | None, old: tuple[float, float] | None, *, more_is_better: bool
) -> str:
    """Whether a figure is better than another one: "good", "bad", or "" where their intervals overlap.

    Args:
        new: 95 % interval (low, high), or None: no judgment.
        old: That of the figure it is compared with.
        more_is_better: False for a latency.
    """
    if new is None or old is None:
        return ""
    if new[0] > old[1]:
        return "good" if more_is_better else "bad"
    if new[1] < old[0]:
        return "bad" if more_is_better else "good"
    return ""


def _certain(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """The interval of a latency that was measured well; None for an unsure one and for one without an interval."""
    return pair(row.get("ci95_ms")) if row.get("status") == "ok" else None


def median(facts: Facts, precision: str) -> tuple[float, int] | None:
    """Median latency in ms of an exported file and its number of threads, the fewest it was measured with."""
    threads = facts.threads(precision)
    if threads is None:
        return None
    value = number(facts.result(precision, threads).get("median_ms"))
    return None if value is None else (value, threads)
