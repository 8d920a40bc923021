"""``kill -9`` at a random moment of every stage: the same command ends with the same files, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EPOCHS = 3
RECIPE = f"""
name: tiny
model: {{name: MobileNetV3_small_x0_35, input_size: 32, resize_short: 32}}
teacher:
  name: EfficientNetLite0
  train: {{epochs: {EPOCHS}, batch_size: 8, optimizer: {{lr: 0.01}}}}
data: {{source: folder, path: photos}}
augment: {{crop_scale: [0.5, 1.0], flip: both, rotate90: true, mixup_alpha: 0.2}}
train: {{epochs: {EPOCHS}, batch_size: 8, optimizer: {{lr: 0.01}}, ema_decay: 0.9}}
distill: {{hard_weight: 0.5}}
quantize:
  train: {{epochs: {EPOCHS}, batch_size: 8, optimizer: {{lr: 0.001}}}}
  calibration_images: 16
"""
COMMANDS = (["train", "recipe.yaml"], ["quantize"])
STAGES = {"teacher": COMMANDS[0], "student": COMMANDS[0], "qat": COMMANDS[1], "export_int8": COMMANDS[1]}


def edgecls(folder: Path, args: list[str]) -> subprocess.Popen[bytes]:
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen([sys.executable, "-m", "edgecls.cli", *args], cwd=folder, stdout=log, stderr=log)


def begin(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("blue", "red"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(32):
            pixels = rng.integers(0, 120, (40, 40, 3)).astype(np.uint8)
            pixels[..., 0 if name == "red" else 2] += 130
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def finish(folder: Path) -> Path:
    for args in COMMANDS:
        process = edgecls(folder, args)
        # A tiny network of random photographs may miss the ladder by a step: exit code 1, all files written.
        assert process.wait(timeout=600) in (0, 1), (folder / "log.txt").read_text()[-2000:]
    return (folder / "runs/latest").resolve()


def events(folder: Path) -> list[dict[str, object]]:
    logs = sorted(folder.glob("runs/tiny/*/log.jsonl"))
    return [json.loads(line) for line in logs[-1].read_text().splitlines()] if logs else []


def kill_in(folder: Path, stage: str, delay: float) -> None:
    """Start the command of ``stage`` and kill it ``delay`` seconds after that stage began."""
    process = edgecls(folder, STAGES[stage])
    deadline = time.monotonic() + 300
    while not any(e["event"] == "stage" and e["stage"] == stage for e in events(folder)):
        assert process.poll() is None and time.monotonic() < deadline, (folder / "log.txt").read_text()[
            -2000:
        ]
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_with_the_same_files(tmp_path: Path) -> None:
    whole = finish(begin(tmp_path / "whole"))
    killed_in = begin(tmp_path / "killed")
    rng = random.Random(time.time_ns())
    delays = {
        stage: rng.uniform(0.0, 20.0 if stage in ("teacher", "student", "qat") else 3.0) for stage in STAGES
    }
    print("killed after", delays)
    for stage, delay in delays.items():
        kill_in(killed_in, stage, delay)
    killed = finish(killed_in)

    def names(run: Path) -> set[str]:
        files = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
        return {name for name in files if not name.startswith("tensorboard/")}

    assert names(killed) == names(whole)
    for name in ("checkpoints/student/last.npz", "checkpoints/qat/last.npz"):
        with np.load(whole / name) as a, np.load(killed / name) as b:
            assert [k for k in a.files if k != "meta" and not np.array_equal(a[k], b[k])] == [], name
    for path in whole.glob("export/*.tflite"):
        assert path.read_bytes() == (killed / "export" / path.name).read_bytes(), path.name
    assert lost_epochs(killed) <= len(delays)


def lost_epochs(run: Path) -> int:
    """Epochs that were trained more than once."""
    trained = [(e["stage"], e["epoch"]) for e in events(run.parents[2]) if e["event"] == "epoch"]
    return len(trained) - len(set(trained))
