"""How much of decoding and inference does `edgecls serve` leave, how long do clients wait, does its memory grow?

    python scripts/bench_serve.py model_int8.tflite [--photo photo.jpg] [--seconds 5] [--requests 20000]

Prints, for 1, 4, 16 and 64 clients, requests a second with the median and 99th percentile of their times. Before and
after each it measures decoding and inference alone, in as many threads as can be busy; the ratio is to the mean of both.
The clients are one process on the same cores, so their work lowers the ratio. At last it sends so many requests and
prints the server's memory after each tenth. Without a photo it takes noise of 640 x 480 pixels as JPEG.

About three minutes for MobileNetV2 in int8 on two cores, of which two are for the 20,000 requests.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgecls.data.images import threads
from edgecls.infer.classifier import Classifier
from edgecls.metrics import softmax

CLIENTS = (1, 4, 16, 64)


def noise() -> bytes:
    """A JPEG of 640 x 480 pixels, about as large as a photo of that size."""
    coarse = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(file, "jpeg", quality=90)
    return file.getvalue()


def alone(classifier: Classifier, photo: bytes, workers: int, seconds: float) -> float:
    """Photos a second that as many threads decode and classify, without a server."""
    end, counts = time.perf_counter() + seconds, [0] * workers

    def work(i: int) -> None:
        while time.perf_counter() < end:
            (row,) = softmax(classifier.logits(classifier.pixels(photo)[None]))
            classifier.best(row, 5)
            counts[i] += 1

    started = time.perf_counter()
    pool = [threading.Thread(target=work, args=(i,)) for i in range(workers)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


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
) -> tuple[float, np.ndarray]:
    """Requests a second, and the time of each in ms."""
    request = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s"
        % (len(photo), photo)
    )
    times: list[float] = []
    left, started = [most], time.perf_counter()

    async def all_clients() -> None:
        await asyncio.gather(*(client(port, request, started + seconds, left, times) for _ in range(clients)))

    asyncio.run(all_clients())
    return len(times) / (time.perf_counter() - started), 1000 * np.array(times)


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found
    return int(found[1]) / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model")
    options.add_argument("--photo", type=Path)
    options.add_argument("--seconds", type=float, default=5, help="of each measurement")
    options.add_argument("--requests", type=int, default=20_000, help="for the memory")
    chosen = options.parse_args()

    workers = threads()
    photo = chosen.photo.read_bytes() if chosen.photo else noise()
    classifier = Classifier.load(chosen.model, workers=workers)
    print(f"{chosen.model}, {workers} workers, a photo of {len(photo) / 1000:.0f} kB")
    with server(chosen.model, workers) as (port, pid):
        load(port, photo, 4, 1)
        for clients in CLIENTS:
            busy = min(clients, workers)
            before = alone(classifier, photo, busy, chosen.seconds)
            rate, times = load(port, photo, clients, chosen.seconds)
            mean = (before + alone(classifier, photo, busy, chosen.seconds)) / 2
            p50, p99 = np.percentile(times, (50, 99))
            print(
                f"{clients:3} clients: {rate:7.1f} requests/s, {rate / mean:4.0%} of {mean:.1f}/s alone, "
                f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, n={len(times)}",
                flush=True,
            )
        sizes = [memory_mb(pid)]
        for _ in range(10 if chosen.requests else 0):
            load(port, photo, 16, float("inf"), max(1, chosen.requests // 10))
            sizes.append(memory_mb(pid))
        if chosen.requests:
            print(f"memory over {chosen.requests} requests, MB: " + " ".join(f"{size:.1f}" for size in sizes))


if __name__ == "__main__":
    main()
