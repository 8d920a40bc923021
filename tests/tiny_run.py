"""A tiny data set, its recipe, and the command line on it in this process."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from edgecls.cli.main import main

NETWORK = "MobileNetV1_x0_25"  # the fastest to build and to trace that can be quantized
RECIPE = f"""
name: tiny
model: {{name: {NETWORK}, input_size: 32, resize_short: 32}}
data: {{source: folder, path: photos, max_bad_fraction: 0.1}}
augment: {{crop_scale: null}}
train: {{epochs: 2, batch_size: 8, optimizer: {{lr: 0.01}}}}
quantize: {{train: {{epochs: 1, batch_size: 8, optimizer: {{lr: 0.0001}}}}, calibration_images: 16}}
"""


class Done(NamedTuple):
    """What a command left: its exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def edgecls(folder: Path, *args: str) -> Done:
    """Run the command line in this process, in ``folder``: TensorFlow is loaded once for all of them."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(args))
        except SystemExit as left:
            code = int(left.code or 0)
        finally:
            unlock()
    return Done(code, out.getvalue(), err.getvalue())


def unlock() -> None:
    """Let go of the runs that a command has locked until the end of its process, which is this one."""
    from edgecls import run

    for path in list(run._locks):
        run.Run(path).unlock()


def succeed(folder: Path, *args: str) -> str:
    """Run a command that must succeed; gives all that it printed."""
    done = edgecls(folder, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def photos(folder: Path, count: int = 24, classes: tuple[str, ...] = ("blue", "red"), start: int = 0) -> None:
    """Photos that are blue or red, ``<class>/<number>.jpg``."""
    rng = np.random.default_rng(start)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(start, start + count):
            pixels = rng.integers(0, 120, (40, 40, 3)).astype(np.uint8)
            pixels[..., 0 if name == "red" else 2] += 130
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.jpg")


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, a recipe and its trained and quantized run; to be copied by who changes it."""
    folder = tmp_path_factory.mktemp("quantized")
    photos(folder / "photos")
    (folder / "recipe.yaml").write_text(RECIPE)
    succeed(folder, "train", "recipe.yaml")
    succeed(folder, "quantize")
    return folder
