"""The interface to a phone: connect, push, pull, run, close. There are two kinds of errors.

``Broken``: the link failed or stayed silent. Nobody knows how far the operation came; after a new ``connect`` it may be
tried again. ``Refused``: the phone answered that it cannot do this, with its reason.
"""

from __future__ import annotations

import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from android_bench.errors import BenchError
from android_bench.output.parse import LONGEST

CONNECT_S = 5.0


class Broken(BenchError):
    """The link to the phone broke (exit code 1). Close it, connect again, and repeat the operation."""


class TimedOut(Broken):
    """The phone did not answer within the time of the operation."""


class Refused(BenchError):
    """The phone answered that it cannot do this (exit code 1)."""


@dataclass(frozen=True)
class Done:
    """What a command printed (stdout and stderr together) and its exit code."""

    output: str
    code: int


class Deadline:
    """The moment by which a whole operation must be over, with all its messages."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, more than 0. Raises TimedOut when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimedOut(f"the phone did not answer within {self.seconds:.0f} s")
        return left


class Transport(ABC):
    """A way to one phone. Every method ends within its time, with ``Broken`` at the worst.

    Not for several threads at once. ``where`` names the phone in errors.
    """

    where: str

    @abstractmethod
    def connect(self) -> None:
        """Opens the link. Raises Broken, or DeviceMissing with what the user can do."""

    @abstractmethod
    def shell(self, command: str, timeout_s: float) -> bytes:
        """Everything that the phone's shell prints for ``command`` (its stderr may be missing).

        Raises Refused when it is more than ``LONGEST``; the command may still run then.
        """

    @abstractmethod
    def push(self, data: bytes, remote: str, mode: int, timeout_s: float) -> None:
        """Writes one file on the phone with the permissions ``mode``. Raises Refused."""

    @abstractmethod
    def pull(self, remote: str, timeout_s: float) -> bytes:
        """Reads one file of the phone. Raises Refused when it cannot be read."""

    @abstractmethod
    def close(self) -> None:
        """Ends the link; may be called at any time and repeatedly."""

    def run(self, command: str, timeout_s: float = 20.0) -> Done:
        """Runs a command in the phone's shell.

        ADB's first shell protocol, the only one that all phones have, tells neither the exit code nor whether the
        output is whole. A marker that is printed after the command tells both. It is new each time, so no output can
        contain it. The command runs in a subshell: an ``exit`` in it must not end the shell before the marker.
        """
        marker = f"=={secrets.token_hex(8)}:"
        raw = self.shell(f"( {command}\n) 2>&1; echo {marker}$?", timeout_s)
        text = raw.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
        output, _, tail = text.rpartition(marker)
        if not re.fullmatch(r"\d{1,3}\n", tail):
            raise Broken("the link to the phone broke within a command", where=self.where)
        return Done(output, int(tail))


def joined(parts: Iterable[bytes]) -> bytes:
    """The parts of an output. Raises Refused as soon as it is longer than ``LONGEST``."""
    output = bytearray()
    for part in parts:
        output += part
        if len(output) > LONGEST:
            raise Refused(f"the program printed more than {LONGEST >> 20} MiB")
    return bytes(output)


def read_file(path: Path) -> bytes:
    """A local file. Raises BenchError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BenchError(f"cannot read: {error.strerror}", where=str(path)) from None
