"""``edgecls runs``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecls.cli.common import cli_command, number, table
from edgecls.console import Console


@cli_command("edgecls runs", "edgecls runs --json | jq '.runs[0].state'")
def command(console: Console) -> None:
    """List the runs under runs/, the newest first, with their state and main figures.

    A run is running, interrupted (at a stage, after some of its epochs), empty, trained, quantized or benchmarked.
    Any command that takes RUN takes a name from this list; without RUN it takes the one that is marked "latest".
    """
    from edgecls.report.runs import list_runs

    console.emit(list_runs(), show_runs)


def show_runs(result: Mapping[str, Any]) -> str:
    """A table with a row a run."""
    if not result["runs"]:
        return f"no runs under {result['root']}/; start one with: edgecls train RECIPE"
    header = ("run", "state", "float, %", "int8, %", "int8, ms", "min", "MB")
    rows = [
        (
            run["name"] + (" latest" if run["latest"] else ""),
            _state(run),
            *(_accuracy(run["balanced_accuracy"][model]) for model in ("float", "int8")),
            _figures(run["int8_ms"]),
            _figures(run["seconds"] / 60),
            _figures(run["bytes"] / 1e6),
        )
        for run in result["runs"]
    ]
    legend = "balanced accuracy (95 % interval), minutes of all stages, size of the folder"
    return f"{table(header, rows, left=2)}\n\n{legend}"


def _state(run: Mapping[str, Any]) -> str:
    text = str(run["state"])
    if run["stage"]:
        text += f": {run['stage']}"
    if run["epoch"] is not None and run["epochs"]:
        text += f" {run['epoch']}/{run['epochs']}"
    return text


def _accuracy(score: Mapping[str, Any] | None) -> str | None:
    if score is None:
        return None
    text = f"{100 * score['value']:.1f}"
    return (
        text if score["ci95"] is None else f"{text} ({'-'.join(f'{100 * end:.0f}' for end in score['ci95'])})"
    )


def _figures(value: float | None) -> str | None:
    """Three figures: 3.21, 32.1, 321."""
    return None if value is None else number(value, 0 if value >= 100 else 1 if value >= 10 else 2)
