"""The figures of one run of a program that measures, and why there may be none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from android_bench.errors import BenchError
from android_bench.output.operators import Operator
from android_bench.output.plausible import problem
from android_bench.words import printable


class ParseError(BenchError):
    """The run failed, its output is torn, its figures cannot be, or it is no such output at all (exit code 1)."""

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=short(where), fix=fix)


class NoSummary(ParseError):
    """The program ran, and its output has no summary. LiteRT's may have gone to Android's log (exit code 1)."""


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
class Output:
    """A complete, successful run. Memory in MiB (the programs print it as "MB"); ``*_delta_mib`` are growths of
    ``ru_maxrss``.

    ``kind`` is ``"tflite"``, ``"litert"``, ``"python"`` (LiteRT's benchmark in Python) or ``"edgecls"``; only the last
    tells single runs: ``samples_ms``.
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


NO_RUNS = Stat(0, *[0.0] * 5)


def summary_output(
    kind: str,
    runs: dict[str, float],
    count: int,
    first_ms: float,
    init_ms: float,
    warmup_ms: float,
    warmup_count: int,
    *,
    step_ms: float,
    memory: dict[str, Any] | None = None,
) -> Output:
    """The output of a program that tells a summary of its runs and nothing else.

    Args:
        kind: As of ``Output``.
        runs: Statistics of the measured runs, by the names of ``Stat``.
        count: Their number.
        first_ms: The first inference.
        init_ms: Loading and preparing the model.
        warmup_ms: Mean of the warm-up runs, which nothing more is known of.
        warmup_count: Their number.
        step_ms: The figures are rounded to multiples of this.
        memory: ``init_delta_mib``, ``overall_delta_mib`` and ``peak_mib``, as far as they are known.

    Raises:
        ParseError: The figures cannot be.
    """
    figures = {"count": count, "init_ms": init_ms, "first_ms": first_ms, **runs}
    if why := problem(figures, step_ms=step_ms):
        raise ParseError(f"figures that cannot be: {why}")
    warmup = Stat(warmup_count, first_ms, warmup_ms, warmup_ms, warmup_ms, 0.0) if warmup_count else NO_RUNS
    stat = Stat(count=count, first_ms=first_ms, **runs)
    return Output(kind, warmup, stat, init_ms, first_ms, **(memory or {}))


def short(line: str) -> str:
    """A line as it may stand in an error, or in a note."""
    line = printable(line)
    return line if len(line) <= 200 else line[:197] + "..."
