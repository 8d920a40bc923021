"""Is `bench --device host` to be trusted? The same model ten times, then once beside busy loops on all cores.

    python scripts/bench_host.py model_int8.tflite [--threads 1] [--times 10]

Prints each run's median with its 95 % interval, the spread of the medians and how many intervals cover the
medians' median. Exit code 1 when the disturbed run is not marked unsure. About five minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from android_bench import BenchError, bench


@contextlib.contextmanager
def busy_loops() -> Iterator[None]:
    """One endless loop for each core; they end with this block, at the latest after five minutes."""
    loop = "import time\nend = time.monotonic() + 300\nwhile time.monotonic() < end: pass"
    loops = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in loops:
            process.kill()
            process.wait()


def measure(model: str, threads: str) -> dict[str, Any]:
    (result,) = bench([model], "host", threads)["results"]
    if result["status"] == "failed":
        raise BenchError(result["why"], where=model)
    return dict(result)


def show(name: str, r: dict[str, Any]) -> None:
    interval = "[{:.4f}, {:.4f}]".format(*r["ci95_ms"]) if r["ci95_ms"] else "no interval"
    line = f"{name:<9} {r['median_ms']:9.4f} ms  {interval}  n={r['n']:<6} {r['status']}"
    print(line + (f": {r['why']}" if r["why"] else ""), flush=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model")
    options.add_argument("--threads", default="1")
    options.add_argument("--times", type=int, default=10)
    chosen = options.parse_args()

    runs = []
    for number in range(chosen.times):
        runs.append(measure(chosen.model, chosen.threads))
        show(f"run {number + 1}", runs[-1])
    medians = [r["median_ms"] for r in runs]
    centre = statistics.median(medians)
    covering = sum(bool(r["ci95_ms"]) and r["ci95_ms"][0] <= centre <= r["ci95_ms"][1] for r in runs)
    sure = sum(r["status"] == "ok" for r in runs)
    print(
        f"medians   {min(medians):.4f} to {max(medians):.4f} ms, spread {(max(medians) - min(medians)) / centre:.2%}"
    )
    print(f"intervals {covering} of {len(runs)} cover the medians' median, {centre:.4f} ms")
    print(f"status    {sure} of {len(runs)} undisturbed")

    with busy_loops():
        disturbed = measure(chosen.model, chosen.threads)
    show("disturbed", disturbed)
    return 0 if disturbed["status"] == "unsure" else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
