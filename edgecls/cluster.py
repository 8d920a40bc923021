"""The processes that train together on one or many computers, as ``TF_CONFIG`` names them. No TensorFlow here.

``TF_CONFIG`` is TensorFlow's own convention, which launchers of clusters know: the addresses of all processes, and which of
them this one is::

    {"cluster": {"worker": ["10.0.0.1:12345", "10.0.0.2:12345"]}, "task": {"type": "worker", "index": 0}}
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.text import plural

VARIABLE = "TF_CONFIG"
JOIN_SECONDS = "EDGECLS_JOIN_SECONDS"
"""Environment variable: how long a worker waits for the others at the start."""
_WAIT = 600.0  # seconds; a scheduler need not start all processes at once
_JOBS = ("chief", "worker")


@dataclass(frozen=True)
class Cluster:
    """The workers of a training and which of them this process is.

    Attributes:
        index: Number of this worker; worker 0 is the chief, who writes the run folder.
        addresses: ``host:port`` of every worker; one address or none means that this process trains alone.
        chiefs: How many of them, the first ones, ``TF_CONFIG`` calls ``chief`` and not ``worker``.

    Example:
        >>> Cluster(1, ("10.0.0.1:12345", "10.0.0.2:12345")).chief
        False
    """

    index: int = 0
    addresses: tuple[str, ...] = ()
    chiefs: int = 0

    @property
    def jobs(self) -> dict[str, int]:
        """Number of processes of each of TensorFlow's jobs, the leading one first."""
        counts = {"chief": self.chiefs, "worker": len(self.addresses) - self.chiefs}
        return {job: count for job, count in counts.items() if count}

    @property
    def count(self) -> int:
        """Number of workers."""
        return max(1, len(self.addresses))

    @property
    def chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.index == 0

    @property
    def name(self) -> str:
        """This worker for a person, for example ``worker 2 of 2 (10.0.0.2:12345)``."""
        return f"worker {self.index + 1} of {self.count} ({self.addresses[self.index]})"

    @classmethod
    def from_environment(cls) -> Cluster:
        """The cluster in ``TF_CONFIG``; without the variable this process trains alone.

        Raises:
            UsageError: The variable's value is not of the form above.
        """
        text = os.environ.get(VARIABLE, "").strip()
        if not text:
            return cls()
        try:
            config = json.loads(text)
        except ValueError as error:
            raise _wrong(f"it is not JSON: {error}") from None
        if not isinstance(config, Mapping):
            raise _wrong("it is not a JSON object")
        jobs = config.get("cluster", {})
        if not isinstance(jobs, Mapping):
            raise _wrong("cluster is not an object")
        if other := [job for job in jobs if job not in _JOBS]:
            raise _wrong(f"cluster has the job {other[0]!r}; training has chief and worker only")
        addresses = [_address(item) for job in _JOBS for item in _list(jobs.get(job, []), job)]
        if twice := [a for i, a in enumerate(addresses) if a in addresses[:i]]:
            raise _wrong(f"cluster has {twice[0]} twice")
        if not addresses:
            return cls()
        chiefs = len(jobs.get("chief", []))
        if chiefs > 1:
            raise _wrong(f"cluster has {chiefs} chiefs, there can be one")
        return cls(_index(config.get("task"), jobs), tuple(addresses), chiefs)

    def join(self, say: Callable[[str], None]) -> None:
        """Wait until every worker has been reached.

        TensorFlow itself waits without an end and without a word for a worker that never comes. So nothing of it is
        started before all workers are there.

        Args:
            say: Is told whom this worker waits for.

        Raises:
            MissingError: This worker's port is taken, or a worker did not come in time.
        """
        limit, began, told = _join_seconds(), time.monotonic(), False
        with self._listen():  # the system answers for us: the connections of the others are never accepted
            missing = self.silent()
            while missing:
                waited = time.monotonic() - began
                if waited > limit:
                    raise MissingError(
                        f"{plural(len(missing), 'worker')} did not come in {limit:.0f} s",
                        where=", ".join(missing),
                        fix=f"start the command on every computer of {VARIABLE}, and see that they reach each other;"
                        f" {JOIN_SECONDS} sets the time",
                    )
                if waited > 2 and not told:
                    say(f"{self.name}: waiting for {', '.join(missing)}")
                    told = True
                time.sleep(0.1)
                missing = [address for address in missing if not _answers(address)]

    def silent(self) -> list[str]:
        """The addresses of other workers that take no connection."""
        return [a for i, a in enumerate(self.addresses) if i != self.index and not _answers(a)]

    def _listen(self) -> socket.socket:
        port = _split(self.addresses[self.index])[1]
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            return socket.create_server(("", port), family=family, backlog=128, dualstack_ipv6=both)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            taken = error.errno == errno.EADDRINUSE
            what = f"port {port} is taken by another process" if taken else f"port {port} may not be used"
            fix = f"end that process or name another port in {VARIABLE}"
            raise MissingError(what, where=self.name, fix=fix) from None


def _join_seconds() -> float:
    text = os.environ.get(JOIN_SECONDS, "")
    try:
        return float(text) if text else _WAIT
    except ValueError:
        raise UsageError(f"not a number of seconds: {text!r}", where=JOIN_SECONDS, fix="e.g. 600") from None


def _wrong(what: str) -> EdgeclsError:
    fix = 'e.g. {"cluster": {"worker": ["10.0.0.1:12345", "10.0.0.2:12345"]}, "task": {"type": "worker", "index": 0}}'
    return UsageError(what, where=VARIABLE, fix=fix)


def _list(value: Any, job: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(f"cluster.{job} is not a list of addresses")
    return value


def _address(value: Any) -> str:
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise _wrong(f"cluster has {value!r}, expected host:port")
    return value


def _index(task: Any, jobs: Mapping[str, Any]) -> int:
    """Number of a task among all workers: a chief comes first."""
    if not isinstance(task, Mapping) or task.get("type") not in jobs:
        raise _wrong(f"task.type is not one of {', '.join(jobs)}")
    kind, index = task["type"], task.get("index")
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(jobs[kind]):
        last = len(jobs[kind]) - 1
        raise _wrong(f"task.index is {json.dumps(index)}, expected 0 to {last} for {kind}")
    return index + (len(jobs.get("chief", [])) if kind == "worker" else 0)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _answers(address: str) -> bool:
    try:
        with socket.create_connection(_split(address), timeout=1.0) as connection:
            # A connection to a free local port may get that very port as its own, and so reach itself.
            return connection.getsockname() != connection.getpeername()
    except OSError:
        return False
