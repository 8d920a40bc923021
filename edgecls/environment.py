"""What a run was made with: versions and the computer. The packages themselves are not imported."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from edgecls import onednn

PACKAGES = (
    "edgecls",
    "tensorflow",
    "keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "numpy",
    "pillow",
    "pydantic",
    "click",
    "rich",
)
INT8_INSTRUCTIONS = {
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "asimddp": "dot products of Armv8.2",
}


def environment() -> dict[str, Any]:
    """What goes into a run's env.json.

    Returns:
        Versions of the packages, Python, platform, processor, its instructions for int8 (or None), cores, memory in
        GiB, what is said of oneDNN (or None), the git commit of edgecls (or None) and the command's arguments.
    """
    return {
        "schema": "edgecls.env/1",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "int8_instructions": int8_instructions(cpu_flags()),
        "cores": cores(),
        "memory_gib": memory_gib(),
        "onednn": os.environ.get(onednn.VARIABLE),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit(),
        "argv": sys.argv[1:],
    }


def version(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name."""
    return _cpuinfo("model name", "Hardware") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """The processor's instruction sets as Linux names them, e.g. ``avx512_vnni``; empty if the system has no list."""
    return set(_cpuinfo("flags", "Features").split())


def int8_instructions(flags: set[str]) -> str | None:
    """The name of a processor's instructions for int8, or None. Without them int8 is hardly faster than float.

    Args:
        flags: What ``cpu_flags`` gives.
    """
    return next((name for flag, name in INT8_INSTRUCTIONS.items() if flag in flags), None)


def _cpuinfo(*names: str) -> str:
    """The first value in Linux' list of processors that has one of these names."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in names:
                return value.strip()
    except OSError:
        pass
    return ""


def memory_gib() -> float | None:
    """Memory of the computer, or of the container where that is less, in GiB."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
        total = min(total, int(limit))
    except (OSError, ValueError):
        pass
    return round(total / 2**30, 1)


def commit() -> str | None:
    """Git commit of the source tree edgecls runs from, with "+" when it has changes; None if installed."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
        dirty = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if dirty.returncode == 1 else "")
