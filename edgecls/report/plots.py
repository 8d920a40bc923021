"""Small line plots as inline SVG whose colours are the page's own, so that one plot suits light, dark and paper.

matplotlib is imported when the first plot is drawn; its object interface needs no display and no global state.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
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
    """Median latency by threads, one curve a model, bars for the 95 % interval; "" if there is nothing to draw."""
    lines = []
    for model in dict.fromkeys(str(row.get("model", "")) for row in results):
        own = [r for r in results if str(r.get("model", "")) == model and r.get("status") != "failed"]
        own = [
            r for r in own if number(r.get("median_ms")) is not None and number(r.get("threads")) is not None
        ]
        own.sort(key=lambda r: r["threads"])
        if own:
            pairs = [pair(r.get("ci95_ms")) or (r["median_ms"], r["median_ms"]) for r in own]
            below = [max(0.0, r["median_ms"] - low) for r, (low, _) in zip(own, pairs, strict=True)]
            above = [max(0.0, high - r["median_ms"]) for r, (_, high) in zip(own, pairs, strict=True)]
            medians = [r["median_ms"] for r in own]
            lines.append(Line(model, [r["threads"] for r in own], medians, (below, above)))
    return svg(lines[: len(_SERIES)], "median latency, ms", "threads", from_zero=True) if lines else ""


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
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"{title}{lines}",
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
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.4, 2.7), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for line, colour in zip(lines, _SERIES, strict=False):
            many = len(line.x) > 15
            style: dict[str, Any] = {"color": colour, "linewidth": 1.8, "label": line.name}
            style |= {"marker": "" if many else "o", "markersize": 3.5}
            if line.error:
                axes.errorbar(line.x, line.y, yerr=line.error, capsize=3, elinewidth=1, **style)
            else:
                axes.plot(line.x, line.y, **style)
        axes.set_title(title, loc="left", fontsize=10, color=_INK)
        axes.set_xlabel(x_label)
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        if from_zero:
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8.5)
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing)
    return _inline(out.getvalue(), title)


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
