"""The results as a table for people, to stderr or a terminal; rich is imported only here and only when used."""

from __future__ import annotations

from typing import Any, TextIO

_COLOURS = {"ok": "green", "unsure": "yellow", "failed": "red"}


def print_table(document: dict[str, Any], file: TextIO | None = None) -> None:
    """Prints the results of a bench.json document, one line per model and thread count, then every ``why``."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    console = _console(file)
    device, protocol = document["device"], document["protocol"]
    table = Table(
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        title=f"{device['name']}: {device.get('cpu', '')}",
        caption=f"ms; {protocol['rounds']} rounds, each >= {protocol['runs']} runs and {protocol['run_s']:g} s "
        f"after >= {protocol['warmup']} warm-up runs and {protocol['warmup_s']:g} s",
    )
    table.add_column("model", overflow="fold")
    for name in (
        "threads",
        "median",
        "95 % interval",
        "p90",
        "min",
        "runs",
        "init",
        "first",
        "peak MB",
        "file MB",
    ):
        table.add_column(name, justify="right")
    published = any(r.get("published_sd855_ms") for r in document["results"])
    if published:
        table.add_column("SD855*", justify="right")
    table.add_column("status")
    for r in document["results"]:
        interval = " - ".join(_ms(end) for end in r["ci95_ms"]) if r["ci95_ms"] else "-"
        figures = [_ms(r[f"{name}_ms"]) for name in ("p90", "min")]
        setup = [_ms(r[f"{name}_ms"]) for name in ("init", "first")]
        peak = "-" if r["peak_mb"] is None else f"{r['peak_mb']:.1f}"
        beside = [_ms(r.get("published_sd855_ms"))] if published else []
        status = f"[{_COLOURS[r['status']]}]{r['status']}[/]"
        table.add_row(
            escape(r["model"]), str(r["threads"]), _ms(r["median_ms"]), interval, *figures, str(r["n"]), *setup,
            peak, f"{r['bytes'] / 2**20:.2f}" if r["bytes"] else "-", *beside, status,
        )  # fmt: skip
    console.print(table)
    if published:
        console.print("* published for Paddle-Lite on a Snapdragon 855, fp32, same number of threads")
    for r in document["results"]:
        if r["why"]:
            line = f"{r['model']}, {r['threads']} threads, {r['status']}: {r['why']}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _console(file: TextIO | None) -> Any:
    """A wide page where nobody's terminal says how wide it is."""
    from rich.console import Console

    console = Console(file=file)
    return console if console.is_terminal else Console(file=file, width=140)


def _ms(value: float | None) -> str:
    """Three significant digits or more, never a bare 0.00 for a fast model."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.2f}"


def print_duel(result: dict[str, Any], file: TextIO | None = None) -> None:
    """Prints what ``baseline.duel`` found."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    console = _console(file)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title="Is B faster than A?", caption="medians in ms")
    table.add_column("model", overflow="fold")
    for name in ("threads", "A", "B", "B / A", "95 % interval", "P(B faster)"):
        table.add_column(name, justify="right")
    table.add_column("B is")
    for p in result["pairs"]:
        interval = " - ".join(f"{end:.3f}" for end in p["ci95"])
        sure = f"{p['sure']:.1%}"
        table.add_row(
            escape(p["model"]), str(p["threads"]), _ms(p["a_ms"]), _ms(p["b_ms"]), f"{p['ratio']:.3f}", interval,
            sure, p["verdict"],
        )  # fmt: skip
    console.print(table)
    for note in result["notes"]:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def print_profile(document: dict[str, Any], file: TextIO | None = None, most: int = 20) -> None:
    """Prints where the time goes, for every result that has an operator profile: by type, then the slowest layers."""
    from rich import box
    from rich.table import Table

    console = _console(file)
    for r in document["results"]:
        profile = r.get("profile") or {}
        types, layers = profile.get("by_type_ms") or {}, profile.get("layers") or []
        if not layers:
            continue
        total = sum(types.values())
        by_type = Table(
            box=box.SIMPLE, padding=(0, 1, 0, 0), title=f"{r['model']}, {r['threads']} threads: by type"
        )
        for name in ("operator", "ms", "%", "layers"):
            by_type.add_column(name, justify="left" if name == "operator" else "right", overflow="fold")
        for kind, ms in types.items():
            count = sum(layer["type"] == kind for layer in layers)
            by_type.add_row(_plain(kind), f"{ms:.3f}", f"{100 * ms / total:.1f}", str(count))
        console.print(by_type)
        slowest = sorted(enumerate(layers), key=lambda item: -item[1]["avg_ms"])[:most]
        title = f"the {len(slowest)} slowest of {len(layers)} layers"
        by_layer = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=title)
        for name in ("#", "ms", "%", "operator", "layer"):
            by_layer.add_column(
                name, justify="right" if name in ("#", "ms", "%") else "left", overflow="fold"
            )
        for index, layer in sorted(slowest):
            share = f"{100 * layer['avg_ms'] / total:.1f}"
            row = (str(index), f"{layer['avg_ms']:.3f}", share, _plain(layer["type"]), _plain(layer["name"]))
            by_layer.add_row(*row)
        console.print(by_layer)


def _plain(text: str) -> str:
    from rich.markup import escape

    return str(escape(text))
