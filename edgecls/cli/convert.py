"""``edgecls convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecls.cli.common import cli_command
from edgecls.cli.completers import complete_model
from edgecls.console import Console
from edgecls.quiet import import_tensorflow

if TYPE_CHECKING:
    from edgecls.weights.convert import Conversion

SHOWN = 20  # names of arrays of one kind; --json has all


@cli_command(
    "edgecls convert ResNet50_vd_pretrained.pdparams --model ResNet50_vd",
    "edgecls convert inference.pdmodel --model PPLCNet_x1_0 -o lcnet.keras",
)
@click.argument("source", metavar="FILE")
@click.option("--model", required=True, shell_complete=complete_model, help="The network the weights are of.")
@click.option("--classes", type=click.IntRange(1), help="Number of classes; as many as FILE has by default.")
@click.option("--input-size", type=click.IntRange(32), help="Pixels; the network's own by default.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The .keras file to write.")
@click.option("--pixels", is_flag=True, help="Take pixels 0..255 and normalize them inside.")
@click.option("--strict", is_flag=True, help="Fail unless every array of both sides fits.")
@click.option("--dry-run", is_flag=True, help="Say what would be loaded and write nothing.")
def command(
    console: Console,
    source: str,
    model: str,
    classes: int | None,
    input_size: int | None,
    output: Path | None,
    pixels: bool,
    strict: bool,
    dry_run: bool,
) -> None:
    """Turn weights into a .keras model.

    FILE is a .pdparams, .pdmodel, .onnx, .pth, .safetensors, .npz, .h5 or .keras file, a URL with #sha256=, or
    "imagenet" for the weights that the catalog knows. Nothing in the file is run.
    """
    from edgecls.zoo import catalog

    catalog.get(model)  # before TensorFlow is imported: a misspelled name is told at once
    import_tensorflow()
    from edgecls.weights.convert import convert
    from edgecls.workflow.common import download_weights

    download_weights(source, model, console)
    done = convert(
        source,
        model,
        output,
        classes=classes,
        input_size=input_size,
        include_preprocessing=pixels,
        strict=strict,
        dry_run=dry_run,
    )
    console.emit(done.as_json(), lambda _: _text(done))


def _text(done: Conversion) -> str:
    lines = [f"loaded: {len(done.report.loaded)} arrays"]
    if done.report.new_classifier:
        lines.append(str(done.report.new_classifier))
    for what, names in done.report.differences().items():
        lines += [f"{what}: {len(names)}", *(f"  {name}" for name in names[:SHOWN])]
        if len(names) > SHOWN:
            lines.append(f"  ... and {len(names) - SHOWN} more")
    if done.report.missing or done.report.mismatched:
        lines.append("what the source does not have keeps its random start values: train it before use")
    verb = "would write" if done.bytes is None else "wrote"
    lines.append(f"{verb} {done.output}: {done.model} with {done.classes} classes")
    return "\n".join(lines)
