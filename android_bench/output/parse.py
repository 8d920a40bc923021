"""Reads the output of the programs that measure: of those called ``benchmark_model`` (TFLite's, LiteRT v2's and its
twin in Python), and of ours.

The last lines tell them apart. A figure is given only when the output is complete and its figures can be
(``plausible``). The programs print their averages twice: an output that was cut within a number disagrees with itself.

``runner/edgecls_runner.c`` prints ``edgecls runner 1``, then lines of a name and values: ``threads``, ``init_us``,
``first_us``, ``warmup_us`` and ``runs_us`` (each: how many, then the microseconds of every run), ``memory_kb``
(``init=`` and ``overall=`` are growths of ``ru_maxrss``, ``peak=`` its last value), and ``end`` with the number of runs.
"""

from __future__ import annotations

import dataclasses
import io
import re
import statistics
from collections.abc import Iterator
from typing import Any

from android_bench.output.delegates import Delegates
from android_bench.output.figures import NO_RUNS, NoSummary, Output, ParseError, Stat, short, summary_output
from android_bench.output.operators import PROFILE, operators
from android_bench.output.plausible import is_memory, problem
from android_bench.output.result_files import read_result

__all__ = ["LONGEST", "NoSummary", "Output", "ParseError", "Stat", "check_failure", "parse"]

#: Programs print some kilobytes, with the times of a thousand operators about a megabyte.
LONGEST = 16 * 2**20
_PREFIX = re.compile(r"^(?:(?:INFO|WARN|WARNING|ERROR): )?(?:\[[\w./-]+:\d+\] ?)?")
_NUMBER = r"([-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)"
_PAIR = re.compile(r"\b(count|first|curr|min|max|avg|std|p5|median|p95)=(\S*)")
_CLASSIC = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}"
)
# TF 1.13 and 1.14; "no stats" is the average of runs without profiling, not of the runs of the line above.
_CLASSIC_2019 = re.compile(
    rf"Average inference timings in us: Warmup: {_NUMBER}, Init: {_NUMBER}, no stats: {_NUMBER}"
)
_LITERT = re.compile(
    rf"(Model initialization|(?:Warmup|Inference) \(\w+\)): +{_NUMBER}(?: ms)?(?: \((\d+) runs\))?$"
)
_SESSION = re.compile(rf"Initialized session in {_NUMBER}ms")
_MEMORY = (
    (
        "init_delta_mib",
        re.compile(rf"Memory footprint delta .*init={_NUMBER} |Init footprint: +{_NUMBER} MB"),
    ),
    (
        "overall_delta_mib",
        re.compile(rf"Memory footprint delta .*overall={_NUMBER}|Overall footprint: +{_NUMBER} MB"),
    ),
    ("peak_mib", re.compile(rf"[Pp]eak memory(?: footprint| usage)?[^:]*: +{_NUMBER}")),
)
_RUNNER = "edgecls runner 1"
_RUNNER_FAILS = "edgecls_runner: "
_RUNNER_LINES = ("init_us", "first_us", "warmup_us", "runs_us", "memory_kb", "end")
_FAILURES = ("Benchmarking failed.", "Disallowed CPU fallback detected.")


def parse(text: str, exit_code: int | None = 0, result: bytes | None = None) -> Output:
    """Reads one run's output, line by line.

    Args:
        text: stdout and stderr together.
        exit_code: The program's; None when the connection broke before it was known.
        result: The content of the program's result file, if it has one and the output has no summary.

    Raises:
        NoSummary: The figures are not in the output.
        ParseError: The program failed, ignored a flag, was cut off, printed too much, nothing usable, or figures that
            cannot be; with the reason, and the line that is wrong.
    """
    check_failure(text, exit_code)
    reader = _Reader()
    # Without its line end the last line may be cut inside a number.
    for line in _lines(text[: text.rfind("\n") + 1]):
        reader.read(line)
    output = reader.output() if result is None else reader.output_of(read_result(result))
    if why := problem({"init_ms": output.init_ms, "first_ms": output.first_ms}):
        raise ParseError(f"figures that cannot be: {why}", where=reader.summary)
    return output


def check_failure(text: str, exit_code: int | None = 0) -> None:
    """Raises ParseError with the reason when the program failed, as its output and exit code tell."""
    if len(text) > LONGEST:
        raise ParseError(f"the program printed more than {LONGEST >> 20} MiB")
    ours = first_error = failure = last = ""
    for raw in _lines(text):
        line = _PREFIX.sub("", raw)
        if "Unconsumed cmdline flags" in line:
            raise ParseError(f"the program does not know {short(line.split(':', 1)[-1].strip())}")
        if raw.startswith(_RUNNER_FAILS):
            ours = raw.removeprefix(_RUNNER_FAILS)
        if raw.startswith("ERROR: "):
            first_error = first_error or line
        if line.startswith(_FAILURES):
            failure = failure or line
        last = raw
    reason = short(ours or first_error)
    if exit_code in (126, 127):
        why = "cannot be executed" if exit_code == 126 else "is not there"
        raise ParseError(f"the program {why} (exit code {exit_code})")
    if exit_code is None:
        raise ParseError("the connection broke before the program ended")
    if exit_code != 0:
        said = reason or short(last.strip())
        raise ParseError(f"the program failed with exit code {exit_code}" + (f": {said}" if said else ""))
    if failure:
        raise ParseError(reason or failure)


class _Reader:
    """What was read so far. ``summary`` is the line with the initialization."""

    def __init__(self) -> None:
        self.summary = ""
        self._delegates = Delegates()
        self._stats: list[Stat | None] = []  # the first and the last
        self._runner: dict[str, list[str]] | None = None
        self._classic: tuple[float, float, float] | None = None  # init, mean (us), how well the mean agrees
        self._results: dict[str, re.Match[str]] | None = None
        self._session_ms: float | None = None
        self._last = ""
        self._memory: dict[str, Any] = {name: None for name, _ in _MEMORY}
        self._notes: list[str] = []
        self._profile: list[str] = []

    def read(self, raw: str) -> None:
        line = _PREFIX.sub("", raw)
        self._delegates.read(line)
        if self._profile or PROFILE in raw:
            self._profile.append(raw)
        if line == _RUNNER:
            self._runner = {}
        elif self._runner is not None:
            name, _, values = line.partition(" ")
            if name in _RUNNER_LINES:
                self._runner[name] = values.split()
        elif line.startswith("count="):
            self._stats[1:] = [_stat(line)]
        elif "timings in us" in line:
            self._read_classic(line)
        elif "BENCHMARK RESULTS" in line:
            self._results = {}
        elif found := _LITERT.search(line):
            if self._results is not None:
                self._results[found[1]] = found
        elif found := _SESSION.match(line):
            self._session_ms = float(found[1])
        elif "memory" in line.lower() or "footprint" in line:
            self._read_memory(line)
        self._last = line or self._last

    def _read_classic(self, line: str) -> None:
        if found := _CLASSIC.search(line):
            init, _, _, mean = map(float, found.groups())
            self._classic, self.summary = (init, mean, 1e-4), line
        elif found := _CLASSIC_2019.search(line):
            _, init, mean = map(float, found.groups())
            self._classic, self.summary = (init, mean, 0.2), line

    def _read_memory(self, line: str) -> None:
        for name, pattern in _MEMORY:
            if found := pattern.search(line):
                mib = float(next(filter(None, found.groups())))
                self._memory[name] = mib if is_memory(mib) else None
                if not is_memory(mib):
                    self._notes.append(f"memory that cannot be is left out ({short(line)})")

    def output(self) -> Output:
        """The figures. Raises ParseError when they are not all there, or contradict each other."""
        if self._runner is not None:
            return _runner(self._runner, self._delegates)
        twin = self._results is not None and "Inference (median)" in self._results
        if twin and not self._stats:
            return self._python_twin()
        if len(self._stats) < 2:
            raise NoSummary(
                "the output ends before the runs did" if self._stats else "no benchmark_model output"
            )
        warmup, runs = self._stats
        if runs is None:
            raise ParseError("no run was measured (count=0)")
        kind, init_ms = self._summary(runs)
        layers, notes = operators(self._profile)
        return Output(
            kind=kind,
            warmup=warmup or NO_RUNS,
            runs=runs,
            init_ms=init_ms,
            first_ms=(warmup or runs).first_ms,
            delegates=self._delegates.used,
            partly=self._delegates.partly,
            layers=layers,
            notes=(*self._notes, *notes),
            **self._memory,
        )

    def output_of(self, file: Output) -> Output:
        """The figures of a result file, with what only the output says."""
        layers, notes = operators(self._profile)
        said: dict[str, Any] = {"delegates": self._delegates.used, "partly": self._delegates.partly}
        return dataclasses.replace(file, **said, layers=layers, notes=(*self._notes, *notes))

    def _summary(self, runs: Stat) -> tuple[str, float]:
        """The program's kind and the initialization in ms. Raises ParseError when they contradict the statistics."""
        if self._classic:
            init, mean, tolerance = self._classic
            _agree(mean / 1e3, runs.mean_ms, tolerance, self.summary)
            return "tflite", init / 1e3
        results = self._whole_results()
        mean_line = results["Inference (avg)"]
        # Rounded to 0.01 ms there.
        _agree(float(mean_line[2]), runs.mean_ms, 1e-4 + 0.0051 / max(runs.mean_ms, 1e-9), mean_line[0])
        if mean_line[3] and int(mean_line[3]) != runs.count:
            raise ParseError("the summary contradicts the statistics", where=mean_line[0])
        rounded = float(results["Model initialization"][2])
        return "litert", rounded if self._session_ms is None else self._session_ms

    def _whole_results(self) -> dict[str, re.Match[str]]:
        """The lines of LiteRT's summary. Raises ParseError when it is not whole."""
        if self._results is None:
            raise NoSummary("the output ends before its summary")
        if not {"Model initialization", "Inference (avg)"} <= self._results.keys() or not re.fullmatch(
            "=+", self._last
        ):
            raise ParseError("the output ends within its summary")
        self.summary = self._results["Model initialization"][0]
        return self._results

    def _python_twin(self) -> Output:
        """The figures of LiteRT's benchmark in Python, which prints a summary only, in hundredths of a ms."""
        results = self._whole_results()
        names = {"min": "min_ms", "max": "max_ms", "avg": "mean_ms", "std": "std_ms", "p5": "p5_ms", "median": "median_ms",
                 "p95": "p95_ms"}  # fmt: skip
        ms = {name: float(found[2]) for name, found in results.items()}
        try:
            runs = {field: ms[f"Inference ({word})"] for word, field in names.items()}
            first, warmup_ms = ms["Warmup (first)"], ms["Warmup (avg)"]
            count, warmup_count = (int(results[f"{what} (avg)"][3]) for what in ("Inference", "Warmup"))
        except (KeyError, TypeError):
            raise ParseError("the output ends within its summary") from None
        return summary_output(
            "python", runs, count, first, ms["Model initialization"], warmup_ms, warmup_count, step_ms=0.01
        )


def _runner(values: dict[str, list[str]], delegates: Delegates) -> Output:
    """The output of our own program. Raises ParseError when it is torn."""
    try:
        warmup, runs = (_samples(values[name]) for name in ("warmup_us", "runs_us"))
        memory = {
            name: int(kb) / 1024 for name, _, kb in (pair.partition("=") for pair in values["memory_kb"])
        }
        if int(*values["end"]) != len(runs) or not all(map(is_memory, memory.values())):
            raise ValueError
        return Output(
            kind="edgecls",
            warmup=_statistics(warmup) if warmup else NO_RUNS,
            runs=_statistics(runs),
            init_ms=_ms(*values["init_us"]),
            first_ms=_ms(*values["first_us"]),
            init_delta_mib=memory["init"],
            overall_delta_mib=memory["overall"],
            peak_mib=memory["peak"],
            delegates=delegates.used,
            samples_ms=tuple(runs),
        )
    except KeyError as missing:
        raise ParseError(f"the output ends before the runs did: no {missing}") from None
    except (ValueError, TypeError, statistics.StatisticsError):
        raise ParseError("the output is torn") from None


def _samples(values: list[str]) -> list[float]:
    """Milliseconds of a count and that many microseconds. Raises ParseError for a time that cannot be."""
    count, *samples = values
    if int(count) != len(samples):
        raise ValueError
    times = [_ms(us) for us in samples]
    for us, ms in zip(samples, times, strict=True):
        if why := problem({"first_ms": ms}):
            raise ParseError(f"a time that cannot be: {why.removeprefix('first_')}", where=f"{us} us")
    return times


def _ms(us: str) -> float:
    """Milliseconds of microseconds."""
    if not re.fullmatch(_NUMBER, us):
        raise ValueError
    return round(float(us) / 1e3, 6)


def _statistics(samples: list[float]) -> Stat:
    ordered = sorted(samples)
    p5, p95 = (ordered[int(share * (len(ordered) - 1) + 0.5)] for share in (0.05, 0.95))
    return Stat(
        count=len(samples),
        first_ms=samples[0],
        min_ms=ordered[0],
        max_ms=ordered[-1],
        mean_ms=statistics.fmean(samples),
        std_ms=statistics.pstdev(samples),
        p5_ms=p5,
        median_ms=statistics.median(ordered),
        p95_ms=p95,
    )


def _stat(line: str) -> Stat | None:
    """The statistics of a ``count=...`` line (microseconds there), None for ``count=0``."""
    pairs = _PAIR.findall(line.replace("(all same)", " "))
    for name, text in pairs:
        if not re.fullmatch(_NUMBER, text):
            raise ParseError(f"the statistics are torn: {name} is no number", where=line)
    values = {name: float(text) for name, text in pairs}
    if len(values) < len(pairs) or not values.get("count", 0.5).is_integer():
        raise ParseError("the statistics are torn", where=line)
    if values["count"] == 0:
        return None
    if "avg" not in values and "curr" in values:
        # All runs took the same time, or there was one only: the line says just that.
        every_run = values["curr"]
        values |= {"first": every_run, "min": every_run, "max": every_run, "avg": every_run, "std": 0.0}
    try:
        times = {f"{name}_ms": values[key] for name, key in _TIMES}
    except KeyError as missing:
        raise ParseError(f"the statistics are torn: no {missing}", where=line) from None
    times |= {f"{name}_ms": values[name] for name in ("p5", "median", "p95") if name in values}
    stat = Stat(count=int(values["count"]), **{name: round(us / 1e3, 6) for name, us in times.items()})
    if why := problem(dataclasses.asdict(stat)):
        raise ParseError(f"the statistics contradict themselves or cannot be: {why}", where=line)
    return stat


_TIMES = (("first", "first"), ("min", "min"), ("max", "max"), ("mean", "avg"), ("std", "std"))


def _agree(summary: float, statistics: float, tolerance: float, line: str) -> None:
    if abs(summary - statistics) > tolerance * max(abs(statistics), 1e-9):
        raise ParseError("the summary is torn or contradicts the statistics", where=line)


def _lines(text: str) -> Iterator[str]:
    """The lines without their ends, one at a time."""
    return (line.rstrip("\n") for line in io.StringIO(text, newline=None))
