"""``edgecls export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgecls.cli.common import CommaList, cli_command, flat, run_argument
from edgecls.cli.show import show_files
from edgecls.console import Console
from edgecls.errors import UsageError
from edgecls.pixels import PIXELS
from edgecls.precisions import NAMES

MODEL, FILE = ".keras", ".tflite"
FOR_MODEL = "MODEL only: "
ONNX_IMAGES = 20


@cli_command(
    "edgecls export",
    "edgecls export mv3_ssld --precision int8",
    "edgecls export mine.keras --format onnx --data photos/",
    "edgecls export mine.int8.tflite --format web",
)
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
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="PHOTOS",
    help=FOR_MODEL + "a folder of photos to compare the file with Keras on.",
)
@click.option(
    "--pixels",
    type=click.Choice(list(PIXELS)),
    help=FOR_MODEL + "the values it takes, if it does not normalize pixels itself.",
)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=FOR_MODEL + "a file with one label a line; default: labels in MODEL's .json, or class numbers.",
)
@click.option(
    "--input-size",
    type=click.IntRange(8, 4096),
    metavar="PIXELS",
    help=FOR_MODEL + "side of the input, if the model leaves it open.",
)
def command(
    console: Console,
    run: str | None,
    precisions: tuple[list[str], ...],
    formats: tuple[list[str], ...],
    scores: str | None,
    **options: Any,
) -> None:
    """Write the files of RUN for the phone, with labels and preprocessing inside.

    RUN is a run folder or a run's name; without it the newest run is taken.

    MODEL.keras, a network that no run made: with --format onnx it becomes MODEL.onnx beside it, which takes pixels.
    MODEL.int8.tflite, as edgecls quantize writes it: with --format android or web, a folder for an app beside it.
    """
    if run is not None and run.endswith(FILE):
        _of_file(console, Path(run), flat(formats), {"precision": precisions, "scores": scores, **options})
        return
    if run is not None and run.endswith(MODEL):
        _of_model(console, Path(run), flat(formats), bool(precisions or scores), **options)
        return
    for name, value in options.items():
        if value:
            raise UsageError(
                "the option is for a .keras file",
                where=f"--{name.replace('_', '-')}",
                fix="leave it out for a run",
            )
    from edgecls.run import Run

    found = Run.find(run)
    with found.lock():
        from edgecls import workflow

        if scores:
            found.save_recipe(found.recipe.override([f"export.scores={scores}"]))
        result = workflow.export(found, console, precisions=flat(precisions) or None, formats=flat(formats))
        console.emit(result, show_files)


def _of_model(console: Console, model: Path, formats: list[str], for_tflite: bool, **options: Any) -> None:
    if formats != ["onnx"] or for_tflite:
        raise UsageError(
            "a .keras file is exported as ONNX only",
            where=str(model),
            fix="add --format onnx alone; edgecls quantize writes its .tflite files, and those become apps",
        )
    if options["data"] is None:
        raise UsageError("which photos?", where=str(model), fix="give --data FOLDER")
    from edgecls import workflow
    from edgecls.workflow.quantizing import Request

    request = Request(model, images=ONNX_IMAGES, **options)
    console.emit(workflow.export_onnx(request, console), show_files)


def _of_file(console: Console, model: Path, formats: list[str], options: dict[str, Any]) -> None:
    from edgecls.workflow.deploying import APPS

    for name, value in options.items():
        if value:
            raise UsageError(
                "a .tflite file is as it is", where=f"--{name.replace('_', '-')}", fix="leave it out"
            )
    if others := [form for form in formats if form not in APPS]:
        raise UsageError(
            f"a .tflite file cannot become {', '.join(others)}",
            where=str(model),
            fix=f"add --format {' or '.join(APPS)}",
        )
    from edgecls import workflow

    console.emit(workflow.export_apps(model, formats), show_files)
