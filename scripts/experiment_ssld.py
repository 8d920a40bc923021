"""What each ingredient of SSLD does to a small network on Fashion-MNIST.

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb fashion
    python scripts/experiment_ssld.py fashion/usr/share/datasets/fashion-mnist [--minutes 30] [--only kl]

Every row is one training, or two in a row, with one seed: the first weights, the order of the images and all that is
drawn depend on the seed, and so do the row's teachers, which are trained first. Rows are compared at the same number of
steps where they do not say otherwise. Each result is a line of ``--results`` as soon as it is known, and what is there is
not done again: stop the script and start it again as you like. Lines of other settings are ignored.

The table is printed, and with ``--write`` put into docs/ssld.md.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import edgecls  # noqa: F401  # before Keras: it says what TensorFlow computes with

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import experiments
import keras
import numpy as np

from edgecls.console import Console
from edgecls.data.pipeline import batches
from edgecls.data.sources import Dataset
from edgecls.files import hash_json
from edgecls.recipe import Recipe
from edgecls.saving import load_model
from edgecls.train.objective import Mutual, Objective, Pair
from edgecls.train.stage import make_objective, train_network
from edgecls.train.teachers import Cached, Networks, Teacher
from edgecls.train.views import make_views
from edgecls.workflow.common import load_data, recipe_preprocess, spread

PAGE = Path(__file__).parents[1] / "docs/ssld.md"
BEGIN, END = "<!-- experiment: begin, written by scripts/experiment_ssld.py -->", "<!-- experiment: end -->"
SEEDS = 3
FEW = 2000  # labeled images of the rows with few labels
BATCH, EPOCHS, LONG = 100, 1, 3  # 600 steps on all 60,000 images, or three times as many
FEW_EPOCHS = EPOCHS * 60_000 // FEW  # the same steps on the few
WIDTHS = {"student": (12, 24, 48), "teacher": (32, 64, 128), "large teacher": (64, 128, 256)}
MODEL = {"name": "MobileNetV1_x0_25", "input_size": 32, "resize_short": 32}  # for the pixels of `network`
AUGMENT: dict[str, Any] = {"crop_scale": [0.8, 1.0], "flip": "horizontal"}
CUTMIX = AUGMENT | {"cutmix": {"probability": 0.5}}
SCORED_AT_ONCE = 500

Numbers = dict[int, float]  # by seed


@dataclasses.dataclass(frozen=True)
class Row:
    """One training of the table.

    Attributes:
        teachers: Names of rows whose networks are the teachers.
        distill: The recipe's section; empty: labels alone.
        data: ``all`` 60,000 images with labels, ``few`` of them, or ``unlabeled``: all, of which few have labels.
        epochs: Of the training.
        augment: The recipe's section.
        widths: Which network is trained.
        then: Another training of the same network after this one, at a tenth of the learning rate.
        rate: Factor of the learning rate.
        against: The row that it is compared with.
    """

    teachers: tuple[str, ...] = ()
    distill: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: str = "all"
    epochs: int = EPOCHS
    augment: Mapping[str, Any] = dataclasses.field(default_factory=lambda: AUGMENT)
    widths: str = "student"
    then: Row | None = None
    rate: float = 1.0
    against: str = ""


ALONE, FEW_ALONE = "student alone", "student alone, 2,000 labels"
TEACHER, FEW_TEACHER = "teacher", "teacher, 2,000 labels"


def by(teacher: str, loss: str = "js", **options: Any) -> Row:
    """A student that learns from a teacher alone, which answers with its stored statistics."""
    own = {key: options.pop(key) for key in ("teacher_bn", "views") if key in options}
    return Row((teacher,), {"loss": loss, "teacher_bn": "infer"} | own, **{"against": ALONE} | options)


def few(teacher: str, **options: Any) -> Row:
    """As ``by``, on images of which few have labels, or on these alone."""
    return by(teacher, **{"data": "few", "epochs": FEW_EPOCHS, "against": FEW_ALONE} | options)


ROWS: dict[str, Row] = {
    TEACHER: Row(widths="teacher", epochs=LONG),
    ALONE: Row(),
    "ce": by(TEACHER, "ce"),
    "kl": by(TEACHER, "kl"),
    "js": by(TEACHER),
    "dist": by(TEACHER, "dist"),
    "dkd": by(TEACHER, "dkd"),
    "js, teacher_bn: train": by(TEACHER, teacher_bn="train", against="js"),
    FEW_ALONE: Row(data="few", epochs=FEW_EPOCHS),
    "js, on 2,000 images": few(TEACHER),
    "js, 58,000 unlabeled images": few(TEACHER, data="unlabeled", epochs=EPOCHS),
    "the same, then 200 steps on the 2,000": few(
        TEACHER,
        data="unlabeled",
        epochs=EPOCHS,
        then=few(TEACHER, epochs=FEW_EPOCHS // 3, rate=0.1),
        against="js, 58,000 unlabeled images",
    ),
    FEW_TEACHER: Row(data="few", epochs=FEW_EPOCHS, widths="teacher"),
    "js by the teacher of 2,000 labels, 58,000 unlabeled images": few(
        FEW_TEACHER, data="unlabeled", epochs=EPOCHS
    ),
    "mutual, kl": Row((), {"loss": "kl", "mutual": True, "hard_weight": 1.0}, against=ALONE),
    "student alone, 3 epochs": Row(epochs=LONG, against=ALONE),
    "js, 3 epochs": by(TEACHER, epochs=LONG, against="student alone, 3 epochs"),
    "js, 3 epochs, views: 1": by(TEACHER, epochs=LONG, views=1, against="js, 3 epochs"),
    "js, 3 epochs, views: 2": by(TEACHER, epochs=LONG, views=2, against="js, 3 epochs"),
    "large teacher": Row(widths="large teacher", epochs=LONG),
    "js by the large teacher": by("large teacher", against="js"),
    "dist by the large teacher": by("large teacher", "dist", against="dist"),
    "js by both teachers": Row(
        (TEACHER, "large teacher"), {"loss": "js", "teacher_bn": "infer"}, against="js"
    ),
    "js, cutmix": by(TEACHER, augment=CUTMIX, against="js"),
    "js, cutmix, views: 1": by(TEACHER, augment=CUTMIX, views=1, against="js, cutmix"),
}


def main() -> None:
    """Do the runs that are missing, then show the table."""
    chosen = experiments.options(__doc__, "runs/experiment_ssld.jsonl", PAGE, ROWS)
    laboratory = functools.cache(lambda: Laboratory(chosen.data, chosen.results.with_suffix("")))
    experiments.finish(chosen, ROWS, SEEDS, key, lambda name, seed: laboratory().run(name, seed))
    experiments.show(chosen, PAGE, BEGIN, END, table(experiments.finished(chosen.results)))


def make_recipe(row: Row, seed: int, path: str = "fashion") -> Recipe:
    """The recipe of one training."""
    return Recipe.model_validate(
        {
            "name": "experiment",
            "seed": seed,
            "model": MODEL,
            "teacher": {"name": MODEL["name"], "weights": "imagenet"} if row.distill else None,
            "data": {"source": "idx", "path": path, "val_fraction": 0.0, "near_duplicates": "off"},
            "augment": row.augment,
            "train": {
                "epochs": row.epochs,
                "batch_size": BATCH,
                "optimizer": {"name": "adam", "lr": 0.004 * row.rate, "weight_decay": 0.0},
                "schedule": {"warmup_epochs": 0.1 * row.epochs},
                "bn_momentum": 0.9,
                "select": "last",
            },
            "distill": dict(row.distill) or None,
        }
    )


def key(name: str, seed: int) -> str:
    """Tells runs apart: of all that a row and its teachers are made by."""
    row = ROWS[name]
    parts = [row] if row.then is None else [row, row.then]
    recipes = [
        make_recipe(part, seed).model_dump(include={"seed", "augment", "train", "distill"}) for part in parts
    ]
    teachers = [key(teacher, seed) for teacher in row.teachers]
    return hash_json([recipes, [part.data for part in parts], teachers, WIDTHS[row.widths], FEW])[:16]


class Laboratory:
    """Trains rows.

    Args:
        path: Folder of the IDX files.
        folder: Where the trained teachers are kept.
    """

    def __init__(self, path: str, folder: Path) -> None:
        self._path, self._folder = path, folder
        data = load_data(make_recipe(ROWS[ALONE], 0, path).data, Console())
        labeled = spread(dataclasses.replace(data.train, names=list(map(str, range(len(data.train))))), FEW)
        hidden = np.full(len(data.train), -1, data.train.labels.dtype)
        hidden[list(map(int, labeled.names))] = labeled.labels
        self._data: dict[str, Dataset] = {
            "all": data,
            "few": dataclasses.replace(data, train=labeled),
            "unlabeled": dataclasses.replace(data, train=dataclasses.replace(data.train, labels=hidden)),
        }

    def run(self, name: str, seed: int) -> dict[str, float]:
        """Train a row with one seed, and measure on the test images."""
        teachers = [self._teacher(teacher, seed) for teacher in ROWS[name].teachers]
        started, row = time.perf_counter(), ROWS[name]
        keras.utils.set_random_seed(seed)
        model = network(WIDTHS[row.widths])
        part: Row | None = row
        seconds = {"teacher_seconds": 0.0}
        while part is not None:
            seconds["teacher_seconds"] += self._train(
                model, part, teachers, make_recipe(part, seed, self._path)
            )
            part = part.then
        seconds["seconds"] = time.perf_counter() - started
        if row.widths != "student":
            self._folder.mkdir(parents=True, exist_ok=True)
            model.save(self._file(name, seed))
        result = {"top1": self._score(model), **seconds}
        keras.backend.clear_session()
        return result

    def _file(self, name: str, seed: int) -> Path:
        return self._folder / f"{key(name, seed)}.keras"

    def _teacher(self, name: str, seed: int) -> keras.Model:
        if not self._file(name, seed).exists():
            self.run(name, seed)
        return load_model(self._file(name, seed))

    def _train(self, model: keras.Model, row: Row, teachers: list[keras.Model], recipe: Recipe) -> float:
        """Train once; gives the seconds in which the teacher answered beforehand."""
        data, preprocess = self._data[row.data], recipe_preprocess(recipe)
        started, beforehand = time.perf_counter(), 0.0
        with tempfile.TemporaryDirectory() as folder:
            teacher: Teacher | None = None
            if teachers:
                networks = Networks(teachers, batch_stats=row.distill["teacher_bn"] == "train")
                teacher = networks
                if row.distill.get("views"):
                    teacher = Cached(
                        make_views(networks, recipe, data, preprocess, Path(folder) / "views", print)
                    )
                    beforehand = time.perf_counter() - started
            objective: Objective | Mutual = make_objective(
                data, "none", recipe.train.loss, recipe.distill, teacher
            )
            trained = model
            if row.distill.get("mutual"):
                trained, objective = Pair(model, network(WIDTHS[row.widths])), Mutual(objective)
            train_network(
                trained,
                objective,
                recipe.train,
                "train",
                recipe,
                data,
                preprocess,
                Path(folder) / "checkpoints",
                {},
            )
        return beforehand

    def _score(self, model: keras.Model) -> float:
        test, preprocess = self._data["all"].test, recipe_preprocess(make_recipe(ROWS[ALONE], 0, self._path))
        logits = [model.predict_on_batch(pixels) for pixels, _ in batches(test, preprocess, SCORED_AT_ONCE)]
        return float((np.concatenate(logits).argmax(-1) == test.labels).mean())


def network(widths: tuple[int, ...]) -> keras.Model:
    """Convolutions of stride 2 with batch normalization."""
    pixels = x = keras.Input((MODEL["input_size"], MODEL["input_size"], 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    for width in widths:
        x = keras.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(pixels, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


def table(done: Mapping[str, Mapping[str, Any]]) -> str:
    """Mean and spread of each row, what it adds to its baseline, and the share of the gap that it closes."""
    lines = [
        "| training | runs | top-1, % | spread | difference | compared with |",
        "| --- | --: | --: | --: | --: | --- |",
    ]
    for name in ROWS:
        scores = scores_of(name, done)
        if not scores:
            continue
        base = ROWS[name].against
        gains = differences(scores, scores_of(base, done)) if base else []
        values = list(scores.values())
        lines.append(
            f"| {name} | {len(values)} | {statistics.mean(values):.2f} | {experiments.spread_of(values)}"
            f" | {experiments.mean_and_ends(gains)} | {base} |"
        )
    lines += ["", *closed(done), "", LEGEND]
    return "\n".join(lines)


def closed(done: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """For the rows with few labels: how much of the way from the student alone to its teacher they go."""
    lines = []
    alone = scores_of(FEW_ALONE, done)
    for name, row in ROWS.items():
        if row.data == "all" or not row.teachers:
            continue
        scores, teacher = scores_of(name, done), scores_of(row.teachers[0], done)
        gaps = [teacher[s] - alone[s] for s in scores if s in alone and s in teacher]
        gains = differences(scores, alone)
        if gaps and min(gaps) > 0:
            share = 100 * statistics.mean(gains) / statistics.mean(gaps)
            lines.append(
                f"- {name}: {statistics.mean(gains):+.2f} of the {statistics.mean(gaps):.2f} points between the student"
                f" on 2,000 labels and this teacher, {share:.0f} %."
            )
    return lines


def scores_of(name: str, done: Mapping[str, Mapping[str, Any]]) -> Numbers:
    """Top-1 of a row in percent, by seed."""
    return {s: 100 * run["top1"] for s, run in experiments.by_seed(name, SEEDS, key, done).items()}


def differences(scores: Numbers, base: Numbers) -> list[float]:
    """Of the seeds that both have."""
    return [scores[seed] - base[seed] for seed in scores if seed in base]


LEGEND = (
    f"Three convolutions of stride 2 with batch normalization at {MODEL['input_size']} pixels, of {WIDTHS['student']} channels"
    f" (student), {WIDTHS['teacher']} (teacher) and {WIDTHS['large teacher']} (large teacher). One epoch of the"
    f" 60,000 training images of Fashion-MNIST in batches of {BATCH}, or as many steps on the {FEW:,} with labels; Adam,"
    " cosine; random crop and mirror; scored on the 10,000 test images. Students that are distilled see no label, but for"
    " `mutual`. Spread: standard deviation over the seeds. Difference: the mean over the seeds, and the smallest and"
    " largest; the same seed has the same first weights and the same crops in both rows."
)


if __name__ == "__main__":
    main()
