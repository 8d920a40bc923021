"""``edgecls quantize``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from android_bench.options import FiniteRange
from edgecls.cli.common import cli_command, judge_ladder, overrides, run_argument
from edgecls.cli.show import show_quantize, show_quantized_file, show_sensitivity
from edgecls.console import Console
from edgecls.errors import EdgeclsError, GateError, UsageError
from edgecls.pixels import PIXELS
from edgecls.precisions import CALIBRATIONS, WEIGHT_SCALES

if TYPE_CHECKING:
    from edgecls.workflow.quantizing import Request

MODEL = ".keras"
FOR_MODEL = "MODEL only: "

model_options: list[Callable[..., Any]] = [
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="PHOTOS",
        help=FOR_MODEL + "a folder of photos like those it will see. Labels are not needed.",
    ),
    click.option(
        "--epochs",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help=FOR_MODEL + "quantization-aware training on the photos against the float network.",
    ),
    click.option(
        "--keep-float",
        multiple=True,
        metavar="PATTERN",
        help=FOR_MODEL
        + "layers that stay in float: a name, or a shell pattern such as 'block_1_*'; repeatable.",
    ),
    click.option(
        "--sensitivity",
        is_flag=True,
        help=FOR_MODEL + "only measure what each layer costs when it alone is int8; a table and a plot.",
    ),
    click.option(
        "--auto",
        is_flag=True,
        help=FOR_MODEL + "keep the fewest layers in float that meet --max-drop.",
    ),
    click.option(
        "--pixels",
        type=click.Choice(list(PIXELS)),
        help=FOR_MODEL + "the values it takes, if it does not normalize pixels itself.",
    ),
    click.option(
        "--labels",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help=FOR_MODEL + "a file with one label a line; default: labels in MODEL's .json, or class numbers.",
    ),
    click.option(
        "--input-size",
        type=click.IntRange(8, 4096),
        metavar="PIXELS",
        help=FOR_MODEL + "side of the input, if the model leaves it open.",
    ),
    click.option(
        "--ranges",
        "method",
        type=click.Choice(CALIBRATIONS),
        default=CALIBRATIONS[0],
        show_default=True,
        help=FOR_MODEL + "how ranges are calibrated.",
    ),
    click.option(
        "--weights",
        type=click.Choice(WEIGHT_SCALES),
        default=WEIGHT_SCALES[0],
        show_default=True,
        help=FOR_MODEL
        + "scales of a kernel: one for each output channel, or one, as some accelerators want it.",
    ),
    click.option(
        "--equalize",
        is_flag=True,
        help=FOR_MODEL
        + "give the channels of consecutive kernels equal ranges before (cross-layer equalization).",
    ),
    click.option(
        "--adaround",
        is_flag=True,
        help=FOR_MODEL + "learn for each weight whether it is rounded up or down; takes minutes or more.",
    ),
    click.option(
        "--images",
        type=click.IntRange(1),
        default=400,
        show_default=True,
        help=FOR_MODEL + "the most photos to use; half of them calibrate, half of them judge.",
    ),
    click.option(
        "--out",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="FOLDER",
        help=FOR_MODEL + "where the files are written; default: beside the model.",
    ),
]

if TYPE_CHECKING:
    from edgecls.run import Run


def for_model(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options for a ``.keras`` file."""
    for option in reversed(model_options):
        function = option(function)
    return function


@cli_command(
    "edgecls quantize mv3_ssld -o quantize.train.epochs=5 --max-drop 1",
    "edgecls quantize mine.keras --data photos/",
    "edgecls quantize mine.keras --data photos/ --auto --max-drop 0.3",
)
@run_argument
@overrides
@click.option(
    "--max-drop",
    type=FiniteRange(0, 100),
    metavar="POINTS",
    help="Fail (exit code 4) if int8 loses more points of balanced accuracy against float; for a MODEL: if it answers"
    " more of 100 photos otherwise.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Only print the plan: the file's operations, what is fused into each, which share a grid, what stays in float.",
)
@for_model
def command(
    console: Console,
    run: str | None,
    overrides: tuple[str, ...],
    max_drop: float | None,
    explain: bool,
    **options: Any,
) -> None:
    """Make a run or any Keras 3 model int8.

    RUN: quantization-aware training from its float network, then export, verification and report. It is a run folder
    or a run's name; without it the newest run is taken.

    MODEL.keras: ranges from unlabeled photos (--data), with --epochs training against the float network; writes
    MODEL.int8.tflite and MODEL.fp32.tflite.
    """
    if run is not None and run.endswith(MODEL):
        _of_model(console, Path(run), overrides, max_drop, explain, **options)
    else:
        _of_run(console, run, overrides, max_drop, explain, options)


def _of_run(
    console: Console,
    run: str | None,
    overrides: tuple[str, ...],
    max_drop: float | None,
    explain: bool,
    options: dict[str, Any],
) -> None:
    from edgecls.run import Run

    defaults = {"epochs": 0, "images": 400, "method": CALIBRATIONS[0], "weights": WEIGHT_SCALES[0]}
    for name, value in options.items():
        if value and value != defaults.get(name):
            raise UsageError(
                "the option is for a .keras file",
                where=f"--{ {'folder': 'out', 'method': 'ranges'}.get(name, name.replace('_', '-')) }",
                fix="for a run set keys of its recipe: -o quantize.train.epochs=5",
            )
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


def _of_model(
    console: Console,
    model: Path,
    overrides: tuple[str, ...],
    max_drop: float | None,
    explain: bool,
    data: Path | None,
    sensitivity: bool,
    **options: Any,
) -> None:
    if overrides:
        raise UsageError("a .keras file has no recipe", where="-o", fix="see edgecls quantize --help")
    if options["auto"] and max_drop is None:
        raise UsageError("--auto needs a limit to meet", where="--auto", fix="add --max-drop 0.3")
    if data is None and not explain:
        raise UsageError("which photos?", where=str(model), fix="give --data FOLDER")
    from edgecls import workflow
    from edgecls.workflow.quantizing import Request

    request = Request(model, data or Path(), max_drop=max_drop, **options)
    if explain:
        console.emit(workflow.explain_file(request), lambda result: "\n".join(result["plan"]))
    elif sensitivity:
        console.emit(workflow.sensitivity_file(request, console), show_sensitivity)
    else:
        _judge(workflow.quantize_file(request, console), console, request)


def _judge(result: dict[str, Any], console: Console, request: Request) -> None:
    console.emit(result, show_quantized_file)
    failed = [rung["name"] for rung in result["verify"]["rungs"] if rung.get("ok") is False]
    if failed:
        raise EdgeclsError(f"not equal: {', '.join(failed)}", where=str(request.model))
    lost = 100 * (1 - result["agreement"])
    if request.max_drop is not None and lost > request.max_drop:
        raise GateError(
            f"int8 answers {lost:.2f} % of photos otherwise, --max-drop {request.max_drop:g}",
            where=str(request.model),
            fix="try --auto, or --epochs 3",
        )
