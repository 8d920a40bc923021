"""A checkpoint that cannot be written leaves the one before; the figures of epochs as a table; the memory of a training."""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from edgecls.errors import MissingError
from edgecls.run import Run
from edgecls.train import checkpoint
from edgecls.train.memory import peak_memory


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    """The system refuses to let the second file grow, in the middle of its writing."""
    path, variable = tmp_path / "last.npz", keras.Variable(np.arange(100_000, dtype=np.float32))
    checkpoint.save(path, [variable], {"epochs": 1})
    variable.assign(-variable.value)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(MissingError, match="the file would be larger than the system allows") as error:
            checkpoint.save(path, [variable], {"epochs": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value) and [p.name for p in tmp_path.iterdir()] == ["last.npz"]
    assert checkpoint.restore(path, [variable]) == {"epochs": 1}
    assert np.array_equal(variable.value, np.arange(100_000))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_small_disk_is_told_in_one_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("this system does not let root mount")
    try:
        small, large = (keras.Variable(np.ones(size, np.float32)) for size in (1000, 400_000))
        checkpoint.save(disk / "last.npz", [small], {"epochs": 1})
        with pytest.raises(MissingError, match="no disk space left"):
            checkpoint.save(disk / "last.npz", [large], {"epochs": 2})
        assert checkpoint.read_state(disk / "last.npz") == {"epochs": 1}
        assert [p.name for p in disk.iterdir()] == ["last.npz"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_metrics_are_a_table_too(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metric("student", 0, loss=0.5)
    run.metric("student", 1, loss=0.25, val_loss=0.5)
    run.metric("student", 1, loss=0.125, val_loss=0.25)  # again, after a resume
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["stage"], r["epoch"], r["loss"], r["val_loss"]) for r in rows] == [
        ("student", "0", "0.5", ""),
        ("student", "1", "0.125", "0.25"),
    ]


def test_peak_memory_is_that_of_this_process() -> None:
    program = """
import numpy as np
from edgecls.train.memory import peak_memory
before = peak_memory()["memory_mb"]
np.ones(50_000_000).sum()  # 400 MB
print(peak_memory()["memory_mb"] - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 300 < float(done.stdout) < 500
    assert peak_memory()["memory_mb"] > 10
