"""The backend that measures on a phone: it pushes a program there, pins it to the big cores and watches the heat."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from android_bench.adb.claim import Claim, Ran
from android_bench.adb.link import Link
from android_bench.adb.transport import TimedOut
from android_bench.devices.binary import LIBRARY, LINUX, RUNNER, find_binary, is_ours, library_of
from android_bench.devices.cores import cores_named, layout
from android_bench.devices.probe import CLOCKS_NOW, State, big_mask, clocks_now, facts, state
from android_bench.devices.target import Target, require_chip
from android_bench.errors import BenchError, BenchUsageError, DeviceMissing
from android_bench.measure.clocks import Clocks
from android_bench.measure.energy import milliwatts, sampler
from android_bench.measure.flags import DELEGATE_FLAGS, DELEGATE_NAMES, PEAK_ON, PROFILE_OFF, PROFILE_ON
from android_bench.measure.heat import Heat
from android_bench.measure.load import COUNTERS, foreign_cores
from android_bench.measure.protocol import Listener, Loaded, Protocol, Round
from android_bench.models import ModelFile, digest
from android_bench.output.operators import profile_json
from android_bench.output.parse import NoSummary, Output, parse

_LOAD_TIMEOUT_S = 180.0
_SLACK_S = 60.0
_DIGEST_S = 120.0
_MIB = 2**20
_RUNTIMES = {"edgecls": "edgecls runner (litert)"}  # others are benchmark_model


@dataclass(frozen=True)
class _Pushed:
    sha256: str
    size: int


class PhoneBackend:
    """A phone over ``link``. It is ours, for nobody else to measure on, until the link is closed.

    Args:
        target: The phone that ``--device`` names. If it demands a chip, the phone must have it.
        binary: The program that measures, see ``binary.find_binary``.
        profile: Whether to time the operators too, in a run of their own.
        delegate: What is asked to compute: ``cpu`` (XNNPACK), ``gpu``, ``nnapi``, ``npu``.
        wait: Whether to wait for a phone on which somebody else measures.
        on_event: Called with ``busy`` and ``cool`` events while the phone is waited for.

    Raises:
        DeviceBusy: Somebody else measures on it.
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
        wait: bool = False,
        on_event: Listener | None = None,
    ) -> None:
        self.link, self.profiling, self.delegate = link, profile, delegate
        tell: Listener = on_event or (lambda event: None)
        self.facts, now = facts(link), state(link)
        self.chip = self.facts.profile(now.clusters())
        require_chip(target, self.facts.chips(now.clusters()), self.facts.soc or self.facts.platform)
        self.clusters, note = layout(self.facts, now)
        self.notes = [note] if note else []
        self.cores = self.facts.cores
        # A phone is never idle: its own services take about one core of eight.
        self.foreign_limit = max(0.5, 0.125 * self.cores)
        self._pinnable: set[int] = set()  # the affinity masks that the phone lets us pin to
        self.binary = find_binary(binary or target.binary or None, self.facts.abis)
        self._serial, self._library = target.serial, library_of(self.binary)
        self.ours = is_ours(self.binary)
        self.kind = "edgecls" if self.ours else ""  # the first output tells which of the other programs it is
        self.claim = Claim(link, wait=wait, on_event=on_event)
        self.heat, self.clocks = Heat(self._look, self.rest, tell), Clocks()
        self._files: dict[str, _Pushed] = {}  # what we have on the phone, by place
        self._program_files: tuple[str, ...] = ()
        self.program = self._push_program()

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
            return self.heat.state().to_json()
        except BenchError:
            return {}

    def rest(self, seconds: float) -> None:
        """Sleeps. The phone stays ours."""
        self.claim.rest(seconds)

    def open(self, model: ModelFile, threads: int, seed: int) -> PhoneRunner:
        """Makes a runner. The model is pushed unless the phone has it."""
        return PhoneRunner(self, self.push(model), threads)

    def push(self, model: ModelFile) -> str:
        """Puts a model on the phone unless it is there. Returns its place, which its content names."""
        return self._push(model.path, f"{model.sha256[:16]}.tflite", model.sha256)

    def require_files(self, *more: str) -> None:
        """Checks that the program on the phone, and ``more`` files that were pushed, are what was pushed.

        Raises:
            BenchError: One is another, or is missing.
        """
        places = [*self._program_files, *more]
        # Older phones have no sha256sum; then the sizes must do.
        look = "sha256sum < $file 2>/dev/null || { [ $? = 127 ] && wc -c < $file; } || echo missing"
        done = self.link.run(f"for file in {' '.join(map(shlex.quote, places))}; do {look}; done", _DIGEST_S)
        there = [*done.output.lower().splitlines(), *places]  # a line that is missing is none of the two
        for place, line in zip(places, there, strict=False):
            pushed = self._files[place]
            if line.partition(" ")[0] not in (pushed.sha256, str(pushed.size)):
                what = f"{place} on the phone is not what was pushed"
                raise BenchError(what, where=self.link.where, fix="run again")

    def mask(self, threads: int) -> tuple[int | None, str]:
        """The cores to pin the program to, as an affinity mask, and why it is not pinned where that is None."""
        mask = big_mask(self.clusters, threads)
        if mask is None:
            return None, "not pinned: the cores' clocks are not known" if self.cores > 1 else ""
        if reason := self._refuses(mask):
            return None, f"not pinned: taskset {mask:x} failed ({reason})"
        return mask, ""

    def run(self, program: str, timeout_s: float, before: str = ":", after: str = ":") -> Ran:
        """Runs the program, see ``Claim.run``; ``program`` is the line that starts it, ``self.program`` with flags.

        Raises:
            DeviceMissing: The phone cannot execute it, is gone, or is no longer ours.
            BenchError: It did not end in time, and was ended.
        """
        try:
            ran = self.claim.run(program, timeout_s, before, after)
        except TimedOut:
            raise BenchError(
                f"the program did not end within {timeout_s:.0f} s; it was ended", where=self.link.where
            ) from None
        if ran.code in (126, 127):
            why = "does not execute" if ran.code == 126 else "has no longer"
            fix = "the storage may forbid it, or a library is missing; try another build of the program"
            raise DeviceMissing(f"the phone {why} {self.program}", where=self.link.where, fix=fix)
        return ran

    def settle(self) -> bool:
        """Waits a moment for what disturbed the rounds. Cooling down happens before each round anyway."""
        self.rest(2.0)
        return True

    def _look(self) -> State:
        self.claim.beat()
        now = state(self.link)
        self.clocks.at_rest(now)
        return now

    def _push_program(self) -> str:
        """Puts the program, and the library beside it, in a folder that their content names. Returns its place."""
        files = {RUNNER if self.ours else "benchmark_model": self.binary}
        if self._library:
            files[LIBRARY] = self._library
        digests = {name: digest(path) for name, path in files.items()}
        folder = hashlib.sha256(" ".join(digests.values()).encode()).hexdigest()[:16]
        places = [self._push(path, f"{folder}/{name}", digests[name], 0o755) for name, path in files.items()]
        self._program_files = tuple(places)
        return places[0]

    def _push(self, local: Path, name: str, sha256: str, mode: int = 0o644) -> str:
        remote = f"{self.link.folder}/{name}"
        if remote not in self._files:
            size = local.stat().st_size
            self.claim.beat(self.link.transfer_s(size) + _DIGEST_S)
            self.link.push(local, remote, mode=mode, sha256=sha256)
            self._files[remote] = _Pushed(sha256, size)
        return remote

    def _refuses(self, mask: int) -> str:
        """Why the phone does not let us pin a program to these cores now; empty when it does."""
        if mask in self._pinnable:
            return ""
        done = self.link.run(f"taskset {mask:x} true")
        if not done.code:
            self._pinnable.add(mask)
            return ""
        lines = done.output.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.code}"


@dataclass(frozen=True)
class _Run:
    """A run of the program: its figures, the cores' clocks at its end, the cores that others used meanwhile, the phone's
    power, and what to say."""

    out: Output
    khz: dict[int, int]
    foreign_cores: float | None
    power_mw: float | None
    notes: tuple[str, ...]


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
            self._phone.kind = self._kind(once)
        kind = self._phone.kind
        if self._phone.delegate not in DELEGATE_FLAGS[kind]:
            raise BenchUsageError(
                f"this program ({kind}) has no {self._phone.delegate}",
                where="--delegate",
                fix=f"it has {', '.join(DELEGATE_FLAGS[kind])}",
            )
        off, peak = PROFILE_OFF.get(kind, ()), PEAK_ON.get(kind, ())
        memory = self._run((*once, *off, *peak), _LOAD_TIMEOUT_S, kind).out
        self._peak = None if memory.peak_mib is None else round(memory.peak_mib * _MIB)
        self._notes += memory.notes
        self._note_delegates(memory)
        details: dict[str, Any] = {
            "runtime": _RUNTIMES.get(kind, f"benchmark_model ({kind})"),
            "mask": None if self._mask is None else f"{self._mask:02x}",
            "delegate": self._phone.delegate,
            "delegates": list(memory.delegates),
        }
        if self._phone.profiling:
            ten = (*once[:2], "--num_runs=10", *once[3:])
            profile = self._run((*ten, *PROFILE_ON.get(kind, ())), _LOAD_TIMEOUT_S, kind).out
            details["profile"] = profile_json(profile.layers)
            self._notes += profile.notes or (
                [] if profile.layers else ["the program gave no operator profile"]
            )
        return Loaded(memory.init_ms, memory.first_ms, details, tuple(self._notes))

    def _kind(self, once: tuple[str, ...]) -> str:
        """The program's kind. On Android LiteRT's may print its summary to the log: then its result file tells."""
        try:
            return self._run(once, _LOAD_TIMEOUT_S, kind="").out.kind
        except NoSummary as missing:
            try:
                return self._run(once, _LOAD_TIMEOUT_S, kind="litert").out.kind
            except BenchError as error:
                if isinstance(error, DeviceMissing):
                    raise
                raise missing from None

    def measure(self, protocol: Protocol) -> Round:
        """One round. What makes it doubtful (heat, capped clocks, cores that are offline) is its ``why``. Raises as
        ``load``, and BenchError when the program or the model on the phone was exchanged."""
        before, hot = self._phone.heat.cool_down(protocol)
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
        self._phone.require_files(self._remote)
        run = self._run((*counts, *PROFILE_OFF.get(kind, ())), limit, kind, unplugged)
        self._phone.require_files(self._remote)
        self._phone.clocks.at_work(run.khz)
        out, after = run.out, self._phone.heat.state()
        every = self._mask or (1 << self._phone.cores) - 1
        throttled = after.thermal_status and f"the phone throttles (thermal status {after.thermal_status})"
        absent = [
            core
            for core in range(self._phone.cores)
            if every >> core & 1
            and core in (*before.absent(self._phone.cores), *after.absent(self._phone.cores))
        ]
        offline = absent and f"{cores_named(absent)} offline"
        stuck = self._phone.heat.stuck, self._phone.clocks.stuck
        growth = out.overall_delta_mib
        return Round(
            samples_ms=list(out.samples_ms),
            stat=None if out.samples_ms else out.runs,
            warmup_runs=out.warmup.count,
            foreign_cores=run.foreign_cores,
            seconds=round(out.runs.mean_ms * out.runs.count / 1e3, 4),
            peak_bytes=None if growth is None else round(growth * _MIB),
            peak_total_bytes=self._peak,
            power_mw=run.power_mw,
            why=hot or offline or before.capped(every) or after.capped(every) or throttled or "",
            notes=tuple(dict.fromkeys(filter(None, (*before.doubts, *after.doubts, *stuck, *run.notes)))),
            details={"init_ms": out.init_ms, "before": before.to_json(), "after": after.to_json()},
        )

    def close(self) -> None:
        """Nothing of ours runs on the phone between rounds."""

    def _note_delegates(self, out: Output) -> None:
        """Notes when the program used another delegate than was asked for, or used it for a part of the network only."""
        asked = DELEGATE_NAMES[self._phone.delegate]
        if asked in out.delegates:
            if asked in out.partly:
                self._notes.append(f"{asked} computes a part of the network only")
        elif out.kind == "litert" and not out.delegates:
            self._notes.append(f"asked for {asked}, and the program does not say what it used")
        else:
            self._notes.append(f"asked for {asked}, got {' and '.join(out.delegates) or 'no delegate'}")

    def _run(self, flags: tuple[str, ...], timeout_s: float, kind: str, power: bool = False) -> _Run:
        """Runs the program; ``power`` asks for the phone's power meanwhile."""
        pin = "" if self._mask is None else f"taskset {self._mask:x} "
        flags = (
            f"--graph={self._remote}",
            f"--num_threads={self._threads}",
            *flags,
            *(DELEGATE_FLAGS[kind][self._phone.delegate] if kind else ()),
        )
        result = f"{self._link.folder}/result" if kind == "litert" else ""
        if result:
            flags = (*flags, f"--result_file_path={result}")
        program = pin + " ".join(map(shlex.quote, (self._phone.program, *flags)))
        begin_power, end_power = sampler(self._link.folder) if power else (":", ":")
        before = f"rm -f {shlex.quote(result)}; echo @@; {COUNTERS}; echo @@\n{begin_power}"
        after = f"echo; echo @@; {CLOCKS_NOW}; times; {COUNTERS}; echo @@\n{end_power}"
        ran = self._phone.run(program, timeout_s, before, after)
        _, begin, output, end, powers = (*ran.output.split("@@\n"), "", "", "", "")[:5]
        foreign, doubt = foreign_cores(begin, end, self._phone.cores)
        left = f"the program left {ran.left} of its processes running, which we ended" if ran.left else ""
        try:
            out = parse(output, ran.code)
        except NoSummary:
            if not result:
                raise
            out = parse(output, ran.code, self._link.read(result))
        return _Run(out, clocks_now(end), foreign, milliwatts(powers), tuple(filter(None, (doubt, left))))


def _is_linux(abis: tuple[str, ...]) -> bool:
    return bool(abis) and abis[0].endswith(LINUX)
