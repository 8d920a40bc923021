"""``edgecls report``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgecls.cli.common import cli_command, table
from edgecls.cli.completers import complete_run
from edgecls.cli.show import show_report
from edgecls.console import Console
from edgecls.errors import UsageError


@cli_command(
    "edgecls report", "edgecls report mv3_ssld", "edgecls report runs/a/20260102-030405 runs/b/latest"
)
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=complete_run)
@click.option(
    "--save", type=click.Path(path_type=Path), help="Page of several runs.  [default: compare.html]"
)
def command(console: Console, runs: Sequence[str], save: Path | None) -> None:
    """Write report.html and card.md of RUN from the figures in its files, or compare several runs on one page.

    RUN is a run folder or a run's name; without it the newest run is taken. Of several runs the first is what the
    others are tested against, on the test images that they share.
    """
    from edgecls.run import Run

    found = [Run.find(run) for run in runs] or [Run.find(None)]
    if len(found) > 1:
        from edgecls.report import write_comparison

        console.emit(write_comparison(found, save or Path("compare.html")), _show_comparison)
        return
    if save:
        raise UsageError(
            "--save is for the page of several runs", fix="name two runs or more, or leave it out"
        )
    with found[0].lock():
        from edgecls import workflow

        console.emit(workflow.report(found[0], console), show_report)


def _show_comparison(document: Mapping[str, Any]) -> str:
    from edgecls.report.compare import paired_texts

    names = [f"{run['name']}/{run['time']}" for run in document["runs"]]
    parts = [table(("", *names), [(row["label"], *row["texts"]) for row in document["figures"]])]
    tests = [(names[test["run"]], *paired_texts(test).values()) for test in document["paired"]]
    parts.append(table((f"against {names[0]}", "network", "top-1", "images", "p", ""), tests, left=2))
    if document["recipe"]:
        parts.append(
            table(("recipe key", *names), [(row["key"], *row["values"]) for row in document["recipe"]])
        )
    return "\n\n".join([*parts, f"report: {document['report']}"])
