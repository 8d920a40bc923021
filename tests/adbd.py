"""A phone for tests: an ADB daemon that speaks the real protocol over TCP, and an adb server in front of it.

Written after AOSP's protocol.txt, SYNC.TXT and OVERVIEW.TXT. The phone's files live under ``root``; its shell is this
computer's, see ``phone.Phone``. Faults are attributes that a test sets. As on a phone, a program keeps
running when the link to it is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import ctypes
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from phone import Phone, furnish

VERSION = 0x01000000
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # socket(7); Python has no names for them
TOKEN, SIGNATURE, RSAPUBLICKEY = 1, 2, 3


class Stream:
    """One stream of a connection to the daemon, with ADB's flow control: one message each way at a time."""

    def __init__(self, link: Link, own: int, other: int) -> None:
        self.link, self.own, self.other = link, own, other
        self.buffer, self.closed = bytearray(), False
        self.more, self.free = asyncio.Event(), asyncio.Event()
        self.free.set()

    async def read(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if self.closed:
                raise ConnectionError
            self.more.clear()
            await self.more.wait()
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), self.link.maxdata):
            await self.free.wait()
            if self.closed:
                raise ConnectionError
            self.free.clear()
            await self.link.send(b"WRTE", self.own, self.other, data[start : start + self.link.maxdata])


class Link:
    """One connection to the daemon."""

    def __init__(self, daemon: Adbd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.daemon, self.reader, self.writer = daemon, reader, writer
        self.maxdata, self.trusted, self.token = daemon.maxdata, not daemon.auth, os.urandom(20)
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        word = int.from_bytes(command, "little")
        head = struct.pack("<6I", word, first, second, len(data), sum(data), word ^ 0xFFFFFFFF)
        self.writer.write(self.daemon.spend(head + data))
        if self.daemon.exhausted:
            self.abort()
        await self.writer.drain()

    async def receive(self, size: int) -> bytes:
        data = await self.reader.readexactly(size)
        if len(self.daemon.spend(data)) < size:
            self.abort()
        return data

    def abort(self) -> None:
        self.daemon.lost()
        self.writer.transport.abort()
        raise ConnectionError

    async def run(self) -> None:
        while True:
            command, first, second, size, total, magic = struct.unpack("<6I", await self.receive(24))
            data = await self.receive(size)
            assert magic == command ^ 0xFFFFFFFF and total == sum(data), "a torn or merged message"
            await self.handle(command.to_bytes(4, "little"), first, second, data)

    async def handle(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command == b"CNXN":
            self.maxdata = min(self.maxdata, second)
            await (self.welcome() if self.trusted else self.send(b"AUTH", TOKEN, 0, self.token))
        elif command == b"AUTH":
            await self.authenticate(first, data)
        elif not self.trusted:
            raise ConnectionError
        elif command == b"OPEN":
            own = len(self.streams) + 1
            stream = self.streams[own] = Stream(self, own, first)
            await self.send(b"OKAY", own, first)
            task = asyncio.create_task(
                self.serve(data.rstrip(b"\0").decode("utf-8", "surrogateescape"), stream)
            )
            self.tasks.add(task)
        elif (found := self.streams.get(second)) and found.other == first:
            if command == b"WRTE":
                found.buffer += data
                await self.send(b"OKAY", found.own, first)
            elif command == b"OKAY":
                found.free.set()
            elif command == b"CLSE":
                if not found.closed:
                    await self.send(b"CLSE", 0, first)
                found.closed = True
                found.free.set()
            found.more.set()

    async def serve(self, service: str, stream: Stream) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self.daemon.phone.serve(service, stream)
            if not stream.closed:
                await stream.free.wait()
                stream.closed = True
                await self.send(b"CLSE", stream.own, stream.other)

    async def welcome(self) -> None:
        await self.send(b"CNXN", VERSION, self.maxdata, b"device::ro.product.name=test;\0")

    async def authenticate(self, kind: int, data: bytes) -> None:
        if kind == SIGNATURE:
            if any(_signed(key, self.token, data) for key in self.daemon.keys):
                self.trusted = True
                return await self.welcome()
            self.token = os.urandom(20)
            return await self.send(b"AUTH", TOKEN, 0, self.token)
        self.daemon.asked += 1
        if self.daemon.answer == "refuse":
            raise ConnectionError
        if self.daemon.answer == "accept":
            self.daemon.keys.append(data)
            self.trusted = True
            await self.welcome()


class _Threaded:
    """A server in a thread of its own, on a free local port."""

    def __init__(self) -> None:
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._server: Any = None

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._client, "127.0.0.1", self.port, limit=1 << 22)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A canceled one is not an error either, but the streams of asyncio would print it as one.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self.client(reader, writer)
        writer.transport.abort()

    def start(self) -> Any:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.listen(), self.loop).result(5)
        return self

    def stop(self) -> None:
        """Ends what runs on the phones, then every connection, then the thread."""
        for phone in self.served():
            for pid in phone.running():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=0.2)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.02)  # pipes and sockets close in the loop's next turns

    def served(self) -> list[Phone]:
        raise NotImplementedError

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.port}"


class Adbd(_Threaded):
    """The daemon of a phone. ``cut_after`` bytes more, the link breaks, once, and nobody answers for ``gone_s``."""

    def __init__(
        self, phone: Path | Phone, *, auth: bool = True, answer: str = "accept", maxdata: int = 1 << 20
    ) -> None:
        super().__init__()
        self.phone = phone if isinstance(phone, Phone) else Phone(phone)
        self.auth, self.answer, self.maxdata = auth, answer, maxdata
        self.keys: list[bytes] = []
        self.asked = self.connections = self.cuts = 0
        self.cut_after: int | None = None
        self.exhausted, self.gone_s, self.back_at = False, 0.0, 0.0
        self.open: list[Any] = []  # sockets of the connections
        self.places: Iterator[int] = iter(())  # where the next breaks are, each counted from the one before

    def served(self) -> list[Phone]:
        return [self.phone]

    def leave_network(self) -> None:
        """From now on this computer's kernel drops what comes, unanswered, as from a phone that is out of reach.

        Nobody is told: no connection is closed, and a new one is not refused.
        """
        drop = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # a BPF program: return 0
        program = struct.pack("HP", 1, ctypes.addressof(drop))
        for connection in (*self._server.sockets, *self.open):
            connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def come_back(self) -> None:
        """Answers again, on connections that are still open and on new ones."""
        for connection in (*self._server.sockets, *self.open):
            connection.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def spend(self, data: bytes) -> bytes:
        """The part of ``data`` that still passes before the link breaks."""
        if self.cut_after is None:
            return data
        passed = data[: self.cut_after]
        self.cut_after -= len(passed)
        self.exhausted = len(passed) < len(data)
        return passed

    def lost(self) -> None:
        self.cut_after, self.exhausted, self.cuts = next(self.places, None), False, self.cuts + 1
        self.back_at = time.monotonic() + self.gone_s

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if time.monotonic() < self.back_at:
            return
        self.connections += 1
        link, connection = Link(self, reader, writer), writer.get_extra_info("socket")
        self.open.append(connection)
        try:
            await link.run()
        finally:
            self.open.remove(connection)
            for stream in link.streams.values():
                stream.closed = True
                stream.more.set()
                stream.free.set()


class AdbServer(_Threaded):
    """An adb server that has the phones of a dict by serial; an absent phone is an unknown one."""

    def __init__(self, phones: dict[str, Phone], state: str = "device") -> None:
        super().__init__()
        self.phones, self.state = phones, state
        self.cut_after: int | None = None  # bytes that the server still hands to the client

    def served(self) -> list[Phone]:
        return list(self.phones.values())

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        phone = None
        while True:
            request = (await reader.readexactly(int(await reader.readexactly(4), 16))).decode()
            if request == "host:devices":
                return await self._text(writer, "".join(f"{s}\t{self.state}\n" for s in self.phones))
            serial = (
                request.removeprefix("host:transport:")
                .removeprefix("host-serial:")
                .removesuffix(":get-state")
            )
            if phone is None and (serial not in self.phones or self.state != "device"):
                why = f"device '{serial}' not found" if serial not in self.phones else f"device {self.state}"
                writer.write(b"FAIL%04x" % len(why) + why.encode())
                return await writer.drain()
            if request.endswith(":get-state"):
                return await self._text(writer, self.state)
            writer.write(b"OKAY")
            if phone is not None:
                stream = _Raw(self, reader, writer)
                return await phone.serve(request, stream)
            phone = self.phones[serial]

    async def _text(self, writer: asyncio.StreamWriter, text: str) -> None:
        writer.write(b"OKAY%04x" % len(text) + text.encode())
        await writer.drain()


class _Raw:
    def __init__(self, server: AdbServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer

    async def read(self, size: int) -> bytes:
        return await self.reader.readexactly(size)

    async def write(self, data: bytes) -> None:
        if self.server.cut_after is not None:
            passed = data[: self.server.cut_after]
            self.server.cut_after -= len(passed)
            if len(passed) < len(data):
                self.server.cut_after = None
                self.writer.write(passed)
                await self.writer.drain()
                self.writer.close()
                raise ConnectionError
        self.writer.write(data)
        await self.writer.drain()


def _signed(public: bytes, token: bytes, signature: bytes) -> bool:
    """Android's public key: base64 of words, n0inv, modulus, R^2 (little-endian), exponent; then a blank and a name."""
    blob = base64.b64decode(public.split()[0].rstrip(b"\0"))
    modulus = int.from_bytes(blob[8:264], "little")
    key = rsa.RSAPublicNumbers(int.from_bytes(blob[520:524], "little"), modulus).public_key()
    try:
        key.verify(signature, token, padding.PKCS1v15(), utils.Prehashed(hashes.SHA1()))
    except InvalidSignature:
        return False
    return True


def main() -> None:
    """A phone in a process of its own: prints its port, and ends with its standard input."""
    options = argparse.ArgumentParser(description=main.__doc__)
    options.add_argument("root", type=Path, help="the folder of its files")
    options.add_argument("--maxdata", type=int, default=1 << 20, help="bytes of a message (1048576)")
    chosen = options.parse_args()
    daemon = Adbd(chosen.root.absolute(), auth=False, maxdata=chosen.maxdata)
    furnish(daemon.phone.root)
    daemon.start()
    print(daemon.port, flush=True)
    sys.stdin.read()
    daemon.stop()


if __name__ == "__main__":
    main()
