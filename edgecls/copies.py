"""Work in copies of a process that has imported what the work takes: each begins at once and gives all its memory back.

One side is a module that ends in ``serve`` and computes nothing before, so that it has one thread and can be copied. The
other side is a ``Server`` of that module. A line of text goes over, and an exit code comes back.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path


class Server:
    """A process that copies do work for; it starts when it is needed and ends with the one that started it.

    Args:
        module: Is run as a program, and calls ``serve``.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._lock = threading.Lock()
        atexit.register(self.stop)

    def start(self) -> None:
        """Begin with the imports, unless that is done."""
        alive = self._process is not None and self._process.poll() is None
        if alive and self._owner == os.getpid():  # a fork of this process needs one of its own
            return
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,  # Ctrl-C ends it by way of this process
        )
        self._owner = os.getpid()

    def run(self, task: str) -> int:
        """Have a copy do a task, one line of text; its exit code, less than 0 if a signal ended it."""
        with self._lock:
            self.start()
            assert self._process and self._process.stdin and self._process.stdout
            try:
                print(task, file=self._process.stdin, flush=True)
                answer = self._process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            except BaseException:  # interrupted: the work must not go on
                self.stop()
                raise
            return int(answer) if answer else self._process.wait()

    def stop(self) -> None:
        """End it and the work of its copy."""
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def serve(
    prepare: Callable[[], object], work: Callable[[str], int], abandoned: Callable[[str], None]
) -> None:
    """Do each task of stdin in a copy of this process, and answer on stdout with its exit code.

    Args:
        prepare: Imports what the work takes, and starts no thread.
        work: Does a task and gives the exit code.
        abandoned: Is called with a task whose copy was ended because nobody waits for it any more.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what they print is no answer
    prepare()
    while line := sys.stdin.readline():
        task = line.rstrip("\n")
        ended, held = os.pipe()  # the copy alone holds the other end, and it closes when the copy ends
        copy = os.fork()
        if not copy:
            os._exit(work(task))
        os.close(held)
        alone = ended not in select.select([ended, sys.stdin], [], [])[0]
        if alone:
            os.kill(copy, signal.SIGKILL)
        _, status = os.waitpid(copy, 0)
        os.close(ended)
        if alone:
            abandoned(task)
            return
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
