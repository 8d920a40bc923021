"""``python -m android_bench MODEL... --device host --threads 1,2``: the command line of the package alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from android_bench import BenchError, Interrupted, bench, exit_code
from android_bench.measure.baseline import check, duel, parse_share
from android_bench.options import bench_options, measured_before
from android_bench.output.documents import (
    read_json,
    require_writable,
    to_csv,
    to_json,
    to_text,
    write_all,
    write_csv,
    write_json,
    write_text,
)
from android_bench.output.live import Watch
from android_bench.words import printable

_EXAMPLE = """\b
Examples:
  python -m android_bench model_int8.tflite --device host --threads 1,2 --json bench.json
  python -m android_bench old.tflite new.tflite --compare"""
_FORMATS: dict[str, tuple[Callable[[dict[str, Any]], str], Callable[[dict[str, Any], Path], None]]] = {
    "--json": (to_json, write_json),
    "--csv": (to_csv, write_csv),
    "--text": (to_text, write_text),
}


@click.command(epilog=_EXAMPLE)
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@bench_options(device="host", threads="1")
@click.option("--json", "json_file", metavar="OUT", help="Write bench.json to this file; - is stdout.")
@click.option("--csv", "csv_file", metavar="OUT", help="Write the results as CSV to this file; - is stdout.")
@click.option(
    "--text",
    "text_file",
    metavar="OUT",
    help="Write the results in the layout of Paddle-Lite's result_armv8.txt; - is stdout.",
)
def command(
    models: tuple[str, ...],
    device: str,
    threads: list[int],
    baseline: Path | None,
    max_regress: str,
    compare: bool,
    watch: bool,
    json_file: str | None,
    csv_file: str | None,
    text_file: str | None,
    **options: Any,
) -> int:
    """Measure latency and memory of TFLite models; a folder stands for the .tflite files in it.

    A measurement that was interrupted goes on with the rounds that are missing.
    """
    if compare and (documents := measured_before(models)):
        from android_bench.output.report import print_duel

        print_duel(duel(*documents))
        return 0
    wanted = {"--json": json_file, "--csv": csv_file, "--text": text_file}
    outputs = {option: file for option, file in wanted.items() if file}
    for option, file in outputs.items():
        if file != "-":
            require_writable(file, option)
    old = read_json(baseline) if baseline else None
    allowed = parse_share(max_regress)
    try:
        with Watch(_say, sys.stderr if watch else None) as listener:
            document = bench(
                models, device, threads, resume=True, compare=compare, on_event=listener, **options
            )
    except Interrupted as stop:
        _show(stop.document, outputs)
        raise
    _show(document, outputs)
    if old is not None and not exit_code(document):
        check(document, old, allowed)
    return exit_code(document)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Returns:
        Its exit code: 0; 1 failed; 2 wrong usage; 3 no device; 4 slower than ``--baseline``; 130 interrupted.
    """
    try:
        return int(command.main(arguments, "python -m android_bench", standalone_mode=False))
    except BenchError as error:
        _say(f"error: {error}")
        return error.exit_code
    except click.ClickException as error:
        _say(f"error: {error.format_message()}")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return Interrupted.exit_code
    finally:
        exec("")  # else `python -m` could end by SIGINT in place of that code: see edgecls.cli.main._leave


def _show(document: dict[str, Any], outputs: dict[str, str]) -> None:
    """Prints the results, then writes the files: a file that cannot be written costs no figures."""
    printed = [option for option, file in outputs.items() if file == "-"]
    for option in printed:
        # JSON escapes what it must by itself.
        safe = document if option == "--json" else printable(document)
        print(_FORMATS[option][0](safe), end="")
    if not printed:
        from android_bench.output.report import print_duel, print_table

        print_table(document)
        if "compare" in document:
            print_duel(document["compare"])
    files = [(Path(file), _FORMATS[option][1]) for option, file in outputs.items() if option not in printed]
    write_all(document, files)


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
