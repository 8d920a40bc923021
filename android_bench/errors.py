"""Errors of android_bench: one line each (what, where, what to do) with the exit code of the command line."""

from __future__ import annotations

from typing import Any

# Shown by adb, in errors and while a command waits: the person at the phone has to do it.
ACCEPT_PROMPT = "accept the USB debugging prompt on the phone"
_KEPT = "the figures so far are kept and marked unsure"


class BenchError(Exception):
    """The measurement failed (exit code 1).

    Args:
        what: What is wrong, e.g. ``"the phone is attached, but not authorised"``.
        where: The file, device or option where it was found.
        fix: What the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what + (f" ({where})" if where else "") + (f"; {fix}" if fix else ""))


class BenchUsageError(BenchError):
    """A wrong argument, or a file that is no TFLite model (exit code 2)."""

    exit_code = 2


class DeviceMissing(BenchError):
    """The device is not attached, or this computer lacks something that the measurement needs (exit code 3)."""

    exit_code = 3


class DeviceBusy(DeviceMissing):
    """Another session measures on the phone (exit code 3)."""


class Interrupted(BenchError):
    """Ctrl-C (exit code 130). ``document`` has the figures so far, marked unsure."""

    exit_code = 130

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        super().__init__("interrupted", fix=_KEPT)


class DeviceLost(Interrupted):
    """The device went away during the measurement (exit code 3). ``document`` has the figures so far."""

    exit_code = 3

    def __init__(self, document: dict[str, Any], reason: BenchError) -> None:
        self.document = document
        BenchError.__init__(self, reason.what, where=reason.where, fix=_KEPT)
