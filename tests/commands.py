"""Running the command line in tests: in a process of its own, and what one-line errors look like."""

from __future__ import annotations

import os
import subprocess
import sys

RECIPE = "name: demo\nmodel: {name: MobileNetV3_small_x1_0}\ndata: {source: elpv}\nbench: {threads: [3], runs: 7}\n"


def process(*args: str, code: str = "", **env: str) -> subprocess.CompletedProcess:
    """Run ``edgecls``, or Python code, in a new process."""
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "edgecls", *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **env}, check=False
    )


def one_line(err: str) -> str:
    assert err.endswith("\n") and err.count("\n") == 1, err
    assert err.startswith("edgecls: ")
    return err
