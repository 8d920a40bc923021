"""Commands and verified transfers over a ``Transport``, on a link that may break and come back.

After every break and every time-out the link is closed and opened anew. Nothing is changed on the phone by that, unless
a session has set ``on_connect``.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from android_bench.adb.address import split_address
from android_bench.adb.transport import Broken, Done, Refused, TimedOut, Transport, read_file
from android_bench.errors import BenchError, DeviceMissing

FOLDER = "/data/local/tmp/edgecls"
PATIENCE_S = 15.0
_TRIES = 4
_SLOWEST = 300_000.0  # bytes/s; the slowest link that we wait for
_T = TypeVar("_T")


class Link:
    """The link to one phone.

    Args:
        transport: The way to it.
        folder: Our folder on the phone.
        patience_s: Seconds that the phone may be away before it counts as gone. It then stays gone for this link.

    Attributes:
        on_connect: Called with the transport after each connect; a session ends its earlier program there.
        on_close: Called before the link is closed for good, unless the phone is gone.
    """

    def __init__(
        self, transport: Transport, *, folder: str = FOLDER, patience_s: float | None = None
    ) -> None:
        self.transport, self.folder = transport, folder
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._connected = self._seen = False
        self._gone: DeviceMissing | None = None
        self.on_connect: Callable[[Transport], None] = lambda transport: None
        self.on_close: Callable[[], None] = lambda: None

    @property
    def where(self) -> str:
        return self.transport.where

    def run(self, command: str, timeout_s: float = 20.0) -> Done:
        """Runs a command. It must be one that may run twice: it runs again when the link breaks meanwhile.

        Raises:
            DeviceMissing: The phone is gone.
            TimedOut: It did not end in time.
        """
        return self._persist(lambda: self.transport.run(command, timeout_s), again_after_timeout=False)

    def digest(self, remote: str) -> str | None:
        """SHA-256 of a file on the phone; None when there is no such file."""
        done = self.run(f"sha256sum < {shlex.quote(remote)}", 120.0)
        if done.code == 0 and re.match(r"[0-9a-fA-F]{64}\b", done.output):
            return done.output[:64].lower()
        if done.code == 127:  # older phones have no sha256sum: read it back
            try:
                return hashlib.sha256(self.read(remote)).hexdigest()
            except Refused:
                return None
        return None

    def push(self, local: Path, remote: str, *, mode: int = 0o644, sha256: str = "") -> bool:
        """Puts a file on the phone under a temporary name, compares it there, then renames it.

        Returns:
            False when the phone has it already.

        Raises:
            DeviceMissing: The phone is gone or has no space left.
            BenchError: The phone refuses the file, or it arrives damaged.
        """
        data = read_file(local)
        wanted = sha256 or hashlib.sha256(data).hexdigest()
        if self.digest(remote) == wanted:
            return False
        self._need_space(len(data))
        part, name = f"{remote}.part", shlex.quote(remote)
        try:
            for _ in range(2):
                self._persist(lambda: self.transport.push(data, part, mode, self.transfer_s(len(data))))
                if self.digest(part) == wanted:
                    done = self.run(f"chmod {mode:o} {shlex.quote(part)} && mv -f {shlex.quote(part)} {name}")
                    # A rename that broke and was tried again may have been done the first time.
                    if done.code and self.digest(remote) != wanted:
                        raise Refused(done.output.strip() or "it cannot be renamed")
                    return True
        except Refused as error:
            self.run(f"rm -f {shlex.quote(part)}")
            if "space" in error.what.lower():
                raise self._full(len(data)) from None
            what = f"the phone does not take {local.name}: {error.what}"
            raise BenchError(what, where=self.where) from None
        raise BenchError(f"{local.name} arrives damaged on the phone", where=self.where)

    def read(self, remote: str) -> bytes:
        """The content of a file on the phone. Raises Refused, or DeviceMissing when the phone is gone."""
        listed = self.run(f"wc -c < {shlex.quote(remote)}")
        size = int(listed.output) if listed.code == 0 and listed.output.strip().isdigit() else 0
        return self._persist(lambda: self.transport.pull(remote, self.transfer_s(size)))

    def close(self) -> None:
        """Ends the link. It may be used again, which connects anew."""
        on_close, self.on_close = self.on_close, lambda: None
        try:
            if not self._gone:
                on_close()
        finally:
            self._drop()

    def _drop(self) -> None:
        self.transport.close()
        self._connected = False

    def _persist(self, action: Callable[[], _T], *, again_after_timeout: bool = True) -> _T:
        last = Broken("", where=self.where)
        for _ in range(_TRIES):
            self._ensure()
            try:
                return action()
            except KeyboardInterrupt:
                self._drop()  # in the middle of a message; what runs on the phone is ended at the next connect
                raise
            except Refused:
                self._connected = False  # a stopped transfer may linger on the link
                raise
            except Broken as error:
                last = error
                self._drop()
                if isinstance(error, TimedOut) and not again_after_timeout:
                    self._ensure()
                    raise
        raise self._missing(last.what)

    def _ensure(self) -> None:
        """Connects if necessary. Waits for a phone that was there before, once."""
        if self._gone:
            raise self._gone
        end = time.monotonic() + (self._patience_s if self._seen else 0.0)
        while not self._connected:
            try:
                self.transport.connect()
                self._connected = True
                self.on_connect(self.transport)
                self._seen = True
            except Broken as error:
                self._drop()
                if time.monotonic() >= end:
                    what = "the phone is gone" if self._seen else "the phone cannot be reached"
                    raise self._missing(f"{what}: {error.what}") from None
                time.sleep(0.3)

    def _missing(self, what: str) -> DeviceMissing:
        """The error of a phone that is gone; every later operation fails with it at once."""
        self._gone = DeviceMissing(what, where=self.where, fix="look at the cable or the network")
        return self._gone

    def _need_space(self, size: int) -> None:
        done = self.run(f"mkdir -p {shlex.quote(self.folder)} && df -k {shlex.quote(self.folder)}")
        if done.code:
            lines = done.output.strip().splitlines()
            if "space" in done.output.lower():
                raise self._full(size)
            raise BenchError(
                f"the phone has no folder for us: {lines[-1] if lines else 'mkdir fails'}", where=self.where
            )
        fields = done.output.split()
        if len(fields) > 3 and fields[-3].isdigit() and int(fields[-3]) * 1024 < size:
            raise self._full(size)

    def _full(self, size: int) -> DeviceMissing:
        return DeviceMissing(
            f"the phone has no space left for {size / 1e6:.1f} MB",
            where=self.where,
            fix="free some space there",
        )

    def transfer_s(self, size: int) -> float:
        """How long the transfer of a file of that many bytes may take."""
        return 20.0 + size / _SLOWEST


def open_link(serial: str, via: str, on_auth: Callable[[], None] | None = None) -> Link:
    """The link to an attached phone, not yet connected.

    Args:
        serial: Its serial, or ``host:port``.
        via: The way to it: ``"adb server"``, ``"USB"`` or ``"network"``.
        on_auth: Called when the phone asks its user whether to trust this computer.
    """
    if via == "adb server":
        from android_bench.adb.server import ServerTransport

        return Link(ServerTransport(serial))
    from android_bench.adb.direct import DirectTransport

    address = split_address(serial) if via == "network" else None
    return Link(DirectTransport(address, "" if address else serial, on_auth=on_auth))
