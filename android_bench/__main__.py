"""``python -m android_bench MODEL... --device host --threads 1,2``: the command line of the package alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from android_bench import BenchError, Interrupted, bench, exit_code
from android_bench.baseline import check, duel, parse_share
from android_bench.events import remark
from android_bench.output import read_json, to_csv, to_json, to_text, write_csv, write_json, write_text
from android_bench.protocol import DELEGATES, PROTOCOLS
from android_bench.words import case_name

_EXAMPLE = "example: python -m android_bench model_int8.tflite --device host --threads 1,2 --json bench.json"


def parser() -> argparse.ArgumentParser:
    """The options; the numbers' meaning is that of ``bench``."""
    options = argparse.ArgumentParser("python -m android_bench", description=__doc__, epilog=_EXAMPLE)
    add = options.add_argument
    add("models", nargs="*", metavar="MODEL", help="a .tflite file, or a folder of them")
    add("--device", default="host", help="host, a name of devices.yaml, serial, host:port, or sd855 (host)")
    add("--threads", default="1", help="thread counts, for example 1,2,4 (1)")
    add("--warmup", type=int, default=10, metavar="N", help="least runs before each round (10)")
    add("--runs", type=int, default=30, metavar="N", help="least measured runs a round (30)")
    add("--rounds", type=int, default=5, metavar="N", help="rounds, all models taking turns (5)")
    add(
        "--spacing",
        type=float,
        default=6.0,
        metavar="S",
        help="least seconds from round to round of a model (6)",
    )
    add("--repeats", type=int, default=3, metavar="N", help="most repeats of disturbed rounds (3)")
    add("--protocol", choices=PROTOCOLS, default="standard", help="mlperf: 1,024 runs and 60 s a round")
    add("--profile", action="store_true", help="times of the single operators too")
    add("--delegate", choices=DELEGATES, default="cpu", help="what computes on the phone (cpu: XNNPACK)")
    add("--binary", metavar="FILE", help="benchmark_model for the phone ($EDGECLS_BENCHMARK_MODEL)")
    add("--seed", type=int, default=0, help="seed of the random input and of the bootstrap (0)")
    add(
        "--baseline",
        metavar="FILE",
        help="an earlier bench.json; exit code 4 if a median is longer than there",
    )
    add("--max-regress", default="5%", metavar="SHARE", help="how much longer it may be (5%%)")
    add("--fresh", action="store_true", help="measure again what an earlier batch of a folder has measured")
    add(
        "--compare", nargs=2, metavar=("A", "B"), help="measure nothing: is B faster than A (two bench.json)?"
    )
    add("--json", metavar="OUT", help="write bench.json to this file, or to stdout with -")
    add("--csv", metavar="OUT", help="write the results as CSV to this file, or to stdout with -")
    add(
        "--text",
        metavar="OUT",
        help="write them as Paddle-Lite's result_armv8.txt has them, or to stdout with -",
    )
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, 1 failed, 2 usage, 3 no device, 4 slower than --baseline, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        if options.compare:
            from android_bench.report import print_duel

            print_duel(duel(*map(read_json, options.compare)))
            return 0
        old = read_json(options.baseline) if options.baseline else None
        allowed = parse_share(options.max_regress)
        try:
            document = bench(
                options.models, options.device, options.threads, warmup=options.warmup, runs=options.runs,
                rounds=options.rounds, spacing_s=options.spacing, repeats=options.repeats, protocol=options.protocol,
                profile=options.profile, delegate=options.delegate, binary=options.binary, seed=options.seed, fresh=options.fresh,
                resume=any(Path(model).is_dir() for model in options.models), on_event=_progress,
            )  # fmt: skip
        except Interrupted as stop:
            _write(stop.document, options)
            raise
        _write(document, options)
        if old is not None and not exit_code(document):
            check(document, old, allowed)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return Interrupted.exit_code
    return exit_code(document)


def _write(document: dict[str, Any], options: argparse.Namespace) -> None:
    for path, text, write in (
        (options.json, to_json, write_json),
        (options.csv, to_csv, write_csv),
        (options.text, to_text, write_text),
    ):
        if path == "-":
            print(text(document), end="")
        elif path:
            write(document, path)
    if "-" not in (options.json, options.csv, options.text):
        from android_bench.report import print_table

        print_table(document)


def _progress(event: dict[str, Any]) -> None:
    if event["event"] == "round":
        again = " (again)" if event["repeat"] else ""
        case = case_name(event["model"], event["threads"])
        print(f"{case}: round {event['round'] + 1}{again} {event['median_ms']:.3f} ms", file=sys.stderr)
    elif line := remark(event):
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
