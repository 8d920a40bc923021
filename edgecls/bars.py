"""Progress bars on a terminal. This is the only module of edgecls that imports rich, so it is imported when needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich import progress
from rich.console import Console
from rich.text import Text

from edgecls.text import escape


class _Count(progress.MofNCompleteColumn):
    """ "12/36"; nothing while the total is not known."""

    def render(self, task: progress.Task) -> Text:
        return super().render(task) if task.total else Text()


class _Remaining(progress.TimeRemainingColumn):
    """Time left; nothing while it cannot be estimated."""

    def render(self, task: progress.Task) -> Text:
        return super().render(task) if task.total and task.time_remaining is not None else Text()


class Bars:
    """``console.Progress`` drawn by rich."""

    def __init__(self, drawn: progress.Progress) -> None:
        self._drawn = drawn

    def add_task(self, description: str, *, total: float | None = None, text: str = "") -> int:
        """See ``console.Progress``."""
        return self._drawn.add_task(escape(description), total=total or None, text=escape(text))

    def update(self, task: int, **fields: Any) -> None:
        """See ``console.Progress``."""
        if "total" in fields:
            fields["total"] = fields["total"] or None  # rich draws a full bar for a total of 0
        safe: dict[str, Any] = {k: escape(v) if isinstance(v, str) else v for k, v in fields.items()}
        self._drawn.update(progress.TaskID(task), **safe)

    def advance(self, task: int, advance: float = 1) -> None:
        """See ``console.Progress``."""
        self._drawn.advance(progress.TaskID(task), advance)


@contextmanager
def draw() -> Iterator[progress.Progress]:
    """Draw bars on stderr until the block ends."""
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        _Count(),
        progress.TimeElapsedColumn(),
        _Remaining(compact=True),
        progress.TextColumn("{task.fields[text]}", markup=False),
    )
    with progress.Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as drawn:
        yield drawn
