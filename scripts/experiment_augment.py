"""What each augmentation does to the accuracy of a small network on few images of Fashion-MNIST.

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb fashion
    python scripts/experiment_augment.py fashion/usr/share/datasets/fashion-mnist [--minutes 30] [--only mixup]

Every row of the table is the baseline (random crop and mirror) with one augmentation of the registry added, at its
default options. A run is one training with one seed: the first weights, the order of the images and all that is drawn
depend on the seed. Each result is a line of ``--results`` as soon as it is known, and a run whose line is there is not
done again: stop the script and start it again as you like. Lines of other settings are ignored.

The table is printed, and with ``--write`` put into docs/augment.md.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import experiments
import keras
import numpy as np

from edgecls.augment import OPERATIONS
from edgecls.console import Console
from edgecls.data.pipeline import batches
from edgecls.data.sources import Dataset
from edgecls.recipe import Recipe
from edgecls.train.stage import EVAL_BATCH, make_objective, train_network
from edgecls.workflow.common import load_data, recipe_preprocess, spread

PAGE = Path(__file__).parents[1] / "docs/augment.md"
BEGIN, END = (
    "<!-- experiment: begin, written by scripts/experiment_augment.py -->",
    "<!-- experiment: end -->",
)
SEEDS = 3
IMAGES = 500  # of the 60,000: few enough for a small network to learn them by heart
CRITICAL = 2.92  # Student's t for 90 % with the two degrees of freedom of three pairs
BASELINE = "crop and mirror"
WIDTHS = (24, 48, 96)  # channels of the network's convolutions
SETTINGS: dict[str, Any] = {
    # Says which pixels `network` gets. The zoo's networks divide the side by 32: they see nothing in so small pictures.
    "model": {"name": "MobileNetV1_x0_25", "input_size": 32, "resize_short": 32},
    "train": {
        "epochs": 20,
        "batch_size": 25,
        "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 5e-4},
        "schedule": {"warmup_epochs": 1.0},
        "bn_momentum": 0.9,
        "select": "last",
    },
}
CROP: dict[str, Any] = {"crop_scale": [0.7, 1.0], "flip": "horizontal"}


def rows() -> dict[str, dict[str, Any]]:
    """The ``augment`` section of each row of the table."""
    turns = {"flip", "rotate90"}  # the baseline has one, and clothes are never upside down
    result = {"no augmentation": {"crop_scale": None, "flip": "none"}, BASELINE: CROP}
    result |= {name: CROP | {name: {}} for name in OPERATIONS if name not in turns}
    result["mixup and cutmix"] = CROP | {"mixup": {}, "cutmix": {}}
    result["cutmix, off in the last 8 epochs"] = CROP | {"cutmix": {}, "off_epochs": 8}
    result["repeats: 3"] = CROP | {"repeats": 3}
    return result


def main() -> None:
    """Do the runs that are missing, then show the table."""
    chosen = experiments.options(__doc__, "runs/experiment_augment.jsonl", PAGE, rows())

    def recipe(name: str, seed: int) -> Recipe:
        return make_recipe(chosen.data, rows()[name], seed)

    @functools.cache
    def data() -> Dataset:
        return few(load_data(recipe(BASELINE, 0).data, Console()))

    experiments.finish(
        chosen,
        rows(),
        SEEDS,
        lambda name, seed: key(recipe(name, seed)),
        lambda name, seed: run(recipe(name, seed), data()),
    )
    text = table(chosen.data, experiments.finished(chosen.results))
    experiments.show(chosen, PAGE, BEGIN, END, text)


def make_recipe(folder: str, augment: dict[str, Any], seed: int) -> Recipe:
    """The recipe of one run."""
    data = {"source": "idx", "path": folder, "val_fraction": 0.0}
    return Recipe.model_validate(
        {"name": "experiment", "seed": seed, "data": data, "augment": augment, **SETTINGS}
    )


def key(recipe: Recipe) -> str:
    """Tells runs apart: of the recipe without the place of the data, and the number of images."""
    values = recipe.model_dump(include={"seed", "model", "augment", "train"}) | {
        "images": IMAGES,
        "widths": WIDTHS,
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def few(data: Dataset) -> Dataset:
    """The same ``IMAGES`` training images in every run, evenly from the classes; all test images."""
    return dataclasses.replace(data, train=spread(data.train, IMAGES))


def run(recipe: Recipe, data: Dataset) -> dict[str, float]:
    """Train with one seed, and measure on the test images."""
    started = time.perf_counter()
    keras.utils.set_random_seed(recipe.seed)
    preprocess = recipe_preprocess(recipe)
    model = network(preprocess.size, len(data.classes))
    with tempfile.TemporaryDirectory() as folder:
        objective = make_objective(data, "none", recipe.train.loss)
        train_network(model, objective, recipe.train, "train", recipe, data, preprocess, Path(folder), {})
    logits = np.concatenate(
        [model.predict_on_batch(x) for x, _ in batches(data.test, preprocess, EVAL_BATCH)]
    )
    top1 = float((logits.argmax(-1) == data.test.labels).mean())
    keras.backend.clear_session()
    return {"top1": top1, "seconds": time.perf_counter() - started}


def network(size: int, classes: int) -> keras.Model:
    """Three convolutions with batch normalization, each followed by max pooling."""
    pixels = x = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    for width in WIDTHS:
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        x = keras.layers.MaxPooling2D()(x)
    return keras.Model(pixels, keras.layers.Dense(classes)(keras.layers.GlobalAveragePooling2D()(x)))


def table(folder: str, done: dict[str, dict[str, Any]]) -> str:
    """Mean and spread of each row, and what it adds to the baseline with the same seeds."""
    found = {
        name: {
            seed: 100 * done[k]["top1"]
            for seed in range(SEEDS)
            if (k := key(make_recipe(folder, augment, seed))) in done
        }
        for name, augment in rows().items()
    }
    lines = [
        "| augmentation | runs | top-1, % | spread | more than the baseline | |",
        "| --- | --: | --: | --: | --: | --- |",
    ]
    for name, scores in found.items():
        if not scores:
            continue
        gains = [scores[seed] - found[BASELINE][seed] for seed in scores if seed in found[BASELINE]]
        gain, verdict = ("", "baseline") if name == BASELINE else judged(gains)
        values = list(scores.values())
        lines.append(
            f"| {name} | {len(values)} | {statistics.mean(values):.2f} | {experiments.spread_of(values)} | {gain} | {verdict} |"
        )
    train = SETTINGS["train"]
    lines += [
        "",
        f"Three convolutions of {WIDTHS} channels at {SETTINGS['model']['input_size']} pixels, {IMAGES} training images of"
        f" Fashion-MNIST, {train['epochs']} epochs, 10,000 test images. Spread: standard deviation over the seeds. The"
        " last column tells whether the gain is beyond chance: a paired t-test over the seeds, 90 %.",
    ]
    return "\n".join(lines)


def judged(gains: list[float]) -> tuple[str, str]:
    """The mean gain, and what can be said of it."""
    if not gains:
        return "", ""
    mean = statistics.mean(gains)
    if len(gains) < SEEDS:
        return f"{mean:+.2f}", "too few runs"
    error = statistics.stdev(gains) / len(gains) ** 0.5
    verdict = "no clear difference" if abs(mean) <= CRITICAL * error else "better" if mean > 0 else "worse"
    return f"{mean:+.2f}", verdict


if __name__ == "__main__":
    main()
