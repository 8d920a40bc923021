"""The C library's memory: kept when it is freed, since getting it anew costs time."""

from __future__ import annotations

import ctypes
import functools
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
_LARGEST = 2**25  # bytes of a block that is kept: as large as glibc itself lets it become
_KEPT = 2**28  # bytes that lie free at the end of a heap before they are given back


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, up to 256 MiB in a heap, for what it asks for next.

    Batches and decoded photos have megabytes each, and come and go. By default glibc gives such blocks back to the system
    and gets them anew page by page, a fault each, which costs about as much as decoding a photo. What the user has set in
    the environment (``MALLOC_...``, ``GLIBC_TUNABLES``) stays, and other C libraries are left as they are.

    Returns:
        Whether it does from now on.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # only glibc has it; Windows has no library of the process
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _KEPT))
