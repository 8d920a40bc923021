"""Prints results as tables for people. rich is imported only here, and only when a table is printed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any, Literal, TextIO

from android_bench.words import case_name, count, printable

_COLOURS = {"ok": "green", "unsure": "yellow", "failed": "red"}


# Columns that a narrow terminal leaves out, the first one first.
_DISPENSABLE = ("first", "init", "p90", "min", "runs", "file MB", "peak MiB", "SD855*", "P(B faster)")
_LEFT = ("model", "status", "B is", "operator", "layer")  # columns of text; the others are numbers
_GAP = 2  # spaces between columns, and at the table's sides
_MODEL_WIDTH = 24  # a longer name goes on in the next line


def print_table(document: dict[str, Any], file: TextIO | None = None) -> None:
    """Prints the results of a bench.json document, one line per model and thread count, then every ``why``.

    On a narrow terminal columns are left out; it is said which.
    """
    from rich.markup import escape

    console = _console(file)
    device, protocol, results = document["device"], document["protocol"], document["results"]
    columns = _columns(results)
    missing = _drop(columns, console.width)
    title = escape(f"{device['name']}: {device.get('cpu') or ''}".removesuffix(": "))
    caption = (
        f"ms; {count(protocol['rounds'], 'round')}, each of {count(protocol['runs'], 'run')} and "
        f"{protocol['run_s']:g} s or more, after {count(protocol['warmup'], 'warm-up run')} and {protocol['warmup_s']:g} s"
    )
    console.print(_table(columns, title, caption))
    if "SD855*" in columns:
        _print(console, "* published for Paddle-Lite on a Snapdragon 855, fp32, same number of threads")
    if missing:
        _print(
            console, f"left out because the terminal is narrow: {', '.join(missing)} (all are in the JSON)"
        )
    for note in device.get("notes") or []:
        _print(console, note)
    for r in results:
        if r["why"]:
            _print(console, f"{case_name(r['model'], r['threads'])}, {r['status']}: {r['why']}")


def _columns(results: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The cells of the table by the names of its columns."""
    from rich.markup import escape

    columns = {
        "model": [escape(printable(r["model"])) for r in results],
        "threads": [str(r["threads"]) for r in results],
        "median": [_ms(r["median_ms"]) for r in results],
        "95 % interval": [_interval(r["ci95_ms"], _ms) for r in results],
        "p90": [_ms(r["p90_ms"]) for r in results],
        "min": [_ms(r["min_ms"]) for r in results],
        "runs": [str(r["n"]) for r in results],
        "init": [_ms(r["init_ms"]) for r in results],
        "first": [_ms(r["first_ms"]) for r in results],
        "peak MiB": ["-" if r["peak_mib"] is None else f"{r['peak_mib']:.1f}" for r in results],
        "file MB": [_megabytes(r["bytes"]) for r in results],
    }
    if any(r.get("published_sd855_ms") for r in results):
        columns["SD855*"] = [_ms(r.get("published_sd855_ms")) for r in results]
    return columns | {"status": [f"[{_COLOURS[r['status']]}]{r['status']}[/]" for r in results]}


def _drop(columns: dict[str, list[str]], width: int) -> list[str]:
    """Removes columns until the table fits in ``width`` characters. Returns the names of those removed."""
    from rich.text import Text

    def needed(name: str) -> int:
        widest = max(Text.from_markup(cell).cell_len for cell in [name, *columns[name]])
        return _GAP + (min(widest, _MODEL_WIDTH) if name == "model" else widest)

    removed = []
    for name in _DISPENSABLE:
        if sum(map(needed, columns)) + _GAP <= width:
            break
        if columns.pop(name, None) is not None:
            removed.append(name)
    return removed


def _table(columns: dict[str, list[str]], title: str, caption: str | None = None) -> Any:
    """A table of rich. Only names of models, operators and layers may go on in the next line."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=title, caption=caption)
    for name in columns:
        wraps = name in ("model", "operator", "layer")
        justify: Literal["left", "right"] = "left" if name in _LEFT else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=not wraps)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _console(file: TextIO | None) -> Any:
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


def _ms(value: float | None) -> str:
    """Three significant digits or more, never a bare 0.00 for a fast model."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.2f}"


def print_duel(result: dict[str, Any], file: TextIO | None = None) -> None:
    """Prints what ``baseline.duel`` found."""
    from rich.markup import escape

    console, pairs = _console(file), result["pairs"]
    columns = {
        "model": [escape(printable(p["model"])) for p in pairs],
        "threads": [str(p["threads"]) for p in pairs],
        "A": [_ms(p["a_ms"]) for p in pairs],
        "B": [_ms(p["b_ms"]) for p in pairs],
        "B / A": [f"{p['ratio']:.3f}" for p in pairs],
        "95 % interval": [_interval(p["ci95"], "{:.3f}".format) for p in pairs],
        "P(B faster)": ["-" if p["sure"] is None else f"{p['sure']:.1%}" for p in pairs],
        "B is": [p["verdict"] for p in pairs],
    }
    _drop(columns, console.width)
    console.print(_table(columns, title="Is B faster than A?", caption="medians in ms"))
    for note in result["notes"]:
        _print(console, note)


def print_profile(document: dict[str, Any], file: TextIO | None = None, most: int = 20) -> None:
    """Prints the operator profile of every result that has one: times by type, then the slowest layers."""
    from rich.markup import escape

    console = _console(file)
    for r in document["results"]:
        profile = r.get("profile") or {}
        types, layers = profile.get("by_type_ms") or {}, profile.get("layers") or []
        if not layers:
            continue
        total = sum(types.values())
        by_type = {
            "operator": [escape(kind) for kind in types],
            "ms": [f"{ms:.3f}" for ms in types.values()],
            "%": [f"{100 * ms / total:.1f}" for ms in types.values()],
            "layers": [str(sum(layer["type"] == kind for layer in layers)) for kind in types],
        }
        console.print(_table(by_type, f"{escape(case_name(r['model'], r['threads']))}: by type"))
        slowest = sorted(sorted(range(len(layers)), key=lambda index: -layers[index]["avg_ms"])[:most])
        by_layer = {
            "#": [str(index) for index in slowest],
            "ms": [f"{layers[index]['avg_ms']:.3f}" for index in slowest],
            "%": [f"{100 * layers[index]['avg_ms'] / total:.1f}" for index in slowest],
            "operator": [escape(layers[index]["type"]) for index in slowest],
            "layer": [escape(layers[index]["name"]) for index in slowest],
        }
        console.print(_table(by_layer, f"the {len(slowest)} slowest of {count(len(layers), 'layer')}"))
