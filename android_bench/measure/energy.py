"""Energy of one inference, from the battery's own current and voltage while the program runs.

It is the energy of the whole phone with its screen and services. It is known only while the phone runs from its battery
and lets its shell read ``/sys/class/power_supply/battery``.
"""

from __future__ import annotations

import re
import shlex
import statistics

_BATTERY = "/sys/class/power_supply/battery"
# The kernel's unit is the microampere, but some phones give milliamperes. A working phone takes more than 20 mA and less
# than 20 A, so the size of the number tells its unit.
_MICRO_FROM = 20_000
_MICROVOLT_FROM = 100_000  # likewise for the voltage: 3 to 20 V


def sampler(folder: str) -> tuple[str, str]:
    """Shell commands to run before and after a program. The first writes current and voltage to a file in ``folder``
    twice a second, in the background; the second ends that and prints the file.

    If the shell is ended in between, the sampler ends by itself.
    """
    notes = shlex.quote(f"{folder}/power")
    read = f"echo $(cat {_BATTERY}/current_now {_BATTERY}/voltage_now)"
    loop = f"sleep 0.3; while kill -0 $$; do {read}; sleep 0.5; done"
    return f"( {loop} ) > {notes} 2> /dev/null < /dev/null &\nsampler=$!", f"kill $sampler; cat {notes}"


def milliwatts(text: str) -> float | None:
    """Mean power of the sampler's lines ``CURRENT VOLTAGE``; None where there is none."""
    found = [(abs(int(i)), abs(int(u))) for i, u in re.findall(r"^(-?\d+) (-?\d+)$", text, re.MULTILINE)]
    powers = [
        i / (1e3 if i >= _MICRO_FROM else 1) * u / (1e6 if u >= _MICROVOLT_FROM else 1e3)
        for i, u in found
        if i and u
    ]
    return round(statistics.fmean(powers), 3) if powers else None
