"""Waiting until a phone is cool, and noticing sensors that are stuck."""

from __future__ import annotations

import time
from collections.abc import Callable

from android_bench.devices.probe import State
from android_bench.measure.protocol import Listener, Protocol

_COOLING_STEP_S = 5.0
# A sensor is stuck that shows the same value in so many readings over so many seconds. A processor's is never at rest;
# a battery's changes slowly.
_STUCK = {"cpu": (6, 20.0), "": (24, 300.0)}


class Heat:
    """The temperatures of a phone during a session.

    Args:
        look: Asks the phone for its state.
        rest: Sleeps.
        tell: Called with ``cool`` events while a hot phone is waited for.
    """

    def __init__(self, look: Callable[[], State], rest: Callable[[float], None], tell: Listener) -> None:
        self._look, self._rest, self._tell = look, rest, tell
        self._since, self._readings = 0.0, 0
        self._temperatures: dict[str, float] = {}

    def state(self) -> State:
        """The phone's state now. Raises DeviceMissing when it is gone."""
        now = self._look()
        if now.temperature_c != self._temperatures:
            self._temperatures, self._since, self._readings = now.temperature_c, time.monotonic(), 0
        self._readings += 1
        return now

    @property
    def stuck(self) -> str:
        """Why the temperatures are not believed; empty while they change."""
        readings, seconds = _STUCK["cpu" if "cpu" in self._temperatures else ""]
        took = time.monotonic() - self._since
        if not self._temperatures or self._readings < readings or took < seconds:
            return ""
        return f"the phone's temperatures stand still ({self._readings} readings in {took:.0f} s)"

    def cool_down(self, protocol: Protocol) -> tuple[State, str]:
        """Waits until the phone is cool. Returns its state, and a reason for distrust if it stays hot (else "").

        A stuck sensor is not waited for. It clears nobody: a phone that it calls hot is still one to distrust.
        """
        begin = time.monotonic()
        while True:
            now = self.state()
            hot = hot_now(now, protocol.cool_c)
            waited = time.monotonic() - begin
            if not hot or waited >= protocol.cool_s or self.stuck:
                return now, hot and f"{hot} after {waited:.0f} s of cooling down"
            self._tell({"event": "cool", "why": hot, "seconds": waited})
            self._rest(min(_COOLING_STEP_S, max(0.05, protocol.cool_s - waited)))


def hot_now(now: State, limit_c: float) -> str:
    """Why a phone is too warm to measure; empty when it is not, or does not tell."""
    if now.warmth is not None and now.warmth > limit_c:
        return f"{now.warmth:.1f} C warm"
    return f"thermal status {now.thermal_status}" if now.thermal_status else ""
