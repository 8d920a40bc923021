"""``edgecls convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecls.cli.common import cli_command
from edgecls.cli.completers import complete_model
from edgecls.console import Console
from edgecls.errors import UsageError
from edgecls.pixels import PIXELS
from edgecls.quiet import import_tensorflow

if TYPE_CHECKING:
    from edgecls.weights.convert import Conversion

SHOWN = 20  # names of arrays of one kind; --json has all
FOR_NETWORK = "NET.onnx without --model: "
FOR_ZOO = "With --model: "


@cli_command(
    "edgecls convert ResNet50_vd_pretrained.pdparams --model ResNet50_vd",
    "edgecls convert inference.pdmodel --model PPLCNet_x1_0 -o lcnet.keras",
    "edgecls convert mine.onnx --pixels imagenet --labels labels.txt --data photos/",
)
@click.argument("source", metavar="FILE")
@click.option(
    "--model", shell_complete=complete_model, help="The network of the zoo that the weights are of."
)
@click.option("--input-size", type=click.IntRange(8, 4096), help="Pixels; the network's own by default.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The .keras file to write.")
@click.option(
    "--classes", type=click.IntRange(1), help=FOR_ZOO + "number of classes; as many as FILE has by default."
)
@click.option("--normalize", is_flag=True, help=FOR_ZOO + "take pixels 0..255 and normalize them inside.")
@click.option("--strict", is_flag=True, help=FOR_ZOO + "fail unless every array of both sides fits.")
@click.option("--dry-run", is_flag=True, help=FOR_ZOO + "say what would be loaded and write nothing.")
@click.option("--pixels", type=click.Choice(list(PIXELS)), help=FOR_NETWORK + "the values it takes.")
@click.option("--bgr", is_flag=True, help=FOR_NETWORK + "it takes blue first, as OpenCV reads photos.")
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=FOR_NETWORK
    + "a file with one label a line; default: labels in NET.json or in FILE, or class numbers.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="PHOTOS",
    help=FOR_NETWORK + "a folder of photos to compare the files with onnxruntime on.",
)
def command(console: Console, source: str, model: str | None, **options: Any) -> None:
    """Turn weights, or a network of your own, into a .keras model.

    With --model, FILE has weights of a network of the zoo: a .pdparams, .pdmodel, .onnx, .pth, .safetensors, .npz, .h5
    or .keras file, a URL with #sha256=, or "imagenet" for the weights that the catalog knows. Nothing in the file is
    run.

    Without it, FILE is a NET.onnx of any image classifier. It becomes NET.keras, NET.json (labels, preprocessing) and
    NET.fp32.tflite, which compute what onnxruntime computes.
    """
    zoo_only = {name: options.pop(name) for name in ("classes", "normalize", "strict", "dry_run")}
    network_only = {name: options.pop(name) for name in ("pixels", "bgr", "labels", "data")}
    _refuse(
        network_only if model else zoo_only,
        "is for a network that is not in the zoo" if model else "needs --model",
    )
    if model:
        _of_zoo(console, source, model, **options, **zoo_only)
    else:
        _of_network(console, Path(source), **options, **network_only)


def _refuse(options: dict[str, Any], why: str) -> None:
    for name, value in options.items():
        if value:
            raise UsageError(
                f"the option {why}", where=f"--{name.replace('_', '-')}", fix="leave one of them out"
            )


def _of_zoo(
    console: Console,
    source: str,
    model: str,
    output: Path | None,
    normalize: bool,
    **options: Any,
) -> None:
    from edgecls.zoo import catalog

    catalog.get(model)  # before TensorFlow is imported: a misspelled name is told at once
    from edgecls.workflow.common import download_weights

    download_weights(source, model, console)  # likewise: no network, no such file
    import_tensorflow()
    from edgecls.weights.convert import convert

    done = convert(source, model, output, include_preprocessing=normalize, **options)
    console.emit(done.as_json(), lambda _: _text(done))


def _of_network(console: Console, source: Path, **options: Any) -> None:
    if source.suffix.lower() != ".onnx":
        raise UsageError(
            "which network are these weights of?",
            where=str(source),
            fix="give --model NAME (edgecls models lists them); only a .onnx file has a network in it",
        )
    from edgecls import workflow
    from edgecls.workflow.converting import Conversion

    console.emit(workflow.convert_onnx(Conversion(source, **options), console), _network_text)


def _network_text(result: dict[str, Any]) -> str:
    count, kind = result["images"]["count"], "photos" if result["images"]["real"] else "made-up images"
    size, files = result["input_size"], result["files"]
    lines = [
        f"{files[name]}: within {difference:.1g} of the outputs' range of onnxruntime on {count} {kind}"
        for name, difference in result["difference"].items()
    ]
    return "\n".join(
        [
            *lines,
            f"{files['json']}: labels and preprocessing",
            f"{result['classes']} classes, photos of {size} x {size} pixels",
            f"int8: edgecls quantize {files['keras']} --data PHOTOS",
        ]
    )


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
