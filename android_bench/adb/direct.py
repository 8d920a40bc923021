"""ADB without an adb server, over TCP or USB, by the package adb-shell.

This module adds what adb-shell 0.4.4 lacks:

- Small packets leave at once (TCP_NODELAY): pushes are 5 to 100 times faster.
- A packet is always sent completely.
- A closed link is noticed when it closes, not ten seconds later; a phone that leaves the network within 25 s.
- Each operation has one deadline.
- A phone that refuses a file during a push is heard at once.
"""

from __future__ import annotations

import contextlib
import errno
import io
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from adb_shell import constants, exceptions
from adb_shell.adb_device import AdbDevice
from adb_shell.adb_message import AdbMessage
from adb_shell.transport.tcp_transport import TcpTransport

from android_bench.adb.keys import signer
from android_bench.adb.transport import CONNECT_S, Broken, Deadline, Refused, TimedOut, Transport, joined
from android_bench.errors import ACCEPT_PROMPT, BenchError, DeviceMissing

AUTH_WAIT_S = 60.0
# A phone that leaves the network says nothing. While a program runs we say nothing either, and would wait until its end.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # seconds, seconds, number


class _Tcp(TcpTransport):
    """A socket that obeys a deadline; adb-shell's own time-outs are per message and are not used."""

    deadline = Deadline(0)

    def connect(self, transport_timeout_s: float | None) -> None:
        super().connect(self.deadline.left())
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if option := getattr(socket, name, None):  # macOS lacks one
                self._connection.setsockopt(socket.IPPROTO_TCP, option, value)

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        data: bytes = super().bulk_read(numbytes, self.deadline.left())
        if not data:
            raise ConnectionResetError("closed by the phone")
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        rest = memoryview(data)
        while rest:
            rest = rest[super().bulk_write(rest, self.deadline.left()) :]
        return len(data)


class _Message(AdbMessage):
    @property
    def checksum(self) -> int:
        """The sum of the bytes, by NumPy: adb-shell adds them in Python, which takes as long as sending them."""
        return int(np.frombuffer(self.data, np.uint8).sum(dtype=np.uint64)) & 0xFFFFFFFF


class _Device(AdbDevice):
    def _filesync_flush(self, adb_info: Any, filesync_info: Any) -> None:
        """Sends what is buffered; a phone that runs out of space says so now, before all is sent."""
        data = bytes(memoryview(filesync_info.send_buffer)[: filesync_info.send_idx])
        message = _Message(constants.WRTE, adb_info.local_id, adb_info.remote_id, data)
        self._io_manager.send(message, adb_info)
        filesync_info.send_idx = 0
        while True:
            command, answer = self._read_until([constants.OKAY, constants.WRTE, constants.CLSE], adb_info)
            if command == constants.CLSE:
                raise ConnectionResetError("the phone ended the transfer")
            filesync_info.recv_buffer += answer
            if filesync_info.recv_buffer.startswith(b"FAIL") and len(filesync_info.recv_buffer) >= 8:
                (size,) = struct.unpack("<I", filesync_info.recv_buffer[4:8])
                reason = bytes(filesync_info.recv_buffer[8 : 8 + size])
                if len(reason) == size:
                    raise exceptions.PushFailedError(reason)
            if command == constants.OKAY:
                return


class DirectTransport(Transport):
    """A phone at ``address`` (host, port), or with ``serial`` on USB.

    Args:
        on_auth: Called when the phone asks its user whether to trust this computer.
        auth_wait_s: How long the user may take to answer.
        keys: Folder of the key pair (default: the user's).
    """

    def __init__(
        self,
        address: tuple[str, int] | None = None,
        serial: str = "",
        *,
        on_auth: Callable[[], None] | None = None,
        auth_wait_s: float = AUTH_WAIT_S,
        keys: Path | None = None,
    ) -> None:
        self.where = serial or "{}:{}".format(*(address or ("", 0)))
        self._address, self._serial, self._keys = address, serial, keys
        self._on_auth, self._auth_wait_s, self._asked = on_auth, auth_wait_s, False
        self._link: Any = None
        self._device: Any = None

    def connect(self) -> None:
        self.close()
        self._link = _Tcp(*self._address) if self._address else _usb(self._serial)
        # Without a banner adb-shell would tell the phone the name of this computer.
        self._device, self._asked = _Device(self._link, banner="edgecls"), False
        keys = [signer(self._keys)]
        try:
            with self._within(CONNECT_S):
                self._device.connect(
                    keys, CONNECT_S, self._auth_wait_s, self._auth_wait_s, auth_callback=self._pending
                )
        except Broken as error:
            self.close()
            if "STLS" in str(error):
                fix = (
                    "pair it (`adb pair`, `adb connect`), or connect it by USB once and run `adb tcpip 5555`"
                )
                raise DeviceMissing("this phone wants an encrypted link", where=self.where, fix=fix) from None
            if self._asked:
                raise DeviceMissing(
                    "the phone does not trust this computer",
                    where=self.where,
                    fix=f"{ACCEPT_PROMPT}, then run again",
                ) from None
            raise

    def shell(self, command: str, timeout_s: float) -> bytes:
        with self._within(timeout_s) as device:
            return joined(device.streaming_shell(command, timeout_s, timeout_s, decode=False))

    def push(self, data: bytes, remote: str, mode: int, timeout_s: float) -> None:
        with self._within(timeout_s) as device:
            device.push(
                io.BytesIO(data),
                remote,
                st_mode=0o100000 | mode,
                transport_timeout_s=timeout_s,
                read_timeout_s=timeout_s,
            )

    def pull(self, remote: str, timeout_s: float) -> bytes:
        data = io.BytesIO()
        with self._within(timeout_s) as device:
            device.pull(remote, data, transport_timeout_s=timeout_s, read_timeout_s=timeout_s)
        return data.getvalue()

    def close(self) -> None:
        if self._device is not None:
            with contextlib.suppress(Exception):
                self._device.close()
            self._device = None

    def _pending(self, device: Any) -> None:
        self._asked = True
        if isinstance(self._link, _Tcp):
            self._link.deadline = Deadline(self._auth_wait_s)
        if self._on_auth:
            self._on_auth()

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Iterator[Any]:
        """Runs one operation within a deadline. Errors of adb-shell and of the system become Refused, TimedOut or Broken."""
        if self._device is None:
            raise Broken("not connected to the phone", where=self.where)
        deadline = Deadline(seconds)
        if isinstance(self._link, _Tcp):
            self._link.deadline = deadline
        try:
            yield self._device
        except (exceptions.AdbCommandFailureException, exceptions.PushFailedError) as error:
            if isinstance(error, exceptions.PushFailedError):
                self.close()  # the stopped transfer is still open on the phone
            raise Refused(_reason(error), where=self.where) from None
        except BenchError as error:
            raise type(error)(error.what, where=self.where) from None
        except (exceptions.TcpTimeoutException, exceptions.AdbTimeoutError, TimeoutError) as error:
            if (
                getattr(error, "errno", None) == errno.ETIMEDOUT
            ):  # the kernel gave up, long before the deadline
                raise Broken("the phone has left the network", where=self.where) from None
            raise TimedOut(f"the phone did not answer within {seconds:.0f} s", where=self.where) from None
        except Exception as error:
            # Torn messages surface as many kinds of errors (KeyError, struct.error, checksums, OSError).
            raise Broken(
                f"the link to the phone broke: {error or type(error).__name__}", where=self.where
            ) from None


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    text = bytes(reason).decode("utf-8", "replace") if isinstance(reason, bytes | bytearray) else str(reason)
    return text.removeprefix("Command failed: ") or "the phone gave no reason"


def _usb(serial: str) -> Any:
    try:
        from adb_shell.transport.usb_transport import UsbTransport

        found = UsbTransport.find_adb(serial=serial, default_transport_timeout_s=CONNECT_S)
    except (ImportError, OSError):
        raise DeviceMissing(
            "no library for USB", fix="pip install 'adb-shell[usb]', or start an adb server: adb start-server"
        ) from None
    except Exception as error:  # usb1 raises many kinds; all mean that this phone cannot be opened
        raise Broken(f"cannot open the phone on USB: {error}", where=serial) from None
    return found
