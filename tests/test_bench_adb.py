"""Transports against a daemon that speaks real ADB: transfers, exit codes, faults; never a hang, never half a file."""

from __future__ import annotations

import base64
import os
import random
import shutil
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from adbd import Adbd, AdbServer
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from android_bench import BenchError, DeviceMissing
from android_bench.adb.claim import Claim, Ran
from android_bench.adb.direct import _KEEPALIVE, DirectTransport
from android_bench.adb.keys import signer
from android_bench.adb.link import FOLDER, Link
from android_bench.adb.server import ServerTransport
from android_bench.adb.transport import Broken, Refused, TimedOut

ADB = os.environ.get("EDGECLS_ADB") or shutil.which("adb")
HOSTILE = [
    "a b",
    "quote'\"",
    "$(touch pwned)",
    "-rf",
    "semi;colon",
    "new\nline",
    "ünï",
    "comma,0644",
    "*",
    "back\\slash",
]
Start = Callable[..., Adbd]


@dataclass
class Way:
    """A link to a test phone, and the faults one can set."""

    link: Link
    daemon: Adbd
    server: AdbServer | None = None

    def cut_after(self, size: int | None) -> None:
        """Breaks the link after that many bytes more; through a server only those toward us count."""
        (self.server or self.daemon).cut_after = size


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    signer(folder)
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    daemons: list[Adbd] = []

    def begin(**options: Any) -> Adbd:
        daemons.append(Adbd(tmp_path / f"phone{len(daemons)}", **options).start())
        return daemons[-1]

    yield begin
    for daemon in daemons:
        daemon.stop()


@pytest.fixture(params=["direct", "server"])
def way(request: pytest.FixtureRequest, start: Start, keys: Path) -> Iterator[Way]:
    """Both ways to a phone."""
    daemon = start()
    if request.param == "direct":
        yield Way(direct(daemon, keys), daemon)
        return
    server = AdbServer({"R58M": daemon.phone}).start()
    yield Way(Link(ServerTransport("R58M", server.address), patience_s=2), daemon, server)
    server.stop()


def direct(daemon: Adbd, keys: Path, patience_s: float = 8.0, **options: Any) -> Link:
    return Link(DirectTransport(daemon.address, keys=keys, **options), patience_s=patience_s)


def test_exit_codes_and_both_outputs(way: Way) -> None:
    for command, output, code in [
        ("echo out; echo err >&2; exit 7", "out\nerr\n", 7),
        ("printf no-newline", "no-newline", 0),
        ("false # a comment", "", 1),
        ("printf 'a\\r\\nb\\n'; printf '\\377'", "a\nb\n\\xff", 0),
        ("echo ==0123456789abcdef:0", "==0123456789abcdef:0\n", 0),
    ]:
        done = way.link.run(command)
        assert (done.output, done.code) == (output, code)
    assert way.link.run("no-such-program").code == 127


def test_20_mb_both_ways(way: Way, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(random.Random(0).randbytes(20 << 20))
    assert way.link.push(big, f"{FOLDER}/big", mode=0o755)
    assert way.link.read(f"{FOLDER}/big") == big.read_bytes()
    assert way.link.run(f"test -x {FOLDER}/big && ls {FOLDER}").output == "big\n"
    assert not way.link.push(big, f"{FOLDER}/big")  # the phone has it


def test_hostile_names(way: Way, tmp_path: Path) -> None:
    for index, name in enumerate(HOSTILE):
        local = tmp_path / f"local{index}"
        local.write_bytes(name.encode())
        assert way.link.push(local, f"{FOLDER}/{name}")
        assert way.link.read(f"{FOLDER}/{name}") == name.encode()
    assert sorted(p.name for p in way.daemon.phone.path(FOLDER).iterdir()) == sorted(HOSTILE)
    assert not list(way.daemon.phone.root.rglob("pwned"))


def test_missing_file(way: Way, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No such file"):
        way.link.read("/data/local/tmp/nothing")
    assert way.link.digest("/data/nothing") is None
    with pytest.raises(BenchError, match="cannot read"):
        way.link.push(tmp_path / "nothing", "/data/x")
    assert way.link.run("echo still here").output == "still here\n"


def test_phone_without_sha256sum(way: Way, tmp_path: Path) -> None:
    (way.daemon.phone.root / "bin/sha256sum").write_text("#!/bin/sh\nexit 127\n")
    (way.daemon.phone.root / "bin/sha256sum").chmod(0o755)
    (tmp_path / "x").write_bytes(b"content")
    assert way.link.push(tmp_path / "x", f"{FOLDER}/x") and not way.link.push(tmp_path / "x", f"{FOLDER}/x")


@pytest.mark.parametrize("room", [0, 300_000, (2 << 20) - 1])
def test_full_disk_ends_the_push(room: int, way: Way, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(2 << 20))
    way.daemon.phone.disk = room
    begin = time.monotonic()
    with pytest.raises(DeviceMissing, match="no space left"):
        way.link.push(tmp_path / "big", f"{FOLDER}/big")
    assert time.monotonic() - begin < 5 and way.link.run(f"ls {FOLDER}").output == ""


@pytest.mark.parametrize("work", ["push", "pull", "shell"])
def test_cut_anywhere_resumes(work: str, way: Way, tmp_path: Path) -> None:
    """50 places in each: within headers, payloads, answers, and the greeting after an earlier cut."""
    rng = random.Random(work)
    data = rng.randbytes(150_000)
    local, remote, name = tmp_path / "local", way.daemon.phone.path(f"{FOLDER}/f"), f"{FOLDER}/f"
    local.write_bytes(data)
    way.link.push(local, name)
    text = data.hex()
    (way.daemon.phone.root / "data/text").write_text(text)
    cuts = 0
    for place in [*range(0, 60, 7), *(rng.randrange(150_000) for _ in range(42))]:
        way.cut_after(place)
        begin = time.monotonic()
        if work == "push":
            remote.unlink()
            assert way.link.push(local, name) and remote.read_bytes() == data
        elif work == "pull":
            assert way.link.read(name) == data
        else:
            done = way.link.run("cat /data/text; exit 3")
            assert (done.output, done.code) == (text, 3)
        assert time.monotonic() - begin < 5
        cuts += (way.server or way.daemon).cut_after is None
        way.cut_after(None)
    assert cuts == 51 or (way.server and work == "push" and cuts > 5)
    assert [p.name for p in remote.parent.iterdir()] == ["f"]


def test_phone_gone_for_3_s(start: Start, keys: Path, tmp_path: Path) -> None:
    daemon = start()
    link = direct(daemon, keys)
    (tmp_path / "x").write_bytes(bytes(1 << 20))
    link.run("true")
    daemon.gone_s, daemon.cut_after = 3.0, 500_000
    begin = time.monotonic()
    assert link.push(tmp_path / "x", f"{FOLDER}/x")
    assert 3 < time.monotonic() - begin < 6 and daemon.cuts == 1


def test_phone_gone_for_good(start: Start, keys: Path) -> None:
    daemon = start()
    link = direct(daemon, keys, patience_s=1)
    link.run("true")
    daemon.gone_s, daemon.cut_after = 1e9, 10
    begin = time.monotonic()
    with pytest.raises(DeviceMissing, match="gone") as error:
        link.run("true")
    assert time.monotonic() - begin < 3 and "\n" not in str(error.value)


def test_phone_that_leaves_the_network_is_noticed(
    start: Start, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCP keepalive finds out, while a program runs that prints nothing. With our times for it, after 25 s."""
    assert _KEEPALIVE["TCP_KEEPIDLE"] + _KEEPALIVE["TCP_KEEPINTVL"] * _KEEPALIVE["TCP_KEEPCNT"] == 25
    monkeypatch.setattr("android_bench.adb.direct._KEEPALIVE", dict.fromkeys(_KEEPALIVE, 1))
    daemon = start()
    link = direct(daemon, keys, patience_s=1)
    link.run("true")
    threading.Timer(0.2, daemon.leave_network).start()
    begin = time.monotonic()
    with pytest.raises(DeviceMissing, match="the phone is gone"):
        link.run("sleep 1000", 600)
    assert 2 < time.monotonic() - begin < 15  # keepalive, patience, and a connection that nobody answers


def test_phone_that_comes_back_runs_its_program_again(
    start: Start, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told that a program did not end in time, which has 600 s for it."""
    monkeypatch.setattr("android_bench.adb.direct._KEEPALIVE", dict.fromkeys(_KEEPALIVE, 1))
    daemon = start()
    claim = Claim(direct(daemon, keys))
    program = daemon.phone.path(FOLDER) / "program"
    program.write_text("#!/bin/sh\n[ -e ${0}.ran ] || { touch ${0}.ran; sleep 1000; }; echo done\n")
    program.chmod(0o755)
    threading.Timer(0.5, daemon.leave_network).start()
    threading.Timer(4.5, daemon.come_back).start()
    begin = time.monotonic()
    assert claim.run(f"{FOLDER}/program", 600) == Ran("done\n", 0, 0)
    assert 4 < time.monotonic() - begin < 15
    assert daemon.phone.left() == []


def test_silent_command_ends_in_time(way: Way) -> None:
    begin = time.monotonic()
    with pytest.raises(TimedOut, match="within 1 s"):
        way.link.run("sleep 1000", 1.0)
    assert time.monotonic() - begin < 4
    assert way.link.run("echo on").output == "on\n"
    assert len(way.daemon.phone.running()) == 1  # it is nobody's program, and stays


def test_own_program_is_ended_with_its_children(way: Way) -> None:
    program = way.daemon.phone.path(f"{FOLDER}/sleeper")
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nsleep 1000 &\nsleep 1001\n")
    program.chmod(0o755)
    claim = Claim(way.link)
    way.link.run("sleep 60 > /dev/null 2>&1 &")  # somebody else's
    with pytest.raises(TimedOut):
        claim.run(f"{FOLDER}/sleeper", 1.0)
    assert len(way.daemon.phone.left(1)) == 1
    assert claim.run("echo on", 5.0) == Ran("on\n", 0, 0)


def test_small_maxdata(start: Start, keys: Path, tmp_path: Path) -> None:
    daemon = start(maxdata=4096)
    (tmp_path / "x").write_bytes(random.Random(1).randbytes(1 << 20))
    link = direct(daemon, keys)
    begin = time.monotonic()
    assert link.push(tmp_path / "x", f"{FOLDER}/x")
    assert time.monotonic() - begin < 5  # 25 s without TCP_NODELAY
    assert link.read(f"{FOLDER}/x") == (tmp_path / "x").read_bytes()


def test_asked_once_and_known_then(start: Start, keys: Path) -> None:
    daemon, prompts = start(), []
    for _ in range(2):
        direct(daemon, keys, on_auth=lambda: prompts.append("accept")).run("true")
    assert daemon.asked == len(prompts) == 1
    assert stat.S_IMODE((keys / "adbkey").stat().st_mode) == 0o600
    (keys / "adbkey").chmod(0o644)
    signer(keys)
    assert stat.S_IMODE((keys / "adbkey").stat().st_mode) == 0o600
    assert (keys / "adbkey.pub").read_bytes().endswith(b" edgecls")


def test_a_lost_public_key_is_rebuilt(start: Start, tmp_path: Path) -> None:
    """The phone trusts the pair: a new private key would make its user accept this computer again."""
    folder = tmp_path / "own"
    signer(folder)
    private, public = ((folder / name).read_bytes() for name in ("adbkey", "adbkey.pub"))
    daemon, prompts = start(), []
    direct(daemon, folder, on_auth=lambda: prompts.append(1)).run("true")
    (folder / "adbkey.pub").unlink()
    direct(daemon, folder, on_auth=lambda: prompts.append(1)).run("true")
    assert prompts == [1]
    assert ((folder / "adbkey").read_bytes(), (folder / "adbkey.pub").read_bytes()) == (private, public)
    numbers = load_pem_private_key(private, None).private_numbers().public_numbers  # type: ignore[union-attr]
    encoded = base64.b64decode(public.split()[0])
    assert int.from_bytes(encoded[8:264], "little") == numbers.n  # Android's layout: length, n0inv, n, rr, e
    assert int.from_bytes(encoded[520:524], "little") == numbers.e == 65537


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_private_key_is_never_overwritten(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "adbkey").write_bytes(content)
    with pytest.raises(DeviceMissing, match=r"cannot use the key for phones.*move it away") as error:
        signer(tmp_path)
    assert "\n" not in str(error.value) and (tmp_path / "adbkey").read_bytes() == content


def test_two_that_make_the_key_at_once_share_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: signer(tmp_path), range(8)))
    private = (tmp_path / "adbkey").read_bytes()
    public = (tmp_path / "adbkey.pub").read_bytes()
    (tmp_path / "adbkey.pub").unlink()
    signer(tmp_path)
    assert (tmp_path / "adbkey").read_bytes() == private and (tmp_path / "adbkey.pub").read_bytes() == public
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adbkey", "adbkey.pub"]


@pytest.mark.parametrize("answer", ["refuse", "ignore"])
def test_not_trusted(answer: str, start: Start, keys: Path) -> None:
    daemon = start(answer=answer)
    begin = time.monotonic()
    with pytest.raises(DeviceMissing, match=r"does not trust this computer.*accept the USB debugging prompt"):
        direct(daemon, keys, auth_wait_s=0.5).run("true")
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n....", b"STLS" + bytes(20)])
def test_something_else_at_the_address(reply: bytes, keys: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(DeviceMissing) as error:
            Link(DirectTransport(listener.getsockname(), keys=keys)).run("true")
    assert "\n" not in str(error.value)


def test_nobody_listens(keys: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    for transport in (DirectTransport(address, keys=keys), ServerTransport("R58M", address)):
        with pytest.raises(DeviceMissing, match="cannot be reached"):
            Link(transport).run("true")
        with pytest.raises(Broken):
            transport.shell("true", 1.0)


@pytest.mark.parametrize(
    ("state", "says"), [("unauthorized", "accept the USB debugging prompt"), ("offline", "offline")]
)
def test_adb_server_whose_phone_is_not_ready(state: str, says: str, start: Start) -> None:
    server = AdbServer({"R58M": start().phone}, state).start()
    with pytest.raises(DeviceMissing, match=says):
        Link(ServerTransport("R58M", server.address)).run("true")
    server.stop()


@pytest.mark.skipif(not ADB, reason="the adb program is not installed")
def test_debian_adb(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is real to Google's client, and our server transport works through Google's server."""
    daemon = start()
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def adb(*arguments: str) -> str:
        command = [str(ADB), "-P", str(port), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done
        return done.stdout

    data = random.Random(2).randbytes(20 << 20)
    (tmp_path / "big").write_bytes(data)
    try:
        adb("connect", daemon.where)
        end = time.monotonic() + 10
        while "\tdevice" not in adb("devices") and time.monotonic() < end:
            time.sleep(0.1)
        assert adb("shell", "echo out").strip() == "out"
        adb("push", str(tmp_path / "big"), "/data/local/tmp/big")
        adb("pull", "/data/local/tmp/big", str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == data
        link = Link(ServerTransport(daemon.where, ("127.0.0.1", port)), patience_s=2)
        assert link.run("echo err >&2; exit 9").code == 9
        assert link.push(tmp_path / "big", f"{FOLDER}/big")
        assert link.read(f"{FOLDER}/big") == data
        with pytest.raises(TimedOut):
            link.run("sleep 3", 0.5)
        assert link.run("echo on").output == "on\n"
    finally:
        adb("kill-server")
