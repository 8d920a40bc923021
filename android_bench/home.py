"""Where the user's own files are, also for a user without a home."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from android_bench.errors import DeviceMissing


def home() -> Path:
    """The user's home folder.

    A user may have none: a container often runs as a bare user id, without ``HOME`` and without an entry in the list
    of users. Such a user gets a folder among the temporary files that nobody else can read.

    Raises:
        DeviceMissing: Another user has made that folder, so nothing in it can be trusted.
    """
    try:
        return Path.home()
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"edgecls-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise DeviceMissing(
                "the folder belongs to another user", where=str(folder), fix="set HOME"
            ) from None
        return folder
