"""How much of decoding and inference does `edgecls serve` leave, how long do clients wait, does its memory grow?

    python -m edgecls.export.fresh MobileNetV2 models int8
    python scripts/bench_serve.py models/MobileNetV2_int8.tflite [--photo photo.jpg] [--only speed,memory,start,abuse] [--write]

speed: for 1, 4, 16 and 64 clients, requests a second with the median and 99th percentile of their times. Before and after
each it measures decoding and inference alone, in as many threads as can be busy, one core each; the ratio is to the mean
of both. The clients are one process on the same cores. Their CPU time is measured apart, and a second ratio is to what the
cores could do in the time that the clients left of them. One request at a time is computed by all cores: for it there is
a row more, against one thread that does so, too. memory: sends 20,000 requests and prints the
server's memory after each tenth. start: how long `edgecls predict` takes for one photo, from the command to its end.
abuse: how long one client waits while others send what no server likes, by turns with how long it waits without them, and
what stays open afterwards. Without a photo it takes noise of 640 x 480 pixels as JPEG. `--write` puts what was measured in docs/serve.md. On a busy
computer only the CPU times and the memory mean something.

About seven minutes for MobileNetV2 in int8 on two cores, of which two and a half are for the 20,000 requests.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import marked
import numpy as np
import serve_abuse
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgecls.data.images import threads
from edgecls.infer.classifier import Classifier
from edgecls.metrics import softmax
from edgecls.text import plural

CLIENTS = (1, 4, 16, 64)
STARTS = 15
CLOSING_S = 3  # by when the server has seen the ends of connections
PAGE = Path(__file__).parents[1] / "docs/serve.md"
BEGIN, END = "<!-- bench_serve.py: {} -->", "<!-- end of {} -->"
SHARED = (
    "The clients ran on the same cores: their work is in the first ratio and not in the second, which is to the part of the "
    "cores that they left. More clients than cores wait for each other: their times are those of the queue."
)


def noise() -> bytes:
    """A JPEG of 640 x 480 pixels, about as large as a photo of that size."""
    coarse = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(file, "jpeg", quality=90)
    return file.getvalue()


def alone(
    classifier: Classifier, photo: bytes, workers: int, seconds: float, wide: bool = False
) -> tuple[float, float]:
    """Photos a second that as many threads decode and classify, without a server; ms of CPU for each.

    ``wide``: inference takes all cores, as the server's does for one request at a time.
    """
    end, counts, cpu = time.perf_counter() + seconds, [0] * workers, time.process_time()

    def work(i: int) -> None:
        while time.perf_counter() < end:
            (row,) = softmax(classifier.logits(classifier.pixels(photo)[None], wide))
            classifier.best(row, 5)
            counts[i] += 1

    started = time.perf_counter()
    pool = [threading.Thread(target=work, args=(i,)) for i in range(workers)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    spent = 1000 * (time.process_time() - cpu)
    return sum(counts) / (time.perf_counter() - started), spent / sum(counts)


@contextmanager
def server(model: str, workers: int) -> Iterator[tuple[int, int]]:
    """(port, process id) of a server."""
    command = [sys.executable, "-m", "edgecls", "serve", model, "--port", "0", "--workers", str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r":(\d+) ", process.stdout.readline())
        if not found:
            raise SystemExit("bench_serve: the server did not start")
        yield int(found[1]), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def client(port: int, request: bytes, until: float, left: list[int], times: list[float]) -> None:
    """Send requests over one connection, each when the one before is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while left[0] > 0 and time.perf_counter() < until:
        left[0] -= 1
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head)
        if not head.startswith(b"HTTP/1.1 200 ") or not found:
            raise SystemExit(f"bench_serve: {head.splitlines()[0].decode()}")
        await reader.readexactly(int(found[1]))
        times.append(time.perf_counter() - started)
    writer.close()


def load(
    port: int, photo: bytes, clients: int, seconds: float, most: int = 10**9
) -> tuple[float, np.ndarray, float]:
    """Requests a second, the time of each in ms, and the clients' own CPU time for each in ms."""
    request = serve_abuse.request(photo)
    times: list[float] = []
    left, started, cpu = [most], time.perf_counter(), time.process_time()

    async def all_clients() -> None:
        await asyncio.gather(*(client(port, request, started + seconds, left, times) for _ in range(clients)))

    asyncio.run(all_clients())
    spent = 1000 * (time.process_time() - cpu)
    return len(times) / (time.perf_counter() - started), 1000 * np.array(times), spent / len(times)


def cpu_ms(pid: int) -> float:
    """CPU time that a process has had."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found
    return int(found[1]) / 1024


def open_files(pid: int) -> int:
    """Files and connections that a process holds open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def speed(model: str, photo: bytes, seconds: float) -> str:
    """Requests a second and times by the number of clients, as a table."""
    workers = threads()
    classifier = Classifier.load(model, workers=workers)
    cv2.setNumThreads(1)  # as the server does: several threads get more done so
    rows = [
        "| clients | requests/s | of decoding and inference alone | without the clients' CPU | CPU a request, ms: server | client | alone | p50, ms | p99, ms | requests |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    with server(model, workers) as (port, pid):
        load(port, photo, 4, 1)
        for clients, wide in ((1, True), *((n, False) for n in CLIENTS)):
            busy = min(clients, workers)
            before = alone(classifier, photo, busy, seconds, wide)
            spent = cpu_ms(pid)
            rate, times, own = load(port, photo, clients, seconds)
            spent = (cpu_ms(pid) - spent) / len(times)
            mean, cpu = np.mean([before, alone(classifier, photo, busy, seconds, wide)], axis=0)
            left = 1 - rate * own / 1000 / busy  # of the cores, beside the clients
            p50, p99 = np.percentile(times, (50, 99))
            where = f"{plural(busy, 'thread')}{', inference on all cores' if wide else ''}"
            rows.append(
                f"| {clients} | {rate:.0f} | {rate / mean:.0%} of {mean:.0f}/s in {where} | {rate / mean / left:.0%} | "
                f"{spent:.1f} | {own:.1f} | {cpu:.1f} | {p50:.1f} | {p99:.1f} | {len(times)} |"
            )
    return "\n".join([*rows, "", SHARED])


def memory(model: str, photo: bytes, requests: int) -> str:
    """The server's memory before and after each tenth of so many requests, by 16 clients."""
    with server(model, threads()) as (port, pid):
        load(port, photo, 16, 1)
        sizes = [memory_mb(pid)]
        for _ in range(10):
            load(port, photo, 16, float("inf"), max(1, requests // 10))
            sizes.append(memory_mb(pid))
    listed = ", ".join(f"{size:.0f}" for size in sizes)
    return f"resident memory before and after each tenth of {requests:,} requests, MB: {listed}."


def start(model: str, photo: bytes) -> str:
    """How long ``edgecls predict`` takes for one photo, by turns with the imports that it cannot do without."""
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(photo)
        file.flush()
        commands = {
            "whole": [sys.executable, "-m", "edgecls", "predict", model, file.name],
            "imports": [sys.executable, "-c", "import numpy, cv2, ai_edge_litert.interpreter"],
        }
        # Python keeps compiled modules unless told not to; the first start of all compiles them.
        environment = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(1 + STARTS):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, env=environment)
                if turn:
                    times[name].append(time.perf_counter() - started)
    whole = times["whole"]
    return (
        f"`edgecls predict FILE.tflite PHOTO`, from the command to its end: median {np.median(whole):.2f} s, "
        f"fastest {min(whole):.2f} s, slowest {max(whole):.2f} s of {STARTS}; Python with NumPy, OpenCV and LiteRT imported, by "
        f"turns with it: {np.median(times['imports']):.2f} s."
    )


def abuse(model: str, photo: bytes, seconds: float) -> str:
    """What a client that behaves feels of others that do not, as a table."""
    rows = [
        "| what others send | they get | median of a good request, ms: usual | among them | longest: usual | among them | good requests |",
        "|---|---|---|---|---|---|---|",
    ]
    with server(model, threads()) as (port, pid):
        load(port, photo, 4, 1)
        time.sleep(CLOSING_S)
        opened, memory = open_files(pid), memory_mb(pid)
        for name, attack in serve_abuse.attacks(photo).items():
            _, usual, _ = load(port, photo, 1, seconds)
            with serve_abuse.attacking(attack, port) as answers:
                _, times, _ = load(port, photo, 1, seconds)
            got = ", ".join(f"{status} ({count})" for status, count in answers.items()) or "held open"
            rows.append(
                f"| {name} | {got} | {np.median(usual):.1f} | {np.median(times):.1f} | {max(usual):.1f} | {max(times):.1f} "
                f"| {len(times)} |"
            )
        load(port, photo, 1, 3)
        time.sleep(CLOSING_S)
        left = open_files(pid) - opened
        grown = memory_mb(pid) - memory
    return "\n".join([*rows, "", f"Afterwards {plural(left, 'file')} more open, {grown:.0f} MB more memory."])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model")
    options.add_argument("--photo", type=Path)
    options.add_argument("--seconds", type=float, default=5, help="of each measurement of speed")
    options.add_argument("--requests", type=int, default=20_000, help="for the memory")
    options.add_argument("--only", default="speed,memory,start,abuse", help="parts, with commas")
    options.add_argument("--write", action="store_true", help="put the figures in docs/serve.md")
    chosen = options.parse_args()

    photo = chosen.photo.read_bytes() if chosen.photo else noise()
    about = f"{Path(chosen.model).stem}, {plural(threads(), 'core')}, a photo of {len(photo) / 1000:.0f} kB"
    print(about, flush=True)
    parts = {
        "speed": lambda: f"{about}:\n\n{speed(chosen.model, photo, chosen.seconds)}",
        "memory": lambda: f"{about}: {memory(chosen.model, photo, chosen.requests)}",
        "start": lambda: f"{about}: {start(chosen.model, photo)}",
        "abuse": lambda: f"{about}:\n\n{abuse(chosen.model, photo, chosen.seconds)}",
    }
    wanted = chosen.only.split(",")
    if unknown := set(wanted) - set(parts):
        options.error(f"no part {', '.join(sorted(unknown))}; parts: {', '.join(parts)}")
    for name in wanted:
        text = parts[name]()
        print(text, flush=True)
        if chosen.write:
            marked.rewrite(PAGE, BEGIN.format(name), END.format(name), text)


if __name__ == "__main__":
    main()
