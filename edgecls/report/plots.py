"""Small line plots as inline SVG whose colours are the page's own, so that one plot suits light, dark and paper.

matplotlib is imported when the first plot is drawn; its object interface needs no display and no global state.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from edgecls.report.figures import STAGES, number, pair

# Colours that stand for the page's CSS variables until the SVG is written.
_INK, _LINE = "#010101", "#020202"
_SERIES = ("#030303", "#040404", "#050505", "#060606")
_VARIABLES = {
    _INK: "var(--soft)",
    _LINE: "var(--line)",
    **{colour: f"var(--c{i})" for i, colour in enumerate(_SERIES, 1)},
}
_NAMED = 16  # with more points their names would cover each other
_LOGARITHMIC = 8.0
_PANELS = (
    ("loss", lambda key: "loss" in key),
    ("accuracy", lambda key: "accuracy" in key or "top1" in key),
    ("learning rate", lambda key: key in ("lr", "learning_rate")),
)
_NAMES = {
    "loss": "training",
    "accuracy": "training",
    "val_loss": "validation",
    "val_accuracy": "validation",
    "val_top1": "validation",
    "val_balanced_accuracy": "validation, balanced",
    "lr": "learning rate",
}


@dataclass(frozen=True)
class Line:
    """One curve: its name, points, and half-open error bars (below, above) where there are any."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    error: tuple[Sequence[float], Sequence[float]] | None = None


def curves(metrics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Training curves from the rows of metrics.jsonl.

    Returns:
        For each stage ``{"stage", "epochs", "plots": [svg of loss, of accuracy, of learning rate]}``.
    """
    drawn = []
    for stage in dict.fromkeys(str(row.get("stage", "")) for row in metrics):
        own = [row for row in metrics if str(row.get("stage", "")) == stage]
        plots = []
        for title, belongs in _PANELS:
            keys = dict.fromkeys(k for row in own for k in row if belongs(k))
            lines = [line for line in (_curve(own, key) for key in keys) if line.x]
            if lines:
                plots.append(svg(lines[: len(_SERIES)], title, "epoch"))
        drawn.append({"stage": STAGES.get(stage, stage), "epochs": len(own), "plots": plots})
    return drawn


def latency(results: Sequence[dict[str, Any]]) -> str:
    """Median latency by threads, one curve a model, bars for the 95 % interval; "" if there is nothing to draw.

    Of more than four models, the four whose largest median is the smallest.
    """
    lines = []
    for model in dict.fromkeys(str(row.get("model", "")) for row in results):
        own = [r for r in measured(results) if str(r.get("model", "")) == model]
        own.sort(key=lambda r: r["threads"])
        if own:
            pairs = [pair(r.get("ci95_ms")) or (r["median_ms"], r["median_ms"]) for r in own]
            below = [max(0.0, r["median_ms"] - low) for r, (low, _) in zip(own, pairs, strict=True)]
            above = [max(0.0, high - r["median_ms"]) for r, (_, high) in zip(own, pairs, strict=True)]
            medians = [r["median_ms"] for r in own]
            lines.append(
                Line(model.removesuffix(".tflite"), [r["threads"] for r in own], medians, (below, above))
            )
    if len(lines) > len(_SERIES):
        lines = sorted(lines, key=lambda line: max(line.y))[: len(_SERIES)]
    return svg(lines, "median latency, ms", "threads", from_zero=True) if lines else ""


def measured(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of bench.json that have a median and a thread count."""
    return [
        row
        for row in results
        if row.get("status") != "failed"
        and number(row.get("median_ms")) is not None
        and number(row.get("threads")) is not None
    ]


def sizes(results: Sequence[dict[str, Any]]) -> str:
    """Size of each file, MB of 10^6 bytes."""
    found = {str(r.get("model", "")).removesuffix(".tflite"): number(r.get("bytes")) for r in results}
    return bars({name: size / 1e6 for name, size in found.items() if size}, "file size, MB")


def against_latency(results: Sequence[dict[str, Any]], scores: Mapping[str, float | None], title: str) -> str:
    """A plot of a score (0 to 1, shown in percent) of each file against its median, with the fewest threads."""
    groups: dict[str, list[tuple[str, float, float]]] = {}
    for row in _fewest_threads(results):
        score = scores.get(str(row["model"]))
        if score is not None:
            groups.setdefault(_precision(row), []).append((_short(row), row["median_ms"], 100 * score))
    return scatter(groups, title, _median_label(results))


def _fewest_threads(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = measured(results)
    least = min((row["threads"] for row in found), default=0)
    return [row for row in found if row["threads"] == least]


def _median_label(results: Sequence[dict[str, Any]]) -> str:
    least = min((row["threads"] for row in measured(results)), default=0)
    return f"median latency, ms, {least} thread{'' if least == 1 else 's'}"


def _precision(row: Mapping[str, Any]) -> str:
    end = str(row.get("model", "")).removesuffix(".tflite").rpartition("_")[2]
    return end if end in ("fp32", "fp16", "int8") else "file"


def _short(row: Mapping[str, Any]) -> str:
    name = str(row.get("model", "")).removesuffix(".tflite")
    return name.removesuffix(f"_{_precision(row)}")


def svg(lines: Sequence[Line], title: str, x_label: str, *, from_zero: bool = False) -> str:
    """Draw lines.

    Args:
        lines: At most four curves.
        title: What the y axis shows, with its unit.
        x_label: What the x axis counts; ticks are whole numbers.
        from_zero: Whether the y axis starts at 0.

    Returns:
        An ``<svg>`` element, safe to put in a page: texts are escaped, ids are left only where they are referred to.
    """
    from matplotlib.ticker import MaxNLocator

    with _drawing(title, lines) as drawing:
        axes = drawing.axes
        for line, colour in zip(lines, _SERIES, strict=False):
            many = len(line.x) > 15
            style: dict[str, Any] = {"color": colour, "linewidth": 1.8, "label": line.name}
            style |= {"marker": "" if many else "o", "markersize": 3.5}
            if line.error:
                axes.errorbar(line.x, line.y, yerr=line.error, capsize=3, elinewidth=1, **style)
            else:
                axes.plot(line.x, line.y, **style)
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        if from_zero:
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8.5)
    return drawing.svg


def scatter(groups: Mapping[str, Sequence[tuple[str, float, float]]], title: str, x_label: str) -> str:
    """Draw points with their names.

    Args:
        groups: At most four, each a colour: ``(name, x, y)`` of its points.
        title: What the y axis shows, with its unit.
        x_label: What the x axis shows, with its unit; it starts at 0, or is logarithmic over a wide range.

    Returns:
        As ``svg``; "" without points.
    """
    if not any(groups.values()):
        return ""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    first = next(points for points in groups.values() if points)
    every = [x for points in groups.values() for _, x, _ in points]
    with _drawing(title, groups, height=3.6) as drawing:
        axes = drawing.axes
        for (group, points), colour in zip(groups.items(), _SERIES, strict=False):
            xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
            axes.plot(xs, ys, linestyle="", marker="o", markersize=4, color=colour, label=group)
            # The same networks in another precision stand at the same height: named once.
            for name, x, y in points if points is first and len(points) <= _NAMED else ():
                axes.annotate(name, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7, color=_INK)
        axes.set_xlabel(x_label)
        if min(every) > 0 and max(every) / min(every) > _LOGARITHMIC:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.minorticks_off()
        else:
            axes.set_xlim(left=0)
        axes.margins(x=0.15)
        if len(groups) > 1:
            axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    return drawing.svg


def bars(values: Mapping[str, float], title: str) -> str:
    """Draw a bar for each name, the first on top; "" without values."""
    if not values:
        return ""
    with _drawing(title, values, height=0.8 + 0.24 * len(values)) as drawing:
        axes = drawing.axes
        axes.barh(list(values), list(values.values()), color=_SERIES[0], height=0.6)
        for index, value in enumerate(values.values()):
            text = f" {value:.3g}"
            axes.annotate(text, (value, index), va="center", fontsize=8, color=_INK)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.margins(x=0.12)
    return drawing.svg


class _Drawing:
    """Axes to draw on; ``svg`` is there after the block."""

    axes: Any = None
    svg: str = ""


@contextlib.contextmanager
def _drawing(title: str, content: Any, height: float = 2.7) -> Iterator[_Drawing]:
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"{title}{content}",
        "text.parse_math": False,
        "text.color": _INK,
        "axes.edgecolor": _LINE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.labelcolor": _INK,
        "xtick.color": _LINE,
        "ytick.color": _LINE,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "font.size": 9,
        "axes.formatter.useoffset": False,
        "axes.formatter.limits": (-4, 6),
    }
    drawing = _Drawing()
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.4, height), layout="constrained")
        figure.patch.set_alpha(0)
        drawing.axes = axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.set_title(title, loc="left", fontsize=10, color=_INK)
        yield drawing
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawing.svg = _inline(out.getvalue(), title)


def _curve(own: Sequence[dict[str, Any]], key: str) -> Line:
    seen = [(number(row.get("epoch")), number(row.get(key))) for row in own]
    kept = [(x + 1, y) for x, y in seen if x is not None and y is not None]  # people count epochs from 1
    name = _NAMES.get(key, key.replace("_", " "))
    return Line(name, [x for x, _ in kept], [y for _, y in kept])


def _inline(text: str, title: str) -> str:
    """matplotlib's SVG document as an element of a page that holds several of them."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.S)
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    text = re.sub(r' font-family: [^;"]*;| transform="rotate\(-0 [^"]*"', "", text)
    box = re.search(r'viewBox="([\d. ]+)"', text)
    text = text[text.index(">") + 1 :]
    text = (
        f'<svg class="plot" viewBox="{box[1] if box else ""}" role="img" aria-label="{escape(title)}">{text}'
    )
    for colour, variable in _VARIABLES.items():
        text = text.replace(f": {colour}", f": {variable}")
    return re.sub(r"\s*\n\s*", "\n", text)
