"""The phones that are attached now, as a running adb server, USB or a network address tells. Nothing is started."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from android_bench.adb.address import ServerAddress, adb_server_address, connect

_TIMEOUT_S = 2.0
_USB = Path("/sys/bus/usb/devices")
# The USB interface class, subclass and protocol of ADB (Android's adb.h: ADB_CLASS, ADB_SUBCLASS, ADB_PROTOCOL).
_ADB_INTERFACE = ("ff", "42", "01")


@dataclass(frozen=True)
class Attached:
    """A phone: its serial, its state as adb calls it (``device unauthorized offline ...``), and how it is seen."""

    serial: str
    state: str
    via: str


def attached(usb: Path = _USB) -> list[Attached]:
    """The phones of the adb server, then the phones on USB that the server does not have (state ``"usb"``)."""
    served = from_adb_server()
    serials = {phone.serial for phone in served}
    return served + [phone for phone in from_usb(usb) if phone.serial not in serials]


def from_adb_server(address: ServerAddress | None = None) -> list[Attached]:
    """The devices of the adb server, empty when none runs (protocol: AOSP adb, OVERVIEW.TXT, host services).

    Raises:
        BenchUsageError: ``ADB_SERVER_SOCKET`` cannot be read.
    """
    request = b"host:devices"
    where = address or adb_server_address()
    try:
        with connect(where, _TIMEOUT_S) as connection:
            connection.sendall(b"%04x%b" % (len(request), request))
            if _receive(connection, 4) != b"OKAY":
                return []
            lines = _receive(connection, int(_receive(connection, 4), 16)).decode("utf-8", "replace")
    except (OSError, ValueError):
        return []
    rows = [line.split("\t", 1) for line in lines.splitlines() if "\t" in line]
    return [Attached(serial.strip(), state.strip(), "adb server") for serial, state in rows]


def from_usb(devices: Path = _USB) -> list[Attached]:
    """Phones whose ADB interface is on USB, with or without an adb server."""
    found: list[Attached] = []
    for interface in sorted(devices.glob("*:*")):
        fields = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
        if tuple(_text(interface / field) for field in fields) == _ADB_INTERFACE:
            port = interface.name.split(":")[0]
            found.append(Attached(_text(devices / port / "serial") or f"usb:{port}", "usb", "USB"))
    return found


def answers_adb(address: tuple[str, int]) -> bool:
    """Whether a phone answers at a network address: we send ADB's greeting, and it must greet too or ask for a key.

    The message is six little-endian words: command, two arguments, payload length, sum of its bytes, and the
    command inverted (AOSP adb, protocol.txt).
    """
    payload = b"host::\0"
    command = int.from_bytes(b"CNXN", "little")
    head = struct.pack("<6I", command, 0x01000000, 4096, len(payload), sum(payload), command ^ 0xFFFFFFFF)
    try:
        with socket.create_connection(address, timeout=_TIMEOUT_S) as connection:
            connection.sendall(head + payload)
            return _receive(connection, 24)[:4] in (b"CNXN", b"AUTH", b"STLS")
    except OSError:
        return False


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("connection closed early")
        data += part
    return data


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
