"""The user's folders: what can be made again is in the cache, the key for phones and devices.yaml are settings."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from android_bench.errors import DeviceMissing


def cache_dir() -> Path:
    """The cache: ``$EDGECLS_CACHE``, else ``edgecls`` in the system's cache folder, else in ``~/.cache``.

    The system names its folder with ``XDG_CACHE_HOME`` or ``LOCALAPPDATA``. Raises as ``home``.
    """
    if chosen := os.environ.get("EDGECLS_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else home() / ".cache") / "edgecls"


def config_folder() -> Path:
    """The settings: ``$EDGECLS_CONFIG``, else ``edgecls`` in the system's settings folder, else in ``~/.config``.

    The system names its folder with ``XDG_CONFIG_HOME`` or ``APPDATA``. Raises as ``home``.
    """
    if chosen := os.environ.get("EDGECLS_CONFIG"):
        return Path(chosen)
    base = os.environ.get("XDG_CONFIG_HOME") or os.environ.get("APPDATA")
    return (Path(base) if base else home() / ".config") / "edgecls"


def home() -> Path:
    """The user's home folder.

    A user may have none: a container often runs as a bare user id, without ``HOME`` and without an entry in the list
    of users. Such a user gets a folder among the temporary files that nobody else can read.

    Raises:
        DeviceMissing: That folder cannot be made, or another user made it, so nothing in it can be trusted.
    """
    try:
        return Path.home()
    except RuntimeError:
        return _temporary_home()


def _temporary_home() -> Path:
    folder = Path(tempfile.gettempdir()) / f"edgecls-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise DeviceMissing(
            f"no folder for a user without a home: {error.strerror}", where=str(folder), fix="set HOME"
        ) from None
    if owner != os.getuid():
        raise DeviceMissing("the folder belongs to another user", where=str(folder), fix="set HOME")
    return folder
