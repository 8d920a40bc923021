"""``edgecls eval``."""

from __future__ import annotations

from pathlib import Path

import click

from edgecls.cli.common import cli_command, run_or_file
from edgecls.cli.completers import complete_run
from edgecls.cli.show import show_eval
from edgecls.console import Console


@cli_command("edgecls eval", "edgecls eval model_int8.tflite --data photos/")
@click.argument("target", metavar="[RUN|FILE]", required=False, shell_complete=complete_run)
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help="A folder with a folder a class, or with train, val and test, or a list file; default: the run's photos.",
)
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
def command(console: Console, target: str | None, data: Path | None, split: str) -> None:
    """Accuracy, confusion and per-class figures of a run or of one .keras or .tflite file.

    RUN is a run folder or a run's name; without it the newest run is taken.
    """
    path = run_or_file(target)
    from edgecls import workflow

    console.emit(workflow.evaluate(path, console, data=data, split=split), show_eval)
