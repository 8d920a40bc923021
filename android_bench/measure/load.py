"""How many cores other programs used while ours ran, from the phone's own counters."""

from __future__ import annotations

import re

# The line of all cores (proc(5)) and the seconds since the phone started: a clock that nobody sets.
COUNTERS = "head -n 1 /proc/stat 2>/dev/null; cat /proc/uptime 2>/dev/null"
_MIN_S = 0.5  # in a shorter time the ticks are too coarse to tell the load
_TICKS = 100  # USER_HZ, the same on every Android


def foreign_cores(begin: str, end: str, cores: int) -> tuple[float | None, str]:
    """Cores that other programs used.

    Args:
        begin: What ``COUNTERS`` printed before,
        end: and after the program, with what the shell's ``times`` printed in front.
        cores: How many the phone has.

    Returns:
        None where the phone does not tell, and why its counters are not believed ("" where they are).
    """
    first, last = (re.search(r"^cpu +(.+)\n(\d+\.\d+)\b", text, re.MULTILINE) for text in (begin, end))
    own = re.findall(r"(\d+)m(\d+(?:\.\d+)?)s", end)
    if not (first and last and len(own) == 4):
        return None, ""
    ours = sum(60 * int(minutes) + float(seconds) for minutes, seconds in own[2:])
    seconds = float(last[2]) - float(first[2])
    if seconds < 0 or ours > 1.2 * cores * seconds + 0.5:
        return (
            None,
            f"the phone's clock is impossible ({seconds:.1f} s, and our program computed for {ours:.1f} s)",
        )
    if seconds < _MIN_S:
        return None, ""
    everything = (_ticks(last[1]) - _ticks(first[1])) / _TICKS
    busy = (_busy(last[1]) - _busy(first[1])) / _TICKS
    # Every core that is online counts one second a second, idle or not.
    if everything < 0.25 * seconds:
        return None, "the phone's load counter stands still"
    if not 0.5 * ours - 0.5 <= busy <= 1.2 * cores * seconds + 0.5:
        return None, f"the phone's load is impossible ({busy:.1f} s of {cores} cores in {seconds:.1f} s)"
    return round(max(0.0, (busy - ours) / seconds), 3), ""


def _ticks(stat: str) -> int:
    return sum(map(int, stat.split()[:8]))


def _busy(stat: str) -> int:
    """user + nice + system + irq + softirq (proc(5)), in ticks."""
    fields = [int(field) for field in stat.split()]
    return sum(fields[:3]) + sum(fields[5:7])
