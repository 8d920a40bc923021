"""The results as a table for people, to stderr or a terminal; rich is imported only here and only when used."""

from __future__ import annotations

from typing import Any, TextIO

_COLOURS = {"ok": "green", "unsure": "yellow", "failed": "red"}


def print_table(document: dict[str, Any], file: TextIO | None = None) -> None:
    """Prints the results of a bench.json document, one line per model and thread count, then every ``why``."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(file=file)
    if not console.is_terminal:
        console = Console(file=file, width=140)
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
    table.add_column("status")
    for r in document["results"]:
        interval = " - ".join(_ms(end) for end in r["ci95_ms"]) if r["ci95_ms"] else "-"
        figures = [_ms(r[f"{name}_ms"]) for name in ("p90", "min")]
        setup = [_ms(r[f"{name}_ms"]) for name in ("init", "first")]
        peak = "-" if r["peak_mb"] is None else f"{r['peak_mb']:.1f}"
        status = f"[{_COLOURS[r['status']]}]{r['status']}[/]"
        table.add_row(
            escape(r["model"]), str(r["threads"]), _ms(r["median_ms"]), interval, *figures, str(r["n"]), *setup,
            peak, f"{r['bytes'] / 2**20:.2f}", status,
        )  # fmt: skip
    console.print(table)
    for r in document["results"]:
        if r["why"]:
            line = f"{r['model']}, {r['threads']} threads, {r['status']}: {r['why']}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _ms(value: float | None) -> str:
    """Three significant digits or more, never a bare 0.00 for a fast model."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.2f}"
