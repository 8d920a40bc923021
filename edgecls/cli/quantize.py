"""``edgecls quantize``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click

from edgecls.cli.common import cli_command, judge_ladder, overrides, run_argument
from edgecls.cli.show import show_quantize
from edgecls.console import Console
from edgecls.errors import GateError

if TYPE_CHECKING:
    from edgecls.run import Run


@cli_command("edgecls quantize", "edgecls quantize mv3_ssld -o quantize.train.epochs=5 --max-drop 1")
@run_argument
@overrides
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    metavar="POINTS",
    help="Fail (exit code 4) if int8 loses more points of balanced accuracy against float.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Only print the plan: the file's operations, what is fused into each, which share a grid, what stays in float.",
)
def command(
    console: Console, run: str | None, overrides: tuple[str, ...], max_drop: float | None, explain: bool
) -> None:
    """Quantization-aware training from the float network of RUN, then export, verification and report.

    RUN is a run folder or a run's name; without it the newest run is taken.
    """
    from edgecls.run import Run

    if explain:
        from edgecls import workflow

        found = Run.find(run)
        console.log(f"run: {found.path}")
        console.emit(workflow.explain(found), lambda result: "\n".join(result["plan"]))
        return
    with _locked_run(run, console) as found:
        found.recipe.override(overrides)  # a wrong key is said before TensorFlow is loaded
        from edgecls import workflow

        result = workflow.quantize(found, console, list(overrides), gated=max_drop is not None)
        console.emit(result, show_quantize)
    judge_ladder(result["verify"], found)
    if max_drop is not None and 100 * result["drop"] > max_drop:
        raise GateError(
            f"int8 loses {100 * result['drop']:.2f} points of balanced accuracy, --max-drop {max_drop:g}",
            where=str(found.path),
        )


def _locked_run(name: str | None, console: Console) -> AbstractContextManager[Run]:
    """The run to quantize; where ``TF_CONFIG`` names several workers it is the chief's for all of them."""
    from edgecls.cluster import Cluster
    from edgecls.run import Run

    if Cluster.from_environment().count > 1:
        from edgecls.workflow.together import find_run

        return find_run(name, console)
    found = Run.find(name)
    console.log(f"run: {found.path}")
    return found.lock()
