"""``kill -9`` in every stage, once in the middle of an epoch: the same command ends with the same files, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tiny_run import NETWORK, photos

from edgecls.errors import EdgeclsError
from edgecls.saving import load_model
from edgecls.train import checkpoint

EPOCHS = 3
RECIPE = f"""
name: tiny
model: {{name: {NETWORK}, input_size: 32, resize_short: 32}}
teacher:
  name: MobileNetV1_x0_5
  train: {{epochs: {EPOCHS}, batch_size: 8, optimizer: {{lr: 0.01}}}}
data: {{source: folder, path: photos}}
augment: {{crop_scale: [0.5, 1.0], flip: both, rotate90: true, mixup: {{alpha: 0.2}}}}
train: {{epochs: {EPOCHS}, batch_size: 8, optimizer: {{lr: 0.01}}, ema_decay: 0.9, accumulate: 2}}
phases:
- {{name: first, train: {{epochs: 1}}}}
- {{name: second, augment: {{cutmix: {{alpha: 1.0}}}}, train: {{checkpoint_minutes: 1.0e-5}}}}  # after each step
distill: {{hard_weight: 0.5}}
quantize:
  train: {{epochs: {EPOCHS}, batch_size: 8, optimizer: {{lr: 0.001}}}}
  calibration_images: 16
"""
MIDDLE = "in the middle of an epoch"
# command -> its stages that are killed, and within how many seconds of their beginning
COMMANDS: dict[str, dict[str, float | str]] = {
    "train recipe.yaml": {"teacher": 10.0, "student.first": 10.0, "student.second": MIDDLE},
    "quantize": {"qat": 10.0, "export_int8": 3.0},
}


def edgecls(folder: Path, args: list[str]) -> subprocess.Popen[bytes]:
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen([sys.executable, "-m", "edgecls", *args], cwd=folder, stdout=log, stderr=log)


def begin(folder: Path) -> Path:
    photos(folder / "photos", 32)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def finish(folder: Path, command: list[str]) -> Path:
    process = edgecls(folder, command)
    assert process.wait(timeout=1200) == 0, (folder / "log.txt").read_text()[-2000:]
    return (folder / "runs/latest").resolve()


def events(folder: Path) -> list[dict[str, object]]:
    logs = sorted(folder.glob("runs/tiny/*/log.jsonl"))
    return [json.loads(line) for line in logs[-1].read_text().splitlines()] if logs else []


def in_the_middle(folder: Path, stage: str) -> bool:
    """Whether the last checkpoint of a stage was written between two steps of an epoch."""
    with suppress(EdgeclsError):
        (run,) = folder.glob("runs/tiny/*/recipe.yaml")
        return checkpoint.read_state(run.parent / f"checkpoints/{stage}/last.npz")["step"] > 0
    return False


def kill_in(folder: Path, command: list[str], stage: str, when: float | str) -> None:
    """Start a command and kill it in ``stage``.

    Args:
        when: Seconds after its beginning (it may end before), or ``MIDDLE``.
    """
    process = edgecls(folder, command)
    deadline = time.monotonic() + 600
    while not any(e["event"] == "stage" and e["stage"] == stage for e in events(folder)):
        assert process.poll() is None and time.monotonic() < deadline, (folder / "log.txt").read_text()[
            -2000:
        ]
        time.sleep(0.02)
    if when == MIDDLE:
        while not in_the_middle(folder, stage):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.005)
    else:
        time.sleep(float(when))
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_with_the_same_files(tmp_path: Path) -> None:
    whole_in, killed_in = begin(tmp_path / "whole"), begin(tmp_path / "killed")
    rng = random.Random(time.time_ns())
    kills = 0
    for text, stages in COMMANDS.items():
        command = text.split()
        whole = finish(whole_in, command)
        for stage, within in stages.items():
            when = within if isinstance(within, str) else rng.uniform(0.0, within)
            print(f"killed in {stage}: {when}")
            kill_in(killed_in, command, stage, when)
            kills += 1
        killed = finish(killed_in, command)

    def names(run: Path) -> set[str]:
        files = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
        return {name for name in files if not name.startswith("tensorboard/")}

    assert names(killed) == names(whole)
    weights = [[np.asarray(v) for v in load_model(run / "float.keras").weights] for run in (whole, killed)]
    assert [v.tobytes() for v in weights[0]] == [v.tobytes() for v in weights[1]] and len(weights[0]) > 100
    for name in (f"checkpoints/{stage}/last.npz" for stage in ("student.first", "student.second", "qat")):
        with np.load(whole / name) as a, np.load(killed / name) as b:
            assert [k for k in a.files if k != "meta" and not np.array_equal(a[k], b[k])] == [], name
    for path in whole.glob("export/*.tflite"):
        assert path.read_bytes() == (killed / "export" / path.name).read_bytes(), path.name
    assert lost_epochs(killed) <= kills


def lost_epochs(run: Path) -> int:
    """Epochs that were trained more than once."""
    trained = [(e["stage"], e["epoch"]) for e in events(run.parents[2]) if e["event"] == "epoch"]
    return len(trained) - len(set(trained))
