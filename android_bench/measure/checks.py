"""Whether what a device gave can be, before it becomes a figure; ``output.plausible`` has the rules."""

from __future__ import annotations

import dataclasses

from android_bench.measure.protocol import Loaded, Protocol, Round
from android_bench.output.plausible import LONGEST_MS, SHORTEST_MS, problem


def loaded_problem(loaded: Loaded) -> str:
    """Why a model cannot have been loaded so; empty where it can."""
    return problem({"init_ms": loaded.init_ms, "first_ms": loaded.first_ms})


def round_problem(given: Round, protocol: Protocol | None = None) -> str:
    """Why a round cannot be; empty where it can.

    Args:
        given: The round.
        protocol: If given, the runs must have had the time for it.

    Example:
        >>> round_problem(Round([1.2, 0.0, 1.1]))
        'a run of 0 ms'
    """
    if not given.n:
        return "no runs"
    if given.stat:
        longest, why = given.stat.max_ms, problem(dataclasses.asdict(given.stat))
    else:
        longest = max(given.samples_ms)
        bad = next((ms for ms in given.samples_ms if not SHORTEST_MS <= ms <= LONGEST_MS), None)
        why = "" if bad is None else f"a run of {bad:g} ms"
    if why or protocol is None:
        return why
    # No run starts after max_s, so only the last one may end later.
    if given.n * given.mean_ms > 1.01 * (1e3 * protocol.max_s + longest):
        return f"{given.n} runs of {given.mean_ms:g} ms take more than the {protocol.max_s:g} s that they had"
    return ""
