"""What the commands share: their options, arguments that find a run or a file, tables of text."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecls.console import Console, to_json
from edgecls.errors import EdgeclsError
from edgecls.text import display_width, escape

if TYPE_CHECKING:
    from edgecls.run import Run

RUN_HELP = "RUN is a run folder or a run's name; without it the newest run is taken."


class ExampleCommand(click.Command):
    """A command whose help ends with examples, printed as they are."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text("Example:" if len(self.examples) == 1 else "Examples:")
        for example in self.examples:
            formatter.write(f"  {example}\n")


def cli_command(*examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a click command with ``--json`` and ``--debug`` of a function.

    The command has the name of the function's module. The function gets a ``Console``, then its own options.

    Args:
        examples: Command lines to print at the end of the help.

    Example, in ``edgecls/cli/hello.py``::

        @cli_command("edgecls hello --name Ada")
        @click.option("--name", default="you", help="Whom to greet.")
        def command(console: Console, name: str) -> None:
            \"""Greet somebody.\"""
            console.emit({"schema": "edgecls.hello/1", "name": name}, lambda result: f"Hello {result['name']}")
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        name = function.__module__.rpartition(".")[2]

        @functools.wraps(function)
        def run(*, as_json: bool, debug: bool, **options: Any) -> None:
            console = Console(json=as_json)
            with _stdout_for_json(console):
                try:
                    function(console, **options)
                except BaseException as error:
                    if as_json and not console.emitted:
                        _emit_error(console, error)
                    raise

        with_options: Any = run
        for option in (
            click.option("--debug", is_flag=True, help="Show the traceback of an error."),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout."),
        ):
            with_options = option(with_options)
        return click.command(name, cls=ExampleCommand, examples=examples)(with_options)

    return decorate


def _emit_error(console: Console, error: BaseException) -> None:
    from edgecls.cli.main import explain

    code, line = explain(error)
    if line:
        result = {"schema": "edgecls.error/1", "exit_code": code, "error": line.removeprefix("error: ")}
        console.emit(result, to_json)


@contextmanager
def _stdout_for_json(console: Console) -> Iterator[None]:
    """With ``--json``, send what libraries print on stdout to stderr, C++ ones too; only ``emit`` reaches stdout."""
    try:
        redirect = console.json and sys.stdout.fileno() == 1
    except (OSError, ValueError):  # a test's buffer
        redirect = False
    if not redirect:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(kept, "w", encoding="utf-8", closefd=False) as console.out:
            yield
    finally:
        console.out = None
        with suppress(OSError):  # what a library printed is not worth an error
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


class CommaList(click.ParamType):
    """Type of an option that takes values separated by commas, e.g. ``--threads 1,2,4``.

    With ``multiple=True`` the option can be repeated too; ``flat`` makes one list of all.

    Args:
        item: Type of one value.
        name: What the help calls the values.
    """

    def __init__(self, item: click.ParamType, name: str) -> None:
        self.item, self.name = item, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        if not isinstance(value, str):
            return list(value)
        return [self.item.convert(part.strip(), param, ctx) for part in value.split(",")]

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        return self.item.shell_complete(ctx, param, incomplete.rpartition(",")[2])


def flat(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """All values of a repeated ``CommaList`` option, in order, without repetitions."""
    return list(dict.fromkeys(value for values in lists for value in values))


def overrides(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``-o KEY=VALUE``."""
    text = "Change a key of the recipe, e.g. -o train.epochs=5; the value is YAML."
    return click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE", help=text)(
        function
    )


def run_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """The optional argument RUN."""
    from edgecls.cli.completers import complete_run

    return click.argument("run", required=False, shell_complete=complete_run)(function)


def run_or_file(text: str | None) -> Path:
    """The path of the argument RUN|FILE: a file or SavedModel, or the folder of a run; the newest run for None."""
    from edgecls.run import Run

    if text is not None and is_model(path := Path(text)):
        return path
    return Run.find(text).path


def is_model(path: Path) -> bool:
    """Whether a path is a file, or the folder of a SavedModel."""
    if not path.is_dir():
        return path.is_file()
    from edgecls.infer.opening import is_saved_model

    return is_saved_model(path)


def table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1, width: int | None = None
) -> str:
    """Text columns under a header. None is a dash. Control characters in cells are escaped.

    A table that is wider than the terminal is made narrower by line breaks at spaces, first in the header and then in
    cells. Words are never cut: a name can always be copied.

    Args:
        header: The name of each column.
        rows: The cells of each row.
        left: How many columns are aligned left; the others, numbers, are aligned right.
        width: Most characters in a line; the width of the terminal by default, 80 where there is none.

    Example:
        >>> print(table(("name", "size in MB"), [("fp32", 12.5), ("int8", None)], width=11))
        name   size
              in MB
        fp32   12.5
        int8      -
    """
    head = [escape(name) for name in header]
    cells = [["-" if v is None else escape(str(v)) for v in row] for row in rows]
    widths = _fit(head, cells, shutil.get_terminal_size().columns if width is None else width)
    return "\n".join(line for row in (head, *cells) for line in _wrapped(row, widths, left))


_GAP = 2  # spaces between two columns


def _fit(header: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """Widths of the columns. Headers give way first; then the cells of the column with the most room."""
    columns = list(zip(header, *cells, strict=True))
    widths = [max(map(display_width, column)) for column in columns]
    words = [
        max(display_width(word) for cell in column for word in [*cell.split(), ""]) for column in columns
    ]
    bodies = [max([w, *map(display_width, column[1:])]) for w, column in zip(words, columns, strict=True)]
    for least in (bodies, words):
        excess = sum(widths) + _GAP * (len(widths) - 1) - width
        for _ in range(excess):
            room = [w - low for w, low in zip(widths, least, strict=True)]
            widths[room.index(max(room))] -= max(room) > 0
    return widths


def _wrapped(row: Sequence[str], widths: Sequence[int], left: int) -> Iterator[str]:
    """The lines of a row."""
    parts = [_lines(cell, width) for cell, width in zip(row, widths, strict=True)]
    for line in itertools.zip_longest(*parts, fillvalue=""):
        padded = []
        for i, (part, width) in enumerate(zip(line, widths, strict=True)):
            space = " " * (width - display_width(part))
            padded.append(part + space if i < left else space + part)
        yield (" " * _GAP).join(padded).rstrip()


def _lines(cell: str, width: int) -> list[str]:
    """A cell in lines of at most a width; a cell that fits is left as it is, its double spaces too."""
    if display_width(cell) <= width:
        return [cell]
    lines = [""]
    for word in cell.split():
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if display_width(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def number(value: float | None, digits: int = 2) -> str | None:
    """A figure with a fixed number of decimals; None stays None, which ``table`` shows as a dash."""
    return None if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str | None:
    """A fraction as a percentage with one decimal, without the sign %; None stays None."""
    return None if value is None else f"{100 * value:.1f}"


def judge_ladder(ladder: Mapping[str, Any], run: Run) -> None:
    """Fail if a rung of the parity ladder does not hold; those of a device are judged where it is asked for."""
    failed = [r["name"] for r in ladder["rungs"] if r.get("ok") is False and "device" not in r]
    if failed:
        raise EdgeclsError(f"not equal: {', '.join(failed)}", where=str(run.path), fix="see verify.json")
