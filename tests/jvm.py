"""Compiles Kotlin and runs it on the Java virtual machine.

The compiler is the one inside of Jupyter's Kotlin kernel, a package of tests/packages.txt: no other registry is needed.
"""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[1] / ".cache" / "packages"
COMPILER = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
QUICK = [
    "-XX:TieredStopAtLevel=1",
    "-Xmx1g",
]  # a compiler that runs once gains nothing from optimized machine code


class Kotlin:
    """A compiler and a runtime in ``folder``; skips the test where Java or the package is missing."""

    def __init__(self, folder: Path) -> None:
        wheel = next(iter(PACKAGES.glob("kotlin_jupyter_kernel-*.whl")), None)
        if wheel is None or shutil.which("java") is None:
            pytest.skip("no Kotlin compiler: scripts/test.sh downloads it and installs Java")
        self.folder = folder
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".jar"):
                    (folder / Path(name).name).write_bytes(archive.read(name))
        (self.library,) = folder.glob("kotlin-stdlib-*.jar")

    def compile(self, sources: Sequence[Path]) -> str:
        """Compile files to ``classes``; gives the warnings."""
        options = ["-no-stdlib", "-no-reflect", "-cp", str(self.library), "-d", str(self.folder / "classes")]
        return _java("-cp", f"{self.folder}/*", COMPILER, *options, *map(str, sources))

    def run(self, main: str, *arguments: str) -> str:
        """Run the function ``main`` of a file ``Name.kt`` without a package; ``main`` is ``NameKt``."""
        return _java("-cp", f"{self.folder / 'classes'}:{self.library}", main, *arguments)


def _java(*arguments: str) -> str:
    done = subprocess.run(
        ["java", *QUICK, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
