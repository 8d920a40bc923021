"""``edgecls report``."""

from __future__ import annotations

from edgecls.cli.common import cli_command, run_argument
from edgecls.cli.show import show_report
from edgecls.console import Console


@cli_command("edgecls report", "edgecls report mv3_ssld")
@run_argument
def command(console: Console, run: str | None) -> None:
    """Write report.html and card.md of RUN from the figures in its files.

    RUN is a run folder or a run's name; without it the newest run is taken.
    """
    from edgecls.run import Run

    found = Run.find(run)
    with found.lock():
        from edgecls import workflow

        console.emit(workflow.report(found, console), show_report)
