"""A live table of a measurement, for the person who waits.

It is drawn at events only, which come between rounds: a clock that ticks would disturb what is measured on this computer.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TextIO

from android_bench.events import remark
from android_bench.output.report import STATUS_COLOURS, console_of, milliseconds, table
from android_bench.words import case_name, printable

_AROUND = 8  # lines of a terminal that the rows leave free


@dataclass
class _Row:
    """What is known of one model and thread count."""

    model: str
    threads: int
    state: str = "loaded"
    clean: list[float] = field(default_factory=list)
    disturbed: list[float] = field(default_factory=list)
    device: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        """Of the rounds so far, in ms; of the disturbed ones while there is no other."""
        medians = self.clean or self.disturbed
        return statistics.median(medians) if medians else None


class Watch:
    """Shows the events of ``bench``: as a live table on a terminal, elsewhere as a line for each round.

    Args:
        say: Prints a line where there is no terminal.
        stream: Where the table is drawn; None: nowhere.

    Example:
        >>> lines = []
        >>> with Watch(lines.append, open(os.devnull, "w")) as watch:
        ...     watch({"event": "measure", "model": "m.tflite", "threads": 1, "round": 0, "repeat": False})
        ...     watch({"event": "round", "model": "m.tflite", "threads": 1, "round": 0, "repeat": False,
        ...            "median_ms": 5.0, "why": "", "state": {}})
        >>> lines
        ['m.tflite, 1 thread: round 1 5.000 ms']
    """

    def __init__(self, say: Callable[[str], None], stream: TextIO | None = None) -> None:
        self._say, self._stream = say, stream
        self._rows: dict[tuple[str, int], _Row] = {}
        self._plan: dict[str, Any] = {}
        self._note = ""
        self._live: Any = None
        self._began = time.monotonic()

    def __enter__(self) -> Watch:
        if self._stream is not None and self._stream.isatty() and os.environ.get("TERM") != "dumb":
            from rich.live import Live

            self._console = console_of(self._stream)
            # Transient: the results take its place. Without a thread of its own: see the top of this module.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Takes an event of ``bench``."""
        line = remark(event)
        if self._live is None:
            if line := line or _round_line(event):
                self._say(line)
            return
        if line or "model" in event:  # a remark stands until the work goes on
            self._note = line
        self._take(event)
        from rich.console import Group
        from rich.text import Text

        parts = [self._table()] if self._plan else []
        self._live.update(Group(*parts, Text(printable(self._note))), refresh=True)

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] == "plan":
            self._plan = event
        if "model" not in event:
            return
        key = (event["model"], event["threads"])
        row = self._rows.setdefault(key, _Row(*key))
        if event["event"] == "measure":
            row.state = "repeating" if event["repeat"] else "measuring"
        elif event["event"] == "round":
            row.state = f"disturbed: {event['why']}" if event["why"] else "waiting"
            row.device = event["state"] or row.device
            (row.disturbed if event["why"] else row.clean).append(event["median_ms"])
        elif event["event"] == "result":
            row.state = event["status"]

    def _table(self) -> Any:
        """The rows that fit, the last ones: those that are measured now are among them."""
        rows = list(self._rows.values())
        done = sum(row.state in STATUS_COLOURS for row in rows)
        shown = rows[-max(1, self._console.height - _AROUND) :]
        columns = {
            "model": [printable(row.model) for row in shown],
            "threads": [str(row.threads) for row in shown],
            "rounds": [self._rounds(row) for row in shown],
            "median": [milliseconds(row.median) for row in shown],
            "temp C": [_temperature(row.device) for row in shown],
            "MHz": [_clocks(row.device) for row in shown],
            "state": [printable(row.state) for row in shown],
        }
        for untold in ("temp C", "MHz"):
            if set(columns[untold]) <= {"-"}:
                del columns[untold]
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        title = f"{done} of {self._plan['cases']} done after {minutes}:{seconds:02}"
        return table(columns, self._console.width, title=title)

    def _rounds(self, row: _Row) -> str:
        more = f" + {len(row.disturbed)} disturbed" if row.disturbed else ""
        return f"{len(row.clean)} of {self._plan['rounds']}{more}"


def _round_line(event: dict[str, Any]) -> str:
    """A line about a round; empty for another event."""
    if event["event"] != "round":
        return ""
    again, case = " (again)" if event["repeat"] else "", case_name(event["model"], event["threads"])
    why = f", disturbed: {event['why']}" if event["why"] else ""
    return f"{case}: round {event['round'] + 1}{again} {event['median_ms']:.3f} ms{why}"


def _temperature(state: dict[str, Any]) -> str:
    """That of the skin, else of the battery, else of the warmest part that is told."""
    found: dict[str, float] = state.get("temperature_c") or {}
    value = found.get("skin", found.get("battery", max(found.values(), default=None)))
    return "-" if value is None else f"{value:.1f}"


def _clocks(state: dict[str, Any]) -> str:
    """The lowest and the highest clock of all cores."""
    clocks = [khz // 1000 for khz in state.get("khz") or []]
    return "-" if not clocks else str(*{*clocks}) if len({*clocks}) == 1 else f"{min(clocks)} - {max(clocks)}"
