"""``edgecls choose``."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from android_bench.options import FiniteRange
from edgecls.cli.common import cli_command, number, percent, run_or_file, table
from edgecls.cli.completers import complete_model, complete_run
from edgecls.console import Console
from edgecls.errors import GateError, UsageError
from edgecls.text import plural

_ROWS = 25  # of a table without --all
_LIMITS = {
    "ms": ("--max-ms", "ms"),
    "mb": ("--max-mb", "MB"),
    "memory_mib": ("--max-memory", "MiB of memory"),
}


@cli_command(
    "edgecls choose --device sd855 --threads 4 --max-ms 15 --max-mb 20",
    "edgecls choose 'MobileNet*' 'PPLCNet*' --device sd855 --input-size 160 --classes 12 --save choose.html",
    "edgecls choose --device myphone --precision int8 --max-ms 8",
)
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1, shell_complete=complete_model)
@click.option(
    "--device",
    default="sd855",
    show_default=True,
    metavar="NAME",
    help="A device that was measured with edgecls bench, a bench.json, or sd855 for the published latencies.",
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Number of threads.")
@click.option("--max-ms", type=FiniteRange(0, min_open=True), metavar="MS", help="Longest latency.")
@click.option("--max-mb", type=FiniteRange(0, min_open=True), metavar="MB", help="Largest file, 10^6 bytes.")
@click.option(
    "--max-memory", type=FiniteRange(0, min_open=True), metavar="MIB", help="Most memory while it runs."
)
@click.option(
    "--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True, help="Of the file."
)
@click.option("--input-size", type=click.IntRange(32), metavar="PX", help="Side of the image; as published.")
@click.option("--classes", type=click.IntRange(1), default=1000, show_default=True, help="Number of classes.")
@click.option(
    "--run", "runs", multiple=True, shell_complete=complete_run, help="An own run to put among the networks."
)
@click.option("--all", "everything", is_flag=True, help="Show what does not fit, too, and what is not known.")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page with accuracy against latency, size and MACs: choose.html.",
)
def command(
    console: Console,
    patterns: tuple[str, ...],
    device: str,
    threads: int,
    max_ms: float | None,
    max_mb: float | None,
    max_memory: float | None,
    precision: str,
    input_size: int | None,
    classes: int,
    runs: tuple[str, ...],
    everything: bool,
    save: Path | None,
) -> None:
    """Find the network for a budget, before training: best published accuracy first.

    Latencies are measured, or predicted (~) from the networks that the device has run, with a 95 % interval. PATTERN
    limits the networks by their names. Exit code 4: nothing fits.
    """
    from edgecls.workflow.choosing import Budget, choose

    if save is not None:
        _require_page(save)
    result = choose(
        device,
        threads,
        Budget(max_ms, max_mb, max_memory),
        precision=precision,
        input_size=input_size,
        classes=classes,
        patterns=patterns or ("*",),
        runs=[_run(run) for run in runs],
    )
    if save is not None:
        from edgecls.report.choosing import write_choice

        write_choice(result, save)
    console.emit(result, lambda shown: _text(shown, everything))
    if save is not None:
        console.say(f"page: {save}")
    if not any(c["fits"] != "no" for c in result["candidates"]):
        known = result["candidates"]
        raise GateError(_nearest(result), where=f"of {plural(len(known), 'network')}" if known else "")


def _run(text: str) -> Any:
    from edgecls.run import Run

    path = run_or_file(text)
    if not (path / "recipe.yaml").is_file():
        raise UsageError("not a run", where=f"--run {text}", fix="edgecls runs lists them")
    return Run(path)


def _require_page(path: Path) -> None:
    from android_bench.output.documents import require_writable

    if path.suffix.lower() != ".html":
        raise UsageError("which format? end the name with .html", where=f"--save {path}")
    require_writable(path, "--save")


def _text(result: Mapping[str, Any], everything: bool) -> str:
    rows = [c for c in result["candidates"] if everything or c["fits"] != "no"]
    hidden = 0 if everything else max(0, len(rows) - _ROWS)
    parts = [_heading(result)]
    if rows:
        parts.append(_table(rows[: len(rows) - hidden], result))
        if hidden:
            parts.append(f"and {plural(hidden, 'network')} more that fit: --all shows them")
    parts += [textwrap.fill(note, 110) for note in _notes(result, rows)]
    if everything:
        parts += [f"not known: {r['name']}: {r['reason']}" for r in result["refused"]]
    return "\n".join(parts)


def _heading(result: Mapping[str, Any]) -> str:
    device = result["device"]
    about = f" ({device['about']}, {device['runtime']})" if device["about"] else ""
    return f"{device['name']}{about}, {plural(result['threads'], 'thread')}, {result['precision']}"


def _table(rows: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    budget = any(limit is not None for limit in result["budget"].values())
    columns: dict[str, list[Any]] = {
        "": ["*" if c["front"] else "" for c in rows],
        "network": [c["name"] for c in rows],
        "px": [c["input_size"] for c in rows],
        "top-1 %": [percent(c["top1"]) for c in rows],
        "ms": [f"{'' if c['measured'] else '~'}{_figure(c['ms'])}" for c in rows],
        "95 %": [_interval(c["interval"]) for c in rows],
        "MB": [number(c["mb"], 1) for c in rows],
        "memory MiB": [number(c["memory_mib"], 0) for c in rows],
        "MMACs": [number(c["macs"] / 1e6, 0) for c in rows],
        "weights": [", ".join(c["weights"]) or None for c in rows],
    }
    if budget:
        columns["fits"] = [c["fits"] for c in rows]
    return table(tuple(columns), list(zip(*columns.values(), strict=True)), left=2)


def _figure(value: float) -> str:
    """Three figures, which is what such a latency is known to.

    Example:
        >>> _figure(0.0314159), _figure(3.14159), _figure(123.4)
        ('0.031', '3.14', '123')
    """
    return f"{value:.{sum(value < least for least in (1, 10, 100))}f}"


def _interval(interval: Sequence[float] | None) -> str | None:
    return None if interval is None else f"{_figure(interval[0])}-{_figure(interval[1])}"


def _notes(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    source, device = result["predicted_from"], result["device"]
    notes = ["*: no network is as accurate and faster. top-1 %: published, ImageNet, fp32."] if rows else []
    if any(c["own"] for c in rows):
        notes[0] += " Own runs: of their own test images."
    if any(c["published_input_size"] != c["input_size"] for c in rows):
        notes.append("The accuracy is that of the published input size; a smaller image gives less.")
    if any(not c["measured"] for c in rows):
        how = f"from {plural(source['networks'], 'network')} measured in {source['precision']}"
        others = "; the others are measured" if any(c["measured"] for c in rows) else ""
        notes.append(f"~: predicted {how}{others}.")
    if doubtful := sum(not c["sure"] for c in rows):
        notes.append(
            f"{plural(doubtful, 'latency', 'latencies')} marked unsure when measured: measure again at rest."
        )
    if source["precision"] not in (None, result["precision"]):
        notes.append(
            "int8 was not measured on this device: the wide intervals run from what int8 can at most save to nothing. "
            f"edgecls bench --calibrate --device {device['bench_name']} makes them narrow."
        )
    if device["runtime"] != "TFLite" and result["precision"] == "fp32":
        notes.append(
            f"These latencies are {device['runtime']}'s. TFLite, which runs our files, may take up to twice as long: "
            "measure before you promise anything."
        )
    if result["refused"]:
        count, why = plural(len(result["refused"]), "network"), _usual_reason(result)
        notes.append(f"{count} left out{f', mostly: {why}' if why else ''}: --all says why of each.")
    return notes


def _usual_reason(result: Mapping[str, Any]) -> str:
    """Why most of the networks that are left out are; ``""``: each has its own reason, or there are none."""
    counts = Counter(r["reason"] for r in result["refused"])
    reason, count = counts.most_common(1)[0] if counts else ("", 0)
    return reason if 2 * count > counts.total() else ""


def _nearest(result: Mapping[str, Any]) -> str:
    """What comes nearest to a budget that nothing fits."""
    if not result["candidates"]:
        return f"nothing is known of any of these networks on this device: {_usual_reason(result) or '--all says why'}"
    nearest = min(result["candidates"], key=lambda c: c["excess"])
    limits = {key: result["budget"][f"max_{key}"] for key in _LIMITS}
    over = [
        f"{_figure(nearest[key])} {unit} ({option} {limits[key]:g})"
        for key, (option, unit) in _LIMITS.items()
        if limits[key] is not None and nearest[key] > limits[key]
    ]
    return f"nothing fits; nearest is {nearest['name']} with {', '.join(over)}"
