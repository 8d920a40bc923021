"""The guard of the checkout, on a checkout of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TIDY = "(tmp_path / 'x').touch(); open('old.txt', 'a'); __import__('os').makedirs('__pycache__/x')"
UNTIDY = (
    "open('left.txt', 'w'); open('runs/stray', 'w')"  # git ignores runs, and the file is still left behind
)


@pytest.mark.parametrize(
    ("test", "left"), [(TIDY, ""), (UNTIDY, "left.txt, runs/stray")], ids=["tidy", "untidy"]
)
def test_a_run_that_leaves_files_fails(test: str, left: str, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("checkout.py"), tmp_path)
    (tmp_path / "conftest.py").write_text(
        "from checkout import CleanCheckout\n\n"
        "def pytest_configure(config):\n    config.pluginmanager.register(CleanCheckout(config.rootpath))\n"
    )
    (tmp_path / ".gitignore").write_text("runs/*\n!runs/kept\n__pycache__\n")
    (tmp_path / "runs").mkdir()
    for name in ("old.txt", "runs/kept"):
        (tmp_path / name).touch()
    (tmp_path / "test_it.py").write_text(f"def test_it(tmp_path):\n    {test}\n")
    subprocess.run("git init -q && git add -A", shell=True, cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == bool(left)
    assert ("files left in the checkout" in done.stdout) == bool(left)
    assert left in done.stdout
