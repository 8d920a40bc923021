"""``edgecls mine``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from android_bench.options import FiniteRange
from edgecls.cli.common import cli_command, overrides
from edgecls.cli.completers import complete_recipe, complete_run
from edgecls.console import Console
from edgecls.text import plural


@cli_command(
    "edgecls mine mv3_ssld --unlabeled photos/",
    "edgecls mine my.yaml --unlabeled photos/ --top 500 --min-probability 0.3 --teacher runs/latest --save extra.csv",
)
@click.argument("recipe", type=click.Path(), shell_complete=complete_recipe)
@overrides
@click.option(
    "--unlabeled",
    "--unlabelled",
    "unlabeled",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of photos, at any depth.",
)
@click.option(
    "--top", default=4000, show_default=True, type=click.IntRange(1), help="Images of each class, the surest."
)
@click.option(
    "--min-probability",
    default=0.0,
    show_default=True,
    type=FiniteRange(0, 1),
    help="Least probability of an image.",
)
@click.option(
    "--teacher",
    metavar="RUN|FILE",
    shell_complete=complete_run,
    help="Run whose teacher answers, or a .keras or .tflite file; default: the recipe's teacher.",
)
@click.option(
    "--save",
    metavar="LIST",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The list to write; default: <recipe's name>.mined.csv.",
)
def command(
    console: Console,
    recipe: str,
    overrides: tuple[str, ...],
    unlabeled: Path,
    top: int,
    min_probability: float,
    teacher: str | None,
    save: Path | None,
) -> None:
    """Choose photos without labels for the distillation of RECIPE.

    Copies of validation and test images are left out, changed ones too, and of copies among the photos one is kept.
    The teacher answers to the others; the surest of each class come into a list for data.extra with labels: false.
    The same command continues a search that was interrupted.
    """
    from edgecls.files import expand_user
    from edgecls.recipe import load_recipe

    resolved = load_recipe(recipe, overrides)
    from edgecls import workflow
    from edgecls.workflow.mining import Mining

    save = save or Path(f"{resolved.name}.mined.csv")
    mining = Mining(resolved, expand_user(unlabeled), expand_user(save), top, min_probability, teacher)
    console.emit(workflow.mine(mining, console), _text)


def _text(result: Mapping[str, Any]) -> str:
    from edgecls.workflow.mining import REASONS

    filled = sum(count > 0 for count in result["per_class"].values())
    chosen = plural(result["chosen"], "image")
    lines = [
        f"{chosen} of {result['images']:,} in {filled} of {plural(len(result['per_class']), 'class', 'classes')}"
    ]
    lines += [f"  left out: {n:,} {REASONS[reason]}" for reason, n in result["dropped"].items() if n]
    extra = f"data: {{extra: [{{source: list, path: {result['list']}, labels: false}}]}}"
    return "\n".join([*lines, f"list: {result['list']}; why not the others: {result['dropped_list']}", extra])
