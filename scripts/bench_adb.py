"""How fast our way to a phone is, beside adb-shell alone and Debian's adb, and what a measurement costs around itself.

    python scripts/bench_adb.py [--megabytes 20] [--repeats 10]

The phone is the tests' ADB daemon on the loopback device, in a process of its own. Prints a table and checks: at
messages of 64 KiB we push at least 5 times as fast as adb-shell alone; at 1 MiB at least 0.8 times as fast as adb; a
command takes at most 20 ms; 20 models with 3 thread counts, already on the phone, take at most 2 s each around their
measurement. Of repeated pushes
the shortest counts. Exit code 4 when one does not hold, 3 when adb is not installed. About a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]
sys.path[:0] = [str(REPO), str(REPO / "tests")]

from adb_shell.adb_device import AdbDeviceTcp  # noqa: E402
from phone import BENCHMARK  # noqa: E402

from android_bench import BenchError, bench  # noqa: E402
from android_bench.adb.direct import DirectTransport  # noqa: E402
from android_bench.adb.link import FOLDER, Link  # noqa: E402

KIB = 1024
REMOTE = f"{FOLDER}/big"
MODELS, THREADS = 20, [1, 2, 4]


@contextlib.contextmanager
def phone(folder: Path, maxdata: int) -> Iterator[tuple[str, int]]:
    """The address of a phone with messages of that size."""
    command = [sys.executable, REPO / "tests/adbd.py", folder, "--maxdata", str(maxdata)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            yield "127.0.0.1", int(process.stdout.readline())
        finally:
            process.stdin.close()


def seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def push_plain(address: tuple[str, int], data: bytes) -> float:
    """adb-shell as it is."""
    device = AdbDeviceTcp(*address, default_transport_timeout_s=600.0)
    device.connect()
    push = seconds(lambda: device.push(io.BytesIO(data), REMOTE, read_timeout_s=600.0))
    device.close()
    return push


def our_link(address: tuple[str, int]) -> Link:
    link = Link(DirectTransport(address))
    link.run(f"mkdir -p {FOLDER}")
    return link


@contextlib.contextmanager
def debian_adb(adb: str, address: tuple[str, int], data: bytes, folder: Path) -> Iterator[Callable[[], None]]:
    """A push by Debian's adb, with a server of its own."""
    (folder / "big").write_bytes(data)
    where = "{}:{}".format(*address)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    def call(*words: str) -> str:
        quiet = {**os.environ, "HOME": str(folder)}
        done = subprocess.run(
            [adb, "-P", port, *words], capture_output=True, text=True, timeout=600, env=quiet
        )
        done.check_returncode()
        return done.stdout

    try:
        call("connect", where)
        end = time.monotonic() + 10
        while "\tdevice" not in call("devices") and time.monotonic() < end:
            time.sleep(0.1)
        yield lambda: call("-s", where, "push", str(folder / "big"), REMOTE) and None
    finally:
        call("kill-server")


def overhead(address: tuple[str, int], folder: Path) -> float:
    """Seconds for each model and thread count: the fake ``benchmark_model`` measures in no time."""
    binary = folder / "benchmark_model"
    binary.write_text(BENCHMARK)
    models = [folder / f"{number}.tflite" for number in range(MODELS)]
    for model in models:
        model.write_bytes(b"\0\0\0\0TFL3" + model.name.encode() * 1000)

    def session() -> None:
        where, quick = "{}:{}".format(*address), {"warmup": 0, "runs": 1, "rounds": 1, "repeats": 0}
        document = bench(models, where, THREADS, binary=binary, **quick)
        assert {r["status"] for r in document["results"]} == {"ok"}

    session()  # pushes
    return seconds(session) / (MODELS * len(THREADS))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--megabytes", type=int, default=20)
    options.add_argument("--repeats", type=int, default=10)
    chosen = options.parse_args()
    adb = os.environ.get("EDGECLS_ADB") or shutil.which("adb")
    if not adb:
        print("error: adb is not installed; Debian: apt install adb", file=sys.stderr)
        return 3
    data = random.Random(0).randbytes(chosen.megabytes * KIB * KIB)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["EDGECLS_CONFIG"] = name
        with phone(folder / "small", 64 * KIB) as address:
            link = our_link(address)
            # Without the comparison of hashes that `Link.push` adds.
            push = partial(link.transport.push, data, REMOTE, 0o644, 600.0)
            small = min(seconds(push) for _ in range(chosen.repeats))
            link.close()
            plain = push_plain(address, data)
        with (
            phone(folder / "large", KIB * KIB) as address,
            debian_adb(adb, address, data, folder) as push_adb,
        ):
            link = our_link(address)
            push = partial(link.transport.push, data, REMOTE, 0o644, 600.0)
            # In turns, so that what else the computer does meets both.
            turns = [(seconds(push), seconds(push_adb)) for _ in range(chosen.repeats)]
            large, debian = map(min, zip(*turns, strict=True))
            commands = [seconds(lambda: link.run("true")) for _ in range(50)]
            link.close()
            each = overhead(address, folder)

    def speed(took: float) -> str:
        return f"{chosen.megabytes / took:8.1f} MB/s"

    command = statistics.median(commands) * 1e3
    rows = [
        (
            f"push of {chosen.megabytes} MB, messages of 64 KiB",
            speed(small),
            "adb-shell alone",
            speed(plain),
            plain / small,
            5,
        ),
        (
            f"push of {chosen.megabytes} MB, messages of 1 MiB",
            speed(large),
            "Debian's adb",
            speed(debian),
            debian / large,
            0.8,
        ),
    ]
    failed = []
    for what, ours, other, theirs, ratio, least in rows:
        holds = ratio >= least
        failed += [] if holds else [what]
        print(
            f"{what:<38}{ours}   {other:<16}{theirs}   {ratio:5.2f} x, at least {least:g}: {'ok' if holds else 'FAILED'}"
        )
    limits = [
        ("a command, there and back (median of 50)", command, "ms", 20),
        (f"around each of {MODELS * len(THREADS)} measurements", each, "s ", 2),
    ]
    for what, value, unit, most in limits:
        holds = value <= most
        failed += [] if holds else [what]
        print(f"{what:<38}{value:11.2f} {unit}, at most {most:g}: {'ok' if holds else 'FAILED'}")
    return 4 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
