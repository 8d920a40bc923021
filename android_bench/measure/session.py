"""One session of measuring: the rounds of all models and thread counts are interleaved, so that all meet the same drift."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from android_bench.errors import BenchError, DeviceLost, DeviceMissing, Interrupted
from android_bench.measure.checks import loaded_problem, round_problem
from android_bench.measure.kept import Kept
from android_bench.measure.protocol import Backend, Listener, Loaded, Protocol, Round, Runner
from android_bench.measure.stats import summarise, summarise_stats
from android_bench.models import ModelFile
from android_bench.output.documents import SCHEMA
from android_bench.words import count

# Loaded models wait in memory for their turn. More than this many, or more bytes of files, are measured in groups.
GROUP = 8
_GROUP_BYTES = 600 * 2**20
_KEPT_SAMPLES = 1024
_MIB = 2**20
_OFF = "its median is"


class Case:
    """One model with one thread count: its rounds, and why it failed if it did."""

    def __init__(self, model: ModelFile, threads: int) -> None:
        self.model, self.threads = model, threads
        self.runner: Runner | None = None
        self.loaded: Loaded | None = None
        self.rounds: list[Round] = []
        self.failure = ""

    def event(self, event: str, **fields: Any) -> dict[str, Any]:
        return {"event": event, "model": self.model.name, "threads": self.threads, **fields}

    def close(self) -> None:
        if self.runner is not None:
            self.runner.close()
            self.runner = None


class Session:
    """Measures ``models`` x ``threads`` on ``backend`` and gives the document of bench.json.

    A model that cannot be loaded or run is a result with status ``failed``; the others go on.

    Args:
        backend: The device.
        models: The files.
        threads: The thread counts.
        protocol: How they are measured.
        on_event: Called with the events of ``bench``.
        kept: Rounds of earlier sessions, which are not measured again; each new round is added to them. Rounds of a
            result that is unsure or failed in the end are forgotten.
        turns: The models are compared: with each thread count they take turns in every round, repeated ones too.
    """

    def __init__(
        self,
        backend: Backend,
        models: Sequence[ModelFile],
        threads: Sequence[int],
        protocol: Protocol,
        on_event: Listener | None = None,
        *,
        kept: Kept | None = None,
        turns: bool = False,
    ) -> None:
        self._backend, self._protocol = backend, protocol
        self._tell: Listener = on_event or (lambda event: None)
        self._kept, self._turns, self._started = kept, turns, _utc()
        self._pass = 0  # rounds of one pass over a group were measured one right after the other
        if turns:  # a group may end after any thread count, never between two models
            self._cases = [Case(model, thread_count) for thread_count in threads for model in models]
        else:
            self._cases = [Case(model, thread_count) for model in models for thread_count in threads]

    def run(self) -> dict[str, Any]:
        """Measures all.

        Raises:
            Interrupted: Ctrl-C; it carries the document with the figures so far.
            DeviceLost: The device was there and is gone; it carries the document too.
            DeviceMissing: There is no runtime to measure with.
        """
        before = self._backend.state()
        self._recall()
        kept = sum(min(len(case.rounds), self._protocol.rounds) for case in self._cases)
        self._tell(
            {"event": "plan", "cases": len(self._cases), "rounds": self._protocol.rounds, "kept": kept}
        )
        complete, lost = False, None
        try:
            for group in self._groups():
                self._run_group(group)
            complete = True
        except KeyboardInterrupt:
            pass
        except DeviceMissing as error:
            if not any(case.rounds for case in self._cases):
                raise
            lost = error
        finally:
            for case in self._cases:
                case.close()
        document = {
            "schema": SCHEMA,
            "device": self._backend.describe(),
            "protocol": {
                **dataclasses.asdict(self._protocol),
                "foreign_limit": self._backend.foreign_limit,
                "interleaved": min(GROUP, len(self._cases)),
            },
            "started": self._started,
            "complete": complete,
            "before": before,
            "after": self._backend.state(),
            "results": [self._result(case) for case in self._cases],
        }
        if lost:
            raise DeviceLost(document, lost)
        if not complete:
            raise Interrupted(document)
        return document

    def _recall(self) -> None:
        """Takes up the rounds that were kept."""
        for case in self._cases:
            if self._kept and (found := self._kept.get(case.model, case.threads)):
                case.loaded, case.rounds = found
        if self._turns:  # a turn that was cut short is measured anew
            for case in self._cases:
                del case.rounds[min(len(other.rounds) for other in self._turn(case)) :]

    def _turn(self, case: Case) -> list[Case]:
        """The cases that are measured with this one in every round."""
        return [c for c in self._cases if c.threads == case.threads] if self._turns else [case]

    def _groups(self) -> Iterator[list[Case]]:
        """Cases that are loaded together and take turns: not too many, and not too big. Those that are done are left out."""
        cases = [case for case in self._cases if any(map(self._lacking, self._turn(case)))]
        step = len(self._turn(self._cases[0]))
        group: list[Case] = []
        for first in range(0, len(cases), step):
            turn = cases[first : first + step]
            size = sum(case.model.bytes for case in group + turn)
            if group and (len(group) + step > GROUP or size > _GROUP_BYTES):
                yield group
                group = []
            group = group + turn
        if group:
            yield group

    def _run_group(self, cases: list[Case]) -> None:
        for case in cases:
            self._guard(case, self._load)
        begun = -math.inf
        for number in range(self._protocol.rounds):
            due = [case for case in cases if not case.failure and len(case.rounds) <= number]
            if due:
                self._backend.rest(max(0.0, begun + self._protocol.spacing_s - time.monotonic()))
                begun = time.monotonic()
                self._pass += 1
            for case in self._ordered(due):
                self._guard(case, self._measure, number=number)
        for _ in range(self._protocol.repeats):
            disturbed = [case for case in cases if any(map(self._to_repeat, self._turn(case)))]
            if not disturbed:
                break
            self._tell({"event": "settle", "cases": len(disturbed)})
            settled = self._backend.settle()
            self._pass += 1
            for case in self._ordered(disturbed):
                self._guard(case, self._measure, number=len(case.rounds), repeat=True)
            if not settled:
                break  # the disturbance lasts; waiting again would only take longer to say so
        for case in cases:
            case.close()
            outcome = self._outcome(case)
            if outcome["status"] != "ok":
                self._keep(case, forget=True)
            self._tell(case.event("result", **outcome))

    def _ordered(self, cases: list[Case]) -> list[Case]:
        """Models that are compared take turns in being the first: a device that warms up would favor it."""
        return cases[:: -1 if self._turns and self._pass % 2 == 0 else 1]

    def _to_repeat(self, case: Case) -> bool:
        most = self._protocol.rounds + self._protocol.repeats
        return 0 < len(case.rounds) < most and not case.failure and self._lacking(case)

    def _keep(self, case: Case, forget: bool = False) -> None:
        """Writes a case's rounds to the cache, or forgets them."""
        if not self._kept:
            return
        try:
            if forget:
                self._kept.drop(case.model, case.threads)
            elif case.loaded:
                self._kept.put(case.model, case.threads, case.loaded, case.rounds)
        except (BenchError, OSError) as error:
            self._kept = None
            self._tell({"event": "unkept", "why": str(error)})

    def _guard(self, case: Case, step: Any, **fields: Any) -> None:
        if case.failure:
            return
        try:
            step(case, **fields)
        except DeviceMissing:
            raise
        except BenchError as error:
            case.failure = str(error)
            case.close()

    def _load(self, case: Case) -> None:
        case.runner = self._backend.open(case.model, case.threads, self._protocol.seed)
        case.loaded = case.runner.load()
        _require_possible(loaded_problem(case.loaded))
        self._tell(case.event("load", init_ms=case.loaded.init_ms, first_ms=case.loaded.first_ms))

    def _measure(self, case: Case, number: int, repeat: bool = False) -> None:
        assert case.runner is not None
        self._tell(case.event("measure", round=number, repeat=repeat))
        new = case.runner.measure(self._protocol)
        _require_possible(round_problem(new, self._protocol))
        new.details |= {"session": self._started, "turn": self._pass}
        case.rounds.append(new)
        self._keep(case)
        why, state = self._judge(case)[-1], new.details.get("after") or {}
        self._tell(
            case.event("round", round=number, repeat=repeat, median_ms=new.median_ms, why=why, state=state)
        )

    def _judge(self, case: Case) -> list[str]:
        return judge(case.rounds, case.threads, self._protocol, self._backend)

    def _lacking(self, case: Case) -> bool:
        """Whether there are too few clean rounds, or too many that differ from the others for no visible reason.

        If we repeated until enough rounds agreed, we would find agreement anywhere. So at most a third of the rounds may
        be outliers.
        """
        reasons = self._judge(case)
        clean, off = reasons.count(""), sum(why.startswith(_OFF) for why in reasons)
        return clean < max(self._protocol.rounds, 2 * off)

    def _outcome(self, case: Case) -> dict[str, Any]:
        """``status``, ``why``, and the indices of the rounds that are ``used`` for the figures."""
        if case.failure or not case.rounds:
            return {
                "status": "failed",
                "why": case.failure or "interrupted before the first round",
                "used": [],
            }
        reasons, notes = self._judge(case), case.loaded.notes if case.loaded else ()
        notes = tuple(dict.fromkeys((*notes, *(note for r in case.rounds for note in r.notes))))
        used = [index for index, why in enumerate(reasons) if not why]
        # With no clean round the figures come from all of them: shown, and marked.
        used = used or list(range(len(case.rounds)))
        if len(used) == 1:
            notes = ("one round has no interval", *notes)
        elif len({ms for i in used for ms in case.rounds[i].samples_ms or [case.rounds[i].median_ms]}) == 1:
            notes = ("rounds that are all equal have no interval", *notes)
        if sessions := sorted({case.rounds[index].details.get("session", "") for index in used})[:-1]:
            notes = (
                f"its rounds are of {count(len(sessions) + 1, 'session')}, the first at {sessions[0]}",
                *notes,
            )
        repeated = len(case.rounds) - self._protocol.rounds
        if not self._lacking(case):
            why = f"{count(repeated, 'disturbed round')} measured again" if repeated > 0 else ""
            if all(r.foreign_cores is None and r.wait is None for r in case.rounds):
                why = _sentence(why, "the load of other programs is not known here")
            return {"status": "ok", "why": _sentence(why, *notes), "used": used}
        if len(case.rounds) < self._protocol.rounds:
            # The session ended early: by Ctrl-C, or because the device is gone.
            why = f"interrupted after {len(case.rounds)} of {count(self._protocol.rounds, 'round')}"
        else:
            disturbed = sum(map(bool, reasons))
            why = f"{disturbed} of {count(len(reasons), 'round')} disturbed: {next(filter(None, reasons))}"
        return {"status": "unsure", "why": _sentence(why, *notes), "used": used}

    def _result(self, case: Case) -> dict[str, Any]:
        outcome = self._outcome(case)
        used = outcome.pop("used")
        model = {"model": case.model.name, "sha256": case.model.sha256, "bytes": case.model.bytes}
        if outcome["status"] == "failed":
            return failed_row(model, case.threads, outcome["why"])
        assert case.loaded is not None
        chosen = [case.rounds[i] for i in used]
        stats = [r.stat for r in chosen if r.stat]
        if stats:
            figures = summarise_stats(stats, seed=self._protocol.seed)
        else:
            figures = summarise([r.samples_ms for r in chosen], seed=self._protocol.seed)
        return {
            **model,
            "threads": case.threads,
            **figures,
            "init_ms": round(case.loaded.init_ms, 6),
            "first_ms": round(case.loaded.first_ms, 6),
            "peak_mib": _peak([r.peak_bytes for r in case.rounds]),
            "peak_total_mib": _peak([r.peak_total_bytes for r in case.rounds]),
            "energy_mj": _median([r.energy_mj for r in chosen]),
            "measured": max(r.details.get("session", self._started) for r in chosen),
            **case.loaded.details,
            **outcome,
            "rounds": [
                _round_row(r, i in used, why)
                for i, (r, why) in enumerate(zip(case.rounds, self._judge(case), strict=True))
            ],
        }


def failed_row(model: dict[str, Any], threads: int, why: str) -> dict[str, Any]:
    """The result of a model that gave no figures; ``model`` has its name, hash and size."""
    names = ("median", "p90", "p99", "min", "max", "mean", "std", "init", "first")
    others = ("ci95_ms", "peak_mib", "peak_total_mib", "energy_mj")
    empty = dict.fromkeys([*(f"{name}_ms" for name in names), *others])
    return {**model, "threads": threads, **empty, "n": 0, "status": "failed", "why": why, "rounds": []}


def judge(rounds: Sequence[Round], threads: int, protocol: Protocol, backend: Backend) -> list[str]:
    """For each round the reason not to use it; an empty string for a clean one."""
    reasons = [_foreign(r, threads, protocol, backend) for r in rounds]
    clean = {i: r.median_ms for i, r in enumerate(rounds) if not reasons[i]}
    for index, median in clean.items():
        others = [m for i, m in clean.items() if i != index]
        off = median / statistics.median(others) - 1 if others else 0.0
        if abs(off) > protocol.off_limit:
            reasons[index] = f"{_OFF} {abs(off):.0%} {'above' if off > 0 else 'below'} the others'"
    return reasons


def _foreign(r: Round, threads: int, protocol: Protocol, backend: Backend) -> str:
    if r.why:
        return r.why
    if r.foreign_cores is not None and r.foreign_cores > backend.foreign_limit:
        return f"other programs used {r.foreign_cores:.1f} cores"
    # With more threads than cores they wait for each other, which is what was asked for.
    if threads <= backend.cores and r.wait is not None and r.wait > protocol.wait_limit:
        return f"other programs had the cores for {r.wait:.0%} of the time"
    return ""


def _round_row(r: Round, used: bool, why: str) -> dict[str, Any]:
    step = max(1, -(-len(r.samples_ms) // _KEPT_SAMPLES))
    return {
        "used": used,
        "why": why,
        "median_ms": round(r.median_ms, 6),
        "n": r.n,
        "warmup_runs": r.warmup_runs,
        "seconds": r.seconds,
        "foreign_cores": r.foreign_cores,
        "wait": r.wait,
        "switches": r.switches,
        "power_mw": r.power_mw,
        **({"stat": dataclasses.asdict(r.stat)} if r.stat else {}),
        **r.details,
        "samples_ms": [round(sample, 5) for sample in r.samples_ms[::step]],
    }


def _require_possible(problem: str) -> None:
    if problem:
        raise BenchError(f"figures that cannot be: {problem}")


def _sentence(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _median(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return round(statistics.median(present), 6) if present else None


def _peak(peaks: list[int | None]) -> float | None:
    present = [p for p in peaks if p is not None]
    return round(max(present) / _MIB, 3) if present else None


def _utc() -> str:
    """The time of now; milliseconds, because a session is told from others by when it began."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
