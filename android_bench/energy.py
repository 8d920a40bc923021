"""Energy of one inference, from the battery's own current and voltage while the program runs.

It is the energy of the whole phone, its screen and services included, and is known only while the phone runs from its
battery and lets its shell read ``/sys/class/power_supply/battery``. On a charger nothing can be said.
"""

from __future__ import annotations

import re
import shlex
import statistics

_BATTERY = "/sys/class/power_supply/battery"
# The kernel's unit is the microampere, but some phones say milliampere: no working phone takes as little as 20 mA,
# and none as much as 20 A.
_MICRO_FROM = 20_000
_MICROVOLT_FROM = 100_000  # likewise for the voltage: 3 to 20 V


def sampler(folder: str) -> str:
    """Shell command that notes current and voltage twice a second, in the background, while a program of ours runs.

    It begins after the program has left its number in ``folder`` and ends when that is gone (see ``Link.guarded``).
    """
    running, notes = shlex.quote(f"{folder}/running"), shlex.quote(f"{folder}/power")
    read = f"echo $(cat {_BATTERY}/current_now {_BATTERY}/voltage_now)"
    return f"( sleep 0.3; while [ -e {running} ]; do {read}; sleep 0.5; done ) > {notes} 2> /dev/null < /dev/null &"


def notes(folder: str) -> str:
    """Shell command that prints what the sampler noted."""
    return f"cat {shlex.quote(f'{folder}/power')} 2> /dev/null"


def milliwatts(text: str) -> float | None:
    """Mean power of the sampler's lines ``CURRENT VOLTAGE``; None where there is none."""
    found = [(abs(int(i)), abs(int(u))) for i, u in re.findall(r"^(-?\d+) (-?\d+)$", text, re.MULTILINE)]
    powers = [
        i / (1e3 if i >= _MICRO_FROM else 1) * u / (1e6 if u >= _MICROVOLT_FROM else 1e3)
        for i, u in found
        if i and u
    ]
    return round(statistics.fmean(powers), 3) if powers else None
