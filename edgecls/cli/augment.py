"""``edgecls augment``."""

from __future__ import annotations

from pathlib import Path

import click

from edgecls.cli.common import cli_command, overrides
from edgecls.cli.completers import complete_recipe
from edgecls.console import Console


@cli_command(
    "edgecls augment mv3_ssld --preview augment.png",
    "edgecls augment base --preview augment.png -o data.path=PHOTOS -o augment.mixup={} --all",
)
@click.argument("recipe", type=click.Path(), shell_complete=complete_recipe)
@overrides
@click.option(
    "--preview",
    "out",
    required=True,
    metavar="OUT.png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The picture to write.",
)
@click.option(
    "--images", default=4, show_default=True, type=click.IntRange(2, 32), help="Photos that it shows."
)
@click.option(
    "--epoch",
    type=click.IntRange(0),
    help="Epoch that it shows, from 0; default: the last one, before off_epochs.",
)
@click.option("--all", "every", is_flag=True, help="Also augmentations that RECIPE does not use.")
def command(
    console: Console,
    recipe: str,
    overrides: tuple[str, ...],
    out: Path,
    images: int,
    epoch: int | None,
    every: bool,
) -> None:
    """See what the training of RECIPE sees: photos, each augmentation of them on its own, and all together.

    RECIPE is a YAML file, or the name of a recipe that comes with edgecls: base, mv3_ssld.
    """
    from edgecls.recipe import load_recipe

    resolved = load_recipe(recipe, overrides)
    from edgecls import workflow

    result = workflow.preview(resolved, console, out, images, epoch, every)
    console.emit(result, lambda r: f"{', '.join(r['columns'])} of {r['images']} photos: {r['preview']}")
