"""``edgecls bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from android_bench.options import FiniteRange, bench_options, measured_before
from edgecls.cli.common import CommaList, cli_command, flat, run_or_file
from edgecls.cli.completers import complete_model, complete_run
from edgecls.console import Console
from edgecls.errors import EdgeclsError, GateError, UsageError


@cli_command(
    "edgecls bench --device host --threads 1,2",
    "edgecls bench model_int8.tflite --device sd855 --threads 1,2,4 --max-ms 15",
    "edgecls bench --zoo 'MobileNetV3*' --device sd855 --save bench.html --save bench.json",
    "edgecls bench --calibrate --device myphone --threads 1,4",
    "edgecls bench old.tflite new.tflite --compare",
    "edgecls bench --compare old.json new.json",
)
@click.argument("targets", metavar="[RUN|FILE|DIR]...", nargs=-1, shell_complete=complete_run)
@bench_options(device=None, threads=None, warmup=None, runs=None, rounds=None)
@click.option(
    "--zoo",
    multiple=True,
    metavar="PATTERN",
    shell_complete=complete_model,
    help="Measure these networks of the zoo, with fresh weights.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Measure the ten networks that tell most about a device, for edgecls choose.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=CommaList(click.Choice(["fp32", "int8"]), "LIST"),
    help="Of --zoo and --calibrate: fp32, int8; default: fp32, and int8 where it can be made.",
)
@click.option(
    "--save",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the results too; the name's end decides: .json, .csv, .txt (result_armv8.txt), .html.",
)
@click.option(
    "--max-ms",
    type=FiniteRange(0, min_open=True),
    metavar="MS",
    help="Fail (exit code 4) if the median of any file and number of threads is longer.",
)
def command(
    console: Console,
    targets: tuple[str, ...],
    device: str | None,
    threads: list[int] | None,
    max_ms: float | None,
    warmup: int | None,
    runs: int | None,
    rounds: int | None,
    zoo: tuple[str, ...],
    calibrate: bool,
    precisions: tuple[list[str], ...],
    save: tuple[Path, ...],
    baseline: Path | None,
    max_regress: str,
    compare: bool,
    **options: Any,
) -> None:
    """Measure latency and memory of .tflite files: of the newest run, of runs, files or folders of files.

    Device, threads, warm-up runs, runs and rounds that no option gives are those of the (first) run's recipe. A
    measurement that was interrupted goes on with the rounds that are missing; what was measured is not measured again.
    What --zoo and --calibrate measure is kept for edgecls choose --device.
    """
    if compare and (zoo or calibrate):
        raise UsageError("--compare takes two files, no --zoo and no --calibrate")
    if calibrate:
        zoo = (*zoo, *_calibration(targets))
    if compare and (documents := measured_before(targets)):
        from android_bench.measure.baseline import duel

        _show_duel(console, duel(*documents))
        return
    paths = [] if zoo and not targets else _paths(targets)
    default = _defaults(paths[0] if paths else None)
    from android_bench.measure.baseline import check, parse_share
    from android_bench.output.documents import read_json
    from edgecls import workflow

    writers = [(path, _writer(path)) for path in save]
    old, allowed = read_json(baseline) if baseline else None, parse_share(max_regress)
    try:
        result = workflow.bench(
            paths,
            console,
            device=device or default.device,
            threads=threads or default.threads,
            warmup=default.warmup if warmup is None else warmup,
            runs=runs or default.runs,
            rounds=rounds or default.rounds,
            zoo=zoo,
            precisions=flat(precisions),
            compare=compare,
            **options,
        )
    except Exception as stop:
        if document := getattr(stop, "document", None):  # what was measured before is never lost
            _show(console, document, writers)
        raise
    _show(console, result, writers)
    _judge(result["results"], max_ms)
    if old is not None:
        check(result, old, allowed)


def _calibration(targets: tuple[str, ...]) -> list[str]:
    """The networks of ``--calibrate``."""
    if targets:
        raise UsageError("--calibrate chooses the networks itself; name no run or file")
    from edgecls.workflow.latencies import calibration_list

    return calibration_list()


def _show(console: Console, result: dict[str, Any], writers: list[tuple[Path, Any]]) -> None:
    """Print the results, then write the files: a file that cannot be written costs no figures."""
    from android_bench.output.documents import write_all

    duel = result.get("compare")
    if not console.json:
        from android_bench.output.report import print_profile, print_table

        print_table(result)
        print_profile(result)
    elif not duel:
        console.emit(result, str)
    if duel:
        _show_duel(console, duel)
    write_all(result, writers)


def _writer(path: Path) -> Any:
    """The function that writes a document in a file's format.

    An unknown format, or a file that cannot be written, is refused before anything is measured.
    """
    from android_bench.output.documents import WRITERS, require_writable

    end = path.suffix.lower()
    if end not in (*WRITERS, ".html"):
        raise UsageError(
            f"which format? end the name with {', '.join((*WRITERS, '.html'))}", where=f"--save {path}"
        )
    require_writable(path, "--save")
    if end == ".html":
        from edgecls.report import write_bench

        return write_bench
    return WRITERS[end]


def _show_duel(console: Console, result: dict[str, Any]) -> None:
    from android_bench.output.report import print_duel

    if console.json:
        console.emit(result, str)
    else:
        print_duel(result)


def _paths(targets: tuple[str, ...]) -> list[Path]:
    """Files and folders as they are, runs by folder or name; nothing means the newest run."""
    if not targets:
        return [run_or_file(None)]
    return [Path(t) if Path(t).exists() else run_or_file(t) for t in targets]


def _defaults(path: Path | None) -> Any:
    from edgecls.recipe import Bench
    from edgecls.run import Run

    return Run(path).recipe.bench if path and (path / "recipe.yaml").is_file() else Bench()


def _judge(results: list[dict[str, Any]], max_ms: float | None) -> None:
    from android_bench.words import case_name

    def which(r: dict[str, Any]) -> str:
        return case_name(r["model"], r["threads"])

    failed = [r for r in results if r["status"] == "failed"]
    if failed:
        raise EdgeclsError(
            f"{len(failed)} of {len(results)} not measured: {failed[0]['why']}", where=which(failed[0])
        )
    slow = [r for r in results if max_ms is not None and r["median_ms"] > max_ms]
    if slow:
        worst = max(slow, key=lambda r: r["median_ms"])
        raise GateError(f"{worst['median_ms']:.4g} ms is longer than --max-ms {max_ms:g}", where=which(worst))
