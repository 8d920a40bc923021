"""Kill a training at random moments, continue it, and compare its weights with those of a training that was left alone.

    python scripts/check_resume.py [RECIPE] [-o KEY=VALUE ...] [--kills 3] [--seed N]

Both trainings run as ``edgecls train`` does. One is killed with ``kill -9`` just after its first checkpoint in the middle of an
epoch, and then as often as asked, each time at a moment that is drawn evenly from the time the whole training took. All
checkpoints at the end must be equal byte for byte: those of the student, the teacher and every phase. Without RECIPE a small
one on made-up photos is used, with a teacher, two phases, EMA, accumulation, Mixup and CutMix. The exit code is 1 if any
byte differs.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from edgecls.errors import EdgeclsError
from edgecls.train.checkpoint import read_state

RECIPE = """
name: resume
model: {name: MobileNetV3_small_x0_35, input_size: 32, resize_short: 32}
teacher:
  name: MobileNetV1_x0_25
  train: {epochs: 3, batch_size: 16, optimizer: {lr: 0.01}}
data: {source: folder, path: photos}
augment: {crop_scale: [0.5, 1.0], flip: both, mixup: {alpha: 0.2}}
train: {epochs: 4, batch_size: 16, optimizer: {lr: 0.01}, ema_decay: 0.9, accumulate: 2, checkpoint_minutes: 1.0e-5}
phases:
- {name: first}
- {name: second, augment: {cutmix: {}}, train: {epochs: 2}}
distill: {hard_weight: 0.5}
"""
POLL = 0.005  # seconds
LIMIT = 3600.0  # seconds of one command


def main() -> int:
    """Train twice; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", type=Path)
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--kills", type=int, default=3, help="kills at random moments")
    parser.add_argument("--seed", type=int, help="of the random moments; by default another one each time")
    options = parser.parse_args()
    rng = random.Random(time.time_ns() if options.seed is None else options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = options.recipe.resolve() if options.recipe else made_up(folder)
        command = [sys.executable, "-m", "edgecls", "train", str(recipe)]
        command += [word for override in options.overrides for word in ("-o", override)]
        whole, killed = folder / "whole", folder / "killed"
        took = finish([*command, "--run", str(whole)], folder)
        print(f"a training that is left alone takes {took:.0f} s", flush=True)
        if kill_in_mid_epoch([*command, "--run", str(killed)], folder, killed):
            print(f"killed in the middle of an epoch, {progress(killed)}", flush=True)
        else:
            print("there was no checkpoint in the middle of an epoch")
        for delay in sorted(rng.uniform(0, took) for _ in range(options.kills)):
            kill_after([*command, "--run", str(killed)], folder, delay)
            print(f"killed after {delay:.1f} s, {progress(killed)}", flush=True)
        finish([*command, "--run", str(killed)], folder)
        odd = differences(whole, killed)
    print("\n".join(odd) or "all checkpoints are equal byte for byte")
    return 1 if odd else 0


def made_up(folder: Path) -> Path:
    """Photos of two classes and a recipe for them."""
    rng = np.random.default_rng(0)
    for name in ("blue", "red"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(80):
            pixels = rng.integers(0, 120, (40, 40, 3)).astype(np.uint8)
            pixels[..., 0 if name == "red" else 2] += 130
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def begin(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command; what it says is in ``folder/log.txt``."""
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def finish(command: list[str], folder: Path) -> float:
    """Seconds that a command takes; it must succeed."""
    started = time.monotonic()
    if begin(command, folder).wait(timeout=LIMIT):
        raise SystemExit((folder / "log.txt").read_text()[-2000:])
    return time.monotonic() - started


def kill_after(command: list[str], folder: Path, seconds: float) -> None:
    """Kill a command after some time, if it has not ended before."""
    process = begin(command, folder)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()


def kill_in_mid_epoch(command: list[str], folder: Path, run: Path) -> bool:
    """Kill a command when it has written a checkpoint in the middle of an epoch; False if it ended without one."""
    process, before = begin(command, folder), states(run)
    while process.poll() is None:
        now = states(run)
        if any(state.get("step") and before.get(name) != state for name, state in now.items()):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(POLL)
    return False


def states(run: Path) -> dict[str, dict[str, object]]:
    """What the last checkpoint of each stage says of its progress."""
    found = {}
    for path in run.glob("checkpoints/*/last.npz"):
        try:
            found[path.parent.name] = read_state(path)
        except EdgeclsError:
            continue
    return found


def progress(run: Path) -> str:
    """Where the stages of a run are."""
    parts = [f"{name}: epoch {state['epochs']}, step {state['step']}" for name, state in states(run).items()]
    return ", ".join(parts) or "before its first checkpoint"


def differences(whole: Path, killed: Path) -> list[str]:
    """Which arrays of which checkpoints differ."""
    odd = []
    names = sorted(p.relative_to(whole).as_posix() for p in whole.glob("checkpoints/*/*.npz"))
    for name in names:
        if not (killed / name).exists():
            odd.append(f"{name} is missing")
            continue
        with np.load(whole / name) as a, np.load(killed / name) as b:
            paths = json.loads(str(a["meta"]))["names"]
            odd += [
                f"{name}: {path} differs"
                for i, path in enumerate(paths)
                if a[f"{i:05d}"].tobytes() != b[f"{i:05d}"].tobytes()
            ]
    return odd if names else ["there are no checkpoints"]


if __name__ == "__main__":
    raise SystemExit(main())
