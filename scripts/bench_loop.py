"""The measurements of ``bench_train.py --loop`` and ``--ssld``: the training loop as it is, not a step of its own."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import edgecls
from edgecls.data.listing import list_photos
from edgecls.data.pipeline import Batches
from edgecls.data.preprocess import Preprocess
from edgecls.data.readers import Part
from edgecls.data.split import Split, check
from edgecls.environment import cpu_flags, int8_instructions
from edgecls.onednn import VARIABLE
from edgecls.recipe import Augment, Train
from edgecls.train import checkpoint
from edgecls.train.callbacks import Callback
from edgecls.train.distribution import workers
from edgecls.train.loop import Trainer, fit
from edgecls.train.objective import Objective, as_teacher
from edgecls.train.teachers import Teacher

CLASSES = 1000
PAIRS = {"MobileNetV3_large_x1_0": "MobileNetV3Large", "MobileNetV2": "MobileNetV2"}
"""Our network to that of ``keras.applications``."""
STUDENT, TEACHER = "MobileNetV3_small_x1_0", "ResNet50_vd"
STEPS = 3  # in a round
MIN_SPEEDUP = 1.3  # ours against keras.applications with fit
MOST_DISTILL = 1.10  # a step of distillation against a step of the student and an answer of the teacher
MOST_VIEWS = 1.05  # a step with the answers of views against a step of the student
MOST_WAIT = 0.05  # share of the time
MOST_SAVE = 0.02  # share of the time
MOST_GAP = 0.1  # seconds between two epochs


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that measurements of steps have: ``size``, ``batch`` and ``rounds``."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--size", type=int, default=224, help="pixels")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--rounds", type=int, default=5)
    return options


class Clock(Callback):
    """When each step ended, by epoch, and the figures of the epochs."""

    def __init__(self) -> None:
        self.steps: dict[int, list[float]] = {}
        self.figures: list[dict[str, float]] = []

    def on_step(self, epoch: int, step: int) -> None:
        self.steps.setdefault(epoch, []).append(time.perf_counter())

    def on_epoch(self, epoch: int, values: dict[str, float]) -> None:
        self.figures.append(values)


class KerasClock(keras.callbacks.Callback):
    """Seconds of each epoch of ``fit``."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def photo_split(folder: Path) -> Split:
    """The photos of a folder, all of class 0."""
    files = [str(path) for path in list_photos(folder)]
    part = Part([Path(file).name for file in files], np.zeros(len(files), np.int64), files)
    return check(part, str(folder), None)


def against_fit(folder: Path, size: int, batch: int, epochs: int, network: str | None = None) -> int:
    """Train each pair of networks for some epochs and print how they compare; the exit code."""
    good = True
    for name in [network] if network else PAIRS:
        ours = our_training(name, photo_split(folder), size, batch, epochs)
        theirs = as_users_have_it(PAIRS[name], folder, size, batch, epochs)
        print(
            f"{name}: {ours['images_per_s']:.1f} images/s, keras.applications with fit {theirs:.1f}: "
            f"{ours['images_per_s'] / theirs:.2f} times as fast; waiting for data {ours['data_wait']:.2%}; between epochs "
            f"{ours['gap']:.3f} s; a checkpoint {ours['save']:.2f} s, {ours['save_share']:.2%} of an epoch of "
            f"{ours['epoch']:.1f} s, {ours['save'] / 600:.2%} of ten minutes",
            flush=True,
        )
        good &= ours["images_per_s"] >= MIN_SPEEDUP * theirs and ours["data_wait"] < MOST_WAIT
        good &= ours["gap"] < MOST_GAP and ours["save"] / 600 < MOST_SAVE
    return 0 if good else 1


def feed_of(split: Split, size: int, batch: int, epochs: int, **options: Any) -> Batches:
    """Training batches as ``edgecls train`` makes them."""
    keys = {"training": True, "augment": Augment(), "epochs": epochs, "classes": CLASSES, "cast": False}
    return Batches(split, Preprocess(size), batch, **keys | options)


def our_training(name: str, split: Split, size: int, batch: int, epochs: int) -> dict[str, float]:
    """Medians over the epochs after the first: speed, waiting, time between epochs and of a checkpoint."""
    model = edgecls.build_model(name, CLASSES, size, include_preprocessing=True)
    feed = feed_of(split, size, batch, epochs, distribute=workers().distribute)
    config = Train(epochs=epochs, batch_size=batch, select="last", checkpoint_minutes=None)
    trainer, clock = Trainer(model, Objective(), config, len(feed)), Clock()
    with tempfile.TemporaryDirectory() as folder, timed_saves() as saves:
        fit(trainer, feed.epoch, dict, Path(folder), callbacks=[clock])
    feed.close()
    times = [clock.steps[epoch] for epoch in range(epochs)]
    step = statistics.median(np.diff(np.concatenate(times[1:])))
    # Between two epochs a checkpoint is saved; the first step of the next one takes as long as any.
    gaps = [b[0] - a[-1] - step - save for a, b, save in zip(times, times[1:], saves, strict=False)]
    figures = {
        key: statistics.median(row[key] for row in clock.figures[1:]) for key in ("images_per_s", "data_wait")
    }
    epoch = len(feed) * batch / figures["images_per_s"]
    save = statistics.median(saves)
    return figures | {"gap": max(gaps), "save": save, "epoch": epoch, "save_share": save / (save + epoch)}


def as_users_have_it(name: str, folder: Path, size: int, batch: int, epochs: int) -> float:
    """``their_training`` in a process of its own, where TensorFlow uses oneDNN only if it would by itself."""
    by_itself = int8_instructions(cpu_flags()) is not None
    command = [sys.executable, __file__, name, str(folder), *map(str, (size, batch, epochs))]
    environment = os.environ | {VARIABLE: str(int(by_itself))}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def their_training(name: str, split: Split, size: int, batch: int, epochs: int) -> float:
    """Median images a second of Keras' ``fit`` over the epochs after the first, on the same batches."""
    options: dict[str, Any] = {"weights": None, "input_shape": (size, size, 3), "classifier_activation": None}
    if name.startswith("MobileNetV3"):
        options["include_preprocessing"] = False
    inputs = keras.Input((size, size, 3))
    network = getattr(keras.applications, name)(**options)
    model = keras.Model(inputs, network(keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)))
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.CategoricalCrossentropy(from_logits=True)
    )
    feed, clock = feed_of(split, size, batch, epochs), KerasClock()
    model.fit(
        feed.dataset(epochs=epochs),
        epochs=epochs,
        steps_per_epoch=len(feed),
        callbacks=[clock],
        verbose=0,
        shuffle=False,
    )
    feed.close()
    return len(feed) * batch / statistics.median(clock.seconds[1:])


@contextmanager
def timed_saves() -> Iterator[list[float]]:
    """Seconds of each checkpoint that is saved in the block."""
    seconds: list[float] = []
    save = checkpoint.save

    def timed(*args: Any) -> None:
        started = time.perf_counter()
        save(*args)
        seconds.append(time.perf_counter() - started)

    checkpoint.save = timed
    try:
        yield seconds
    finally:
        checkpoint.save = save


def distillation(size: int, batch: int, rounds: int) -> int:
    """Compare a step of SSLD with its parts, which take turns; the exit code."""
    pixels, targets = noise(size, batch)
    teacher = edgecls.build_model(TEACHER, CLASSES, size, include_preprocessing=True)
    answer = tf.function(lambda: tf.reduce_sum(teacher(tf.cast(pixels, tf.float32), training=True)))
    student, other, third = (
        edgecls.build_model(STUDENT, CLASSES, size, include_preprocessing=True) for _ in range(3)
    )
    alone = step_of(student, Objective(), pixels, targets)
    with_teacher = step_of(other, Objective(teacher=as_teacher(teacher)), pixels, targets)
    with_views = step_of(third, Objective(teacher=Answered()), pixels, targets, tf.zeros_like(targets))
    works = {
        "student": alone,
        "teacher": lambda: float(answer()),
        "distillation": with_teacher,
        "with views": with_views,
    }
    medians = by_turns(works, rounds)
    ratio = medians["distillation"] / (medians["student"] + medians["teacher"])
    of_views = medians["with views"] / medians["student"]
    print(
        f"{STUDENT} from {TEACHER}: "
        + ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in medians.items())
        + f"; distillation / (student + teacher) {ratio:.2f}; with views / student {of_views:.2f}",
        flush=True,
    )
    return 0 if ratio <= MOST_DISTILL and of_views <= MOST_VIEWS else 1


class Answered(Teacher):
    """A teacher whose answers are in the batch, as those of ``distill.views`` are."""

    def __call__(self, pixels: tf.Tensor, answers: tf.Tensor | None = None) -> tf.Tensor:
        assert answers is not None
        return answers


def noise(size: int, batch: int) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch of pixels and targets."""
    rng = np.random.default_rng(0)
    pixels = tf.constant(rng.integers(0, 256, (batch, size, size, 3)), tf.uint8)
    return pixels, tf.one_hot(rng.integers(0, CLASSES, batch), CLASSES)


def by_turns(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one time that does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            started = time.perf_counter()
            for _ in range(STEPS):
                work()
            times[name].append((time.perf_counter() - started) / STEPS)
    return {name: statistics.median(values) for name, values in times.items()}


def step_of(model: keras.Model, objective: Objective, *batch: tf.Tensor) -> Callable[[], object]:
    """A step of the training loop on one batch."""
    config = Train(epochs=1, batch_size=len(batch[0]))
    trainer = Trainer(model, objective, config, steps_per_epoch=10**6)
    return lambda: trainer.run_epoch([batch], lambda step: None)


if __name__ == "__main__":
    network, photos, *numbers = sys.argv[1:]
    print(their_training(network, photo_split(Path(photos)), *map(int, numbers)))
