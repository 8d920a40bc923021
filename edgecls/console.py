"""What a person sees while a command works: results on stdout, remarks and progress on stderr.

With ``--json`` stdout has one JSON object, and everything else goes to stderr. Progress bars are drawn only when stderr
is a terminal; elsewhere a line after each epoch says how far the work is. rich is imported only to draw a bar.

File names and class names may hold anything. Control characters in them are escaped here, so no other module needs to
think of it; characters that the terminal's encoding lacks are escaped by the streams (``prepare_streams``).
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Protocol, TextIO

from edgecls.text import escape, printable


def prepare_streams() -> None:
    """Make stdout and stderr safe to print to, however this process was started.

    A closed stream (``>&-``) is replaced by the null device. Otherwise the next file that is opened would get its
    number, and what a library prints would be written into that file. A character that the terminal's encoding lacks is
    printed as an escape, e.g. ``\\u72d7``, and raises nothing.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            lowest = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(lowest, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Progress(Protocol):
    """What a block of ``Console.progress`` gets: ``bars.Bars`` on a terminal, else ``Lines``."""

    def add_task(self, description: str, *, total: float | None = None, text: str = "") -> int:
        """Begin a task.

        Args:
            description: What is done, e.g. "student: MobileNetV3_small_x1_0".
            total: Number of steps; None or 0 while it is not known, then neither a count nor a time is shown.
            text: What to show behind the bar, e.g. "building the graph".

        Returns:
            The task's number.
        """

    def update(self, task: int, **fields: Any) -> None:
        """Set ``completed``, ``total``, ``description`` or ``text`` of a task."""

    def advance(self, task: int, advance: float = 1) -> None:
        """Add to the completed steps of a task."""


class Console:
    """Prints results, remarks and progress of a command.

    Args:
        json: Keep stdout for one JSON object.
        quiet: Print only results of ``emit``.

    Attributes:
        out: Where ``emit`` prints; stdout unless the command line sets another stream.
        emitted: Whether ``emit`` has printed the result.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json, self.quiet = json, quiet
        self.out: TextIO | None = None
        self.emitted = False
        self._bars: Any = None  # rich's display while it is drawn: other text goes above it

    def say(self, text: str = "") -> None:
        """Print a result for people: on stdout, with ``--json`` on stderr."""
        self._print(text, sys.stderr if self.json else sys.stdout)

    def log(self, text: str) -> None:
        """Print a remark on stderr."""
        self._print(text, sys.stderr)

    def _print(self, text: str, stream: TextIO) -> None:
        if self.quiet:
            return
        text = escape(text, keep="\n\t")
        # Nobody may be able to read stderr, e.g. in a job whose log is on a full disk. That does not stop the work.
        with suppress(OSError) if stream is sys.stderr else nullcontext():
            if self._bars is not None and stream.isatty():
                self._bars.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=stream, flush=True)

    def emit(self, result: Mapping[str, Any], text: Callable[[Any], str]) -> None:
        """Print a command's result, once.

        Args:
            result: What ``--json`` prints.
            text: Makes the text for people. It gets ``result`` with control characters in names escaped.
        """
        line = to_json(result) if self.json else escape(text(printable(result)), keep="\n\t")
        print(line, file=self.out or sys.stdout, flush=True)
        self.emitted = True

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show progress: as bars on a terminal, elsewhere as a line whenever ``text`` is updated.

        Example:
            >>> with Console(quiet=True).progress() as progress:
            ...     task = progress.add_task("student", text="building the graph")
            ...     for step in range(1, 4):
            ...         progress.update(task, completed=step, total=3, text=f"loss {1 / step:.2f}")
        """
        if self.quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            yield Lines(self)
            return
        from edgecls.bars import Bars, draw

        try:
            with draw() as self._bars:
                yield Bars(self._bars)
        finally:
            self._bars = None


class Lines:
    """Progress where there is no terminal: one line each time a task's ``text`` is set."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: list[dict[str, Any]] = []

    def add_task(self, description: str, *, total: float | None = None, text: str = "") -> int:
        """See ``Progress``."""
        self._tasks.append({"description": description, "total": total, "completed": 0.0, "base": None})
        self._update(self._tasks[-1], {"text": text})
        return len(self._tasks) - 1

    def update(self, task: int, **fields: Any) -> None:
        """See ``Progress``."""
        self._update(self._tasks[task], fields)

    def advance(self, task: int, advance: float = 1) -> None:
        """See ``Progress``."""
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
    """One line of strict JSON in ASCII, so that every terminal and every program can read it.

    Numpy values become numbers, paths become text, NaN and infinities become null.
    """
    return json.dumps(_plain(value), allow_nan=False)


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
