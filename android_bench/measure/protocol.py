"""The rules of a measurement, and the result of one round; the same for this computer and for phones."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

from android_bench.devices.target import COOL_C
from android_bench.errors import BenchUsageError
from android_bench.models import ModelFile
from android_bench.output.parse import Stat

Listener = Callable[[dict[str, Any]], None]

PROTOCOLS = ("standard", "mlperf")
DELEGATES = ("cpu", "gpu", "nnapi", "npu")


@dataclass(frozen=True)
class Protocol:
    """The rules of a measurement.

    Attributes:
        name: ``"standard"`` or ``"mlperf"``.
        warmup: Minimum number of warm-up runs before a round.
        warmup_s: Minimum number of seconds of warm-up.
        runs: Minimum number of measured runs in a round.
        run_s: Minimum number of seconds of measured runs.
        max_s: Neither warm-up nor round starts another run after this many seconds.
        rounds: Number of rounds of each model and thread count.
        spacing_s: Rounds start at least this many seconds apart, because clocks drift over tens of seconds.
        repeats: Maximum number of times that disturbed rounds are measured again.
        off_limit: A round is disturbed when its median differs from the others' by more than this share,
        wait_limit: or when our threads waited for a core for more than this share of the time. (Or when other programs
            use more cores than the device's ``foreign_limit``.)
        cool_c: A phone that is warmer (Celsius, of its skin or else its battery) is waited for before a round,
        cool_s: for at most this many seconds.
        seed: Seed of the input and of the bootstrap.
    """

    name: str = "standard"
    warmup: int = 10
    warmup_s: float = 0.5
    runs: int = 30
    run_s: float = 0.5
    max_s: float = 150.0
    rounds: int = 5
    spacing_s: float = 6.0
    repeats: int = 3
    off_limit: float = 0.10
    wait_limit: float = 0.05
    cool_c: float = COOL_C
    cool_s: float = 300.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise BenchUsageError(f"no protocol {self.name!r}", fix=f"there are {', '.join(PROTOCOLS)}")
        for limit, names in (
            (1, ("runs", "rounds")),
            (0, ("warmup", "warmup_s", "run_s", "spacing_s", "repeats")),
        ):
            for name in names:
                if not limit <= getattr(self, name) < math.inf:
                    raise BenchUsageError(
                        f"{name} must be at least {limit} and finite, not {getattr(self, name)}"
                    )
        if self.name == "mlperf":
            # The rules of MLPerf Mobile v4: at least 1,024 samples and 60 s. More may be asked for.
            object.__setattr__(self, "runs", max(self.runs, 1024))
            object.__setattr__(self, "run_s", max(self.run_s, 60.0))
            object.__setattr__(self, "max_s", max(self.max_s, 600.0))


@dataclass(frozen=True)
class Loaded:
    """A model that is ready: ``init_ms`` for loading and preparing it, ``first_ms`` for the first inference."""

    init_ms: float
    first_ms: float
    details: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class Round:
    """One round of runs in ms, and what disturbed it. A value is None where the device does not tell it.

    Attributes:
        samples_ms: The runs. ``benchmark_model`` prints only their statistics: then this is empty and ``stat`` is given.
        warmup_runs: Number of warm-up runs.
        foreign_cores: Cores that other programs used meanwhile.
        wait: Share of the time in which our threads were ready but had no core.
        switches: Number of involuntary context switches.
        seconds: Duration of the round.
        peak_bytes: Peak of memory above what the process had before loading.
        peak_total_bytes: Whole peak of memory.
        power_mw: Power of the whole device.
        stat: Statistics of the runs.
        why: The device's reason to distrust the round, e.g. heat; empty if it has none.
        notes: What must be said about the round, e.g. readings of the device that were not used.
        details: More fields for bench.json.
    """

    samples_ms: list[float]
    warmup_runs: int = 0
    foreign_cores: float | None = None
    wait: float | None = None
    switches: int | None = None
    seconds: float = 0.0
    peak_bytes: int | None = None
    peak_total_bytes: int | None = None
    power_mw: float | None = None
    stat: Stat | None = None
    why: str = ""
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of measured runs."""
        return self.stat.count if self.stat else len(self.samples_ms)

    @property
    def energy_mj(self) -> float | None:
        """Energy of one inference in mJ, of the whole device; None where the power is not known."""
        return None if self.power_mw is None else round(self.power_mw * self.mean_ms / 1e3, 6)

    @property
    def mean_ms(self) -> float:
        """Mean of the runs."""
        return self.stat.mean_ms if self.stat else statistics.fmean(self.samples_ms)

    @property
    def median_ms(self) -> float:
        """Median of the runs; the mean where a program is too old to print the median."""
        if self.stat is None:
            return statistics.median(self.samples_ms)
        return self.stat.mean_ms if self.stat.median_ms is None else self.stat.median_ms


class Runner(Interface):
    """One model with one thread count on a device."""

    def load(self) -> Loaded: ...

    def measure(self, protocol: Protocol) -> Round: ...

    def close(self) -> None: ...


class Backend(Interface):
    """A device to measure on. ``cores``: how many we may use; ``foreign_limit``: how many others may use."""

    cores: int
    foreign_limit: float

    def describe(self) -> dict[str, Any]: ...

    def identity(self, threads: Sequence[int]) -> dict[str, Any]:
        """All of the device and its program that figures with these thread counts depend on.

        It may hold what must not be told, such as a serial: only a hash of it may be stored.
        """
        ...

    def state(self) -> dict[str, Any]: ...

    def open(self, model: ModelFile, threads: int, seed: int) -> Runner: ...

    def settle(self) -> bool: ...

    def rest(self, seconds: float) -> None: ...
