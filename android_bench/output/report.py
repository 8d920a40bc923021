"""Prints results as tables for people. rich is imported only when a table is printed.

Names and reasons come from files and devices and may hold anything. What a terminal would obey is escaped here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TextIO

from android_bench.words import case_name, count, printable

STATUS_COLOURS = {"ok": "green", "unsure": "yellow", "failed": "red"}

# Columns that a narrow terminal leaves out, the first one first.
_DISPENSABLE = ("first", "init", "p90", "min", "runs", "file MB", "peak MiB", "SD855*", "P(B faster)")
_LEFT = ("model", "status", "state", "B is", "operator", "layer")  # columns of text; the others are numbers
_NAMES = ("model", "layer", "state")  # may go on in the next line
_PIECE = re.compile(r"[^\s_./;-]*[\s_./;-]*")  # of a name: a line may end behind it
_GAP = 2  # spaces between columns, and at the table's sides
_NAME_WIDTH = 24  # a longer name goes on in the next line where the terminal is narrow
_NAME_LEAST = 8  # where the other columns leave it no more


def print_table(document: dict[str, Any], file: TextIO | None = None) -> None:
    """Prints the results of a bench.json document, one line per model and thread count, then every ``why``.

    On a narrow terminal columns are left out; it is said which.
    """
    console, document = console_of(file), printable(document)
    device, protocol, results = document["device"], document["protocol"], document["results"]
    columns = _columns(results)
    missing = _drop(columns, console.width)
    title = f"{device['name']}: {device.get('cpu') or ''}".removesuffix(": ")
    caption = (
        f"ms; {count(protocol['rounds'], 'round')}, each of {count(protocol['runs'], 'run')} and "
        f"{protocol['run_s']:g} s or more, after {count(protocol['warmup'], 'warm-up run')} and {protocol['warmup_s']:g} s"
    )
    console.print(table(columns, console.width, title, caption))
    if "SD855*" in columns:
        _print(console, "* published for Paddle-Lite on a Snapdragon 855, fp32, same number of threads")
    if missing:
        _print(
            console, f"left out because the terminal is narrow: {', '.join(missing)} (all are in the JSON)"
        )
    for note in [*(device.get("notes") or []), *kept_note(document)]:
        _print(console, note)
    for r in results:
        if r["why"]:
            _print(console, f"{case_name(r['model'], r['threads'])}, {r['status']}: {r['why']}")


def kept_note(document: Mapping[str, Any]) -> list[str]:
    """A sentence about the results that no round of this session is in; none where there are no such results.

    Example:
        >>> rows = [{"measured": "2026-01-01T10:00:00Z"}, {"measured": "2026-01-02T10:00:00Z"}, {}]
        >>> kept_note({"started": "2026-01-02T10:00:00Z", "results": rows})
        ['1 of 3 results was measured before, at 2026-01-01T10:00:00Z, and not again']
    """
    results, started = document["results"], document.get("started") or ""
    before = sorted(r["measured"] for r in results if r.get("measured") and r["measured"] < started)
    if not before:
        return []
    when = before[0] if before[0] == before[-1] else f"{before[0]} and later"
    were = "was" if len(before) == 1 else "were"
    return [
        f"{len(before)} of {count(len(results), 'result')} {were} measured before, at {when}, and not again"
    ]


def _columns(results: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The cells of the table by the names of its columns."""
    columns = {
        "model": [r["model"] for r in results],
        "threads": [str(r["threads"]) for r in results],
        "median": [milliseconds(r["median_ms"]) for r in results],
        "95 % interval": [_interval(r["ci95_ms"], milliseconds) for r in results],
        "p90": [milliseconds(r["p90_ms"]) for r in results],
        "min": [milliseconds(r["min_ms"]) for r in results],
        "runs": [str(r["n"]) for r in results],
        "init": [milliseconds(r["init_ms"]) for r in results],
        "first": [milliseconds(r["first_ms"]) for r in results],
        "peak MiB": ["-" if r["peak_mib"] is None else f"{r['peak_mib']:.1f}" for r in results],
        "file MB": [_megabytes(r["bytes"]) for r in results],
    }
    if any(r.get("published_sd855_ms") for r in results):
        columns["SD855*"] = [milliseconds(r.get("published_sd855_ms")) for r in results]
    return columns | {"status": [r["status"] for r in results]}


def _needed(name: str, cells: Sequence[str]) -> int:
    """Characters that a column takes at least."""
    from rich.cells import cell_len

    widest = max(map(cell_len, [name, *cells]))
    return _GAP + (min(widest, _NAME_WIDTH) if name in _NAMES else widest)


def _drop(columns: dict[str, list[str]], width: int) -> list[str]:
    """Removes columns until the table fits in ``width`` characters. Returns the names of those removed."""
    removed = []
    for name in _DISPENSABLE:
        if sum(_needed(*column) for column in columns.items()) + _GAP <= width:
            break
        if columns.pop(name, None) is not None:
            removed.append(name)
    return removed


def table(
    columns: dict[str, list[str]], width: int, title: str | None = None, caption: str | None = None
) -> Any:
    """A table of rich from the cells of each column; a status has its color.

    Args:
        columns: Plain text by the name of the column. A name that is too long goes on in the next line, broken behind
            a separator.
        width: Of the terminal, in characters.
        title: Stands above.
        caption: Stands below.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        box=box.SIMPLE, padding=(0, 1, 0, 0), title=title and Text(title), caption=caption and Text(caption)
    )
    names = [name for name in columns if name in _NAMES]
    taken = sum(_needed(name, cells) for name, cells in columns.items() if name not in names) + _GAP
    room = max(_NAME_LEAST, (width - taken) // max(1, len(names)) - _GAP)
    cells = {
        name: [_broken(cell, room) for cell in column] if name in names else column
        for name, column in columns.items()
    }
    for name in columns:
        justify: Literal["left", "right"] = "left" if name in _LEFT else "right"
        made.add_column(name, justify=justify, overflow="fold", no_wrap=name not in (*_NAMES, "operator"))
    for row in zip(*cells.values(), strict=True):
        made.add_row(*(Text(cell, style=STATUS_COLOURS.get(cell, "")) for cell in row))
    return made


def _broken(name: str, width: int) -> str:
    r"""A name in lines of at most ``width`` characters, broken behind separators where it has any.

    Example:
        >>> _broken("MobileNetV3_large_x1_0_int8.tflite", 24)
        'MobileNetV3_large_x1_0_\nint8.tflite'
    """
    from rich.cells import cell_len

    lines = [""]
    for piece in _PIECE.findall(name):
        if lines[-1] and cell_len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def console_of(file: TextIO | None) -> Any:
    """A page as wide as the terminal, of 80 columns where there is none."""
    from rich.console import Console

    return Console(file=file, width=shutil.get_terminal_size((80, 24)).columns)


def _print(console: Any, line: str) -> None:
    """Prints a line as it is; the terminal may wrap it, a file keeps it whole."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _interval(interval: Sequence[float | None] | None, text: Callable[[float], str]) -> str:
    """``"4.95 - 5.05"``, or a dash where there is none: a single round has no interval. An end may be open."""
    return " - ".join("open" if end is None else text(end) for end in interval) if interval else "-"


def _megabytes(size: int | None) -> str:
    """Bytes as MB (10^6 bytes)."""
    return f"{size / 1e6:.{2 if size >= 1e5 else 4}f}" if size else "-"


def milliseconds(value: float | None) -> str:
    """Three significant digits or more, never a bare 0.00 for a fast model."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.2f}"


def print_duel(result: dict[str, Any], file: TextIO | None = None) -> None:
    """Prints what ``baseline.duel`` found."""
    console, result = console_of(file), printable(result)
    pairs = result["pairs"]
    columns = {
        "model": [p["model"] for p in pairs],
        "threads": [str(p["threads"]) for p in pairs],
        "A": [milliseconds(p["a_ms"]) for p in pairs],
        "B": [milliseconds(p["b_ms"]) for p in pairs],
        "B / A": [f"{p['ratio']:.3f}" for p in pairs],
        "95 % interval": [_interval(p["ci95"], "{:.3f}".format) for p in pairs],
        "P(B faster)": ["-" if p["sure"] is None else f"{p['sure']:.1%}" for p in pairs],
        "B is": [p["verdict"] for p in pairs],
    }
    _drop(columns, console.width)
    console.print(table(columns, console.width, title="Is B faster than A?", caption="medians in ms"))
    for note in result["notes"]:
        _print(console, note)


def print_profile(document: dict[str, Any], file: TextIO | None = None, most: int = 20) -> None:
    """Prints the operator profile of every result that has one: times by type, then the slowest layers."""
    console, document = console_of(file), printable(document)
    for r in document["results"]:
        profile = r.get("profile") or {}
        types, layers = profile.get("by_type_ms") or {}, profile.get("layers") or []
        if not layers:
            continue
        total = sum(types.values())
        by_type = {
            "operator": list(types),
            "ms": [f"{ms:.3f}" for ms in types.values()],
            "%": [f"{100 * ms / total:.1f}" for ms in types.values()],
            "layers": [str(sum(layer["type"] == kind for layer in layers)) for kind in types],
        }
        console.print(table(by_type, console.width, f"{case_name(r['model'], r['threads'])}: by type"))
        slowest = sorted(sorted(range(len(layers)), key=lambda index: -layers[index]["avg_ms"])[:most])
        by_layer = {
            "#": [str(index) for index in slowest],
            "ms": [f"{layers[index]['avg_ms']:.3f}" for index in slowest],
            "%": [f"{100 * layers[index]['avg_ms'] / total:.1f}" for index in slowest],
            "operator": [layers[index]["type"] for index in slowest],
            "layer": [layers[index]["name"] for index in slowest],
        }
        console.print(
            table(by_layer, console.width, f"the {len(slowest)} slowest of {count(len(layers), 'layer')}")
        )
