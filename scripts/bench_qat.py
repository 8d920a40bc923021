"""A step of quantization-aware training beside the same step of the float network: time and memory.

    python scripts/bench_qat.py [--size 224] [--batch 16] [--rounds 5] [--write]

Both steps are those of `edgecls train` and `edgecls quantize`, on one batch of noise; a third one is that of a recipe that
lets batch statistics and ranges follow the images. For the time they take turns in one process. For the memory each runs
alone in a process of its own, whose peak is told, TensorFlow and all. ``--write`` puts the table into docs/time_and_memory.md.

The exit code is 1 if a QAT step takes more than 1.35 times as long, or its process more than 1.5 times the memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import edgecls  # before Keras: it says what TensorFlow computes with

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import bench_loop
import keras
import marked
import numpy as np

from edgecls.environment import cores, cpu_model
from edgecls.quantize import freezing
from edgecls.recipe import Quantize
from edgecls.train.objective import Objective

PAGE = Path(__file__).parents[1] / "docs" / "time_and_memory.md"
BEGIN, END = "<!-- QAT: scripts/bench_qat.py --write -->", "<!-- end of QAT -->"
KINDS = ("float", "qat", "following")
MOST_TIME, MOST_MEMORY = 1.35, 1.5


def main() -> int:
    """Measure and print; the exit code."""
    parser = bench_loop.parser(__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/time_and_memory.md")
    parser.add_argument("--networks", nargs="+", default=list(bench_loop.PAIRS), help="of the zoo")
    parser.add_argument("--peak", nargs=2, metavar=("NETWORK", "KIND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    size, batch = options.size, options.batch
    if options.peak:
        print(peak_mib(*options.peak, size, batch))
        return 0
    rows = [
        f"{cpu_model()}, {cores()} cores, {size} pixels, batches of {batch}:",
        "",
        "| network | step, ms: float | QAT | QAT / float | ranges follow / float | peak memory, MiB: float | QAT | QAT / float |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    good = True
    for name in options.networks:
        pixels, targets = bench_loop.noise(size, batch)
        steps = {
            kind: bench_loop.step_of(network(name, kind, size), Objective(), pixels, targets)
            for kind in KINDS
        }
        seconds = bench_loop.by_turns(steps, options.rounds)
        peaks = {kind: peak_apart(name, kind, size, batch) for kind in KINDS[:2]}
        time_ratio, memory_ratio = (figures["qat"] / figures["float"] for figures in (seconds, peaks))
        good &= time_ratio <= MOST_TIME and memory_ratio <= MOST_MEMORY
        rows.append(
            f"| {name} | {1000 * seconds['float']:.0f} | {1000 * seconds['qat']:.0f} | {time_ratio:.2f} "
            f"| {seconds['following'] / seconds['float']:.2f} | {peaks['float']:.0f} | {peaks['qat']:.0f} | {memory_ratio:.2f} |"
        )
        keras.backend.clear_session()
    text = "\n".join(rows)
    print(text)
    if options.write:
        marked.rewrite(PAGE, BEGIN, END, text)
    return 0 if good else 1


def network(name: str, kind: str, size: int) -> keras.Model:
    """The float network, or its QAT twin with ranges from one batch, which the training keeps unless they follow."""
    model = edgecls.build_model(name, bench_loop.CLASSES, size, include_preprocessing=True)
    if kind == "float":
        return model
    twin = edgecls.quantize_model(model)
    edgecls.calibrate(twin, [np.asarray(bench_loop.noise(size, 2)[0], np.float32)])
    if kind == "qat":
        recipe = Quantize()
        freezing(twin, recipe.freeze_bn_epoch, recipe.freeze_ranges_epoch)(0)
    return twin


def peak_mib(name: str, kind: str, size: int, batch: int) -> float:
    """Peak memory of this process after three steps, MiB."""
    step = bench_loop.step_of(network(name, kind, size), Objective(), *bench_loop.noise(size, batch))
    for _ in range(bench_loop.STEPS):
        step()
    # Not what ``resource`` says: that begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def peak_apart(name: str, kind: str, size: int, batch: int) -> float:
    """``peak_mib`` of a new process."""
    numbers = [f"--size={size}", f"--batch={batch}"]
    command = [sys.executable, __file__, "--peak", name, kind, *numbers]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    raise SystemExit(main())
