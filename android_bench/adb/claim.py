"""The right to measure on a phone. One session at a time has it; it says on the phone who that is and since when.

A session takes the phone by making the folder ``lock.N`` there, with the next number: of several sessions that try at
once, ``mkdir`` succeeds for one. The highest number holds the phone, and numbers are never used again, so nobody can
take over a lock that a third has taken over before. In the folder, ``owner`` has the session's random id, and ``beat`` until
when the session lives without another sign of life. The clock is the phone's own: seconds since it started.

A lock is dead when that time is over, when the phone has started anew, or when the owner was a process of this computer
that has ended. A session whose lock was taken over meanwhile finds out before and after each of its programs.

The session's programs, and the shells that start them, have its id in their environment, and so have their children.
By that they are found in ``/proc`` and ended: after each run, after each break of the link, and by the one who takes
over a dead lock. Nothing else on the phone is ever ended.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import platform
import re
import secrets
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from android_bench.adb.link import Link
from android_bench.adb.transport import Done, Transport
from android_bench.errors import BenchError, DeviceBusy, DeviceMissing

LEASE_S = 60
"""A session is dead after this many seconds without a sign of life; more than ``link.PATIENCE_S``, so that a
break of the link costs nobody the phone."""
_BEAT_EVERY_S = 5.0
_DOUBT_S = 1.5
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 15.0
_MARK = "EDGECLS_SESSION"
# `up`: seconds since the phone started, `boot`: names this start of it. mksh has 32-bit integers.
_CLOCK = (
    "{ read up rest < /proc/uptime || up=$(date +%s); read boot < /proc/sys/kernel/random/boot_id; } 2>/dev/null; "
    "up=${up%%.*} boot=${boot:--}"
)


@dataclass(frozen=True)
class Ran:
    """What a program of the session printed (stdout and stderr), its exit code, and how many processes it left."""

    output: str
    code: int
    left: int


@dataclass(frozen=True)
class _Holder:
    """A lock on the phone. Without an id it is just being made, or its maker was killed meanwhile."""

    number: int
    id: str = ""
    computer: str = ""
    pid: int = 0
    since: int = 0
    boot: str = ""
    who: str = ""
    at: int = 0
    until: int = 0
    runs: bool = False  # it has said that it runs a program,
    seen: bool = False  # and a process of it is there

    def __str__(self) -> str:
        return f"{self.who}, process {self.pid}" if self.id else "a session that is just starting"


class Claim:
    """This session's right to measure on the phone at the end of ``link``.

    Closing the link gives the phone back.

    Args:
        link: The link to the phone.
        wait: Whether to wait for a phone that is busy.
        on_event: Called with ``busy`` events while it waits.

    Raises:
        DeviceBusy: Another session has the phone, and ``wait`` is false.
        DeviceMissing: The phone is gone or has no space.
        BenchError: It has no folder for us.
    """

    def __init__(
        self, link: Link, *, wait: bool = False, on_event: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.id = secrets.token_hex(8)
        self._link, self._number = link, 0
        self._shows = "0"  # "1" where processes on the phone show their environment
        self._beaten = 0.0
        self._take(wait, on_event or (lambda event: None))
        link.on_connect = self._end_earlier
        link.on_close = self._give_back

    def beat(self, seconds: float = 0.0) -> None:
        """Says that the session lives, and will for ``seconds`` more without another sign.

        Raises:
            DeviceMissing: Another session has taken the phone, or it is gone.
        """
        if not seconds and time.monotonic() - self._beaten < _BEAT_EVERY_S:
            return
        if self._link.run(f"{self._ours()} && {self._beat(seconds)}").code:
            raise self._lost()
        self._beaten = time.monotonic()

    def rest(self, seconds: float) -> None:
        """Sleeps, with signs of life. Raises as ``beat``."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.beat()
            time.sleep(min(left, LEASE_S / 6))

    def run(self, program: str, timeout_s: float, before: str = ":", after: str = ":") -> Ran:
        """Runs a program on the phone, if it is still ours. Processes that the program leaves are ended.

        Args:
            program: The shell command that starts it, one simple command.
            timeout_s: How long all may take.
            before: Shell commands to run before it,
            after: and after it; all that they print is part of the output.

        Raises:
            DeviceMissing: Another session has taken the phone, or it is gone.
            TimedOut: It did not end in time, and was ended.
        """
        script = f"""if {self._ours()}; then
{self._beat(timeout_s, runs=True)}
{before}
{_MARK}={self.id}.program {program}
code=$?
{after}
left=$({_members(f"{self.id}.program")})
{_ending("$left")}
{self._beat(0.0)}
set -- $left
{self._ours()} && echo && echo "=={self.id} $code $#"
fi"""
        # The shell has the id, too: after a break it must not start the program when we have ended what there was.
        command = f"{_MARK}={self.id}.shell sh -c {shlex.quote(script)}"
        output, mark, tail = self._link.run(command, timeout_s).output.rpartition(f"\n=={self.id} ")
        found = re.fullmatch(r"(\d+) (\d+)\n", tail)
        if not (mark and found):
            raise self._lost()
        self._beaten = time.monotonic()
        return Ran(output, int(found[1]), int(found[2]))

    @property
    def _folder(self) -> str:
        return self._place(self._number)

    def _place(self, number: int) -> str:
        return shlex.quote(f"{self._link.folder}/lock.{number}")

    def _ours(self) -> str:
        """A shell condition: the lock is ours and nobody has taken it over."""
        owner, next_one = f"{self._folder}/owner", self._place(self._number + 1)
        return f'{{ id=; read word id rest < {owner}; [ "$id" = {self.id} ] && [ ! -d {next_one} ]; }} 2>/dev/null'

    def _beat(self, seconds: float, runs: bool = False) -> str:
        """A shell command that writes until when we live without another sign."""
        until = LEASE_S + int(seconds)
        shows = self._shows if runs else "0"
        return f'{{ {_CLOCK}; echo "beat $up $((up + {until})) {shows}" > {self._folder}/beat; }}'

    def _take(self, wait: bool, tell: Callable[[dict[str, Any]], None]) -> None:
        waited, pause = 0.0, _PAUSE_S
        while True:
            holders, now, boot = self._look()
            newest = holders[-1] if holders else None
            if newest is None or self._dead(newest, now, boot):
                if self._try(newest.number + 1 if newest else 1):
                    return
                continue
            started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - (now - newest.since)))
            busy = DeviceBusy(
                f"the phone is busy: {newest}" + (f", since {started}" if newest.id else ""),
                where=self._link.where,
                fix="run again later; `bench --wait` waits",
            )
            if not wait:
                raise busy
            tell({"event": "busy", "why": busy.what, "seconds": waited})
            time.sleep(pause)
            waited += pause
            pause = min(1.5 * pause, _LONGEST_PAUSE_S)

    def _try(self, number: int) -> bool:
        """Makes the lock with this number. Returns whether it is ours then; if so, the dead ones before it are removed."""
        self._number = number
        me = f"{self.id} {_computer()} {os.getpid()}"
        made = self._link.run(
            f"mkdir -p {shlex.quote(self._link.folder)} && mkdir {self._folder} && {self._beat(0.0)} && "
            f'echo "owner {me} $up $boot {_who()}" > {self._folder}/owner'
        )
        holders, _, _ = self._look()
        newest = holders[-1] if holders else _Holder(0)
        if newest.id != self.id:
            if not made.code:
                self._link.run(f"rm -rf {self._folder}")  # we were slow, and others have made higher ones
            elif newest.number < number or "space" in made.output.lower():
                raise self._no_folder(made)
            return False
        old = [holder for holder in holders if holder.number < number]
        clean = [_ending(f"$({_members(holder.id)})") for holder in old if holder.id]
        clean += [f"rm -rf {self._place(holder.number)}" for holder in old]
        # A child must see its parent's environment, or we would take every program for ended.
        shows = f"grep -q {_MARK}={self.id} /proc/$$/environ; exit $?"
        done = self._link.run(
            "\n".join([*clean, f"{_MARK}={self.id} sh -c {shlex.quote(shows)} 2>/dev/null"])
        )
        self._shows = "0" if done.code else "1"
        self._beaten = time.monotonic()
        return True

    def _dead(self, holder: _Holder, now: int, boot: str) -> bool:
        """Whether the session of a lock has ended. Where it only seems so, the lock is looked at a second time."""
        if holder.id and _over(holder, now, boot):
            return True
        if not _doubtful(holder):
            return False
        time.sleep(_DOUBT_S)
        holders, _, _ = self._look()
        return bool(holders) and holders[-1] == holder

    def _look(self) -> tuple[list[_Holder], int, str]:
        """The locks on the phone by their numbers, and the phone's clock: seconds since its start, and which start."""
        folder = shlex.quote(self._link.folder)
        done = self._link.run(
            f'{_CLOCK}; echo "now $up $boot"; for lock in {folder}/lock.*; do echo "lock ${{lock##*.}}"; '
            f"cat $lock/owner $lock/beat; runs=0 id=; read word id rest < $lock/owner; "
            f"read word at until runs < $lock/beat; "
            f'[ "$runs" = 1 ] && grep -q {_MARK}=$id /proc/[0-9]*/environ && echo seen; done 2>/dev/null'
        )
        now = re.search(r"^now (\d+) (\S+)$", done.output, re.MULTILINE)
        if not now:
            raise BenchError("the phone does not tell how long it runs", where=self._link.where)
        parts = re.split(r"^lock (\d+)\n", done.output, flags=re.MULTILINE)
        holders = [_holder(int(n), text) for n, text in zip(parts[1::2], parts[2::2], strict=True)]
        return sorted(holders, key=lambda holder: holder.number), int(now[1]), now[2]

    def _end_earlier(self, transport: Transport) -> None:
        """Ends what this session ran before the link broke."""
        transport.run(_ending(f"$({_members(self.id)})"))

    def _give_back(self) -> None:
        """The next session need not wait. The folder stays, because its number must not be used again."""
        with contextlib.suppress(BenchError):
            end = _ending(f"$({_members(self.id)})")
            self._link.run(f"{end}\n{self._ours()} && echo 'beat 0 0 0' > {self._folder}/beat")

    def _no_folder(self, made: Done) -> BenchError:
        lines = made.output.strip().splitlines() or [f"exit code {made.code}"]
        if "space" in made.output.lower():
            self._link.run(f"rm -rf {self._folder}")
            fix = "free some space there"
            return DeviceMissing("the phone has no space left", where=self._link.where, fix=fix)
        return BenchError(f"the phone has no folder for us: {lines[-1]}", where=self._link.where)

    def _lost(self) -> DeviceMissing:
        return DeviceMissing("another session has taken the phone over", where=self._link.where)


def _holder(number: int, text: str) -> _Holder:
    owner = re.search(r"^owner (\S+) (\S+) (\d+) (\d+) (\S+) (\S+)$", text, re.MULTILINE)
    beat = re.search(r"^beat (\d+) (\d+) ([01])$", text, re.MULTILINE)
    if not (owner and beat):
        return _Holder(number)
    ident, computer, pid, since, boot, who = owner.groups()
    at, until, runs = map(int, beat.groups())
    seen = bool(re.search(r"^seen$", text, re.MULTILINE))
    return _Holder(
        number, ident, computer, int(pid), int(since), boot, who, at, until, runs=bool(runs), seen=seen
    )


def _over(holder: _Holder, now: int, boot: str) -> bool:
    """Whether a lock says by itself that its session has ended."""
    if holder.boot != boot or holder.at > now or now >= holder.until:
        return True
    return holder.computer == _computer() != "-" and not _alive(holder.pid)


def _doubtful(holder: _Holder) -> bool:
    """Whether a lock is half made, or its program is gone and nobody has said that it has ended."""
    return not holder.id or (holder.runs and not holder.seen)


def _members(session: str) -> str:
    """A shell command that prints where the environments of a session's processes are."""
    return f"grep -l {_MARK}={session} /proc/[0-9]*/environ 2>/dev/null"


def _ending(members: str) -> str:
    """A shell command that ends the processes to which ``members`` expands there."""
    return (
        f"for member in {members}; do member=${{member%/environ}}; kill -9 ${{member##*/}}; done 2>/dev/null"
    )


def _who() -> str:
    """The user and this computer's name, as one word."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return re.sub(r"[^\w.@+-]", "_", f"{user}@{platform.node() or 'computer'}", flags=re.ASCII)


def _computer() -> str:
    """A name for this start of this computer and this space of process ids; ``"-"`` where they cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return "-"
    return hashlib.sha256(f"{boot} {space}".encode()).hexdigest()[:16]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
