"""Where the user's ``benchmark_model`` is, and whether a phone can run it. None is shipped: see the README."""

from __future__ import annotations

import os
from pathlib import Path

from android_bench.errors import BenchUsageError, DeviceMissing

VARIABLE = "EDGECLS_BENCHMARK_MODEL"
# Machine numbers of the ELF specification.
_MACHINES = {
    3: ("x86", "32-bit x86"),
    40: ("armeabi-v7a", "32-bit ARM"),
    62: ("x86_64", "64-bit x86"),
    183: ("arm64-v8a", "64-bit ARM"),
    243: ("riscv64", "64-bit RISC-V"),
}


def cache_folder() -> Path:
    """Where a binary is looked for at last: ``<cache>/edgecls/benchmark_model/<ABI>/benchmark_model``."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "edgecls" / "benchmark_model"


def find_binary(binary: str | Path | None, abis: tuple[str, ...]) -> Path:
    """The program to run on a phone with these ABIs.

    Args:
        binary: What the user named; None: the environment variable ``EDGECLS_BENCHMARK_MODEL``, then the cache.
        abis: The phone's, the preferred one first.

    Raises:
        BenchUsageError: The named file does not exist, is no program, or is for another kind of processor.
        DeviceMissing: No program was named and none is in the cache.
    """
    named = binary or os.environ.get(VARIABLE)
    if named:
        path = Path(named)
        if not path.is_file():
            where = f"--binary {path}" if binary else f"{VARIABLE}={path}"
            raise BenchUsageError("no such program", where=where)
        _check(path, abis)
        return path
    for abi in abis:
        path = cache_folder() / abi / "benchmark_model"
        if path.is_file():
            _check(path, abis)
            return path
    abi = abis[0] if abis else "arm64-v8a"
    raise DeviceMissing(
        f"no benchmark_model for {abi}",
        fix="give TensorFlow Lite's or LiteRT's benchmark tool for Android with --binary, or put it at "
        f"{cache_folder() / abi / 'benchmark_model'}",
    )


def _check(path: Path, abis: tuple[str, ...]) -> None:
    with path.open("rb") as file:
        head = file.read(20)
    if head.startswith(b"#!"):
        return  # a script around the program; the phone will say what it thinks of it
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        raise BenchUsageError("not a program for Android", where=str(path))
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    abi, name = _MACHINES.get(machine, ("", f"machine {machine}"))
    if abis and abi not in abis and not (abi == "armeabi-v7a" and "armeabi" in abis):
        raise BenchUsageError(
            f"this program is for {name}, and the phone runs {', '.join(abis)}",
            where=str(path),
            fix=f"give one built for {abis[0]}",
        )
