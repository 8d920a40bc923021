"""The options of a measurement, the same for ``python -m android_bench`` and ``edgecls bench``.

Defaults and limits are those of ``Protocol``, so that a number is written in one place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from android_bench.errors import BenchUsageError
from android_bench.measure.protocol import DELEGATES, PROTOCOLS, Protocol
from android_bench.models import parse_threads

_Function = TypeVar("_Function", bound=Callable[..., Any])
_DOCUMENT = click.Path(exists=True, path_type=Path)


class ThreadCounts(click.ParamType):
    """``1,2,4`` as a list of thread counts."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """The list. A value that is none is refused with the reason."""
        try:
            return parse_threads(value)
        except BenchUsageError as error:
            self.fail(error.what, param, ctx)


class FiniteRange(click.FloatRange):
    """A number of a range. nan and inf are refused: no limit is met or broken by them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. A value that is none is refused with the reason."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def bench_options(*, device: str | None, threads: str | None, **counts: int | None) -> Callable[..., Any]:
    """Adds the options to a command.

    Args:
        device: Default of ``--device``; None: the command has its own way to find one. So for the others.
        threads: Default of ``--threads``.
        **counts: Other defaults of ``warmup``, ``runs`` and ``rounds`` than those of ``Protocol``.

    The command gets ``device threads warmup runs rounds spacing_s repeats protocol profile delegate binary wait seed fresh
    compare``, which are arguments of ``bench``, and ``baseline max_regress watch``.
    """

    def count(name: str, least: int, text: str) -> Callable[[_Function], _Function]:
        default = counts.get(name, getattr(Protocol, name))
        return click.option(
            f"--{name}", type=click.IntRange(least), default=default, show_default=True, help=text
        )

    options = [
        click.option(
            "--device",
            default=device,
            show_default=True,
            shell_complete=_devices,
            help="host, a name of devices.yaml, a phone's serial, host:port, or a chip such as sd855.",
        ),
        click.option(
            "--threads",
            multiple=True,
            type=ThreadCounts(),
            callback=_joined,
            default=threads and [threads],
            show_default=True,
            help="Thread counts, for example 1,2,4.",
        ),
        count("warmup", 0, "Minimum number of warm-up runs before each round."),
        count("runs", 1, "Minimum number of measured runs in each round."),
        count("rounds", 1, "Number of rounds; files and thread counts take turns."),
        click.option(
            "--spacing",
            "spacing_s",
            type=FiniteRange(0),
            default=Protocol.spacing_s,
            show_default=True,
            metavar="S",
            help="Minimum number of seconds from one round of a file to its next.",
        ),
        count("repeats", 0, "Maximum number of times that disturbed rounds are measured again."),
        click.option(
            "--protocol",
            type=click.Choice(PROTOCOLS),
            default=Protocol.name,
            show_default=True,
            help="mlperf: at least 1,024 runs and 60 s a round.",
        ),
        click.option("--profile", is_flag=True, help="Time the single operators too, in a run of their own."),
        click.option(
            "--delegate",
            type=click.Choice(DELEGATES),
            default=DELEGATES[0],
            show_default=True,
            help="What computes on the phone, as far as its program has it; cpu is XNNPACK.",
        ),
        click.option(
            "--binary",
            type=click.Path(path_type=Path),
            help="The benchmark_model to run on the phone.  [env: EDGECLS_BENCHMARK_MODEL]",
        ),
        click.option("--wait", is_flag=True, help="Wait for a phone on which somebody else measures."),
        click.option(
            "--seed",
            type=int,
            default=Protocol.seed,
            show_default=True,
            help="Seed of the random input and of the bootstrap.",
        ),
        click.option(
            "--watch",
            is_flag=True,
            help="Show a live table while rounds come in; without a terminal a line for each round.",
        ),
        click.option("--fresh", is_flag=True, help="Measure again what was measured before."),
        click.option(
            "--baseline",
            type=_DOCUMENT,
            help="An earlier bench.json; fail (exit code 4) if a median is longer than there.",
        ),
        click.option(
            "--max-regress",
            default="5%",
            show_default=True,
            metavar="SHARE",
            help="How much longer a median may be than in --baseline.",
        ),
        click.option(
            "--compare",
            is_flag=True,
            help="Is the second faster? Two .tflite files are measured by turns; of two bench.json, or folders (runs) "
            "that have one, nothing is measured.",
        ),
    ]

    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def measured_before(named: Sequence[str | Path]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What ``--compare`` names, if it was measured before: two documents; None for two files to measure.

    Raises:
        BenchUsageError: It does not name two, or only one of the two was measured.
    """
    if len(named) != 2:
        raise BenchUsageError(f"--compare takes two files, not {len(named)}", fix="name A and B")
    models = [Path(name).suffix == ".tflite" and not Path(name).is_dir() for name in named]
    if all(models):
        return None
    if any(models):
        raise BenchUsageError(
            "a .tflite file and something else cannot be compared", where="--compare",
            fix="name two .tflite files, or two bench.json",
        )  # fmt: skip
    from android_bench.output.documents import read_json

    a, b = map(read_json, named)
    return a, b


def _joined(ctx: click.Context, param: click.Parameter, lists: tuple[list[int], ...]) -> list[int] | None:
    """The thread counts of an option that is given any number of times; None where it is not given."""
    return list(dict.fromkeys(count for counts in lists for count in counts)) or None


def _devices(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """This computer and the names of devices.yaml, for the shell."""
    from android_bench.devices.profiles import entries

    return [CompletionItem(name) for name in ("host", *entries()) if name.startswith(incomplete)]
