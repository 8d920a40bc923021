"""The benchmark: of runs, files, folders, and of the zoo itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from edgecls import precisions
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
    watch: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Measure latency and memory of TFLite files.

    Args:
        targets: Runs, folders or ``.tflite`` files; none: the newest run. A run's figures are kept in its
            ``bench.json`` and report.
        device: ``host``, a name of devices.yaml, a chip such as ``sd855``, a serial or ``host:port``.
        threads: Thread counts to measure.
        zoo: Patterns of catalog names: those networks with fresh weights.
        precisions: Which files of the zoo's networks: ``fp32``, ``int8``; none: fp32, and int8 where it can be made.
        fresh: Measure again what was measured before; else a measurement that was killed goes on.
        watch: Show a live table of the rounds, and not only how many there are.
        **options: Of ``android_bench.bench``: ``warmup``, ``runs``, ``rounds``, ``protocol``, ``binary``, ...

    Returns:
        The content of ``bench.json``. A result of a network of the catalog has its ``network``, published ``top1``
        and, for fp32, ``published_sd855_ms``.

    Raises:
        android_bench.Interrupted: Ctrl-C, or the phone is gone; ``.document`` has the figures so far.
        EdgeclsError: They cannot be kept in the run; ``.document`` has them.
    """
    import android_bench
    from android_bench.output.documents import require_writable

    found: list[Path | Run] = [Run(t) if (t / "recipe.yaml").is_file() else t for t in targets]
    if not found and not zoo:
        found = [Run.find(None)]
    models = [_models_of(target) if isinstance(target, Run) else target for target in found]
    measured_run = found[0] if len(found) == 1 and isinstance(found[0], Run) and not zoo else None
    failed: list[dict[str, Any]] = []
    if zoo:
        from android_bench.devices.naming import resolve
        from edgecls.workflow.zoo_files import zoo_files

        resolve(device)  # nothing is converted for a device that is not there
        files, failed = zoo_files(zoo, precisions, threads, console)
        models += files
    if measured_run:
        measured_run.lock()  # until the process ends: nothing else may change the files while they are measured
        require_writable(measured_run.file("bench.json"), "the run's")
    started = time.perf_counter()
    try:
        with _listener(console, device, watch) as listener:
            result = android_bench.bench(
                models,
                device,
                list(threads),
                resume=True,
                fresh=fresh,
                on_event=listener,
                **options,
            )
    except android_bench.Interrupted as stop:
        add_published(stop.document)
        if zoo:
            _keep_for_choose(stop.document, device, console)
        # A whole measurement is never replaced by a part of one.
        if measured_run and not measured_run.file("bench.json").exists():
            write_json(measured_run.file("bench.json"), stop.document)
        raise
    result["results"] += failed
    add_published(result)
    console.say(f"bench: {time.perf_counter() - started:.0f} s")
    try:
        if zoo:
            _keep_for_choose(result, device, console)
        if measured_run:
            from edgecls.workflow.scoring import report

            write_json(measured_run.file("bench.json"), result)
            report(measured_run, console)
    except Exception as error:  # a full disk: the figures are shown all the same
        error.document = result  # type: ignore[attr-defined]
        raise
    return result


def _keep_for_choose(result: dict[str, Any], device: str, console: Console) -> None:
    """Keep what was measured of the zoo; of a measurement that was interrupted, what is finished."""
    from edgecls.workflow.latencies import learn

    finished = [r for r in result["results"] if result["complete"] or r["status"] == "ok"]
    if learn({**result, "results": finished}, device):
        console.log(f"kept for: edgecls choose --device {device}")


def add_published(document: dict[str, Any]) -> None:
    """Add ``network``, ``top1`` and ``published_sd855_ms`` to results of the catalog's networks.

    A file belongs to the network that it is named after, with or without a precision: ``MobileNetV2_int8.tflite``.

    Args:
        document: The content of a ``bench.json``; changed in place.
    """
    from edgecls.zoo import catalog

    names = set(catalog.names())
    for result in document["results"]:
        stem = Path(str(result["model"])).name.removesuffix(".tflite")
        precision = precisions.of_file(stem)
        name = stem.removesuffix(f"_{precision}")
        if name in names:
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


@contextmanager
def _listener(console: Console, device: str, watch: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows the events of the benchmark: as a live table, or as a bar."""
    if watch and not console.quiet:
        from android_bench.output.live import Watch

        with Watch(console.log, sys.stderr) as table:
            yield table
        return
    with console.progress() as progress:
        task = progress.add_task(f"bench on {device}", total=None, text="")
        yield partial(_show, console, progress, task)


def _show(console: Console, progress: Progress, task: int, event: dict[str, Any]) -> None:
    """Move a bar on by an event of the benchmark; say what a phone needs."""
    from android_bench.events import remark

    if line := remark(event):
        console.log(line)
    if event["event"] == "plan":
        progress.update(task, total=event["cases"] * event["rounds"], completed=event["kept"])
    elif event["event"] == "round":
        progress.advance(task)
