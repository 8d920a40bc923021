"""One phone, several sessions: figures are of the own program, others are told who measures, and nobody's program is ended.

The sessions are processes of their own, started as ``edgecls`` on a command line.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adbd import Adbd
from phone import BENCHMARK, QUICK, furnish, tool
from sessions import Session

from android_bench import BenchError, DeviceBusy, DeviceLost, DeviceMissing, bench
from android_bench.adb.claim import Claim
from android_bench.adb.direct import DirectTransport
from android_bench.adb.link import FOLDER, Link
from android_bench.devices.survey import survey

pytestmark = pytest.mark.usefixtures("alone")
QUICK_OPTIONS: dict[str, Any] = {"warmup": 1, "runs": 5, "spacing_s": 0.0, "repeats": 0, "cool_s": 0.0}
HANG = "while :; do sleep 0.05; done"
Start = Callable[..., Session]


@pytest.fixture
def phone(tmp_path: Path) -> Any:
    furnish((daemon := Adbd(tmp_path / "phone", auth=False)).phone.root)
    yield daemon.start()
    daemon.stop()


@pytest.fixture
def start(phone: Adbd, tmp_path: Path) -> Start:
    """Starts ``edgecls bench`` of a model of its own, with a program whose runs take so many microseconds."""
    (tmp_path / "out").mkdir()

    def start(us: int, *options: str, sleep: float = 0.0, then: str = "") -> Session:
        program = tmp_path / f"out/program-{us}"
        pause = f'case "$*" in *num_runs=5*) {then or f"sleep {sleep}"};; esac'
        program.write_text(
            BENCHMARK.replace("base=8000", f"base={us}").replace("unknown=\n", f"unknown=\n{pause}\n", 1)
        )
        model = tmp_path / f"out/{us}.tflite"
        model.write_bytes(b"\0\0\0\0TFL3" + str(us).encode() * 1000)
        words = ["bench", str(model), "--device", phone.where, "--binary", str(program), "--fresh", "--json"]
        return run(*words, *QUICK, "--threads", "1", *options)

    def run(*words: str) -> Session:
        names = ("ANDROID_ADB_SERVER_PORT", "EDGECLS_CONFIG", "EDGECLS_CACHE", "XDG_CACHE_HOME")
        return Session(list(words), tmp_path / "out", {name: os.environ[name] for name in names})

    start.run = run  # type: ignore[attr-defined]
    return start


def figures(session: Session) -> tuple[str, float]:
    (result,) = session.json["results"]
    return result["status"], result["median_ms"]


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def lock(phone: Adbd) -> Path:
    """The newest lock on the phone."""
    return max(phone.phone.path(FOLDER).glob("lock.*"), key=lambda path: int(path.suffix[1:]))


def rewrite(path: Path, *words: str | None) -> None:
    """Replaces the words of a file that are given."""
    path.write_text(
        " ".join(new or old for old, new in zip(path.read_text().split(), words, strict=True)) + "\n"
    )


def test_two_sessions_at_once_20_times(start: Start) -> None:
    """Whatever the one does, the other reports its own program, or that the phone is busy."""
    rng, busy = random.Random(0), 0
    for turn in range(20):
        wait = turn % 2 == 1
        first = start(1001, sleep=0.1)
        time.sleep(rng.uniform(0.0, 0.2))
        second = start(9009, *(["--wait"] if wait else []))
        codes = first.end(), second.end()
        for session, code, median in ((first, codes[0], 1.001), (second, codes[1], 9.009)):
            if code == 0:
                assert figures(session) == ("ok", median)
            else:
                assert code == 3 and re.search(
                    r"the phone is busy: (\S+@\S+, process \d+, since 20|a session that is just starting)",
                    session.err,
                )
                busy += 1
        assert 0 in codes
        if wait:  # the one that waits always comes to its figures
            assert codes[1] == 0
    assert busy > 0


def test_looking_at_a_phone_while_it_measures_20_times(start: Start, phone: Adbd) -> None:
    for _ in range(20):
        ours = start(1001, sleep=0.15)
        until(lambda: "num_runs=5" in "".join(phone.phone.commands), "no round")
        phone.phone.commands.clear()
        look = start.run("devices", phone.where)  # type: ignore[attr-defined]
        assert look.end() == 0
        assert ours.end() == 0 and figures(ours) == ("ok", 1.001)


def test_looking_changes_nothing(phone: Adbd) -> None:
    link = Link(DirectTransport(phone.address))
    Claim(link)
    link.run(f"EDGECLS_SESSION=0123456789abcdef sleep 60 > /dev/null 2>&1 & echo $! > {FOLDER}/running")

    def everything() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in phone.phone.root.rglob("*")}

    before = everything()
    (row,) = survey([phone.where])["devices"]
    assert row["fit"] and everything() == before and len(phone.phone.running()) == 1


def test_a_killed_session_is_taken_over_at_once(start: Start, phone: Adbd) -> None:
    killed = start(1001, then=HANG)
    until(phone.phone.running and (lambda: "num_runs=5" in "".join(phone.phone.commands)), "no round")
    killed.signal(signal.SIGKILL)
    killed.end()
    assert len(phone.phone.running()) == 1  # as on a phone, its program still runs
    new = start(9009)
    assert new.end() == 0 and figures(new) == ("ok", 9.009) and phone.phone.left() == []


def test_a_session_of_another_computer(start: Start, phone: Adbd) -> None:
    """It is waited for while it may live, and taken over when its time is over or the phone has started anew."""
    gone = start(1001, then=HANG)
    until(lambda: "num_runs=5" in "".join(phone.phone.commands), "no round")
    gone.signal(signal.SIGKILL)
    gone.end()
    owner = lock(phone) / "owner"
    rewrite(owner, None, None, "0" * 16, None, None, None, "ann@desk")
    assert (busy := start(9009)).end() == 3 and "the phone is busy: ann@desk, process " in busy.err
    assert len(phone.phone.running()) == 1
    waits = start(9009, "--wait")
    until(lambda: "waiting: the phone is busy" in waits.err, "no remark")
    rewrite(lock(phone) / "beat", "beat", "1", "2", None)
    assert waits.end() == 0 and figures(waits) == ("ok", 9.009) and phone.phone.left() == []


def held(phone: Adbd, **changes: str) -> Path:
    """A lock of a session on another computer, with changes to its fields."""
    link = Link(DirectTransport(phone.address))
    Claim(link)
    link.on_close = lambda: None
    link.close()
    fields = {
        "computer": "0" * 16,
        "pid": None,
        "since": None,
        "boot": None,
        "at": None,
        "until": None,
        "runs": None,
    }
    fields |= changes
    path = lock(phone)
    rewrite(
        path / "owner", None, None, *(fields[name] for name in ("computer", "pid", "since", "boot")), None
    )
    rewrite(path / "beat", None, *(fields[name] for name in ("at", "until", "runs")))
    return path


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, False),
        ({"until": "1"}, True),
        ({"boot": "another-start"}, True),
        ({"at": "2000000000", "until": "2000000060"}, True),  # the phone has started anew and does not say so
        ({"runs": "1"}, True),  # it said that its program runs, and there is none
    ],
)
def test_when_a_lock_is_dead(changes: dict[str, str], taken: bool, phone: Adbd) -> None:
    held(phone, **changes)
    link = Link(DirectTransport(phone.address))
    if taken:
        Claim(link)
        assert [path.name for path in phone.phone.path(FOLDER).glob("lock.*")] == ["lock.2"]
    else:
        with pytest.raises(DeviceBusy) as stop:
            Claim(link)
        assert stop.value.exit_code == 3 and "\n" not in str(stop.value)


@pytest.mark.parametrize("missing", ["owner", "beat", "both"])
def test_a_lock_that_is_half_made(missing: str, phone: Adbd) -> None:
    path = held(phone)
    for name in ("owner", "beat"):
        if missing in (name, "both"):
            (path / name).unlink()
    Claim(Link(DirectTransport(phone.address)))
    assert lock(phone).name == "lock.2"


def test_no_two_take_over(phone: Adbd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four that find a dead lock at once, with pauses between their steps, one has the phone, 10 times."""
    rng = random.Random(0)
    run = Link.run

    def slow(self: Link, command: str, timeout_s: float = 20.0) -> Any:
        time.sleep(rng.uniform(0, 0.05))
        return run(self, command, timeout_s)

    monkeypatch.setattr(Link, "run", slow)
    for _ in range(10):
        held(phone, until="1")
        links = [Link(DirectTransport(phone.address)) for _ in range(4)]
        got: list[Claim] = []
        wrong: list[BaseException] = []

        def take(link: Link, got: list[Claim] = got, wrong: list[BaseException] = wrong) -> None:
            try:
                got.append(Claim(link))
            except DeviceBusy:
                pass
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=take, args=(link,)) for link in links]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1 and not wrong
        got[0].beat(1.0)  # and it still has it
        for link in links:
            link.close()


def test_a_session_that_was_taken_over_ends(phone: Adbd) -> None:
    """It slept too long, say: it keeps what it has, and reports no figure of the time when the phone was another's."""

    def take_over(event: dict[str, Any]) -> None:
        if event["event"] == "round":
            (lock(phone).parent / "lock.2").mkdir()

    with pytest.raises(DeviceLost, match="another session has taken the phone over") as stop:
        bench(["a.tflite"], phone.where, [1], rounds=3, on_event=take_over, **QUICK_OPTIONS)
    (result,) = stop.value.document["results"]
    assert stop.value.exit_code == 3 and result["status"] == "unsure" and len(result["rounds"]) == 1


@pytest.mark.parametrize("name", ["benchmark_model", "a.tflite"])
@pytest.mark.parametrize("sha256sum", [True, False])
def test_files_that_are_exchanged_meanwhile(name: str, sha256sum: bool, phone: Adbd) -> None:
    if not sha256sum:
        (phone.phone.root / "bin/sha256sum").write_text("#!/bin/sh\nexit 127\n")
        (phone.phone.root / "bin/sha256sum").chmod(0o755)
    other = BENCHMARK.replace("base=8000", "base=1")

    def exchange(event: dict[str, Any]) -> None:
        if event["event"] == "round":
            (path,) = phone.phone.path(FOLDER).rglob("benchmark_model" if "model" in name else "*.tflite")
            path.write_text(other)

    (result,) = bench(["a.tflite"], phone.where, [1], rounds=3, on_event=exchange, **QUICK_OPTIONS)["results"]
    assert result["status"] == "failed" and "on the phone is not what was pushed" in result["why"]


def test_children_that_stay_are_ended_and_said(phone: Adbd) -> None:
    """One holds the program's output open, which alone would keep the command from ending."""
    (phone.phone.path(FOLDER)).mkdir(parents=True)
    (phone.phone.path(FOLDER) / "behaviour").write_text("sleep 1000 &\n(sleep 1001 > /dev/null 2>&1 &)\n")
    (result,) = bench(["a.tflite"], phone.where, [1], rounds=2, **QUICK_OPTIONS)["results"]
    assert result["status"] == "ok" and result["median_ms"] == 8.0
    assert "the program left 2 of its processes running, which we ended" in result["why"]
    assert phone.phone.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle_of_a_round(number: int, start: Start, phone: Adbd) -> None:
    session = start(1001, then=HANG)
    until(lambda: "num_runs=5" in "".join(phone.phone.commands), "no round")
    time.sleep(0.2)
    session.signal(number)
    assert session.end() == 130 and phone.phone.left() == []
    assert (lock(phone) / "beat").read_text() == "beat 0 0 0\n"  # nobody has to wait
    assert not session.json["complete"]


def test_interrupted_while_waiting(start: Start, phone: Adbd) -> None:
    held(phone)
    waits = start(1001, "--wait")
    until(lambda: "waiting: the phone is busy" in waits.err, "no remark")
    waits.signal(signal.SIGINT)
    assert waits.end() == 130 and lock(phone).name == "lock.1"


def test_a_phone_that_is_gone_costs_its_patience_once(phone: Adbd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("android_bench.adb.link.PATIENCE_S", 2.0)
    tries: list[float] = []
    connect = DirectTransport.connect

    def counted(self: DirectTransport) -> None:
        if phone.cuts:
            tries.append(time.monotonic())
        connect(self)

    monkeypatch.setattr(DirectTransport, "connect", counted)

    def pull_out(event: dict[str, Any]) -> None:
        if event["event"] == "round":
            phone.gone_s, phone.cut_after = 1e9, 20

    with pytest.raises(DeviceLost, match="the phone is gone"):
        bench(["a.tflite", "c.tflite"], phone.where, [1], rounds=2, on_event=pull_out, **QUICK_OPTIONS)
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    # It is tried again every 0.3 s until the patience is over, and then never more.
    assert 2 <= len(tries) <= 2 + 2.0 / 0.3 and sum(pauses[:-1]) < 2.0


def test_a_phone_whose_folder_cannot_be_made(phone: Adbd) -> None:
    phone.phone.path("/data/local/tmp/edgecls").write_text("a file")
    with pytest.raises(BenchError, match="the phone has no folder for us") as error:
        bench(["a.tflite"], phone.where, [1], **QUICK_OPTIONS)
    assert not isinstance(error.value, DeviceMissing) and "\n" not in str(error.value)


def test_a_phone_that_is_full(phone: Adbd) -> None:
    tool(phone.phone.root, "mkdir", "echo 'mkdir: No space left on device' >&2; exit 1")
    with pytest.raises(DeviceMissing, match=r"no space left.*free some space") as error:
        bench(["a.tflite"], phone.where, [1], **QUICK_OPTIONS)
    assert error.value.exit_code == 3 and "\n" not in str(error.value)
