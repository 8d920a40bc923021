"""The most memory that a training has had."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import tensorflow as tf

_MB = 1e6


def peak_memory() -> dict[str, float]:
    """Most memory of this process so far: ``memory_mb`` and, with GPUs, ``gpu_memory_mb`` of the fullest one.

    ``memory_mb`` is the resident set, in MB (10^6 bytes): ``VmHWM`` of proc(5). Where the system has no such file it is
    ``ru_maxrss``, which a process inherits from the one that started it.
    """
    values = {"memory_mb": (_high_water() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / _MB}
    if gpus := tf.config.list_logical_devices("GPU"):
        peaks = [tf.config.experimental.get_memory_info(f"GPU:{i}")["peak"] for i in range(len(gpus))]
        values["gpu_memory_mb"] = max(peaks) / _MB
    return values


def _high_water() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
