"""``edgecls verify``."""

from __future__ import annotations

from pathlib import Path

import click

from edgecls.cli.common import cli_command, judge_ladder, run_argument
from edgecls.cli.completers import complete_device
from edgecls.cli.show import show_verify
from edgecls.console import Console
from edgecls.errors import GateError


@cli_command(
    "edgecls verify",
    "edgecls verify mv3_ssld --images photos/",
    "edgecls verify --device 192.168.1.7:5555 --binary edgecls_runner",
)
@run_argument
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of photos to compare on; default: the run's own data.",
)
@click.option(
    "--device",
    shell_complete=complete_device,
    help="Also compare the files on this device with those here (exit code 4 if they differ).",
)
@click.option(
    "--binary",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="edgecls_runner for the device.  [env: EDGECLS_BENCHMARK_MODEL]",
)
def command(
    console: Console, run: str | None, images: Path | None, device: str | None, binary: Path | None
) -> None:
    """Compare keras, qat and tflite on real images: the parity ladder, operations, delegate partitions.

    Each file that was exported is compared with the network it was made from.

    RUN is a run folder or a run's name; without it the newest run is taken.
    """
    from edgecls.run import Run

    found = Run.find(run)
    with found.lock():
        from edgecls import workflow

        result, name = workflow.verify(found, console, images=images), None
        if device:
            from edgecls.workflow.on_device import verify_on_device

            result, name = verify_on_device(found, console, device, images=images, binary=binary)
        console.emit(result, show_verify)
    judge_ladder(result, found)
    failed = [r["name"] for r in result["rungs"] if r.get("device") == name and r.get("ok") is False]
    if name and failed:
        raise GateError(f"not equal: {', '.join(failed)}", where=str(found.path), fix="see verify.json")
