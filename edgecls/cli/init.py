"""``edgecls init``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgecls.cli.common import cli_command, table
from edgecls.console import Console
from edgecls.files import expand_user
from edgecls.text import escape, plural


@cli_command("edgecls init photos/flowers", "edgecls init photos/flowers -o recipes/flowers.yaml")
@click.argument("photos", type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The recipe to write; by default the folder's name with .yaml, in the current folder.",
)
def command(console: Console, photos: str, output: str | None) -> None:
    """Look at PHOTOS and write a short recipe for them.

    PHOTOS is a folder with one folder for each class, or a text file with a line `path label` for each image. Every
    image is decoded once. The recipe starts from the recipe `base`; it holds only what these images need.
    """
    from edgecls.recipe import load_recipe
    from edgecls.workflow import starting

    path = expand_user(photos)
    file = Path(output) if output else Path(f"{starting.recipe_name(path)}.yaml")
    starting.refuse_to_overwrite(file)
    with console.progress() as progress:
        task = progress.add_task("looking at images", total=None, text="")
        found = starting.survey(path, lambda done, total: progress.update(task, completed=done, total=total))
    written = starting.write_recipe(found, file)
    result = {
        "schema": "edgecls.init/1",
        "recipe": str(file),
        "source": found.source,
        "classes": found.classes,
        "images": found.images,
        "splits": found.splits,
        "unlabeled": found.unlabeled,
        "gray": found.gray,
        "short_side": {
            "min": found.short_sides[0],
            "median": found.short_side,
            "max": found.short_sides[-1],
        },
        "bad": [list(pair) for pair in found.bad],
        "duplicates": found.duplicates,
        "written": written,
        "notes": starting.notes(found, load_recipe(file)),
        "next": f"edgecls train {shlex.quote(str(file))}",
    }
    console.emit(result, _show)


MOST_CLASSES = 30  # rows of the table
BAD_NAMED = 3


def _show(result: Mapping[str, Any]) -> str:
    classes = sorted(result["classes"].items(), key=lambda pair: -pair[1])
    sides, splits = result["short_side"], result["splits"]
    gray = f", {result['gray']:,} of them gray" if result["gray"] else ""
    lines = [table(("class", "images"), [(n, f"{c:,}") for n, c in classes[:MOST_CLASSES]])]
    if len(classes) > MOST_CLASSES:
        lines.append(f"and {plural(len(classes) - MOST_CLASSES, 'smaller class', 'smaller classes')}")
    lines += [
        "",
        f"{plural(result['images'], 'image')} of {plural(len(classes), 'class', 'classes')}{gray}: "
        f"{splits['train']:,} to train, {splits['val']:,} to validate, {splits['test']:,} to test",
        f"shorter side: {sides['min']} to {sides['max']} pixels, median {sides['median']}",
    ]
    if result["bad"]:
        bad = [f"{escape(name)}: {escape(reason)}" for name, reason in result["bad"][:BAD_NAMED]]
        bad += ["..."] * (len(result["bad"]) > BAD_NAMED)
        lines.append(f"{plural(len(result['bad']), 'file')} cannot be read: {'; '.join(bad)}")
    lines += [f"note: {escape(note)}" for note in result["notes"]]
    settings = ", ".join(f"{key} {value}" for key, value in result["written"].items())
    lines += ["", f"wrote {escape(result['recipe'])}" + (f" ({settings})" if settings else "")]
    return "\n".join([*lines, f"next: {escape(result['next'])}"])
