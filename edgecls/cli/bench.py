"""``edgecls bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgecls.cli.common import CommaList, cli_command, flat, run_or_file
from edgecls.cli.completers import complete_device, complete_model, complete_run
from edgecls.console import Console
from edgecls.errors import EdgeclsError, GateError, UsageError
from edgecls.text import printable

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@cli_command(
    "edgecls bench --device host --threads 1,2",
    "edgecls bench model_int8.tflite --device sd855 --threads 1,2,4 --max-ms 15",
    "edgecls bench --zoo 'MobileNetV3*' --device sd855 --save bench.html --save bench.json",
    "edgecls bench --compare old.json new.json",
)
@click.argument("targets", metavar="[RUN|FILE|DIR]...", nargs=-1, shell_complete=complete_run)
@click.option(
    "--device",
    shell_complete=complete_device,
    help="host, a name of devices.yaml, a phone's serial, host:port, or a chip such as sd855.",
)
@click.option(
    "--threads", multiple=True, type=CommaList(click.IntRange(1, 64), "LIST"), help="For example 1,2,4."
)
@click.option("--warmup", type=click.IntRange(0), help="Least runs before each round.")
@click.option("--runs", type=click.IntRange(1), help="Least measured runs a round.")
@click.option("--rounds", type=click.IntRange(1), help="Rounds; files and thread counts take turns.")
@click.option(
    "--spacing",
    "spacing_s",
    type=click.FloatRange(0),
    default=6.0,
    show_default=True,
    metavar="S",
    help="Least seconds from one round of a file to its next.",
)
@click.option(
    "--protocol",
    type=click.Choice(["standard", "mlperf"]),
    default="standard",
    show_default=True,
    help="mlperf: at least 1,024 runs and 60 s a round.",
)
@click.option("--profile", is_flag=True, help="Time the single operators too, in a run of their own.")
@click.option(
    "--delegate",
    type=click.Choice(["cpu", "gpu", "nnapi", "npu"]),
    default="cpu",
    show_default=True,
    help="What computes on the phone, as far as its program has it; cpu is XNNPACK.",
)
@click.option(
    "--binary",
    type=click.Path(path_type=Path),
    help="The benchmark_model to run on the phone.  [env: EDGECLS_BENCHMARK_MODEL]",
)
@click.option(
    "--zoo",
    multiple=True,
    metavar="PATTERN",
    shell_complete=complete_model,
    help="Measure these networks of the zoo, with fresh weights.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=CommaList(click.Choice(["fp32", "int8"]), "LIST"),
    help="Of --zoo: fp32, int8; default: fp32, and int8 where it can be made.",
)
@click.option("--fresh", is_flag=True, help="Measure again what an earlier --zoo or folder has measured.")
@click.option(
    "--save",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the results too; the name's end decides: .json, .csv, .txt (result_armv8.txt), .html.",
)
@click.option(
    "--baseline",
    type=_FILE,
    help="An earlier bench.json; fail (exit code 4) if a median is longer than there.",
)
@click.option(
    "--max-regress", default="5%", show_default=True, metavar="SHARE", help="How much longer it may be."
)
@click.option(
    "--max-ms",
    type=click.FloatRange(0, min_open=True),
    metavar="MS",
    help="Fail (exit code 4) if a median is longer, of any file and number of threads.",
)
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(exists=True, path_type=Path),
    metavar="A B",
    help="Measure nothing: is B faster than A? Each is a bench.json, or a run that has one.",
)
def command(
    console: Console,
    targets: tuple[str, ...],
    device: str | None,
    threads: tuple[list[int], ...],
    max_ms: float | None,
    warmup: int | None,
    runs: int | None,
    rounds: int | None,
    zoo: tuple[str, ...],
    precisions: tuple[list[str], ...],
    save: tuple[Path, ...],
    baseline: Path | None,
    max_regress: str,
    compare: tuple[Path, Path] | None,
    **options: Any,
) -> None:
    """Measure latency and memory of .tflite files: of the newest run, of runs, files or folders of files.

    What no option says is taken from the recipe of the (first) run. A folder or --zoo that is killed goes on where it
    was.
    """
    if compare:
        _compare(console, compare, targets)
        return
    paths = [] if zoo and not targets else _paths(targets)
    default = _defaults(paths[0] if paths else None)
    from android_bench import Interrupted
    from android_bench.baseline import check, parse_share
    from android_bench.output import read_json
    from edgecls import workflow

    writers = [(path, _writer(path)) for path in save]
    old, allowed = read_json(baseline) if baseline else None, parse_share(max_regress)
    try:
        result = workflow.bench(
            paths,
            console,
            device=device or default.device,
            threads=flat(threads) or default.threads,
            warmup=default.warmup if warmup is None else warmup,
            runs=runs or default.runs,
            rounds=rounds or default.rounds,
            zoo=zoo,
            precisions=flat(precisions),
            **options,
        )
    except Interrupted as stop:
        _show(console, stop.document, writers)
        raise
    _show(console, result, writers)
    _judge(result["results"], max_ms)
    if old is not None:
        check(result, old, allowed)


def _show(console: Console, result: dict[str, Any], writers: list[tuple[Path, Any]]) -> None:
    for path, write in writers:
        write(result, path)
    if console.json:
        console.emit(result, str)
    else:
        from android_bench.report import print_profile, print_table

        print_table(printable(result))
        print_profile(printable(result))


def _writer(path: Path) -> Any:
    """The function that writes a document in a file's format; refuses an unknown one before anything is measured."""
    from android_bench.output import WRITERS
    from edgecls.report import write_bench

    writers = WRITERS | {".html": write_bench}
    if path.suffix.lower() not in writers:
        raise UsageError(f"which format? end the name with {', '.join(writers)}", where=f"--save {path}")
    if not path.absolute().parent.is_dir():
        raise UsageError("no such folder", where=f"--save {path}")
    return writers[path.suffix.lower()]


def _compare(console: Console, files: tuple[Path, Path], targets: tuple[str, ...]) -> None:
    if targets:
        raise UsageError("--compare measures nothing", where=targets[0], fix="leave the files out")
    from android_bench.baseline import duel
    from android_bench.output import read_json
    from android_bench.report import print_duel

    a, b = (read_json(path / "bench.json" if path.is_dir() else path) for path in files)
    result = duel(a, b)
    if console.json:
        console.emit(result, str)
    else:
        print_duel(printable(result))


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
    def which(r: dict[str, Any]) -> str:
        return f"{r['model']}, {r['threads']} thread{'s' * (r['threads'] != 1)}"

    failed = [r for r in results if r["status"] == "failed"]
    if failed:
        raise EdgeclsError(
            f"{len(failed)} of {len(results)} not measured: {failed[0]['why']}", where=which(failed[0])
        )
    slow = [r for r in results if max_ms is not None and r["median_ms"] > max_ms]
    if slow:
        worst = max(slow, key=lambda r: r["median_ms"])
        raise GateError(f"{worst['median_ms']:.4g} ms is longer than --max-ms {max_ms:g}", where=which(worst))
