#!/usr/bin/env python3
"""edgecls runner: does on a Linux board what ``edgecls_runner.c`` does, with nothing but ``pip install ai-edge-litert``.

    edgecls_runner.py --graph=FILE [--num_threads=1] [--warmup_runs=1] [--warmup_min_secs=0.5] [--num_runs=50]
                      [--min_secs=1] [--max_secs=150] [--seed=0]
    edgecls_runner.py --graph=FILE --input=FILE --output=FILE [--num_threads=1]

What it prints is described in ``output/parse.py``. Python adds some microseconds to each run.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

START = "edgecls runner 1"


def fail(why: object) -> NoReturn:
    """Ends the program with a line that says why."""
    sys.exit("edgecls_runner: " + " ".join(str(why).split()))


def load(flags: argparse.Namespace) -> Any:
    """The interpreter with the model."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        fail(f"LiteRT is missing here ({error}): pip install ai-edge-litert")
    try:
        interpreter = Interpreter(model_path=flags.graph, num_threads=flags.num_threads)
        interpreter.allocate_tensors()
    except Exception as error:
        fail(f"the model does not load: {error}")
    return interpreter


def fill(interpreter: Any, seed: int) -> None:
    """Puts random input: any integers, floats from [0, 1)."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        shape, dtype = tuple(detail["shape"]), np.dtype(detail["dtype"])
        if dtype.kind == "f":
            data = rng.random(shape).astype(dtype)
        elif dtype.itemsize == 1 and dtype.kind in "iu":
            data = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
        else:
            data = rng.integers(0, 2, shape).astype(dtype)
        interpreter.set_tensor(detail["index"], data)


def repeat(interpreter: Any, count: int, seconds: float, most_s: float) -> list[float]:
    """At least so many runs and seconds, but none that starts after ``most_s``; the microseconds of each."""
    times: list[float] = []
    begin = end = time.perf_counter_ns()
    while len(times) < count or end - begin < seconds * 1e9:
        if times and end - begin >= most_s * 1e9:
            break
        start = time.perf_counter_ns()
        interpreter.invoke()
        end = time.perf_counter_ns()
        times.append((end - start) / 1e3)
    return times


def compute(interpreter: Any, source: Path, target: Path) -> None:
    """Writes the outputs of all inputs in a file of raw bytes, one after the other."""
    import numpy as np

    details = interpreter.get_input_details()
    if len(details) != 1:
        fail("the model has several inputs")
    shape, dtype = tuple(details[0]["shape"]), np.dtype(details[0]["dtype"])
    size, data = int(np.prod(shape)) * dtype.itemsize, source.read_bytes()
    if not data or len(data) % size:
        fail(f"not a whole number of inputs of {size} bytes")
    outputs = bytearray()
    for at in range(0, len(data), size):
        interpreter.set_tensor(details[0]["index"], np.frombuffer(data[at : at + size], dtype).reshape(shape))
        interpreter.invoke()
        for detail in interpreter.get_output_details():
            outputs += interpreter.get_tensor(detail["index"]).tobytes()
    target.write_bytes(outputs)
    print(
        f"inputs {len(data) // size} of {size} bytes\noutputs {len(outputs)} bytes\nend {len(data) // size}"
    )


def measure(flags: argparse.Namespace) -> None:
    """Prints the times of every run."""
    before, begin = peak_kb(), time.perf_counter_ns()
    interpreter = load(flags)
    init, loaded = (time.perf_counter_ns() - begin) / 1e3, peak_kb()
    fill(interpreter, flags.seed)
    (first,) = repeat(interpreter, 1, 0.0, flags.max_secs)
    warmup = repeat(interpreter, flags.warmup_runs, flags.warmup_min_secs, flags.max_secs)
    runs = repeat(interpreter, max(1, flags.num_runs), flags.min_secs, flags.max_secs)
    print(f"{START}\nthreads {flags.num_threads}\ninit_us {init:.3f}\nfirst_us {first:.3f}")
    for name, times in (("warmup_us", warmup), ("runs_us", runs)):
        print(name, len(times), *(f"{us:.3f}" for us in times))
    print(f"memory_kb init={loaded - before} overall={peak_kb() - before} peak={peak_kb()}\nend {len(runs)}")


def peak_kb() -> int:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="edgecls_runner", allow_abbrev=False)
    parser.add_argument("--graph", required=True)
    for name in ("input", "output"):
        parser.add_argument(f"--{name}", type=Path)
    for name, whole in (("num_threads", 1), ("warmup_runs", 1), ("num_runs", 50), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=whole)
    for name, seconds in (("warmup_min_secs", 0.5), ("min_secs", 1.0), ("max_secs", 150.0)):
        parser.add_argument(f"--{name}", type=float, default=seconds)
    flags = parser.parse_args()
    try:
        if flags.input or flags.output:
            if not (flags.input and flags.output):
                fail("--input and --output go together")
            compute(load(flags), flags.input, flags.output)
        else:
            measure(flags)
    except OSError as error:
        fail(error)


if __name__ == "__main__":
    main()
