"""The ``edgecls`` command: the list of commands, exit codes and error texts in one place.

A command's module is imported when the command is called, so ``edgecls --help`` is fast.

Exit codes: 0 done; 1 the work failed; 2 usage or recipe error; 3 the environment lacks something; 4 a gate that was
asked for failed; 130 interrupted.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click

from edgecls.console import prepare_streams
from edgecls.text import escape

# Only what benchmarks need is always installed, see setup.py.
_WHOLE_KIT = "pip install '.[all]' in the checkout brings the whole kit"
# Section of the help -> command -> its line there. The command NAME is the object `command` of edgecls.cli.NAME.
COMMANDS = {
    "From photos to a phone": {
        "init": "Look at a folder of photos and write a recipe for them.",
        "train": "Train the network of a recipe, with or without a teacher.",
        "quantize": "Make a run or a .keras model int8.",
        "bench": "Measure latency and memory, on a phone or on this computer.",
    },
    "Single steps of a run": {
        "export": "Write the .tflite files of a run.",
        "verify": "Compare keras, qat and tflite on real images.",
        "eval": "Accuracy, confusion and per-class figures of a run or file.",
        "predict": "Classify photos.",
        "serve": "Classify photos over HTTP.",
        "mine": "Choose unlabeled photos for a distillation.",
        "report": "Write the HTML page and the model card of a run.",
    },
    "Making it better": {
        "tune": "Search for better values of a recipe's keys.",
    },
    "Looking around": {
        "augment": "See what training sees: a picture of each augmentation.",
        "runs": "List the runs with their state and main figures.",
        "models": "List the networks, or show one.",
        "choose": "Find the network for a budget, before training.",
        "convert": "Turn published weights into a .keras model.",
        "devices": "List the attached phones, and whether they are fit to measure.",
        "doctor": "Check what works on this computer.",
        "completion": "Print the completion script of a shell.",
    },
}


class LazyGroup(click.Group):
    """A group that lists its commands from ``COMMANDS`` and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        return importlib.import_module(f"edgecls.cli.{cmd_name}").command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in (commands := self.list_commands(ctx)):
            near = difflib.get_close_matches(args[0], commands, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "edgecls --help lists the commands"
            raise click.UsageError(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))


def _version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from edgecls.environment import version

        click.echo(f"edgecls {version('edgecls') or '(not installed; runs from its source)'}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with: edgecls init PHOTOS",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Image classification for phones: train, distill, quantize, verify and benchmark."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code.

    Args:
        argv: The words after ``edgecls``; those of this process by default.
    """
    prepare_streams()
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    if not debug:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    signal.signal(signal.SIGTERM, _interrupt)  # a batch system stops a job with SIGTERM: treat it as Ctrl-C
    try:
        code = cli.main(args, prog_name="edgecls", standalone_mode=False) or 0
        sys.stdout.flush()
    except BaseException as error:  # every way out of a command ends in one line and a code
        code = report_error(error, debug=debug)
    _leave(code)


def report_error(error: BaseException, *, debug: bool = False) -> int:
    """Print an error as one line on stderr, with ``debug`` after its traceback. Returns the exit code."""
    code, line = explain(error)
    if line:
        with suppress(OSError):  # nobody can read stderr: the exit code still tells
            if debug:
                print(escape("".join(traceback.format_exception(error)), keep="\n"), file=sys.stderr)
            print(f"edgecls: {line}", file=sys.stderr)
    return code


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code of an exception, and its line; the line is "" where there is nothing to say."""
    if isinstance(error, SystemExit):
        return (error.code if isinstance(error.code, int) else int(error.code is not None)), ""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, ""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return 130, "interrupted"
    if isinstance(error, click.ClickException):
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "edgecls"
        text = _one_line(error.format_message()).rstrip(".")
        return 2, f"error: {text}" + ("" if "; " in text else f"; see {where} --help")
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        text = _one_line(str(error))
        return code, text if code == 130 else f"error: {text}"
    if isinstance(error, BrokenPipeError):
        return 1, ""
    if _disk_is_full(error):
        name = getattr(error, "filename", None)
        return 3, f"error: no disk space left{_place(name)}; free some space and run again"
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return 1, "error: not enough memory; lower the batch size, e.g. -o train.batch_size=16"
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("edgecls"):
        return (
            3,
            f"error: package {error.name!r} is not installed; {_WHOLE_KIT}, and edgecls doctor says what is missing",
        )
    if isinstance(error, OSError) and error.strerror:
        return 1, f"error: {error.strerror}{_place(error.filename)}"
    if isinstance(error, UnicodeEncodeError):
        return 2, _not_encodable(error)
    text = _one_line(str(error))[:500]
    return 1, f"internal error: {type(error).__name__}{f': {text}' if text else ''}; run again with --debug"


def _place(name: object) -> str:
    return f" ({_one_line(os.fsdecode(name) if isinstance(name, bytes) else str(name))})" if name else ""


def _not_encodable(error: UnicodeEncodeError) -> str:
    """A name with a character that the system's encoding lacks, or with bytes that are not UTF-8."""
    name = _one_line(error.object[max(0, error.start - 40) : error.end + 40])
    if error.reason == "surrogates not allowed":
        return f"error: a name is not UTF-8 ({name}); rename it or set LC_ALL=C.UTF-8"
    return f"error: a name does not fit the encoding {error.encoding} ({name}); set LC_ALL=C.UTF-8"


def _disk_is_full(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or "no space left on device" in str(error).lower()  # h5py's and TensorFlow's own


def _one_line(text: str) -> str:
    return escape(" ".join(text.split()))


def _interrupt(signum: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _leave(code: int) -> NoReturn:
    """Exit without a message about a reader of our output that has gone away."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError:  # Python flushes again at its end: let that succeed
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    # CPython remembers a KeyboardInterrupt that left the code of a string, as dataclasses run it, even if it was caught
    # later; `python -m` would then end by SIGINT, whatever the exit code. The next code of a string clears that.
    exec("")
    sys.exit(code)
