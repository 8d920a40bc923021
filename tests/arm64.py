"""A computer with 64-bit ARM Linux for tests: Debian's programs, Python and LiteRT for ARM under qemu-user and proot.

What it takes is fetched once, from Debian's and Python's package indexes, into ``.cache/arm64`` of the repository
(``EDGECLS_TEST_CACHE``). Nothing is installed, and nothing outside that folder is changed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from phone import CLOCKS, Phone, furnish

REPO = Path(__file__).parents[1]
CACHE = Path(os.environ.get("EDGECLS_TEST_CACHE") or REPO / ".cache") / "arm64"
QEMU = "qemu-aarch64-static"
TOOLS = ("proot", QEMU, "aarch64-linux-gnu-gcc", "apt-get", "dpkg-deb")
PACKAGES = ("dash", "toybox", "libstdc++6", "python3")
CORE = """processor\t: {core}
BogoMIPS\t: 38.40
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x51
CPU architecture: 8
CPU variant\t: 0x{variant}
CPU part\t: 0x{part}
CPU revision\t: 14
"""


def missing_tools() -> list[str]:
    """Which programs this computer lacks for the emulation; ``scripts/test.sh`` installs them on Debian as root."""
    return [tool for tool in TOOLS if not shutil.which(tool)]


def system() -> Path:
    """The root of the ARM system, fetched if need be. Its Python has what ``pip install ai-edge-litert`` brings."""
    root = CACHE / "system"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes may ask at once
        if not root.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                _unpack(Path(folder), Path(folder) / "root")
                _install_litert(Path(folder) / "root")
                (Path(folder) / "root").rename(root)
    return root


def program() -> Path:
    """Our own runner, built for ARM, with its library beside it."""
    folder = CACHE / "runner"
    script = REPO / "android_bench/runner/build.sh"
    done = subprocess.run(
        ["bash", script, folder], env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "edgecls_runner"


def _unpack(work: Path, root: Path) -> None:
    """Downloads Debian's packages for ARM with an apt of its own, and unpacks them."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    fetch = [*apt, "install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES]
    subprocess.run(
        [*apt, "update"], check=False, capture_output=True
    )  # an index of others may be out of reach
    done = subprocess.run(fetch, capture_output=True, text=True)
    assert done.returncode == 0, f"Debian's packages for ARM cannot be fetched: {done.stderr}"
    for package in (work / "cache/archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    for name in ("data", "sys", "proc", "dev", "system/bin"):
        (root / name).mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(["proot", "-q", QEMU, "-r", root, "/bin/toybox"], capture_output=True, text=True)
    for name in listed.stdout.split():
        if name != "[" and not (root / "bin" / name).exists():
            (root / "bin" / name).symlink_to("toybox")
    (root / "bin/sh").unlink(missing_ok=True)
    (root / "bin/sh").symlink_to("dash")
    (root / "usr/bin/env").symlink_to("/bin/toybox")


def _install_litert(root: Path) -> None:
    """What ``pip install ai-edge-litert`` does on the board, by the pip of this computer: it is faster."""
    (library,) = (root / "usr/lib").glob("python3.*")
    version = library.name.removeprefix("python")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    board = ["--implementation", "cp", "--python-version", version, "--only-binary=:all:"]
    board += [f"--platform=manylinux_{glibc}_aarch64" for glibc in ("2_28", "2_27", "2_17")]
    target = ["--target", root / f"usr/local/lib/python{version}/dist-packages"]
    pins = ["--constraint", REPO / "constraints.txt"]
    done = subprocess.run([*pip, *board, *pins, *target, "ai-edge-litert"], capture_output=True, text=True)
    assert done.returncode == 0, f"LiteRT for Python on ARM cannot be fetched: {done.stderr}"


class ArmPhone(Phone):
    """A board with a Snapdragon 855's cores and clocks, without Android; ``getprop`` and ``dumpsys`` are shims."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.system = system()
        furnish(
            root, ro__product__cpu__abilist="", ro__product__model="board", ro__product__manufacturer="ARM64"
        )
        for name in ("taskset", "df"):  # the real ones
            (root / "bin" / name).unlink()
        cores = (
            CORE.format(core=c, variant="dc"[c > 3], part="80" + "54"[c > 3]) for c in range(len(CLOCKS))
        )
        (root / "proc/cpuinfo").write_text("\n".join(cores) + "\nHardware\t: Qualcomm SM8150\n")
        (root / "sys/devices/system/cpu/present").write_text("0-7\n")

    def argv(self, command: str) -> list[str]:
        own = {"/data": "data", "/sys": "sys", "/system/bin": "bin"}
        own |= {f"/proc/{name}": f"proc/{name}" for name in ("cpuinfo", "stat", "meminfo")}
        binds = ["/proc", "/dev", *(f"{self.root}/{ours}:{place}" for place, ours in own.items())]
        options = [word for bind in binds for word in ("-b", bind)]
        return ["proot", "-q", QEMU, "-r", str(self.system), *options, "-w", "/", "/bin/sh", "-c", command]

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "PATH": f"/system/bin:/bin:{os.environ['PATH']}",
            "QEMU_CPU": "cortex-a76",
            "PYTHONDONTWRITEBYTECODE": "",  # with compiled modules its Python starts three times as fast
        }
