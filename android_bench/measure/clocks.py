"""Noticing clocks that are stuck: a current clock that is the same at rest and at work tells nothing."""

from __future__ import annotations

import time

from android_bench.devices.probe import State

# Clocks are stuck that are the same in so many readings at work, over so many seconds, and in all at rest.
_READINGS, _SECONDS = 3, 10.0


class Clocks:
    """The current clocks of a phone during a session.

    A phone that idles looks as if its clocks stood still. So they are read at rest and as programs end, when the cores
    still have the clocks that they worked with. Clocks that the phone holds (``State.held``) are left out.

    Example:
        >>> clocks = Clocks()
        >>> clocks.at_rest(State(khz={0: 1_000_000}))
        >>> clocks.at_work({0: 1_800_000})
        >>> clocks.stuck
        ''
    """

    def __init__(self) -> None:
        self._seen: dict[int, set[int]] = {}
        self._held: set[int] = set()
        self._working, self._since = 0, 0.0

    def at_rest(self, now: State) -> None:
        """Takes a reading while no program of ours runs."""
        self._held |= now.held
        self._take(now.khz)

    def at_work(self, khz: dict[int, int]) -> None:
        """Takes a reading at the end of a program, in kHz by core."""
        self._since = self._since or time.monotonic()
        self._working += bool(khz)
        self._take(khz)

    @property
    def stuck(self) -> str:
        """Why the current clocks are not believed; empty while one changes, or while too little is known."""
        free = [values for core, values in self._seen.items() if core not in self._held]
        if self._working < _READINGS or time.monotonic() - self._since < _SECONDS or not free:
            return ""
        if any(len(values) > 1 for values in free):
            return ""
        return "the phone's current clocks stand still, at rest and at work"

    def _take(self, khz: dict[int, int]) -> None:
        for core, value in khz.items():
            self._seen.setdefault(core, set()).add(value)
