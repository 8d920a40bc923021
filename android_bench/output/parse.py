"""Reads the output of the programs that measure: of two called ``benchmark_model`` (TFLite's, LiteRT v2's), and of ours.

The last lines tell the first two apart. A figure is given only when the output is complete. The programs print their
averages twice: an output that was cut within a number disagrees with itself.

``runner/edgecls_runner.c`` prints ``edgecls runner 1``, then lines of a name and values: ``threads``, ``init_us``,
``first_us``, ``warmup_us`` and ``runs_us`` (each: how many, then the microseconds of every run), ``memory_kb``
(``init=`` and ``overall=`` are growths of ``ru_maxrss``, ``peak=`` its last value), and ``end`` with the number of runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from android_bench.errors import BenchError

_PREFIX = re.compile(r"^(?:(?:INFO|WARN|WARNING|ERROR): )?(?:\[[\w./-]+:\d+\] ?)?")
_NUMBER = r"([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
_PAIR = re.compile(rf"(\w+)={_NUMBER}")
_CLASSIC = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}"
)
# TF 1.13 and 1.14; "no stats" is the average of runs without profiling, not of the runs of the line above.
_CLASSIC_2019 = re.compile(
    rf"Average inference timings in us: Warmup: {_NUMBER}, Init: {_NUMBER}, no stats: {_NUMBER}"
)
_LITERT = re.compile(rf"(Model initialization|Inference \(avg\)): +{_NUMBER} ms(?: \((\d+) runs\))?$")
_RUNNER = "edgecls runner 1"
_RUNNER_FAILS = "edgecls_runner: "
_PROFILE = "Operator-wise Profiling Info"
_FAILURES = ("Benchmarking failed.", "Disallowed CPU fallback detected.")


class ParseError(BenchError):
    """The run failed, its output is torn, or it is not the output of such a program (exit code 1)."""


@dataclass(frozen=True)
class Stat:
    """Statistics of runs, in ms. Percentiles are None where the program is too old for them."""

    count: int
    first_ms: float
    min_ms: float
    max_ms: float
    mean_ms: float
    std_ms: float
    p5_ms: float | None = None
    median_ms: float | None = None
    p95_ms: float | None = None


@dataclass(frozen=True)
class Operator:
    """A row of the operator profile: time in ms, share of the total in percent, memory in KB."""

    type: str
    name: str
    avg_ms: float
    percent: float
    memory_kb: float
    calls: int


@dataclass(frozen=True)
class Output:
    """A complete, successful run. Memory in MiB (the programs print it as "MB"); ``*_delta_mib`` are growths of
    ``ru_maxrss``.

    ``kind`` is ``"tflite"``, ``"litert"`` or ``"edgecls"``; only the last tells single runs: ``samples_ms``.
    """

    kind: str
    warmup: Stat
    runs: Stat
    init_ms: float
    first_ms: float
    init_delta_mib: float | None = None
    overall_delta_mib: float | None = None
    peak_mib: float | None = None
    delegates: tuple[str, ...] = ()
    partly: tuple[str, ...] = ()
    layers: tuple[Operator, ...] = ()
    notes: tuple[str, ...] = field(default=())
    samples_ms: tuple[float, ...] = ()


def profile_json(layers: Sequence[Operator]) -> dict[str, Any]:
    """Operators for bench.json: ``by_type_ms``, over one inference and the costliest first, and ``layers``."""
    total: dict[str, float] = {}
    for layer in layers:
        total[layer.type] = total.get(layer.type, 0.0) + layer.avg_ms
    by_type = {kind: round(ms, 6) for kind, ms in sorted(total.items(), key=lambda item: -item[1])}
    return {"by_type_ms": by_type, "layers": [dataclasses.asdict(layer) for layer in layers]}


def parse(text: str, exit_code: int | None = 0) -> Output:
    """Reads one run's output.

    Args:
        text: stdout and stderr together.
        exit_code: The program's; None when the connection broke before it was known.

    Raises:
        ParseError: The program failed, ignored a flag, was cut off, or printed nothing usable; with the reason.
    """
    check_failure(text, exit_code)
    # Without its line end the last line may be cut inside a number.
    whole = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
    lines = [_PREFIX.sub("", line) for line in whole]
    if _RUNNER in lines:
        return _runner(lines[lines.index(_RUNNER) :], _delegates(lines))
    stats = [_stat(line) for line in lines if line.startswith("count=")]
    if len(stats) < 2:
        raise ParseError("the output ends before the runs did" if stats else "no benchmark_model output")
    warmup, runs = stats[0], stats[-1]
    if runs is None:
        raise ParseError("no run was measured (count=0)")
    first_ms = warmup.first_ms if warmup else runs.first_ms
    kind, init_ms = _summary(lines, runs)
    layers, notes = _layers(whole)
    memory = _memory(lines)
    return Output(
        kind=kind,
        warmup=warmup or Stat(0, *[0.0] * 5),
        runs=runs,
        init_ms=init_ms,
        first_ms=first_ms,
        delegates=_delegates(lines),
        partly=_delegates(lines, partly=True),
        init_delta_mib=memory["init_delta_mib"],
        overall_delta_mib=memory["overall_delta_mib"],
        peak_mib=memory["peak_mib"],
        layers=layers,
        notes=notes,
    )


def parse_profile(text: str) -> tuple[tuple[Operator, ...], tuple[str, ...]]:
    """The operators of LiteRT's profile table, and a note when the table is torn.

    The table is that of ``benchmark_model`` with blanks instead of tabs: a column ends where its header ends.
    """
    lines, ends = [_PROFILE], list[int]()
    for line in text.splitlines():
        if "[node type]" in line:
            ends = [found.end() for found in re.finditer(r"\[[^]]+\]", line)]
        ends = ends if line.strip() else []
        if ends:
            columns = itertools.pairwise([0, *ends[:-1], len(line)])
            line = "\t".join(["", *(line[begin:end] for begin, end in columns)])
        lines.append(line)
    return _layers(lines)


def check_failure(text: str, exit_code: int | None = 0) -> None:
    """Raises ParseError with the reason when the program failed, as its output and exit code tell."""
    raw = text.splitlines()
    lines = [_PREFIX.sub("", line) for line in (raw if text.endswith("\n") else raw[:-1])]
    for line in lines:
        if "Unconsumed cmdline flags" in line:
            raise ParseError(f"the program does not know {line.split(':', 1)[-1].strip()}")
    errors_of_ours = [line.removeprefix(_RUNNER_FAILS) for line in raw if line.startswith(_RUNNER_FAILS)]
    first_error = next((_PREFIX.sub("", line) for line in raw if line.startswith("ERROR: ")), "")
    reason = errors_of_ours[-1] if errors_of_ours else first_error
    if exit_code in (126, 127):
        why = "cannot be executed" if exit_code == 126 else "is not there"
        raise ParseError(f"the program {why} (exit code {exit_code})")
    if exit_code is None:
        raise ParseError("the connection broke before the program ended")
    if exit_code != 0:
        last = reason or (raw[-1].strip() if raw else "")
        raise ParseError(f"the program failed with exit code {exit_code}" + (f": {last}" if last else ""))
    failure = next((line for line in lines if line.startswith(_FAILURES)), "")
    if failure:
        raise ParseError(reason or failure)


def _runner(lines: list[str], delegates: tuple[str, ...]) -> Output:
    """The output of our own program. Raises ParseError when it is torn."""
    values = {name: rest.split() for name, _, rest in (line.partition(" ") for line in lines)}
    try:
        warmup, runs = (_samples(values[name]) for name in ("warmup_us", "runs_us"))
        memory = {
            name: int(kb) / 1024 for name, _, kb in (pair.partition("=") for pair in values["memory_kb"])
        }
        if int(*values["end"]) != len(runs):
            raise ValueError
        return Output(
            kind="edgecls",
            warmup=_statistics(warmup) if warmup else Stat(0, *[0.0] * 5),
            runs=_statistics(runs),
            init_ms=_positive(*values["init_us"]),
            first_ms=_positive(*values["first_us"]),
            init_delta_mib=memory["init"],
            overall_delta_mib=memory["overall"],
            peak_mib=memory["peak"],
            delegates=delegates,
            samples_ms=tuple(runs),
        )
    except KeyError as missing:
        raise ParseError(f"the output ends before the runs did: no {missing}") from None
    except (ValueError, TypeError, statistics.StatisticsError):
        raise ParseError("the output is torn") from None


def _samples(values: list[str]) -> list[float]:
    """Milliseconds of a count and that many microseconds."""
    count, *samples = values
    if int(count) != len(samples):
        raise ValueError
    return [_positive(us) for us in samples]


def _positive(us: str) -> float:
    ms = float(us) / 1e3
    if not 0 <= ms < math.inf:
        raise ValueError
    return round(ms, 6)


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
    values = {name: float(value) for name, value in _PAIR.findall(line)}
    if values.get("count") == 0:
        return None
    if "avg" not in values and "curr" in values:
        # All runs took the same time, or there was one only: the line says just that.
        every_run = values["curr"]
        values |= {"first": every_run, "min": every_run, "max": every_run, "avg": every_run, "std": 0.0}
    try:
        basic = [values[name] for name in ("first", "min", "max", "avg", "std")]
    except KeyError as missing:
        raise ParseError(f"the statistics are torn: no {missing}", where=line) from None
    low, high, mean = basic[1:4]
    # The average is printed with six digits.
    if not (math.isfinite(sum(basic)) and low <= high and low * 0.99999 <= mean <= high * 1.00001):
        raise ParseError("the statistics contradict themselves", where=line)
    first, low, high, mean, std = (round(value / 1e3, 6) for value in basic)
    p5, median, p95 = (values[n] / 1e3 if n in values else None for n in ("p5", "median", "p95"))
    return Stat(int(values["count"]), first, low, high, mean, std, p5, median, p95)


def _summary(lines: list[str], runs: Stat) -> tuple[str, float]:
    """The program's kind and the initialization in ms. Raises ParseError when the summary contradicts the statistics."""
    for line in reversed(lines):
        if found := _CLASSIC.search(line):
            init, _, _, mean = map(float, found.groups())
            _agree(mean / 1e3, runs.mean_ms, 1e-4, line)
            return "tflite", init / 1e3
        if found := _CLASSIC_2019.search(line):
            _, init, mean = map(float, found.groups())
            _agree(mean / 1e3, runs.mean_ms, 0.2, line)
            return "tflite", init / 1e3
    if not any("BENCHMARK RESULTS" in line for line in lines):
        raise ParseError("the output ends before its summary")
    results = {found[1]: found for line in lines if (found := _LITERT.search(line))}
    if len(results) < 2 or not re.fullmatch("=+", next(filter(None, reversed(lines)), "")):
        raise ParseError("the output ends within its summary")
    mean_line = results["Inference (avg)"]
    # Rounded to 0.01 ms there.
    _agree(float(mean_line[2]), runs.mean_ms, 1e-4 + 0.0051 / max(runs.mean_ms, 1e-9), mean_line[0])
    if mean_line[3] and int(mean_line[3]) != runs.count:
        raise ParseError("the summary contradicts the statistics", where=mean_line[0])
    exact = [m for line in lines if (m := re.match(rf"Initialized session in {_NUMBER}ms", line))]
    return "litert", float(exact[-1][1] if exact else results["Model initialization"][2])


def _agree(summary: float, statistics: float, tolerance: float, line: str) -> None:
    if abs(summary - statistics) > tolerance * max(abs(statistics), 1e-9):
        raise ParseError("the summary is torn or contradicts the statistics", where=line)


def _memory(lines: list[str]) -> dict[str, float | None]:
    patterns = {
        "init_delta_mib": (rf"Memory footprint delta .*init={_NUMBER} ", rf"Init footprint: +{_NUMBER} MB"),
        "overall_delta_mib": (
            rf"Memory footprint delta .*overall={_NUMBER}",
            rf"Overall footprint: +{_NUMBER} MB",
        ),
        "peak_mib": (rf"[Pp]eak memory (?:footprint|usage)[^:]*: +{_NUMBER}",),
    }
    found: dict[str, float | None] = dict.fromkeys(patterns)
    for line in lines:
        for name, choices in patterns.items():
            for pattern in choices:
                if match := re.search(pattern, line):
                    found[name] = float(match[1])
    return found


_APPLIED = re.compile(
    r"Created TensorFlow Lite (?:(?P<a>\w+) delegate for CPU|delegate for (?P<b>\w+))|"
    r"[Aa]pplied (?P<c>\w+) delegate(?P<part>.*partially executed)?"
)
_REPLACED = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\)")
_UNUSED = re.compile(
    r"Though (\w+) delegate is (?:explicitly )?applied, the model graph will not be executed"
)
_DELEGATE_NAMES = {"xnnpack": "XNNPACK", "gpu": "GPU", "litert_cl": "GPU", "nnapi": "NNAPI"}


def _delegates(lines: list[str], *, partly: bool = False) -> tuple[str, ...]:
    """The delegates that took the graph or a part of it; with ``partly`` only those that took a part."""
    found: dict[str, bool] = {}
    for line in lines:
        if match := _UNUSED.search(line):
            found.pop(match[1], None)
        elif match := _APPLIED.search(line):
            found[match["a"] or match["b"] or match["c"]] = bool(match["part"])
        elif match := _REPLACED.search(line):
            name = next((n for key, n in _DELEGATE_NAMES.items() if key in match[3].lower()), match[3])
            found[name] = found.get(name, False) or match[1] != match[2]
    return tuple(name for name, part in found.items() if part or not partly)


def _layers(lines: list[str]) -> tuple[tuple[Operator, ...], tuple[str, ...]]:
    """The operators of the measured runs in their order. A torn table gives none, and a note."""
    begin = next((i for i, line in enumerate(lines) if _PROFILE in line), None)
    if begin is None:
        return (), ()
    rows = list(_rows(lines[begin:]))
    executed = next(
        (m for line in lines[begin:] if (m := re.match(r"Number of nodes executed: (\d+)", line))), None
    )
    try:
        if executed is None or int(executed[1]) != len(rows):
            raise ValueError
        return tuple(_operator(row) for row in rows), ()
    except (KeyError, ValueError):
        return (), ("the operator profile is torn and left out",)


def _rows(lines: list[str]) -> Iterator[dict[str, str]]:
    """Rows of the first table by the names in its header; columns come and go with the versions."""
    header: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.split("\t")[1:]]
        if not header:
            if cells and cells[0].lower() == "[node type]":
                header = [cell.strip("[]").lower() for cell in cells]
        elif len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))
        else:
            return


def _operator(row: dict[str, str]) -> Operator:
    return Operator(
        type=row["node type"],
        name=row["name"],
        avg_ms=float(row["avg ms"]),
        percent=float(row["%"].rstrip("%")),
        memory_kb=float(row["mem kb"]),
        calls=int(row["times called"]),
    )
