"""Small plots as inline SVG. Their colors are the page's own, so that one plot suits light, dark and paper.

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

from edgecls import precisions
from edgecls.report.facts import title_of
from edgecls.report.values import number, pair
from edgecls.text import plural

# Colors that stand for the page's CSS variables until the SVG is written.
_INK, _LINE = "#010101", "#020202"
_SERIES = ("#030303", "#040404", "#050505", "#060606")
_VARIABLES = {
    _INK: "var(--soft)",
    _LINE: "var(--line)",
    **{color: f"var(--c{i})" for i, color in enumerate(_SERIES, 1)},
}
_LEAST_SPAN = 10.0  # points of accuracy that an axis shows at least
_NAMED = 16  # with more points their names would cover each other
_LOGARITHMIC = 8.0  # a scatter's x axis is logarithmic if its largest value is so many times its smallest
_MANY_TIMES = 200.0  # likewise the y axis of curves
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
    """One curve: its name, its points, and how far error bars reach (below, above) where there are any."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    error: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True)
class Point:
    """One point of a scatter plot, with its 95 % intervals (low, high) where it has them."""

    name: str
    x: float
    y: float
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


def curves(metrics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Training curves from the rows of metrics.jsonl.

    Returns:
        For each stage ``{"stage", "epochs", "plots": [svg of loss, of accuracy, of learning rate]}``.
    """
    drawn = []
    for stage in dict.fromkeys(str(row.get("stage", "")) for row in metrics):
        epochs = [row for row in metrics if str(row.get("stage", "")) == stage]
        plots = []
        for title, belongs in _PANELS:
            keys = dict.fromkeys(k for row in epochs for k in row if belongs(k))
            lines = [line for line in (_curve(epochs, key) for key in keys) if line.x]
            if lines:
                plots.append(svg(lines[: len(_SERIES)], title, "epoch", logarithmic=_spans_wide(lines)))
        drawn.append({"stage": title_of(stage), "epochs": len(epochs), "plots": plots})
    return drawn


def _spans_wide(lines: Sequence[Line]) -> bool:
    """Whether a curve would be a flat line beside another one, unless the axis is logarithmic."""
    values = [value for line in lines for value in line.y]
    return min(values) > 0 and max(values) / min(values) > _MANY_TIMES


def latency(results: Sequence[dict[str, Any]]) -> str:
    """Median latency by threads, one curve a model, bars for the 95 % interval; "" if there is nothing to draw.

    Of more than four models, the four whose largest median is the smallest.
    """
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in measured(results):
        by_model.setdefault(str(row.get("model", "")), []).append(row)
    lines = []
    for model, rows in by_model.items():
        rows.sort(key=lambda r: r["threads"])
        medians = [r["median_ms"] for r in rows]
        error = _error_bars(medians, [pair(r.get("ci95_ms")) for r in rows])
        lines.append(Line(model.removesuffix(".tflite"), [r["threads"] for r in rows], medians, error))
    if len(lines) > len(_SERIES):
        lines = sorted(lines, key=lambda line: max(line.y))[: len(_SERIES)]
    return svg(lines, "median latency, ms", "threads", from_zero=True) if lines else ""


def _error_bars(
    values: Sequence[float], intervals: Sequence[tuple[float, float] | None]
) -> tuple[list[float], list[float]]:
    """How far the intervals reach below and above the values; 0 where there is no interval."""
    ends = [interval or (value, value) for value, interval in zip(values, intervals, strict=True)]
    below = [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)]
    above = [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)]
    return below, above


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


def against_latency(
    results: Sequence[dict[str, Any]],
    scores: Mapping[str, float | None],
    title: str,
    intervals: Mapping[str, tuple[float, float] | None] | None = None,
) -> str:
    """A plot of a score of each file against its median latency, with the fewest threads.

    Args:
        results: Rows of bench.json.
        scores: Score of each file by its name, 0 to 1; shown in percent.
        title: What the score is, with its unit.
        intervals: 95 % interval of each score, (low, high).
    """
    groups: dict[str, list[Point]] = {}
    for row in _fewest_threads(results):
        file = str(row["model"])
        score, interval = scores.get(file), (intervals or {}).get(file)
        if score is not None:
            point = Point(
                _short(row),
                row["median_ms"],
                100 * score,
                pair(row.get("ci95_ms")),
                interval and (100 * interval[0], 100 * interval[1]),
            )
            groups.setdefault(_precision(row), []).append(point)
    return scatter(groups, title, _median_label(results))


def _fewest_threads(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = measured(results)
    least = min((row["threads"] for row in found), default=0)
    return [row for row in found if row["threads"] == least]


def _median_label(results: Sequence[dict[str, Any]]) -> str:
    least = min((row["threads"] for row in measured(results)), default=0)
    return f"median latency, ms, {plural(int(least), 'thread')}"


def _precision(row: Mapping[str, Any]) -> str:
    return precisions.of_file(str(row.get("model", "")).removesuffix(".tflite")) or "file"


def _short(row: Mapping[str, Any]) -> str:
    name = str(row.get("model", "")).removesuffix(".tflite")
    return name.removesuffix(f"_{_precision(row)}")


def svg(
    lines: Sequence[Line], title: str, x_label: str, *, from_zero: bool = False, logarithmic: bool = False
) -> str:
    """Draw lines.

    Args:
        lines: At most four curves.
        title: What the y axis shows, with its unit.
        x_label: What the x axis counts; ticks are whole numbers.
        from_zero: Whether the y axis starts at 0.
        logarithmic: Whether the y axis is.

    Returns:
        An ``<svg>`` element, safe to put in a page: texts are escaped, ids are left only where they are referred to.
    """
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    outside = bool(lines and lines[0].error) and len(lines) > 1  # long names of files, short ones of curves
    with _drawing(title, lines, height=2.7 + 0.2 * len(lines) * outside) as drawing:
        axes = drawing.axes
        for line, color in zip(lines, _SERIES, strict=False):
            many = len(line.x) > 15
            style: dict[str, Any] = {"color": color, "linewidth": 1.8, "label": line.name}
            style |= {"marker": "" if many else "o", "markersize": 3.5}
            if line.error:
                axes.errorbar(line.x, line.y, yerr=line.error, capsize=3, elinewidth=1, **style)
            else:
                axes.plot(line.x, line.y, **style)
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        if from_zero:
            axes.set_ylim(bottom=0)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.minorticks_off()
        if len(lines) > 1:
            _add_legend(axes, outside=outside)
    return drawing.svg


def _add_legend(axes: Any, *, outside: bool, columns: int = 1) -> None:
    """Within the axes where it covers the least, or below them, where it cannot be taken for data."""
    style: dict[str, Any] = {"frameon": False, "fontsize": 8.5}
    if outside:
        axes.figure.legend(**style, loc="outside lower left", ncols=columns)
    else:
        axes.legend(**style)


def scatter(groups: Mapping[str, Sequence[Point]], title: str, x_label: str) -> str:
    """Draw points with their names.

    The y axis holds every interval and spans at least ``_LEAST_SPAN``, so that noise does not look like a difference.

    Args:
        groups: At most four, each a color.
        title: What the y axis shows, with its unit.
        x_label: What the x axis shows, with its unit; it starts at 0, or is logarithmic over a wide range.

    Returns:
        As ``svg``; "" without points.
    """
    groups = {group: points for group, points in groups.items() if points}
    if not groups:
        return ""
    named_by_group = max(map(len, groups.values())) == 1  # one network in several precisions
    with _drawing(title, groups, height=3.6) as drawing:
        axes = drawing.axes
        for (group, points), color in zip(groups.items(), _SERIES, strict=False):
            xs, ys = [p.x for p in points], [p.y for p in points]
            errors = {
                "xerr": _error_bars(xs, [p.x_interval for p in points]),
                "yerr": _error_bars(ys, [p.y_interval for p in points]),
            }
            style: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 4, "elinewidth": 0.8}
            axes.errorbar(xs, ys, **errors, **style, color=color, label=group)
        for name, point in _labels(groups, named_by_group):
            axes.annotate(
                name, (point.x, point.y), xytext=(5, 4), textcoords="offset points", fontsize=7.5, color=_INK
            )
        axes.set_xlabel(x_label)
        axes.set_ylim(*_score_range([p for points in groups.values() for p in points]))
        _scale_x(axes, [p for points in groups.values() for p in points])
        if len(groups) > 1 and not named_by_group:
            _add_legend(axes, outside=True, columns=len(groups))
    return drawing.svg


def _labels(groups: Mapping[str, Sequence[Point]], named_by_group: bool) -> list[tuple[str, Point]]:
    """Names to write beside points. The same networks in another precision are as accurate: they are named once."""
    if named_by_group:
        return [(group, points[0]) for group, points in groups.items()]
    first = next(iter(groups.values()))
    return [(point.name, point) for point in first] if len(first) <= _NAMED else []


def _score_range(points: Sequence[Point]) -> tuple[float, float]:
    """Ends of an axis of percentages that holds all points and intervals."""
    ends = [y for p in points for y in (p.y, *(p.y_interval or ()))]
    low, high = min(ends), max(ends)
    room = max(0.08 * (high - low), (_LEAST_SPAN - (high - low)) / 2)
    return low - room, high + room


def _scale_x(axes: Any, points: Sequence[Point]) -> None:
    """From 0, or logarithmic if the largest value is many times the smallest."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    xs = [p.x for p in points]
    axes.margins(x=0.15)
    if min(xs) > 0 and max(xs) / min(xs) > _LOGARITHMIC:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
    else:
        axes.set_xlim(left=0)


def bars(values: Mapping[str, float], title: str) -> str:
    """Draw a horizontal bar for each name, the first on top; "" without values."""
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


def _curve(epochs: Sequence[dict[str, Any]], key: str) -> Line:
    """A figure of each epoch; epochs without it, or whose value is not finite, are gaps."""
    found = [(number(row.get("epoch")), number(row.get(key))) for row in epochs]
    finite = [(x + 1, y) for x, y in found if x is not None and y is not None]  # people count epochs from 1
    name = _NAMES.get(key, key.replace("_", " "))
    return Line(name, [x for x, _ in finite], [y for _, y in finite])


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
    for color, variable in _VARIABLES.items():
        text = text.replace(f": {color}", f": {variable}")
    return re.sub(r"\s*\n\s*", "\n", text)
