"""``edgecls`` in processes of their own that begin at once: they are forked from one that has imported it already."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["sessions", "edgecls.cli.bench", "edgecls.workflow", "android_bench.measure.phone"]
)


class Session:
    """A running ``edgecls`` command.

    Args:
        arguments: Of the command line.
        folder: Where its output goes.
        environment: Variables that differ from those of the first session of this test process.
    """

    _number = 0

    def __init__(self, arguments: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        Session._number += 1
        self._out, self._err = (folder / f"{Session._number}.{name}" for name in ("out", "err"))
        where = (str(folder), str(self._out), str(self._err))
        self._process = _FORKS.Process(target=_run, args=(arguments, *where, dict(environment)), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, timeout_s: float = 120.0) -> int:
        """Waits for its end. Returns the exit code."""
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"still running after {timeout_s:g} s: {self.err}")
        return self._process.exitcode

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self._out.read_text())
        return document

    @property
    def err(self) -> str:
        return self._err.read_text() if self._err.exists() else ""


def _run(arguments: list[str], folder: str, out: str, err: str, environment: dict[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, path in enumerate((out, err), 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.update(environment)
    os.chdir(folder)
    from edgecls.cli.main import main

    main(arguments)
