"""The backend that measures on this computer: one worker process per model and thread count."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from android_bench.errors import BenchError, DeviceMissing
from android_bench.measure.protocol import Loaded, Protocol, Round
from android_bench.measure.worker import machine_busy_seconds
from android_bench.models import ModelFile, digest
from android_bench.output.operators import Operator, parse_profile, profile_json

# Loading a big model from a slow disk; the measuring itself is limited by the protocol's own times.
_LOAD_TIMEOUT_S = 180.0
# A running inference cannot be stopped, so the cap is met only after the one that crosses it.
_SLACK_S = 120.0
_QUIET_WAIT_S = 10.0
_PROFILED_RUNS = 30

NO_VNNI = "this CPU has no AVX-512 VNNI (and no AVX-VNNI): int8 is not faster than float here, and a phone's ratio is another"
Cpu = Path("/sys/devices/system/cpu")


class HostBackend:
    """This computer.

    Args:
        profile: Whether to time the operators too, in a run of their own.

    Attributes:
        cores: Cores that we may use.
        foreign_limit: A round is disturbed when other programs use more cores than this.
    """

    def __init__(self, *, profile: bool = False) -> None:
        self.profiling = profile
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.foreign_limit = 0.1 * (os.cpu_count() or 1)

    def describe(self) -> dict[str, Any]:
        """What this computer is, without its name and addresses."""
        vnni = has_vnni(_read(Path("/proc/cpuinfo")) or "")
        return {
            "kind": "host",
            "name": "this computer",
            "cpu": _cpu_name(),
            "cores": os.cpu_count() or 1,
            "usable_cores": self.cores,
            "memory_mib": _memory_mib(),
            "machine": platform.machine(),
            "os": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "governor": _read(Cpu / "cpu0/cpufreq/scaling_governor"),
            "max_khz": _number(_read(Cpu / "cpu0/cpufreq/cpuinfo_max_freq")),
            "vnni": vnni,
            "notes": [NO_VNNI] if vnni is False else [],
        }

    def identity(self, threads: Sequence[int]) -> dict[str, Any]:
        """This computer and its TFLite runtime, see ``Backend.identity``."""
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        return {
            **self.describe(),
            "node": platform.node(),
            "affinity": cores,
            "runtime": _runtime(),
            "profile": self.profiling,
        }

    def state(self) -> dict[str, Any]:
        """Load and clocks at this moment."""
        return _state()

    def open(self, model: ModelFile, threads: int, seed: int) -> HostRunner:
        """Starts the worker; nothing is loaded yet."""
        return HostRunner(model, threads, seed, profile=self.profiling)

    def settle(self) -> bool:
        """Waits up to 10 s until other programs use less than the limit. Returns whether they do."""
        deadline = time.monotonic() + _QUIET_WAIT_S
        while True:
            busy, begin = machine_busy_seconds(), time.monotonic()
            if busy is None:
                return True
            time.sleep(0.5)
            after = machine_busy_seconds()
            if after is None or (after - busy) / (time.monotonic() - begin) <= self.foreign_limit:
                return True
            if time.monotonic() >= deadline:
                return False

    def rest(self, seconds: float) -> None:
        """Sleeps."""
        time.sleep(seconds)


class HostRunner:
    """One worker process. Not for several threads at once."""

    def __init__(self, model: ModelFile, threads: int, seed: int, *, profile: bool = False) -> None:
        self._profile = (str(model.path), str(threads)) if profile else None
        arguments = {"path": str(model.path), "threads": threads, "seed": seed}
        script = Path(__file__).with_name("worker.py")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close())
        # -P keeps this folder off the worker's module path. In a session of its own the worker does not get the
        # terminal's Ctrl-C: the parent decides what happens. It ends when its stdin is closed, even if we are killed.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._pump, daemon=True).start()
        try:
            ready = self._receive(_LOAD_TIMEOUT_S)
            if "missing" in ready:
                raise DeviceMissing(str(ready["missing"]), fix="pip install ai-edge-litert")
        except BaseException:
            self.close()
            raise
        self.runtime = str(ready["ready"])

    def load(self) -> Loaded:
        """Loads the model, runs it once. Raises BenchError when the runtime cannot."""
        answer = self._ask({"do": "load"}, _LOAD_TIMEOUT_S)
        details: dict[str, Any] = {"runtime": self.runtime, "partitions": answer["partitions"]}
        notes: tuple[str, ...] = ()
        if self._profile:
            layers, notes = _operators(*self._profile)
            details["profile"] = profile_json(layers)
        return Loaded(answer["init_ms"], answer["first_ms"], details, notes)

    def measure(self, protocol: Protocol) -> Round:
        """Warms up and measures one round. Raises BenchError when the worker fails or hangs."""
        counts = {name: getattr(protocol, name) for name in ("warmup", "warmup_s", "runs", "run_s", "max_s")}
        answer = self._ask({"do": "measure", **counts}, 2 * protocol.max_s + _SLACK_S)
        waited, seconds = answer["wait_s"], answer["seconds"]
        return Round(
            samples_ms=[ns / 1e6 for ns in answer["samples_ns"]],
            warmup_runs=answer["warmup_runs"],
            foreign_cores=answer["foreign_cores"],
            wait=None if waited is None else round(waited / seconds, 4),
            switches=answer["switches"],
            seconds=seconds,
            peak_bytes=answer["peak_bytes"],
            peak_total_bytes=answer["peak_total_bytes"],
            details={"after": _state()},
        )

    def close(self) -> None:
        """Ends the worker, at the latest after a second."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def _ask(self, command: dict[str, Any], timeout: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise BenchError(self._why_it_ended()) from None
        return self._receive(timeout)

    def _receive(self, timeout: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            self._process.kill()
            raise BenchError(f"no answer from the model within {timeout:.0f} s") from None
        if not line:
            raise BenchError(self._why_it_ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(str(answer["error"]))
        return answer

    def _pump(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _why_it_ended(self) -> str:
        """The worker's signal or exit code, and the last line that it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._process.kill()  # does nothing to a process that has ended
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"the worker process died ({how})" + (f": {lines[-1]}" if lines else "")


def _operators(path: str, threads: str) -> tuple[tuple[Operator, ...], tuple[str, ...]]:
    """The times of a model's operators, or why there are none."""
    script = str(Path(__file__).parents[1] / "output" / "profiler.py")
    command = [sys.executable, "-P", script, path, threads, str(_PROFILED_RUNS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return (), (f"no operator profile within {_LOAD_TIMEOUT_S:.0f} s",)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return (), (f"no operator profile: {last.removeprefix('no profile: ')}",)
    layers, notes = parse_profile(done.stdout)
    return layers, notes or (() if layers else ("the runtime gave no operator profile",))


def _runtime() -> list[str]:
    """Name, version and the hash of each library of the package that the worker will take."""
    for name in ("ai-edge-litert", "tflite-runtime"):
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        libraries = [Path(str(file.locate())) for file in package.files or [] if ".so" in file.suffixes]
        return [name, package.version, *(digest(path) for path in sorted(libraries) if path.is_file())]
    return []


def _state() -> dict[str, Any]:
    clocks = [_number(_read(path)) for path in sorted(Cpu.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"time": _utc(), "load_1min": load, "khz": [clock for clock in clocks if clock]}


def _utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def has_vnni(cpuinfo: str) -> bool | None:
    """Whether an x86 processor has instructions that multiply and add int8 values.

    Args:
        cpuinfo: The text of ``/proc/cpuinfo``.

    Returns:
        None for other processors (ARM calls its instructions otherwise), and where nothing is told.
    """
    found = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return bool(flags & {"avx512_vnni", "avx_vnni"}) if "sse2" in flags else None


def _cpu_name() -> str:
    text = _read(Path("/proc/cpuinfo")) or ""
    found = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _memory_mib() -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _read(Path("/proc/meminfo")) or "", re.MULTILINE)
    return int(found[1]) // 1024 if found else None
