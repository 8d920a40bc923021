"""A phone through a running adb server: the server's socket protocol and file transfer (AOSP adb: OVERVIEW.TXT,
SERVICES.TXT, SYNC.TXT).

Where a server runs, it holds the USB interface of its phones, and only it can reach them. No library is used, because
a transfer must end at its deadline and because measuring must not start a server.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

from android_bench.adb.address import ServerAddress, adb_server_address, connect
from android_bench.adb.transport import CONNECT_S, Broken, Deadline, Refused, TimedOut, Transport, joined
from android_bench.errors import ACCEPT_PROMPT, BenchError, DeviceMissing

_CHUNK = 64 * 1024  # the most that a DATA message may carry


class _Stream:
    """A connection to the server; every read and write is within the deadline."""

    def __init__(self, address: ServerAddress, deadline: Deadline) -> None:
        self._deadline = deadline
        self.socket = connect(address, min(CONNECT_S, deadline.left()))
        if self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            self.socket.settimeout(self._deadline.left())
            rest = rest[self.socket.send(rest) :]

    def receive(self, size: int = _CHUNK) -> bytes:
        """Up to ``size`` bytes, none at the end."""
        self.socket.settimeout(self._deadline.left())
        return self.socket.recv(size)

    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self.receive(size - len(data))
            if not part:
                raise ConnectionResetError("closed by the adb server")
            data += part
        return bytes(data)

    def ask(self, service: str) -> None:
        """Requests a service. Raises Refused with the server's reason."""
        request = service.encode("utf-8", "surrogateescape")
        self.write(b"%04x" % len(request) + request)
        status = self.read(4)
        if status == b"FAIL":
            raise Refused(self.read(int(self.read(4), 16)).decode("utf-8", "replace"))
        if status != b"OKAY":
            raise ConnectionResetError(f"not an adb server: {status!r}")

    def ready(self) -> bool:
        """Whether the other side has said something, or closed, unasked."""
        self.socket.settimeout(0)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True


class ServerTransport(Transport):
    """The phone that the adb server at ``address`` (default: the running one) knows as ``serial``."""

    def __init__(self, serial: str, address: ServerAddress | None = None) -> None:
        self.where, self._serial = serial, serial
        self._address = address or adb_server_address()

    def connect(self) -> None:
        """Asks whether the server still has the phone. Nothing is kept open."""
        with self._open(f"host-serial:{self._serial}:get-state", CONNECT_S) as stream:
            state = stream.read(int(stream.read(4), 16)).decode("utf-8", "replace")
        if state != "device":
            raise Broken(f"adb says that the phone is {state!r}", where=self.where)

    def shell(self, command: str, timeout_s: float) -> bytes:
        with self._service(f"shell:{command}", timeout_s) as stream:
            return joined(iter(stream.receive, b""))

    def push(self, data: bytes, remote: str, mode: int, timeout_s: float) -> None:
        target = f"{remote},{0o100000 | mode}".encode("utf-8", "surrogateescape")
        with self._service("sync:", timeout_s) as stream:
            stream.write(_message(b"SEND", target))
            view = memoryview(data)
            for start in range(0, len(data), _CHUNK):
                if stream.ready():
                    break  # the phone says why it stops before all is sent
                stream.write(_message(b"DATA", view[start : start + _CHUNK]))
            else:
                stream.write(b"DONE" + struct.pack("<I", int(time.time())))
            _answer(stream, b"OKAY")

    def pull(self, remote: str, timeout_s: float) -> bytes:
        data = bytearray()
        with self._service("sync:", timeout_s) as stream:
            stream.write(_message(b"RECV", remote.encode("utf-8", "surrogateescape")))
            while size := _answer(stream, b"DATA", end=b"DONE"):
                data += stream.read(size)
        return bytes(data)

    def close(self) -> None:
        """Nothing is kept open."""

    @contextlib.contextmanager
    def _service(self, service: str, timeout_s: float) -> Iterator[_Stream]:
        with self._open(f"host:transport:{self._serial}", timeout_s) as stream:
            stream.ask(service)
            yield stream

    @contextlib.contextmanager
    def _open(self, service: str, timeout_s: float) -> Iterator[_Stream]:
        stream = None
        try:
            stream = _Stream(self._address, Deadline(timeout_s))
            try:
                stream.ask(service)
            except Refused as error:
                # "device offline", "device 'X' not found", "device unauthorized...": the phone may come back.
                if "unauthorized" in error.what:
                    raise DeviceMissing(
                        "the phone does not trust this computer",
                        where=self.where,
                        fix=f"{ACCEPT_PROMPT}, then run again",
                    ) from None
                raise Broken(f"adb says: {error.what.splitlines()[0]}") from None
            yield stream
        except BenchError as error:
            if error.where:
                raise
            raise type(error)(error.what, where=self.where, fix=error.fix) from None
        except TimeoutError:
            raise TimedOut(f"the phone did not answer within {timeout_s:.0f} s", where=self.where) from None
        except (OSError, ValueError) as error:
            raise Broken(f"the link to the adb server broke: {error}", where=self.where) from None
        finally:
            if stream is not None:
                stream.socket.close()


def _message(name: bytes, data: bytes | memoryview) -> bytes:
    return b"".join((name, struct.pack("<I", len(data)), data))


def _answer(stream: _Stream, wanted: bytes, end: bytes = b"") -> int:
    """The size that goes with the answer ``wanted``, 0 for ``end``. Raises Refused at FAIL."""
    name, size = struct.unpack("<4sI", stream.read(8))
    if name == b"FAIL":
        raise Refused(stream.read(size).decode("utf-8", "replace"))
    if name not in (wanted, end):
        raise ConnectionResetError(f"the phone answered {name!r}")
    return 0 if name == end else int(size)
