"""Addresses: where the adb server listens, and phones in the network."""

from __future__ import annotations

import os


def adb_server_address() -> tuple[str, int]:
    """Where the adb server listens; ``ANDROID_ADB_SERVER_ADDRESS`` and ``_PORT`` as adb itself reads them."""
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1"
    port = os.environ.get("ANDROID_ADB_SERVER_PORT", "")
    return host, int(port) if port.isdigit() and int(port) < 65536 else 5037


def split_address(text: str) -> tuple[str, int] | None:
    """``"192.168.1.7:5555"`` or ``"[::1]:5555"`` as host and port; None when it is not of that form."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return None
    return host, int(port)
