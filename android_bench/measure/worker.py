"""Measures one model with one thread count. ``host`` runs this file as a process of its own.

The protocol has one JSON object a line. In: ``{"do": "load"}``, ``{"do": "measure", ...}``; the end of stdin ends the
process. Out: ``ready`` once, then one answer to each command, ``{"error": "..."}`` when it failed. A worker measures
only when it is told to, so many workers can be loaded while their rounds are interleaved.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

_TICKS = os.sysconf("SC_CLK_TCK")


def runtime() -> tuple[Any, str]:
    """The Interpreter class and the runtime's name and version; ai-edge-litert, else tflite-runtime."""
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter, f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
    except ImportError:
        from tflite_runtime.interpreter import Interpreter

        return Interpreter, f"tflite-runtime {importlib.metadata.version('tflite-runtime')}"


def random_input(detail: dict[str, Any], seed: int) -> np.ndarray[Any, Any]:
    """A random tensor for one interpreter input: whole range of 8-bit types, [0, 1) floats, 0 or 1 otherwise."""
    rng = np.random.default_rng(seed)
    shape, dtype = tuple(detail["shape"]), np.dtype(detail["dtype"])
    if dtype in (np.uint8, np.int8):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if dtype.kind == "f":
        return rng.random(shape).astype(dtype)
    if dtype.kind in "iub":
        return rng.integers(0, 2, shape).astype(dtype)
    raise ValueError(f"input {detail['name']!r} has type {dtype}, which cannot be filled at random")


class Memory:
    """Memory of this process in bytes.

    ``ru_maxrss`` is no use: the kernel keeps it through fork and exec, so a child of a big process starts with its
    parent's peak and shows no growth. VmHWM belongs to this process alone and can be reset.
    """

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # "5" resets VmHWM, see proc(5)
        self.baseline = self._status("VmRSS") or self.peak()

    def peak(self) -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return self._status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    @staticmethod
    def _status(field: str) -> int:
        try:
            text = Path("/proc/self/status").read_text()
        except OSError:
            return 0
        found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0


def machine_busy_seconds() -> float | None:
    """CPU seconds that all programs have used since boot, with those taken by other virtual machines (steal)."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / _TICKS


def waited_seconds() -> float | None:
    """Seconds in which threads of this process were ready to run but another program had the core."""
    try:
        tasks = list(Path("/proc/self/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks) / 1e9
    except (OSError, IndexError, ValueError):
        return None


class Window:
    """The load of the machine between two moments."""

    def __init__(self) -> None:
        self._begin = self._now()

    @staticmethod
    def _now() -> tuple[float, float | None, float, float | None, int]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return (
            time.perf_counter(),
            machine_busy_seconds(),
            usage.ru_utime + usage.ru_stime,
            waited_seconds(),
            usage.ru_nivcsw,
        )

    def close(self) -> dict[str, Any]:
        """``seconds``, ``foreign_cores`` and ``wait_s`` (None where the system does not tell), ``switches``."""
        (t0, busy0, own0, wait0, switches0), (t1, busy1, own1, wait1, switches1) = self._begin, self._now()
        seconds = t1 - t0
        foreign = None
        # The kernel counts in ticks of 10 ms: below 0.1 s they say nothing.
        if busy0 is not None and busy1 is not None and seconds >= 0.1:
            busy, own = busy1 - busy0, own1 - own0
            # A sandbox may show counters that stand still: less than our own use is no measurement.
            foreign = round(max(0.0, busy - own) / seconds, 3) if busy >= own / 2 else None
        waited = None if wait0 is None or wait1 is None else round(max(0.0, wait1 - wait0), 6)
        return {
            "seconds": round(seconds, 6),
            "foreign_cores": foreign,
            "wait_s": waited,
            "switches": switches1 - switches0,
        }


class Worker:
    """A model that is loaded once and measured when asked."""

    def __init__(self, path: str, threads: int, seed: int) -> None:
        self._path, self._threads, self._seed = path, threads, seed
        self._interpreter_class, self.runtime = runtime()
        self._interpreter: Any = None
        self._memory: Memory | None = None

    def load(self) -> dict[str, Any]:
        """Loads the model and runs it once: ``init_ms``, ``first_ms`` and ``partitions``."""
        self._memory = Memory()
        begin = time.perf_counter_ns()
        interpreter = self._interpreter_class(model_path=self._path, num_threads=self._threads)
        interpreter.allocate_tensors()
        init = time.perf_counter_ns() - begin
        for index, detail in enumerate(interpreter.get_input_details()):
            interpreter.set_tensor(detail["index"], random_input(detail, self._seed + index))
        begin = time.perf_counter_ns()
        interpreter.invoke()
        first = time.perf_counter_ns() - begin
        for detail in interpreter.get_output_details():
            output = interpreter.get_tensor(detail["index"])
            if output.dtype.kind == "f" and not np.isfinite(output).all():
                raise ValueError(f"output {detail['name']!r} is not finite for random input")
        self._interpreter = interpreter
        return {"init_ms": init / 1e6, "first_ms": first / 1e6, "partitions": self._partitions(interpreter)}

    def measure(self, warmup: int, warmup_s: float, runs: int, run_s: float, max_s: float) -> dict[str, Any]:
        """Warms up and measures one round; see ``Protocol`` for the arguments."""
        assert self._memory is not None
        gc.collect()
        gc.disable()
        try:
            # The window includes the warm-up: reading /proc between the two would cool the caches again.
            window = Window()
            warmups = self._run(warmup, warmup_s, max_s)
            samples = self._run(runs, run_s, max_s)
            happened = window.close()
        finally:
            gc.enable()
        peak = self._memory.peak()
        return {
            "samples_ns": samples,
            "warmup_runs": len(warmups),
            **happened,
            "peak_bytes": max(0, peak - self._memory.baseline),
            "peak_total_bytes": peak,
        }

    def _run(self, count: int, seconds: float, cap: float) -> list[int]:
        """At least ``count`` runs and ``seconds``, but no new run after ``cap`` seconds; ns of each run."""
        invoke, now = self._interpreter.invoke, time.perf_counter_ns
        enough, limit = int(seconds * 1e9), int(cap * 1e9)
        samples: list[int] = []
        begin = end = now()
        while len(samples) < count or end - begin < enough:
            if samples and end - begin >= limit:
                break
            start = now()
            invoke()
            end = now()
            samples.append(end - start)
        return samples

    @staticmethod
    def _partitions(interpreter: Any) -> int | None:
        """In how many parts the delegate (XNNPACK) took the graph; None where the runtime does not tell."""
        try:
            return sum(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
        except Exception:
            return None


def main() -> None:
    # Runtimes print to stdout; the protocol keeps its own copy and everything else goes to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        worker = Worker(**json.loads(sys.argv[1]))
    except ImportError as error:
        answer({"missing": f"no TFLite runtime: {error}"})
        return
    answer({"ready": worker.runtime})
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer(getattr(worker, command.pop("do"))(**command))
        except Exception as error:
            answer({"error": " ".join(str(error).split()) or type(error).__name__})


if __name__ == "__main__":
    main()
