"""``edgecls serve``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from android_bench.options import FiniteRange
from edgecls.cli.common import cli_command, run_or_file
from edgecls.cli.completers import complete_run
from edgecls.console import Console
from edgecls.data.images import threads


@cli_command(
    "edgecls serve",
    "edgecls serve mv3_ssld --port 8000",
    "edgecls serve model_int8.tflite --host 0.0.0.0 --workers 4",
)
@click.argument("run", metavar="[RUN|FILE]", required=False, shell_complete=complete_run)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all of them."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9292, show_default=True, help="Port; 0 is a free one."
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=None,
    help="Threads that decode and compute.  [default: the cores]",
)
@click.option(
    "--queue",
    "waiting",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    help="Requests that may wait for a thread; more get 503.",
)
@click.option(
    "--max-mb",
    type=FiniteRange(0, min_open=True),
    default=20,
    show_default=True,
    help="MB of a request; larger ones get 413.",
)
@click.option(
    "--max-megapixels",
    type=FiniteRange(0, min_open=True),
    default=50,
    show_default=True,
    help="Million pixels of an image; larger ones get 422.",
)
@click.option(
    "--timeout",
    type=FiniteRange(0, min_open=True),
    default=30,
    show_default=True,
    help="Seconds in which a request must arrive.",
)
def command(
    console: Console,
    run: str | None,
    host: str,
    port: int,
    workers: int | None,
    waiting: int,
    max_mb: float,
    max_megapixels: float,
    timeout: float,
) -> None:
    """Classify photos over HTTP, and on a page to drop photos on, until Ctrl-C.

    RUN is a run folder or a run's name; without it the newest run is taken. Of a run, its int8 and its fp32 file are
    served; int8 answers unless a request asks for the other. FILE is a .tflite or .keras file or a SavedModel.

    SIGTERM answers what was taken and stops. SIGHUP loads the files anew. docs/serve.md describes the requests.
    """
    from edgecls import workflow
    from edgecls.infer.bodies import Limits

    size = int(max_mb * 1e6)
    workflow.serve(
        lambda: run_or_file(run),
        host,
        port,
        workers=workers or threads(),
        waiting=waiting,
        limits=Limits(
            bytes=size,
            pixels=int(max_megapixels * 1e6),
            seconds=timeout,
            memory=max(Limits.memory, 4 * size),
        ),
        started=lambda result: console.emit(result, _text),
        say=console.log,
    )


def _text(result: Mapping[str, Any]) -> str:
    names = ", ".join(model["name"] for model in result["models"])
    return f"serving {names} on {result['url']} (Ctrl-C stops)"
