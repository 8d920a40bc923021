"""Errors that a user can act on: each is one line (what, where, what to do) and carries its exit code.

Any exception with an integer ``exit_code`` attribute is shown by the command line as one line, whoever
raises it, so packages that may not import this module (the zoo, android_bench) define their own.
"""

from __future__ import annotations


class EdgeclsError(Exception):
    """The work failed (exit code 1).

    Args:
        what: What is wrong, e.g. ``"unknown key 'lrr'"``.
        where: File, line, image or key it was found at.
        fix: What the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what + (f" ({where})" if where else "") + (f"; {fix}" if fix else ""))


class UsageError(EdgeclsError):
    """A wrong argument, recipe or input file (exit code 2)."""

    exit_code = 2


class MissingError(EdgeclsError):
    """The environment lacks a device, data, a package or disk space (exit code 3)."""

    exit_code = 3


class GateError(EdgeclsError):
    """A limit that was asked for (``--max-drop``, ``--max-ms``) is not met (exit code 4)."""

    exit_code = 4


class Interrupted(EdgeclsError):
    """Ctrl-C or SIGTERM (exit code 130); the text says what was kept."""

    exit_code = 130
