"""``edgecls verify``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from android_bench.options import FiniteRange
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
@click.option(
    "--max-partitions",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Parts of an int8 file that XNNPACK may run (exit code 4 above it, or for an operation in float).",
)
@click.option(
    "--max-drop",
    type=FiniteRange(min=0, max=100),
    help="Percent of the images on which a rounded file may answer otherwise than the float network (exit code 4).",
)
def command(
    console: Console,
    run: str | None,
    images: Path | None,
    device: str | None,
    binary: Path | None,
    max_partitions: int,
    max_drop: float | None,
) -> None:
    """Compare keras, qat and tflite on real images: the parity ladder, operations, delegate partitions.

    Each file that was exported is compared with the network it was made from. An int8 file must compute everything in
    int8, in one partition; for each operation outside of the delegate the reason is named.

    RUN is a run folder or a run's name; without it the newest run is taken.
    """
    from edgecls.run import Run

    found = Run.find(run)
    with found.lock():
        from edgecls import workflow
        from edgecls.export.gates import gates

        result, name = workflow.verify(found, console, images=images), None
        if device:
            from edgecls.workflow.on_device import verify_on_device

            result, name = verify_on_device(found, console, device, images=images, binary=binary)
        judged = gates(result, max_partitions, max_drop)
        console.emit(result | {"gates": judged}, _show)
    judge_ladder(result, found)
    failed = [r["name"] for r in result["rungs"] if r.get("device") == name and r.get("ok") is False]
    if name and failed:
        raise GateError(f"not equal: {', '.join(failed)}", where=str(found.path), fix="see verify.json")
    broken = [f"{rung['name']}: {'; '.join(rung['reasons'])}" for rung in judged if not rung["ok"]]
    if broken:
        raise GateError(broken[0], where=str(found.path), fix="edgecls quantize --explain shows the plan")


def _show(result: Mapping[str, Any]) -> str:
    """The ladder, then what the files promise."""
    lines = [f"{'ok' if rung['ok'] else 'FAILED'}: {rung['name']}" for rung in result["gates"]]
    return "\n".join([show_verify(result), *lines])
