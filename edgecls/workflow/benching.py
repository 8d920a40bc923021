"""The benchmark: of runs, files, folders, and of the zoo itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgecls.console import Console, Progress
from edgecls.errors import MissingError
from edgecls.files import write_json
from edgecls.run import Run


def bench(
    targets: Sequence[Path],
    console: Console,
    device: str,
    threads: Sequence[int],
    *,
    zoo: Sequence[str] = (),
    precisions: Sequence[str] = (),
    fresh: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Measure latency and memory of TFLite files.

    Args:
        targets: Runs, folders or ``.tflite`` files; none: the newest run. A run's figures are kept in its
            ``bench.json`` and report. A folder is measured as a batch: killed, it goes on where it was.
        device: ``host``, a name of devices.yaml, a chip such as ``sd855``, a serial or ``host:port``.
        threads: Thread counts to measure.
        zoo: Patterns of catalog names: those networks with fresh weights, measured in a batch.
        precisions: Which files of the zoo's networks: ``fp32``, ``int8``; none: fp32, and int8 where it can be made.
        fresh: Measure again what a batch has measured before.
        **options: Of ``android_bench.bench``: ``warmup``, ``runs``, ``rounds``, ``protocol``, ``binary``, ...

    Returns:
        The content of ``bench.json``. A result of a network of the catalog has its ``network``, published ``top1``
        and, for fp32, ``published_sd855_ms``.

    Raises:
        android_bench.Interrupted: Ctrl-C, or the phone is gone; ``.document`` has the figures so far.
    """
    import android_bench
    from edgecls.workflow.scoring import report

    found: list[Path | Run] = [Run(t) if (t / "recipe.yaml").is_file() else t for t in targets]
    if not found and not zoo:
        found = [Run.find(None)]
    models = [_models_of(target) if isinstance(target, Run) else target for target in found]
    own = found[0] if len(found) == 1 and isinstance(found[0], Run) and not zoo else None
    failed: list[dict[str, Any]] = []
    if zoo:
        from android_bench.devices import resolve
        from edgecls.workflow.zoo_files import zoo_files

        resolve(device)  # nothing is converted for a device that is not there
        files, failed = zoo_files(zoo, precisions, threads, console)
        models += files
    if own:
        own.lock()  # until the process ends: nothing else may change the files while they are measured
    batch = bool(zoo) or any(isinstance(target, Path) and target.is_dir() for target in found)
    started = time.perf_counter()
    try:
        with console.progress() as progress:
            task = progress.add_task(f"bench on {device}", total=None, text="")
            result = android_bench.bench(
                models,
                device,
                list(threads),
                resume=batch,
                fresh=fresh,
                on_event=partial(_show, console, progress, task),
                **options,
            )
    except android_bench.Interrupted as stop:
        add_published(stop.document)
        # A whole measurement is never replaced by a part of one.
        if own and not own.file("bench.json").exists():
            write_json(own.file("bench.json"), stop.document)
        raise
    result["results"] += failed
    add_published(result)
    console.say(f"bench: {time.perf_counter() - started:.0f} s")
    if own:
        write_json(own.file("bench.json"), result)
        report(own, console)
    return result


def add_published(document: dict[str, Any]) -> None:
    """Adds ``network``, ``top1`` and ``published_sd855_ms`` to the results whose file is called as a network of the
    catalog is, with or without its precision (``MobileNetV2_int8.tflite``)."""
    from edgecls.zoo import catalog

    known = set(catalog.names())
    for result in document["results"]:
        name, _, precision = str(result["model"]).removesuffix(".tflite").rpartition("_")
        if precision not in ("fp32", "fp16", "int8"):
            name, precision = f"{name}_{precision}".lstrip("_"), ""
        name = Path(name).name
        if name in known:
            entry = catalog.get(name)
            result["network"], result["top1"] = name, entry.top1
            if precision in ("fp32", ""):
                result["published_sd855_ms"] = entry.sd855_ms.get(result["threads"])


def _models_of(run: Run) -> Path:
    """The folder of a run's TFLite files."""
    folder = run.file("export")
    if not any(folder.glob("*.tflite")):
        raise MissingError(
            "the run has no .tflite file", where=str(run.path), fix="make it with: edgecls quantize"
        )
    return folder


def _show(console: Console, progress: Progress, task: int, event: dict[str, Any]) -> None:
    """Move a bar on by an event of the benchmark; say what a phone needs."""
    from android_bench.events import remark

    if line := remark(event):
        console.log(line)
    if event["event"] == "plan":
        progress.update(task, total=event["cases"] * event["rounds"])
    elif event["event"] == "round":
        progress.advance(task)
