"""Trainings of a tiny network that one process or several do: ``python worker.py FOLDER CASES [EPOCH STEP]``.

With EPOCH and STEP the process kills itself after that step. ``FOLDER/<case>-<worker>.npz`` has the weights,
``FOLDER/<case>-<worker>.json`` the figures.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from photos import split_of

from edgecls.cli.main import report_error
from edgecls.data.preprocess import Preprocess
from edgecls.data.sources import Dataset
from edgecls.data.split import Split
from edgecls.recipe import Augment, Recipe, Train
from edgecls.train.callbacks import Callback
from edgecls.train.distribution import lost_workers_are_told, workers
from edgecls.train.objective import Objective
from edgecls.train.optimizers import Sgd
from edgecls.train.stage import train_network

CLASSES, SIZE, BATCH, EPOCHS, STEPS = 3, 32, 32, 2, 25  # 50 steps
ALL = ({"ema_decay": 0.9, "accumulate": 2}, {"mixup": {}, "cutmix": {}}, False)
CASES = {
    "plain": ({}, {}, False),
    "all": ALL,
    "killed": ALL,
    "batchnorm": ({"ema_decay": 0.9}, {}, True),
}
"""Name to: keys of ``train``, keys of ``augment``, whether the network has batch normalization."""


class Diary(Callback):
    """Keeps the figures of epochs, and kills the process where it is told."""

    def __init__(self, kill_at: tuple[int, int] | None) -> None:
        self.rows: list[dict[str, float]] = []
        self.kill_at = kill_at

    def on_step(self, epoch: int, step: int) -> None:
        if (epoch, step) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch(self, epoch: int, values: dict[str, float]) -> None:
        self.rows.append({"epoch": epoch, **values})


def network(batchnorm: bool) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
    x = keras.layers.Conv2D(8, 3, strides=2)(x)
    x = keras.layers.BatchNormalization()(x) if batchnorm else x
    x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x))
    return keras.Model(image, keras.layers.Dense(CLASSES)(x), name="tiny")


def images(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = rng.integers(0, 200, (count, SIZE, SIZE, 3))
    pixels[np.arange(count), :, :, labels] += 40
    return split_of(pixels.astype(np.uint8), labels)


def train(case: str, folder: Path, kill_at: tuple[int, int] | None = None) -> None:
    """Train as a case says and leave its files."""
    team = workers()
    changes, augment, batchnorm = CASES[case]
    config = Train(
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=Sgd(lr=0.05),
        checkpoint_minutes=1e-4,
        select="best",
        **changes,
    )
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"name": "MobileNetV1_x0_25"},
            "data": {"source": "folder", "path": "photos"},
            "augment": Augment.model_validate(augment).model_dump(),
        }
    )
    val = images(17, 2)  # an odd number: the workers' shares differ
    data = Dataset([f"class {i}" for i in range(CLASSES)], images(BATCH * STEPS, 1), val, val, [], 0)
    diary = Diary(kill_at)
    with team.strategy.scope():
        model = network(batchnorm)
        checkpoints = folder / f"checkpoints-{case}-{team.index}"
        figures = train_network(
            model,
            Objective(),
            config,
            "train",
            recipe,
            data,
            Preprocess(SIZE, SIZE),
            checkpoints,
            {"case": case},
            [diary],
        )
    np.savez(folder / f"{case}-{team.index}.npz", *[np.asarray(w) for w in model.weights])
    (folder / f"{case}-{team.index}.json").write_text(json.dumps({"rows": diary.rows, **figures}))


def main() -> int:
    folder, cases, *kill_at = sys.argv[1:]
    try:
        with lost_workers_are_told():
            for case in cases.split(","):
                train(case, Path(folder), (int(kill_at[0]), int(kill_at[1])) if kill_at else None)
    except Exception as error:
        return report_error(error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
