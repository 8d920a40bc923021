"""The backend that measures on a phone: it pushes a program there, pins it to the big cores and watches the heat."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from android_bench.adb.link import Link
from android_bench.adb.transport import Done, TimedOut
from android_bench.devices.binary import LIBRARY, LINUX, RUNNER, find_binary, library_of
from android_bench.devices.probe import State, big_mask, facts, state
from android_bench.devices.target import Target, require_chip
from android_bench.errors import BenchError, BenchUsageError, DeviceMissing
from android_bench.measure.energy import milliwatts, notes, sampler
from android_bench.measure.protocol import Listener, Loaded, Protocol, Round
from android_bench.models import ModelFile, digest
from android_bench.output.parse import Output, parse, profile_json

_LOAD_TIMEOUT_S = 180.0
_SLACK_S = 60.0
_COOLING_STEP_S = 5.0
_MIB = 2**20
_MIN_LOAD_S = 0.5  # in a shorter time the ticks are too coarse to tell the load
_TICKS = 100  # USER_HZ, the same on every Android
# Each program knows its own flags only. It warns of an unknown one, which counts as a failure.
_DELEGATE_FLAGS: dict[str, dict[str, tuple[str, ...]]] = {
    "tflite": {"cpu": ("--use_xnnpack=true",), "gpu": ("--use_gpu=true",), "nnapi": ("--use_nnapi=true",)},
    "litert": {
        "cpu": ("--use_cpu=true", "--use_gpu=false", "--use_npu=false"),
        "gpu": ("--use_cpu=true", "--use_gpu=true", "--use_npu=false"),
        "npu": ("--use_cpu=true", "--use_gpu=false", "--use_npu=true"),
    },
    "edgecls": {"cpu": ()},
}
_DELEGATE_NAMES = {"cpu": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI", "npu": "NPU"}
_PROFILE_OFF = {"tflite": ("--enable_op_profiling=false",), "litert": ("--use_profiler=false",)}
_PROFILE_ON = {"tflite": ("--enable_op_profiling=true",), "litert": ("--use_profiler=true",)}
_PEAK = "--report_peak_memory_footprint=true"
_PEAK_ON = {"tflite": (_PEAK,), "litert": (_PEAK,)}
_RUNTIMES = {"edgecls": "edgecls runner (litert)"}  # others are benchmark_model


class PhoneBackend:
    """A phone over ``link``.

    Args:
        target: The phone that ``--device`` names. If it demands a chip, the phone must have it.
        binary: The program that measures, see ``binary.find_binary``.
        profile: Whether to time the operators too, in a run of their own.
        delegate: What is asked to compute: ``cpu`` (XNNPACK), ``gpu``, ``nnapi``, ``npu``.
        on_event: Called with ``cool`` events while a hot phone is waited for.

    Raises:
        DeviceMissing: The phone is gone, is another one than named, has no space, or there is no program.
        BenchUsageError: The program is not for this phone.
    """

    def __init__(
        self,
        link: Link,
        target: Target,
        binary: str | Path | None = None,
        *,
        profile: bool = False,
        delegate: str = "cpu",
        on_event: Listener | None = None,
    ) -> None:
        self.link, self.profiling, self.delegate = link, profile, delegate
        self._tell: Listener = on_event or (lambda event: None)
        self.facts, self.last = facts(link), state(link)
        self.clusters = self.last.clusters()
        self.chip = self.facts.profile(self.clusters)
        self.notes: list[str] = []
        self._pushed: dict[str, str] = {}  # places on the phone by the hash of the model there
        # Why the phone does not let us pin to an affinity mask, by mask; "" where it does.
        self._refused: dict[int, str] = {}
        require_chip(target, self.facts.chips(self.clusters), self.facts.soc or self.facts.platform)
        if not self.clusters and self.chip:
            self.clusters = self.chip.clusters
            self.notes.append("the phone does not tell its clocks; the big cores are those of its profile")
        self.cores = self.facts.cores
        # A phone is never idle: its own services take about one core of eight.
        self.foreign_limit = max(0.5, 0.125 * self.cores)
        self.binary = find_binary(binary or target.binary or None, self.facts.abis)
        self._serial, self._library = target.serial, library_of(self.binary)
        if self._library:
            link.push(self._library, f"{link.folder}/{LIBRARY}")
        self.ours = self._library is not None
        self.kind = "edgecls" if self.ours else ""  # the first output tells which of the other programs it is
        self.program = f"{link.folder}/{RUNNER if self.ours else 'benchmark_model'}"
        link.push(self.binary, self.program, mode=0o755)

    def describe(self) -> dict[str, Any]:
        """What this phone is, without its serial and address."""
        chip = self.chip
        return {
            "kind": "phone",
            "name": self.facts.name,
            "cpu": chip.name if chip else self.facts.soc or self.facts.platform or self.facts.hardware,
            "profile": chip.key if chip else None,
            "soc_model": self.facts.soc,
            "platform": self.facts.platform,
            "cores": self.cores,
            "clusters": [{"mask": f"{c.mask:02x}", "max_khz": c.max_khz} for c in self.clusters],
            "memory_mib": self.facts.memory_mib,
            "abis": list(self.facts.abis),
            "machine": self.facts.abis[0] if self.facts.abis else "",
            "os": "Linux" if _is_linux(self.facts.abis) else f"Android {self.facts.android}".strip(),
            "program": self.kind,
            "notes": self.notes,
        }

    def identity(self, threads: Sequence[int]) -> dict[str, Any]:
        """This phone, its system, our program there and its cores, see ``Backend.identity``."""
        learnt_while_measuring = ("notes", "program")
        about = {name: value for name, value in self.describe().items() if name not in learnt_while_measuring}
        return {
            **about,
            "serial": self.facts.serial or self._serial,
            "build": self.facts.build,
            "program": [digest(path) for path in (self.binary, self._library) if path],
            "delegate": self.delegate,
            "profile": self.profiling,
            "masks": [self.mask(count)[0] for count in threads],
        }

    def state(self) -> dict[str, Any]:
        """Clocks, temperatures and battery now; empty when the phone is gone."""
        try:
            self.last = state(self.link)
        except BenchError:
            return {}
        return self.last.to_json()

    def open(self, model: ModelFile, threads: int, seed: int) -> PhoneRunner:
        """Makes a runner. The model is pushed unless the phone has it."""
        return PhoneRunner(self, self.push(model), threads)

    def push(self, model: ModelFile) -> str:
        """Puts a model on the phone unless it is there. Returns its place."""
        if model.sha256 not in self._pushed:
            remote = f"{self.link.folder}/{model.sha256[:16]}.tflite"
            self.link.push(model.path, remote, sha256=model.sha256)
            self._pushed[model.sha256] = remote
        return self._pushed[model.sha256]

    def mask(self, threads: int) -> tuple[int | None, str]:
        """The cores to pin the program to, as an affinity mask, and why it is not pinned where that is None."""
        mask = big_mask(self.clusters, threads)
        if mask is None:
            return None, "not pinned: the cores' clocks are not known" if self.cores > 1 else ""
        if reason := self._refuses(mask):
            return None, f"not pinned: taskset {mask:x} failed ({reason})"
        return mask, ""

    def _refuses(self, mask: int) -> str:
        """Why the phone does not let us pin a program to these cores; empty when it does."""
        if mask not in self._refused:
            done = self.link.run(f"taskset {mask:x} true")
            lines = done.output.strip().splitlines()
            reason = lines[-1] if lines else f"exit code {done.code}"
            self._refused[mask] = reason if done.code else ""
        return self._refused[mask]

    def run(self, command: str, timeout_s: float) -> Done:
        """Runs the program; ``command`` is the line that starts it, ``self.program`` with flags.

        Raises:
            DeviceMissing: The phone cannot execute it, or is gone.
            BenchError: It did not end in time, and was ended.
        """
        try:
            done = self.link.run(command, timeout_s)
        except TimedOut:
            raise BenchError(
                f"the program did not end within {timeout_s:.0f} s; it was ended", where=self.link.where
            ) from None
        if done.code in (126, 127):
            why = "does not execute" if done.code == 126 else "has no longer"
            fix = "the storage may forbid it, or a library is missing; try another build of the program"
            raise DeviceMissing(f"the phone {why} {self.program}", where=self.link.where, fix=fix)
        return done

    def settle(self) -> bool:
        """Waits a moment for what disturbed the rounds. Cooling down happens before each round anyway."""
        time.sleep(2.0)
        return True

    def cool_down(self, protocol: Protocol) -> tuple[State, str]:
        """Waits until the phone is cool. Returns its state, and a reason for distrust if it stays hot (else "")."""
        begin = time.monotonic()
        while True:
            self.last = now = state(self.link)
            hot = _hot(now, protocol.cool_c)
            waited = time.monotonic() - begin
            if not hot or waited >= protocol.cool_s:
                return now, hot and f"{hot} after {waited:.0f} s of cooling down"
            self._tell({"event": "cool", "why": hot, "seconds": waited})
            time.sleep(min(_COOLING_STEP_S, max(0.05, protocol.cool_s - waited)))


class PhoneRunner:
    """One model with one thread count. The program loads the model anew in each round."""

    def __init__(self, backend: PhoneBackend, remote: str, threads: int) -> None:
        self._phone, self._link = backend, backend.link
        self._remote, self._threads = remote, threads
        self._mask: int | None = None
        self._notes: list[str] = []
        self._peak: int | None = None

    def load(self) -> Loaded:
        """Runs the model once. Raises ParseError when the program cannot, DeviceMissing when it is gone."""
        self._mask, why_not = self._phone.mask(self._threads)
        self._notes += [why_not] if why_not else []
        once = ("--warmup_runs=1", "--warmup_min_secs=0", "--num_runs=1", "--min_secs=0", "--max_secs=150")
        if not self._phone.kind:
            # Which of the two programs it is, only its output tells; these flags both know.
            self._phone.kind = self._run(once, _LOAD_TIMEOUT_S, kind="")[0].kind
        kind = self._phone.kind
        if self._phone.delegate not in _DELEGATE_FLAGS[kind]:
            raise BenchUsageError(
                f"this program ({kind}) has no {self._phone.delegate}",
                where="--delegate",
                fix=f"it has {', '.join(_DELEGATE_FLAGS[kind])}",
            )
        off, peak = _PROFILE_OFF.get(kind, ()), _PEAK_ON.get(kind, ())
        memory = self._run((*once, *off, *peak), _LOAD_TIMEOUT_S, kind)[0]
        self._peak = None if memory.peak_mib is None else round(memory.peak_mib * _MIB)
        self._note_delegates(memory)
        details: dict[str, Any] = {
            "runtime": _RUNTIMES.get(kind, f"benchmark_model ({kind})"),
            "mask": None if self._mask is None else f"{self._mask:02x}",
            "delegate": self._phone.delegate,
            "delegates": list(memory.delegates),
        }
        if self._phone.profiling:
            run = (
                "--warmup_runs=1",
                "--warmup_min_secs=0",
                "--num_runs=10",
                "--min_secs=0",
                "--max_secs=150",
            )
            profile = self._run((*run, *_PROFILE_ON.get(kind, ())), _LOAD_TIMEOUT_S, kind)[0]
            details["profile"] = profile_json(profile.layers)
            self._notes += profile.notes or (
                [] if profile.layers else ["the program gave no operator profile"]
            )
        return Loaded(memory.init_ms, memory.first_ms, details, tuple(self._notes))

    def measure(self, protocol: Protocol) -> Round:
        """One round. What makes it doubtful (heat, capped clocks) is its ``why``. Raises as ``load``."""
        before, hot = self._phone.cool_down(protocol)
        counts = (
            f"--warmup_runs={protocol.warmup}",
            f"--warmup_min_secs={protocol.warmup_s:g}",
            f"--num_runs={protocol.runs}",
            f"--min_secs={protocol.run_s:g}",
            f"--max_secs={protocol.max_s:g}",
        )
        kind = self._phone.kind
        limit = 2 * protocol.max_s + _SLACK_S
        # On a charger the battery's current says nothing about the program.
        unplugged = before.battery == "discharging"
        out, foreign, power = self._run((*counts, *_PROFILE_OFF.get(kind, ())), limit, kind, unplugged)
        self._phone.last = after = state(self._link)
        every = self._mask or (1 << self._phone.cores) - 1
        throttled = after.thermal_status and f"the phone throttles (thermal status {after.thermal_status})"
        growth = out.overall_delta_mib
        return Round(
            samples_ms=list(out.samples_ms),
            stat=None if out.samples_ms else out.runs,
            warmup_runs=out.warmup.count,
            foreign_cores=foreign,
            seconds=round(out.runs.mean_ms * out.runs.count / 1e3, 4),
            peak_bytes=None if growth is None else round(growth * _MIB),
            peak_total_bytes=self._peak,
            power_mw=power,
            why=hot or before.capped(every) or after.capped(every) or throttled or "",
            details={"init_ms": out.init_ms, "before": before.to_json(), "after": after.to_json()},
        )

    def close(self) -> None:
        """Nothing of ours runs on the phone between rounds."""

    def _note_delegates(self, out: Output) -> None:
        """Notes when the program used another delegate than was asked for, or used it for a part of the network only."""
        asked = _DELEGATE_NAMES[self._phone.delegate]
        if asked in out.delegates:
            if asked in out.partly:
                self._notes.append(f"{asked} computes a part of the network only")
        elif out.kind == "litert" and not out.delegates:
            self._notes.append(f"asked for {asked}, and the program does not say what it used")
        else:
            self._notes.append(f"asked for {asked}, got {' and '.join(out.delegates) or 'no delegate'}")

    def _run(
        self, flags: tuple[str, ...], timeout_s: float, kind: str, power: bool = False
    ) -> tuple[Output, float | None, float | None]:
        """Runs the program; gives its figures, how many cores other programs used meanwhile, and the phone's power in
        mW where ``power`` asks for it."""
        pin = "" if self._mask is None else f"taskset {self._mask:x} "
        flags = (
            f"--graph={self._remote}",
            f"--num_threads={self._threads}",
            *flags,
            *(_DELEGATE_FLAGS[kind][self._phone.delegate] if kind else ()),
        )
        program = " ".join(map(shlex.quote, (self._phone.program, *flags)))
        stat = "head -n 1 /proc/stat 2>/dev/null; date +%s.%N"
        folder = self._link.folder
        begin_power, end_power = (f"{sampler(folder)} ", notes(folder)) if power else ("", "true")
        command = (
            f"echo @@; {stat}; echo @@; {begin_power}{self._link.guarded(pin + program)}; code=$?; "
            f"echo; echo @@; times; {stat}; echo @@; {end_power}; exit $code"
        )
        done = self._phone.run(command, timeout_s)
        _, begin, output, end, powers = (*done.output.split("@@\n"), "", "", "", "")[:5]
        return parse(output, done.code), _foreign_cores(begin, end), milliwatts(powers)


def _is_linux(abis: tuple[str, ...]) -> bool:
    return bool(abis) and abis[0].endswith(LINUX)


def _hot(now: State, limit_c: float) -> str:
    """Why a phone is too warm to measure; empty when it is not, or does not tell."""
    if now.warmth is not None and now.warmth > limit_c:
        return f"{now.warmth:.1f} C warm"
    return f"thermal status {now.thermal_status}" if now.thermal_status else ""


def _foreign_cores(begin: str, end: str) -> float | None:
    """Cores that other programs used, from /proc/stat, ``times`` and ``date``; None where the phone does not tell."""
    first, last = (re.search(r"^cpu +(.+)\n(\d+\.\d+)$", text, re.MULTILINE) for text in (begin, end))
    own = re.findall(r"(\d+)m(\d+(?:\.\d+)?)s", end)
    if not (first and last and len(own) == 4):
        return None
    ours = sum(60 * int(minutes) + float(seconds) for minutes, seconds in own[2:])
    seconds = float(last[2]) - float(first[2])
    if seconds < _MIN_LOAD_S:
        return None
    busy = (_busy(last[1]) - _busy(first[1])) / _TICKS - ours
    return round(max(0.0, busy / seconds), 3)


def _busy(stat: str) -> int:
    """user + nice + system + irq + softirq (proc(5)), in ticks."""
    fields = [int(field) for field in stat.split()]
    return sum(fields[:3]) + sum(fields[5:7])
