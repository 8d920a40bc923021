"""``edgecls verify``."""

from __future__ import annotations

from pathlib import Path

import click

from edgecls.cli.common import cli_command, judge_ladder, run_argument
from edgecls.cli.show import show_verify
from edgecls.console import Console


@cli_command("edgecls verify", "edgecls verify mv3_ssld --images photos/")
@run_argument
@click.option(
    "--images",
    type=click.Path(exists=True, path_type=Path),
    help="A folder of photos to compare on; default: the run's own data.",
)
def command(console: Console, run: str | None, images: Path | None) -> None:
    """Compare keras, qat and tflite on real images: the parity ladder, operations, delegate partitions.

    RUN is a run folder or a run's name; without it the newest run is taken.
    """
    from edgecls.run import Run

    found = Run.find(run)
    with found.lock():
        from edgecls import workflow

        result = workflow.verify(found, console, images=images)
        console.emit(result, show_verify)
    judge_ladder(result, found)
