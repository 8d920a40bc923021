"""What a person sees while a command works: results on stdout, remarks and progress on stderr.

With ``--json`` stdout belongs to the one JSON object, so everything else goes to stderr. Bars are drawn only when
stderr is a terminal; elsewhere a line an epoch says how far the work is. rich is imported only to draw a bar.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TextIO


class Progress(Protocol):
    """What a block of ``Console.progress`` gets: ``Bars`` or ``Lines``."""

    def add_task(self, description: str, *, total: float | None = None, text: str = "") -> int:
        """Begin a task; ``text`` is shown after the bar. Returns the task's number."""

    def update(self, task: int, **fields: Any) -> None:
        """Set ``completed``, ``total``, ``description`` or ``text``."""

    def advance(self, task: int, advance: float = 1) -> None:
        """Move a task on."""


class Console:
    """Where a command's words go.

    Args:
        json: Keep stdout for one JSON object.
        quiet: Print nothing but results of ``emit``.

    Attributes:
        out: Where results go; stdout unless the command line set another stream.
        emitted: Whether ``emit`` has printed the result.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json, self.quiet = json, quiet
        self.out: TextIO | None = None
        self.emitted = False
        self._bars: Any = None  # rich's display while it is drawn: other text must go above it

    def say(self, text: str = "") -> None:
        """A result for people: stdout, or stderr with ``--json``."""
        self._print(text, sys.stderr if self.json else sys.stdout)

    def log(self, text: str) -> None:
        """A remark on the way: stderr."""
        self._print(text, sys.stderr)

    def _print(self, text: str, stream: TextIO) -> None:
        if self.quiet:
            return
        if self._bars is not None and stream.isatty():
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=stream, flush=True)

    def emit(self, result: Mapping[str, Any], text: Callable[[Any], str]) -> None:
        """Print a command's result: the JSON object with ``--json``, else ``text(result)``."""
        print(to_json(result) if self.json else text(result), file=self.out or sys.stdout, flush=True)
        self.emitted = True

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Bars with steps and time left on a terminal; elsewhere a line whenever ``text`` is updated."""
        if self.quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            yield Lines(self)
            return
        from rich import progress
        from rich.console import Console as RichConsole

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("{task.fields[text]}", markup=False),
        )
        with progress.Progress(
            *columns, console=RichConsole(stderr=True), redirect_stdout=False
        ) as self._bars:
            try:
                yield Bars(self._bars)
            finally:
                self._bars = None


class Bars:
    """Progress on a terminal, drawn by rich."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress

    def add_task(self, description: str, *, total: float | None = None, text: str = "") -> int:
        """Begin a task; ``text`` is shown after the bar. Returns the task's number."""
        return self._progress.add_task(description, total=total, text=text)

    def update(self, task: int, **fields: Any) -> None:
        """Set ``completed``, ``total``, ``description`` or ``text``."""
        self._progress.update(task, **fields)

    def advance(self, task: int, advance: float = 1) -> None:
        """Move a task on."""
        self._progress.advance(task, advance)


class Lines:
    """Progress where there is no terminal: one line each time a task's ``text`` is updated."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: list[dict[str, Any]] = []

    def add_task(self, description: str, *, total: float | None = None, text: str = "") -> int:
        """See ``Bars``."""
        task = {"description": description, "total": total, "completed": 0.0, "text": text, "base": None}
        self._tasks.append(task)
        return len(self._tasks) - 1

    def update(self, task: int, **fields: Any) -> None:
        """See ``Bars``."""
        self._update(self._tasks[task], fields)

    def advance(self, task: int, advance: float = 1) -> None:
        """See ``Bars``."""
        self.update(task, completed=self._tasks[task]["completed"] + advance)

    def _update(self, task: dict[str, Any], fields: dict[str, Any]) -> None:
        task.update(fields)
        if task["base"] is None and "completed" in fields:  # a resumed task begins in the middle
            task["base"] = (time.monotonic(), task["completed"])
        if fields.get("text"):
            self._console.log(self._line(task))

    @staticmethod
    def _line(task: dict[str, Any]) -> str:
        parts = [task["description"]]
        done, total = task["completed"], task["total"]
        if total:
            parts.append(f"{done:.0f}/{total:.0f}")
            began, base = task["base"] or (0.0, done)
            if total > done > base:
                left = (time.monotonic() - began) * (total - done) / (done - base)
                parts.append(f"{left // 60:.0f}:{left % 60:02.0f} left")
        return "  ".join([*parts, task["text"]])


def to_json(value: Any) -> str:
    """One line of strict JSON: numpy figures as numbers, paths as text, NaN and infinities as null."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _plain(value.tolist())
    return str(value)
