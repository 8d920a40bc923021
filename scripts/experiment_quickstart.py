"""What helps the student of the quick start, measured on validation photographs alone.

    python scripts/experiment_quickstart.py [--minutes 30] [--only "crops, no labels, 60 epochs"]

Every row is recipes/mv3_ssld.yaml as it was when the search began, with other keys. A larger part of the photographs than
in the recipe is split off for validation, so that a difference of some points can be seen; those of them that resemble a
training photograph do not count. The test photographs are never looked at. A teacher is trained once and serves all rows
that ask for the same one.
Each result is a line of ``--results`` as soon as it is known, and what is there is not done again: stop the script and
start it again as you like, it goes on in the middle of a training. Lines of other settings are ignored.

The table is printed, and with ``--write`` put into docs/ssld.md.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import statistics
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import edgecls  # noqa: F401  # before Keras: it says what TensorFlow computes with

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import experiments
import keras
import numpy as np

from edgecls.console import Console
from edgecls.data.copies import Copies
from edgecls.data.pipeline import batches
from edgecls.files import hash_json
from edgecls.metrics import evaluate
from edgecls.recipe import Recipe, load_recipe
from edgecls.run import Run
from edgecls.saving import load_model
from edgecls.train.callbacks import Callback
from edgecls.train.stage import EVAL_BATCH
from edgecls.workflow.common import load_data, recipe_preprocess, run_stage, take_over
from edgecls.workflow.stages import make_teacher, teacher_file, teacher_inputs

PAGE = Path(__file__).parents[1] / "docs/ssld.md"
BEGIN = "<!-- quick start: begin, written by scripts/experiment_quickstart.py -->"
END = "<!-- quick start: end -->"
SEEDS = 3
BASE = (  # what the recipe said when the search began, so that a row stays what it is when the recipe changes
    "name=experiment",
    "data.val_fraction=0.3",  # of the photographs that are not for testing
    "train.epochs=40",
    "train.batch_size=32",
    "train.optimizer={name: adam, lr: 0.002, weight_decay: 0.0}",
    "augment.crop_scale=null",
    "teacher.train.epochs=6",
    "teacher.train.select=best",
    "distill.hard_weight=0.3",
    "distill.views=8",  # the teacher answers once for all rows
    "phases=[]",
)
CROPS = "augment: {crop_scale: [0.5, 1.0]}, distill: {views: 16, hard_weight: 0.0}"
MIXED = "augment: {crop_scale: [0.5, 1.0], mixup: {alpha: 0.2}}, distill: {views: 16, hard_weight: 0.0}"
WHOLE = (
    "{name: whole, train: {epochs: 8, optimizer: {lr: 0.0002}, schedule: {warmup_epochs: 0}}, "
    "distill: {views: 8, hard_weight: 0.0}}"
)


def of_student(keys: str, then: str = "") -> str:
    """Keys that the training of the teacher does not see, so that rows with one teacher can be compared; another phase."""
    return f"phases=[{{name: student, {keys}}}{', ' * bool(then)}{then}]"


BEFORE = "as before"
LONGER = "train.epochs=60"
LAST = "teacher.train.select=last"
NO_LABELS = "distill: {views: 8, hard_weight: 0.0}"
ROWS = {  # the keys that differ
    BEFORE: (),
    "crops, no labels, 60 epochs": (LONGER, of_student(CROPS)),
    "crops, no labels, 60 epochs, then 8 without crops": (LONGER, of_student(CROPS, WHOLE)),
    "crops, no labels, 60 epochs, mixup": (LONGER, of_student(MIXED)),
    "crops, no labels, 60 epochs, batches of 16": (
        LONGER,
        of_student(CROPS),
        "train.batch_size=16",
        "train.optimizer.lr=0.001",
    ),
    "crops for the teacher too, no labels, 60 epochs": (
        LONGER,
        "augment.crop_scale=[0.5, 1.0]",
        "distill.views=16",
        "distill.hard_weight=0.0",
    ),
    "no labels, 12 epochs": (LAST, of_student(f"train: {{epochs: 12}}, {NO_LABELS}")),
    "no labels, 12 epochs, 192 pixels": (
        LAST,
        "model.input_size=192",
        "model.resize_short=192",
        "teacher.train.epochs=4",
        of_student(f"train: {{epochs: 12}}, {NO_LABELS}"),
    ),
    "crops, no labels, 20 epochs": (
        LAST,
        of_student(
            "augment: {crop_scale: [0.5, 1.0]}, train: {epochs: 20}, distill: {views: 20, hard_weight: 0.0}"
        ),
    ),
}


def main() -> None:
    """Do the runs that are missing, then show the table."""
    chosen = experiments.options(__doc__, "runs/experiment_quickstart.jsonl", PAGE, ROWS, data=None)
    laboratory = functools.cache(lambda: Laboratory(chosen.results.with_suffix("")))
    experiments.finish(
        chosen, ROWS, SEEDS, key, lambda name, seed: laboratory().run(name, seed), "balanced_accuracy"
    )
    experiments.show(chosen, PAGE, BEGIN, END, table(experiments.finished(chosen.results)))


def make_recipe(name: str, seed: int) -> Recipe:
    """The recipe of a row."""
    return load_recipe("mv3_ssld", [*BASE, *ROWS[name], f"seed={seed}"])


def key(name: str, seed: int) -> str:
    """Tells runs apart."""
    return make_recipe(name, seed).training_hash()[:16]


class Clock(Callback):
    """Processor time of an epoch, also of a training that was interrupted."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def on_start(self, epoch: int) -> None:
        self._last = time.process_time()

    def on_epoch(self, epoch: int, values: dict[str, float]) -> None:
        now = time.process_time()
        self._seconds.append(now - self._last)
        self._last = now

    @property
    def of_epoch(self) -> float:
        """The median; the first epoch has the building of the graph in it."""
        return statistics.median(self._seconds or [math.nan])


class Laboratory:
    """Trains rows.

    Args:
        folder: Where the runs are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._console = folder, Console()
        data = load_data(make_recipe(BEFORE, 0).data, self._console)
        self._data = dataclasses.replace(data, test=data.test.subset(slice(0)))
        copies = Copies({"train": data.train, "val": data.val}, "near_copies", "group")
        numbers = copies.numbers()
        self._alone = data.val.subset(~np.isin(numbers["val"], numbers["train"]))

    def run(self, name: str, seed: int) -> dict[str, float]:
        """Train a row with one seed, and its teacher if no row before had the same."""
        recipe = make_recipe(name, seed)
        if len(recipe.parts) == 1:  # two phases have other views
            views = recipe.final.model_dump(include={"seed", "teacher", "augment", "model"})
            recipe = recipe.override([f"distill.store={self._folder / 'views' / hash_json(views)[:16]}"])
        run = Run.start(recipe, self._folder)
        teacher, place = teacher_file("teacher"), (run, self._console)
        inputs = teacher_inputs("teacher", recipe, self._data)
        take_over(*place, "teacher", inputs, [teacher], run.others())
        work = partial(make_teacher, "teacher", recipe, *place, self._data, inputs)
        run_stage(*place, "teacher", inputs, [teacher], work)
        seconds = 0.0
        for part in recipe.parts:
            clock = Clock()
            experiments.train_part(part, *place, self._data, [clock])
            seconds += clock.of_epoch * part.recipe.train.epochs
        scores = {model: self._score(run, model) for model in ("teacher", "float")}
        run.unlock()
        keras.backend.clear_session()
        return {
            "balanced_accuracy": scores["float"],
            "teacher": scores["teacher"],
            "train_accuracy": run.metrics()[-1]["accuracy"],
            "seconds": seconds,
        }

    def _score(self, run: Run, model: str) -> float:
        """Balanced accuracy on the validation photographs that resemble none of the training."""
        network = load_model(run.file(f"{model}.keras"))
        feed = batches(self._alone, recipe_preprocess(run.recipe), EVAL_BATCH)
        logits = np.concatenate([network.predict_on_batch(pixels) for pixels, _ in feed])
        return float(evaluate(logits, self._alone.labels, self._data.classes)["balanced_accuracy"])


def table(done: Mapping[str, Mapping[str, Any]]) -> str:
    """Mean and spread of each row, and what it adds to the recipe as it was, seed by seed."""
    lines = [
        "| recipe | runs | balanced accuracy, % | spread | difference | CPU seconds | training accuracy, % | teacher, % |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    before = experiments.by_seed(BEFORE, SEEDS, key, done)
    for name in ROWS:
        found = experiments.by_seed(name, SEEDS, key, done)
        if not found:
            continue
        scores = [100 * run["balanced_accuracy"] for run in found.values()]
        gains = [
            100 * (found[s]["balanced_accuracy"] - before[s]["balanced_accuracy"])
            for s in found
            if s in before
        ]
        gain = experiments.mean_and_ends(gains, digits=1) if name != BEFORE else ""
        spread = experiments.spread_of(scores, digits=1)
        seconds, learned, teacher = (
            statistics.mean(run[figure] for run in found.values())
            for figure in ("seconds", "train_accuracy", "teacher")
        )
        lines.append(
            f"| {name} | {len(scores)} | {statistics.mean(scores):.1f} | {spread} | {gain} "
            f"| {seconds:.0f} | {100 * learned:.1f} | {100 * teacher:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
