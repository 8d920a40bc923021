"""Fails a test run that leaves files in the checkout: a test writes into its ``tmp_path`` only."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePath

import pytest

# What Python and the tools of scripts/test.sh keep there, whether the tests pass or not.
CACHES = {"__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache"}


def untracked(root: Path) -> set[str]:
    """Files that git does not track, ignored ones too, without those of caches; none where ``root`` is no checkout."""
    command = ["git", "status", "--porcelain", "--ignored", "--untracked-files=normal", "-z"]
    try:
        status = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return set()
    paths = [entry[3:] for entry in status.split("\0") if entry[:2] in ("??", "!!")]
    return {path for path in paths if not CACHES & set(PurePath(path).parts)}


class CleanCheckout:
    """A pytest plugin: compares the checkout before and after the run, in the process that started it."""

    def __init__(self, root: Path) -> None:
        self.root, self.before, self.left = root, untracked(root), set[str]()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.left = untracked(self.root) - self.before
        if self.left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.left:
            terminalreporter.section("files left in the checkout", red=True)
            terminalreporter.line("A test wrote outside of its tmp_path: " + ", ".join(sorted(self.left)))
