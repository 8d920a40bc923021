"""A phone for tests: its shell and file transfer, a Pixel 4's files and tools, and a ``benchmark_model`` in shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import struct
import time
from pathlib import Path
from typing import Any

PROPS = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 4",
    "ro.soc.model": "SM8150",
    "ro.board.platform": "msmnile",
    "ro.build.version.release": "13",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
}
CLOCKS = [1785600] * 4 + [2419200] * 3 + [2841600]

# Prints what the samples show, with figures that depend on the threads; a file may say how long it "takes". It reads `behaviour` in our folder on the phone
# first, so a test can make it fail, hang or tell other figures while a session is running.
BENCHMARK = r"""#!/bin/sh
here=${0%/*}/..
base=8000 kind=tflite wait=0 peak= asked= profile= result=/dev/null
[ -e "$here/behaviour" ] && . "$here/behaviour"
unknown=
for flag; do
  value=${flag#*=}
  case $flag in
    *profil*=true) profile=1 ;;
  esac
  case $flag in
    --graph=*) graph=$value ;;
    --num_threads=*) threads=$value ;;
    --num_runs=*) runs=$value ;;
    --warmup_runs=*) warm=$value ;;
    --report_peak_memory_footprint=true) peak=1 ;;
    --warmup_min_secs=*|--min_secs=*|--max_secs=*) ;;
    --use_gpu=true) asked=GPU ;;
    --result_file_path=*) result=$value; [ $kind = litert ] || unknown="$unknown $flag" ;;
    --use_xnnpack=true|--enable_op_profiling=*) [ $kind = tflite ] || unknown="$unknown $flag" ;;
    --use_nnapi=true) asked=NNAPI; [ $kind = tflite ] || unknown="$unknown $flag" ;;
    --use_cpu=true|--use_gpu=false|--use_npu=false|--use_profiler=*) [ $kind = litert ] || unknown="$unknown $flag" ;;
    *) unknown="$unknown $flag" ;;
  esac
done
echo "run $threads $runs" >> "$here/ran"
echo "INFO: STARTING!"
[ -n "$unknown" ] && echo "WARN: Unconsumed cmdline flags:$unknown"
[ -e "$graph" ] || { echo "ERROR: Failed to load model $graph" >&2; echo "ERROR: Benchmarking failed." >&2; exit 1; }
if grep -aq BAD "$graph"; then echo "ERROR: Failed to load model $graph" >&2; echo "ERROR: Benchmarking failed." >&2; exit 1; fi
[ $wait = 0 ] || exec sleep $wait
own=$(grep -ao 'takes [0-9]* us' "$graph") && own=${own#* } base=${own% us}
us=$((base / threads))
[ -n "$asked" ] && [ -e "$here/says" ] && sed "s/ASKED/$asked/" "$here/says"
[ -e "$here/silent" ] || echo "INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
echo "INFO: Initialized session in 14.5ms."
echo "INFO: count=$warm first=$((us + 900)) curr=$us min=$us max=$((us + 900)) avg=$((us + 10)) std=30 p5=$us median=$us p95=$us"
echo
echo "INFO: count=$runs first=$us curr=$us min=$((us - 100)) max=$((us + 200)) avg=$((us + 20)) std=50 p5=$us median=$us p95=$((us + 90))"
echo
if [ $kind = tflite ]; then
  echo "INFO: Inference timings in us: Init: 14500, First inference: $((us + 900)), Warmup (avg): $((us + 10)), Inference (avg): $((us + 20))"
  echo "INFO: Memory footprint delta from the start of the tool (MB): init=10.5 overall=15.5"
  [ -n "$peak" ] && echo "INFO: Overall peak memory footprint (MB) via periodic monitoring: 29.5"
else
  ms=$(((us + 20) / 1000)).$(printf %02d $((((us + 20) % 1000) / 10)))
  [ -e "$here/answer" ] && cp "$here/answer" "$result"
  [ -e "$here/log" ] && exit 0  # where the summary goes on Android
  echo "========== BENCHMARK RESULTS =========="
  echo "INFO: [b.h:94] Model initialization: 14.50 ms"
  echo "INFO: [b.h:100] Inference (avg):      $ms ms ($runs runs)"
  echo "INFO: [b.h:138] ======================================"
fi
[ -n "$profile" ] && cat "$here/profile" 2>/dev/null
exit 0
"""
QUICK = ("--warmup", "1", "--runs", "5", "--rounds", "2", "--spacing", "0", "--repeats", "0")
"""Options of a bench that takes a second."""


def furnish(root: Path, **changed: str) -> None:
    """Puts properties, clocks, sensors and tools below ``root``, cool and at full clocks.

    ``changed`` are other properties, with ``__`` for the dots of their names.
    """
    own = PROPS | {name.replace("__", "."): value for name, value in changed.items()}
    props = "\n".join(f"[{name}]: [{value}]" for name, value in own.items())
    tool(root, "getprop", f"cat <<'END'\n{props}\nEND")
    tool(root, "taskset", 'shift; exec "$@"')
    tool(
        root,
        "df",
        "echo 'Filesystem 1K-blocks Used Available Use% Mounted on'; echo '/dev/x 9 9 99999999 1% /data'",
    )
    warm(root, 31.5)
    cpu = root / "sys/devices/system/cpu"
    cpu.mkdir(parents=True, exist_ok=True)
    for name in ("possible", "online"):
        (cpu / name).write_text("0-7\n")
    for core, clock in enumerate(CLOCKS):
        folder = cpu / f"cpu{core}/cpufreq"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("cpuinfo_max_freq", "scaling_max_freq", "scaling_cur_freq"):
            (folder / name).write_text(f"{clock}\n")
        (folder / "scaling_governor").write_text("schedutil\n")
    (root / "proc/cpuinfo").write_text("processor\t: 0\nHardware\t: Qualcomm Technologies, Inc SM8150\n")
    (root / "proc/stat").write_text("cpu  100 0 100 9000 0 0 0 0 0 0\n")
    (root / "proc/meminfo").write_text("MemTotal:        5673112 kB\n")


def warm(root: Path, degrees: float, thermal: int = 0) -> None:
    """Gives the phone's battery and skin a temperature."""
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "type").write_text("skin-therm\n")
    (zone / "temp").write_text(f"{int(degrees * 1000)}\n")
    tool(
        root,
        "dumpsys",
        f"case $1 in battery) printf '  level: 85\\n  status: 2\\n  temperature: {int(degrees * 10)}\\n';;"
        f" thermalservice) echo 'Thermal Status: {thermal}';; esac",
    )


def tool(root: Path, name: str, script: str) -> None:
    """A program of the phone."""
    path = root / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


class Phone:
    """What a phone does with a service (``shell:...``, ``sync:``), whichever way it was asked.

    Its files live under ``root``. Its shell is this computer's, in which ``/data``, ``/sys`` and some of ``/proc`` mean
    ``root``'s, with ``getprop``, ``dumpsys``, ``taskset`` and ``df`` from ``root/bin``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.silent: str = ""  # commands that match print nothing and do not end
        self.disk: int | None = None  # bytes that a push may write before the disk is full
        self.noexec = False  # its storage runs no programs
        self.commands: list[str] = []
        self.processes: list[asyncio.subprocess.Process] = []
        for name in ("data/local/tmp", "bin", "sys", "proc"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def path(self, remote: str) -> Path:
        return self.root / remote.lstrip("/")

    async def serve(self, service: str, stream: Any) -> None:
        if service.startswith("shell:"):
            await self._shell(service[6:], stream)
        elif service.startswith("sync:"):
            await self._sync(stream)

    def argv(self, command: str) -> list[str]:
        """The program and its arguments that run a command as the phone's shell would."""
        own = rf"{self.root}/\1"
        return [
            "/bin/sh",
            "-c",
            re.sub(r"(?<![\w.])/(data|sys|proc/cpuinfo|proc/meminfo|proc/stat)\b", own, command),
        ]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}

    async def _shell(self, command: str, stream: Any) -> None:
        self.commands.append(command)
        if self.silent and re.search(self.silent, command):
            await asyncio.sleep(3600)
        process = await asyncio.create_subprocess_exec(
            *self.argv(command), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL, start_new_session=True, cwd=self.root, env=self.environment(),
        )  # fmt: skip
        self.processes.append(process)
        assert process.stdout is not None
        try:
            while part := await process.stdout.read(65536):
                await stream.write(part)
        except ConnectionError:
            while await process.stdout.read(65536):
                pass  # it keeps running, and nobody hears it
        await process.wait()

    async def _sync(self, stream: Any) -> None:
        while True:
            name, size = struct.unpack("<4sI", await stream.read(8))
            if name == b"QUIT":
                return
            remote = (await stream.read(size)).decode("utf-8", "surrogateescape")
            if name == b"STAT":
                found = None
                with contextlib.suppress(OSError):
                    found = self.path(remote).stat()
                fields = (found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0)
                await stream.write(b"STAT" + struct.pack("<3I", *fields))
            elif name == b"RECV":
                await self._send_file(remote, stream)
            elif name == b"SEND":
                await self._receive_file(remote, stream)

    async def _send_file(self, remote: str, stream: Any) -> None:
        try:
            data = self.path(remote).read_bytes()
        except OSError as error:
            return await stream.write(_fail(error.strerror or "error"))
        for start in range(0, len(data), 65536):
            chunk = data[start : start + 65536]
            await stream.write(b"DATA" + struct.pack("<I", len(chunk)) + chunk)
        await stream.write(b"DONE" + bytes(4))

    async def _receive_file(self, target: str, stream: Any) -> None:
        remote, mode = target.rsplit(",", 1)
        path, written, failure = self.path(remote), 0, ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file: Any = path.open("wb")
        except OSError as error:
            file, failure = None, error.strerror or "error"
            await stream.write(_fail(failure))
        while True:
            name, size = struct.unpack("<4sI", await stream.read(8))
            if name == b"DONE":
                break
            data = await stream.read(size)
            written += size
            if self.disk is not None and written > self.disk and not failure:
                failure = "No space left on device"
                await stream.write(_fail(failure))  # at once, as adbd does; the rest is read and dropped
            if file and not failure:
                file.write(data)
        if file:
            file.close()
            path.chmod(int(mode) & (0o666 if self.noexec else 0o777))
        if failure:
            path.unlink(missing_ok=True)
        else:
            await stream.write(b"OKAY" + bytes(4))

    def running(self) -> list[int]:
        """Process groups started by the shell that still have a living member."""
        alive = _living_groups()
        return [p.pid for p in self.processes if p.pid in alive]

    def left(self, others: int = 0) -> list[int]:
        """``running`` when what was ended is gone, which takes a moment; ``others`` groups are to stay."""
        end = time.monotonic() + 5
        while len(left := self.running()) > others and time.monotonic() < end:
            time.sleep(0.02)
        return left


def _fail(why: str) -> bytes:
    return b"FAIL" + struct.pack("<I", len(why)) + why.encode()


def _living_groups() -> set[int]:
    """The process groups of this computer that have a member which is no zombie."""
    groups = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                groups.add(int(fields[2]))
    return groups
