"""Addresses: where the adb server listens, and phones in the network."""

from __future__ import annotations

import os
import re
import socket

from android_bench.errors import BenchUsageError

PORT = 5555
"""The port that ``adb tcpip`` usually opens on a phone."""
ServerAddress = tuple[str, int] | str
"""Host and port, or the path of a Unix socket (which begins with a zero byte in the abstract namespace)."""


def adb_server_address() -> ServerAddress:
    """Where the adb server listens, from the environment, as adb's own client reads it.

    ``ADB_SERVER_SOCKET`` (``tcp:PORT``, ``tcp:HOST:PORT``, ``localfilesystem:PATH``, ``localabstract:NAME``) goes before
    ``ANDROID_ADB_SERVER_ADDRESS`` and ``ANDROID_ADB_SERVER_PORT`` (AOSP adb, ``commandline.cpp`` and
    ``socket_spec.cpp``).

    Raises:
        BenchUsageError: ``ADB_SERVER_SOCKET`` has another form.
    """
    if socket_name := os.environ.get("ADB_SERVER_SOCKET"):
        return _socket(socket_name)
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1"
    port = os.environ.get("ANDROID_ADB_SERVER_PORT", "")
    return host, int(port) if port.isdigit() and int(port) < 65536 else 5037


def connect(address: ServerAddress, timeout_s: float) -> socket.socket:
    """A connection to the adb server. Raises OSError."""
    if not isinstance(address, str):
        return socket.create_connection(address, timeout_s)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def split_address(text: str) -> tuple[str, int] | None:
    """``"192.168.1.7:5555"`` or ``"[::1]:5555"`` as host and port; None when it is not of that form."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return None
    return host, int(port)


def port_hint(text: str) -> str:
    """What to write instead of an address without its port; empty when ``text`` is no such address.

    Example:
        >>> port_hint("192.168.1.7"), port_hint("pixel.local"), port_hint("[::1]"), port_hint("R58M")
        ('192.168.1.7:5555', 'pixel.local:5555', '[::1]:5555', '')
    """
    name = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    if re.fullmatch(rf"localhost|{name}(\.{name})+|\[[0-9A-Fa-f:]+\]", text):
        return f"{text}:{PORT}"
    return f"[{text}]:{PORT}" if re.fullmatch(r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:]*", text) else ""


def _socket(name: str) -> ServerAddress:
    kind, _, rest = name.partition(":")
    if kind in ("local", "localfilesystem") and rest:
        return rest
    if kind == "localabstract" and rest:
        return f"\0{rest}"
    if kind == "tcp" and rest.isascii() and rest.isdigit() and 0 < int(rest) < 65536:
        return "127.0.0.1", int(rest)
    address = split_address(rest) or split_address(port_hint(rest))
    if kind == "tcp" and address:
        return address
    raise BenchUsageError(
        "not the socket of an adb server",
        where=f"ADB_SERVER_SOCKET={name}",
        fix="use tcp:HOST:PORT, tcp:PORT or localfilesystem:PATH",
    )
