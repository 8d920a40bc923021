"""``edgecls train``."""

from __future__ import annotations

from typing import Any

import click

from edgecls.cli.common import cli_command, overrides
from edgecls.cli.completers import complete_recipe, complete_run
from edgecls.cli.show import show_scores
from edgecls.console import Console
from edgecls.errors import UsageError


@cli_command(
    "edgecls train recipes/mv3_ssld.yaml",
    "edgecls train recipes/mv3_ssld.yaml -o train.epochs=5 -o data.path=photos --dry-run",
    "edgecls train imagenet/MobileNetV3_large_x1_0 --smoke",
)
@click.argument("recipe", type=click.Path(), shell_complete=complete_recipe)
@overrides
@click.option("--run", "directory", metavar="DIR", shell_complete=complete_run, help="The run folder itself.")
@click.option(
    "--resume/--fresh", default=True, help="Go on with the newest run of this very recipe, or begin anew."
)
@click.option(
    "--smoke",
    is_flag=True,
    help="See in about a minute that RECIPE runs: few images (drawn ones if its own are absent), small input, a few"
    " steps; into runs/smoke/.",
)
@click.option("--dry-run", is_flag=True, help="Print the resolved recipe and the plan; do nothing.")
def command(
    console: Console,
    recipe: str,
    overrides: tuple[str, ...],
    directory: str | None,
    resume: bool,
    smoke: bool,
    dry_run: bool,
) -> None:
    """Train the network of RECIPE, distilling from a teacher if it has one.

    RECIPE is a YAML file, or the name of a recipe that comes with edgecls: base, mv3_ssld.
    The same command continues a run that was interrupted, and leaves finished work alone.
    """
    from edgecls.recipe import load_recipe

    resolved = load_recipe(recipe, overrides)
    from edgecls import workflow

    place: dict[str, Any] = {"directory": directory, "fresh": not resume}
    if smoke:
        if directory:
            fix = "leave one of them out"
            raise UsageError(
                "a smoke test has a folder of its own, under runs/smoke/", where="--run", fix=fix
            )
        from edgecls.workflow import smoke as smoking

        resolved = smoking.shrink(resolved, console)
        place = {"root": smoking.ROOT, "fresh": True}
    if dry_run:
        plan = workflow.plan(resolved, **place)
        console.emit(
            {**plan, "resolved": resolved.model_dump()}, lambda p: f"{resolved.dump()}---\n{_plan(p)}"
        )
        return
    console.emit(workflow.train(resolved, console, **place), show_scores)
    if smoke:
        console.log(smoking.about(resolved))


def _plan(plan: dict[str, Any]) -> str:
    lines = []
    for key, value in plan.items():
        if key in ("schema", "resolved", "recipe"):
            continue
        if key == "trainings":
            lines += [f"{stage + ':':<18}{_fields(of)}" for stage, of in value.items() if len(value) > 1]
            continue
        if isinstance(value, dict):
            value = _fields(value)
        elif isinstance(value, list):
            value = f"{len(value)}: {', '.join(map(str, value[:10]))}{' ...' if len(value) > 10 else ''}"
        lines.append(f"{key.replace('_', ' ') + ':':<18}{_short(value)}")
    return "\n".join(lines)


def _fields(values: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in values.items())


def _short(value: Any) -> str:
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
