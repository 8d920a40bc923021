"""Finds the program that measures on a phone, and checks that the phone can run it. None is shipped: see the README.

On Android it is the user's ``benchmark_model``; on 64-bit ARM Linux also our own, which ``runner/build.sh`` builds. On
any Linux our program in Python does it, where ``ai-edge-litert`` is installed there.
"""

from __future__ import annotations

import os
from pathlib import Path

from android_bench.errors import DeviceMissing
from android_bench.folders import cache_dir

VARIABLE = "EDGECLS_BENCHMARK_MODEL"
RUNNER, LIBRARY = "edgecls_runner", "libLiteRt.so"
LINUX = "-linux"  # ends our names of the ABIs of Linux without Android
_BUILD = Path(__file__).parents[1] / "runner" / "build.sh"
_SCRIPT = _BUILD.with_name("edgecls_runner.py")
_MARK = b"edgecls runner 1"  # what our own program prints is in it
# Machine numbers of the ELF specification; the ABI's name on Android, on Linux (as ``uname -m`` says it), and in words.
_MACHINES = {
    3: ("x86", "i686", "32-bit x86"),
    40: ("armeabi-v7a", "armv7l", "32-bit ARM"),
    62: ("x86_64", "x86_64", "64-bit x86"),
    183: ("arm64-v8a", "aarch64", "64-bit ARM"),
    243: ("riscv64", "riscv64", "64-bit RISC-V"),
}


def cached_binaries() -> Path:
    """The folder in which a program is looked for at last, as ``<ABI>/benchmark_model``.

    For the ABI ``aarch64-linux`` our own ``edgecls_runner`` there will do as well.
    """
    return cache_dir() / "benchmark_model"


def find_binary(binary: str | Path | None, abis: tuple[str, ...]) -> Path:
    """The program to run on a phone with these ABIs.

    Args:
        binary: What the user named; None: the environment variable ``EDGECLS_BENCHMARK_MODEL``, then the cache,
            then on Linux our program in Python.
        abis: The phone's, the preferred one first.

    Raises:
        DeviceMissing: No program was named and none is in the cache. Or the named file does not exist, is no program,
            or is for another kind of processor.
    """
    named = binary or os.environ.get(VARIABLE)
    if named:
        path = Path(named)
        if not path.is_file():
            where = f"--binary {path}" if binary else f"{VARIABLE}={path}"
            raise DeviceMissing("no such program", where=where)
        _check(path, abis)
        return path
    for abi in abis:
        for name in ("benchmark_model", RUNNER) if abi.endswith(LINUX) else ("benchmark_model",):
            path = cached_binaries() / abi / name
            if path.is_file():
                _check(path, abis)
                return path
    abi = abis[0] if abis else "arm64-v8a"
    if abi.endswith(LINUX):
        return _SCRIPT  # needs Python and ai-edge-litert there; it says so where they are missing
    raise DeviceMissing(
        f"no benchmark_model for {abi}",
        fix="give TensorFlow Lite's or LiteRT's benchmark tool for Android with --binary, or put it at "
        f"{cached_binaries() / abi / 'benchmark_model'}",
    )


def is_ours(program: Path) -> bool:
    """Whether it is our own program, which tells every run."""
    return _MARK in program.read_bytes()


def library_of(program: Path) -> Path | None:
    """The library that must lie beside our own program; None for a ``benchmark_model`` and for our program in Python.

    Raises:
        DeviceMissing: It is our program, and the library is not there.
    """
    if not is_ours(program) or program.read_bytes().startswith(b"#!"):
        return None
    library = program.with_name(LIBRARY)
    if not library.is_file():
        raise DeviceMissing(
            f"the program needs {LIBRARY} beside it",
            where=str(program),
            fix=f"bash {_BUILD} {program.parent}",
        )
    return library


def _check(path: Path, abis: tuple[str, ...]) -> None:
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"#!"):
        return  # a script around the program; the phone will say what it thinks of it
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        raise DeviceMissing("not a program for Android", where=str(path))
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    android, linux, words = _MACHINES.get(machine, ("", "", f"machine {machine}"))
    # The loader that a program names tells the two systems apart; without one (static) it runs on both.
    system = "Linux" if b"/ld-linux" in head else "Android" if b"/system/bin/linker" in head else ""
    names = ({android} if system != "Linux" else set()) | ({linux + LINUX} if system != "Android" else set())
    if android == "armeabi-v7a":
        names.add("armeabi")
    if abis and not names & set(abis):
        raise DeviceMissing(
            f"this program is for {words}{system and ' ' + system}, and the phone runs {', '.join(abis)}",
            where=str(path),
            fix=f"give one built for {abis[0]}",
        )
