"""Requests that no server likes, each sent again and again by a process of its own. Part of bench_serve.py."""

from __future__ import annotations

import io
import multiprocessing
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from PIL import Image

PAUSE_S = 0.05
WAIT_S = 10.0
TRICKLE_S = 1.0
HELD_S = 600.0  # longer than any measurement
SLOW_CLIENTS, IDLE_CLIENTS = 50, 1000
NO_ANSWER = "no answer"


def request(body: bytes, kind: str = "image/jpeg", length: int | None = None) -> bytes:
    """A whole request for a prediction; ``length`` is announced in place of the body's own."""
    size = len(body) if length is None else length
    return (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n"
    ).encode() + body


def bomb(side: int = 10_000) -> bytes:
    """A PNG of a few hundred kB with 100 million pixels."""
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "png")
    return file.getvalue()


def connect(port: int) -> socket.socket:
    """A connection that does not wait forever."""
    return socket.create_connection(("127.0.0.1", port), WAIT_S)


def send(port: int, content: bytes) -> str:
    """The status of the answer to one request on a connection of its own."""
    with connect(port) as link:
        with suppress(OSError):  # refused before the end: the answer is there
            link.sendall(content)
        line = link.recv(64)
    return line.split(b" ")[1].decode() if line.startswith(b"HTTP/") else NO_ANSWER


def leave(port: int, content: bytes) -> str:
    """Go away in the middle of a body."""
    with connect(port) as link:
        link.sendall(content[: len(content) // 2])
    return "left"


def trickle(port: int, content: bytes) -> str:
    """Many clients that send a byte a second."""
    with ExitStack() as stack:
        links = [stack.enter_context(connect(port)) for _ in range(SLOW_CLIENTS)]
        for i in range(len(content)):
            for link in links:
                link.sendall(content[i : i + 1])
            time.sleep(TRICKLE_S)
    return "slow"


def idle(port: int, content: bytes) -> str:
    """A thousand connections on which nothing comes."""
    with ExitStack() as stack:
        for _ in range(IDLE_CLIENTS):
            stack.enter_context(connect(port))
        time.sleep(HELD_S)
    return "idle"


Attack = tuple[Callable[[int, bytes], str], bytes]


def attacks(photo: bytes) -> dict[str, Attack]:
    """What is sent and how, by name."""
    whole = request(photo)
    return {
        "text as an image": (send, request(b"no image at all")),
        "torn JPEG": (send, request(photo[: len(photo) // 2])),
        "100 megapixels": (send, request(bomb(), "image/png")),
        "empty body": (send, request(b"")),
        "50 MB body": (send, request(bytes(1_000_000), length=50_000_000)),
        "wrong content type": (send, request(photo, "text/html")),
        "client gone in the middle": (leave, whole),
        f"{SLOW_CLIENTS} clients, a byte a second each": (trickle, whole),
        f"{IDLE_CLIENTS:,} idle connections": (idle, b""),
    }


def _repeat(attack: Attack, port: int, answers: Any) -> None:
    """Attack until killed; each answer is told."""
    how, content = attack
    while True:
        answers.put(how(port, content))
        time.sleep(PAUSE_S)


@contextmanager
def attacking(attack: Attack, port: int) -> Iterator[Counter[str]]:
    """Attack while the block runs; the statuses of the answers are in the counter afterwards."""
    context = multiprocessing.get_context("spawn")
    answers, seen = context.Queue(), Counter[str]()
    process = context.Process(target=_repeat, args=(attack, port, answers), daemon=True)
    process.start()
    try:
        time.sleep(1)  # it imports, and what takes long has begun
        yield seen
    finally:
        process.kill()
        process.join()
        while not answers.empty():
            seen[answers.get()] += 1
