"""``edgecls export``."""

from __future__ import annotations

import click

from edgecls.cli.common import CommaList, cli_command, flat, run_argument
from edgecls.cli.show import show_files
from edgecls.console import Console
from edgecls.precisions import NAMES


@cli_command("edgecls export", "edgecls export mv3_ssld --precision int8")
@run_argument
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=CommaList(click.Choice(NAMES), "LIST"),
    help=f"{', '.join(NAMES)}; default: what the recipe says.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    default=["tflite"],
    show_default=True,
    type=CommaList(click.Choice(["tflite", "saved_model", "keras", "onnx", "android", "web"]), "LIST"),
    help="tflite, saved_model, keras (Keras' own layers alone: opens without edgecls), onnx, android (a folder for an app: "
    "the file, labels, a Kotlin class), web (a folder with a page that runs the file in the browser; LiteRT.js by npm).",
)
@click.option(
    "--scores",
    type=click.Choice(["softmax", "logits"]),
    help="What the .tflite files give: probabilities or logits; default: what the recipe says.  [recipe: export.scores]",
)
def command(
    console: Console,
    run: str | None,
    precisions: tuple[list[str], ...],
    formats: tuple[list[str], ...],
    scores: str | None,
) -> None:
    """Write the files of RUN for the phone, with labels and preprocessing inside.

    RUN is a run folder or a run's name; without it the newest run is taken.
    """
    from edgecls.run import Run

    found = Run.find(run)
    with found.lock():
        from edgecls import workflow

        if scores:
            found.save_recipe(found.recipe.override([f"export.scores={scores}"]))
        result = workflow.export(found, console, precisions=flat(precisions) or None, formats=flat(formats))
        console.emit(result, show_files)
