"""``edgecls bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgecls.cli.common import CommaList, cli_command, flat, run_or_file
from edgecls.cli.completers import complete_device, complete_run
from edgecls.console import Console
from edgecls.errors import EdgeclsError, GateError


@cli_command(
    "edgecls bench --device host --threads 1,2",
    "edgecls bench model_int8.tflite --device sd855 --threads 1,2,4 --max-ms 15",
)
@click.argument("targets", metavar="[RUN|FILE|DIR]...", nargs=-1, shell_complete=complete_run)
@click.option(
    "--device", shell_complete=complete_device, help="host, a phone's serial, or a chip such as sd855."
)
@click.option(
    "--threads", multiple=True, type=CommaList(click.IntRange(1, 64), "LIST"), help="For example 1,2,4."
)
@click.option("--warmup", type=click.IntRange(0), help="Least runs before each round.")
@click.option("--runs", type=click.IntRange(1), help="Least measured runs a round.")
@click.option("--rounds", type=click.IntRange(1), help="Rounds; files and thread counts take turns.")
@click.option(
    "--protocol",
    type=click.Choice(["standard", "mlperf"]),
    default="standard",
    show_default=True,
    help="mlperf: at least 1,024 runs and 60 s a round.",
)
@click.option(
    "--binary",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The benchmark_model to run on the phone.  [env: EDGECLS_BENCHMARK_MODEL]",
)
@click.option(
    "--baseline",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
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
def command(
    console: Console,
    targets: tuple[str, ...],
    device: str | None,
    threads: tuple[list[int], ...],
    max_ms: float | None,
    warmup: int | None,
    runs: int | None,
    rounds: int | None,
    protocol: str,
    binary: Path | None,
    baseline: Path | None,
    max_regress: str,
) -> None:
    """Measure latency and memory of .tflite files: of the newest run, of runs, files or folders of files.

    What no option says is taken from the recipe of the (first) run.
    """
    paths = _paths(targets)
    default = _defaults(paths[0])
    from android_bench import Interrupted
    from android_bench.baseline import check, parse_share
    from android_bench.output import read_json
    from edgecls import workflow

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
            protocol=protocol,
            binary=binary,
        )
    except Interrupted as stop:
        _show(console, stop.document)
        raise
    _show(console, result)
    _judge(result["results"], max_ms)
    if old is not None:
        check(result, old, allowed)


def _show(console: Console, result: dict[str, Any]) -> None:
    if console.json:
        console.emit(result, str)
    else:
        from android_bench.report import print_table

        print_table(result)


def _paths(targets: tuple[str, ...]) -> list[Path]:
    """Files and folders as they are, runs by folder or name; nothing means the newest run."""
    if not targets:
        return [run_or_file(None)]
    return [Path(t) if Path(t).exists() else run_or_file(t) for t in targets]


def _defaults(path: Path) -> Any:
    from edgecls.recipe import Bench
    from edgecls.run import Run

    return Run(path).recipe.bench if (path / "recipe.yaml").is_file() else Bench()


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
