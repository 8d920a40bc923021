"""The ladder's last rungs: a run's files on a phone, compared with the same files on this computer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecls.console import Console
from edgecls.files import read_json, write_json
from edgecls.quiet import import_tensorflow
from edgecls.run import Run
from edgecls.workflow.deploying import prepare_ladder


def verify_on_device(
    run: Run, console: Console, device: str, images: Path | None = None, binary: Path | None = None
) -> tuple[dict[str, Any], str]:
    """Compare what the run's files compute on a phone with what they compute here, on the images of the ladder.

    The rungs are added to ``verify.json``, in place of those that were measured on this device before.

    Args:
        device: What ``bench`` takes, but not ``host``.
        images: As for ``verify``, which must have been run with the same before.
        binary: ``edgecls_runner`` for the device; None: where ``bench`` finds it.

    Returns:
        The content of ``verify.json``, and the device's name; the rungs of a phone have it as ``device``.

    Raises:
        android_bench.BenchError: The device or its program cannot be used; see ``android_bench.measure.accuracy.outputs``.
    """
    from android_bench.measure.accuracy import outputs

    import_tensorflow()
    from edgecls.export import inspect
    from edgecls.export.verify import device_rung

    ladder = prepare_ladder(run, console, images)
    files = list(ladder.files.values())
    runners = [inspect.Runner(path) for path in files]
    pixels = ladder.read()
    cases = [
        (path, pixels.astype(runner.input["dtype"]).tobytes(), len(pixels))
        for path, runner in zip(files, runners, strict=True)
    ]
    answers = outputs(cases, device, binary=binary, on_event=lambda event: _show_event(console, event))
    rungs = [
        device_rung(path, runner, pixels, answer, answers.device)
        for path, runner, answer in zip(files, runners, answers.outputs, strict=True)
    ]
    result = read_json(run.file("verify.json"))
    result["rungs"] = [r for r in result["rungs"] if r.get("device") != answers.device] + rungs
    stage = ladder.stage(run)
    write_json(run.file("verify.json"), result)
    stage.finish(**stage.figures)  # the other rungs are as they were
    return result, answers.device


def _show_event(console: Console, event: dict[str, Any]) -> None:
    if event["event"] == "authorize":
        console.log("accept the USB debugging prompt on the phone")
