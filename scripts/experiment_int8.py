"""What int8 costs a trained network: float, calibrated and trained with int8 arithmetic, on Fashion-MNIST.

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb fashion
    python scripts/experiment_int8.py fashion/usr/share/datasets/fashion-mnist [--minutes 30] [--only "GhostNet_x0_5, QAT"]

A network is trained in float, once for a seed. Each row makes an int8 file of it, as ``edgecls quantize`` does, and the
file answers the test images; the drop is that of the file against its own float network. Each result is a line of
``docs/results/experiment_int8.jsonl`` (or ``--results``) as soon as it is known, and what is there is not done again: stop the
script and start it again as you like, it goes on in the middle of a training. Lines of other settings are ignored.

The tables are printed, and with ``--write`` put into docs/int8.md.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import edgecls  # before Keras: it says what TensorFlow computes with

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import experiments
import keras
import numpy as np

from edgecls.console import Console
from edgecls.data.pipeline import batches
from edgecls.data.sources import Dataset
from edgecls.export.inspect import Runner
from edgecls.files import hash_json
from edgecls.metrics import evaluate
from edgecls.recipe import Recipe
from edgecls.run import Run
from edgecls.saving import load_model
from edgecls.train.distill import Js
from edgecls.train.stage import EVAL_BATCH
from edgecls.workflow.common import load_data, recipe_preprocess, run_stage, spread
from edgecls.workflow.stages import make_qat, qat_inputs

PAGE = Path(__file__).parents[1] / "docs/int8.md"
RESULTS = PAGE.parent / "results/experiment_int8.jsonl"  # kept with the code: all of them take hours
RUNS = Path("runs/experiment_int8")
BEGIN, END = "<!-- accuracy: begin, written by scripts/experiment_int8.py -->", "<!-- accuracy: end -->"
SEEDS = 3
IMAGES, EPOCHS = 12_000, 5  # training images, spread evenly over the classes; epochs in float
QAT: dict[str, Any] = {"train": {"epochs": 2}}
PTQ: dict[str, Any] = {"train": None}
NETWORKS = {  # and their pixels: few for the large ones
    "MobileNetV3_small_x0_35": 64,
    "MobileNetV3_large_x0_35": 64,
    "ShuffleNetV2_x0_25": 64,
    "GhostNet_x0_5": 64,
    "EfficientNetB0_small": 64,
    "DenseNet121": 32,
    "GoogLeNet": 64,
    "HRNet_W18_C": 32,
}
ABLATED = "MobileNetV3_large_x0_35"
INGREDIENTS: dict[str, dict[str, Any]] = {  # what is changed in PTQ or QAT, each by itself
    "PTQ, ranges: minmax": PTQ | {"ranges": "minmax"},
    "PTQ, ranges: percentile": PTQ | {"ranges": "percentile"},
    "PTQ, adaround: true": PTQ | {"adaround": True},
    "PTQ, weights: per_tensor": PTQ | {"weights": "per_tensor"},
    "PTQ, weights: per_tensor, equalize: true": PTQ | {"weights": "per_tensor", "equalize": True},
    "QAT, distill: none (labels)": QAT | {"distill": "none"},
    "QAT, freeze_bn_epoch: null": QAT | {"freeze_bn_epoch": None},
    "QAT, freeze_ranges_epoch: 1": QAT | {"freeze_ranges_epoch": 1},
    "QAT, freeze_ranges_epoch: null": QAT | {"freeze_ranges_epoch": None},
    "QAT, optimizer: {lr: 0.002, clip_norm: null}": {
        "train": {"epochs": 2, "optimizer": {"name": "sgd", "lr": 0.002, "clip_norm": None}}
    },
    "QAT, ranges: minmax": QAT | {"ranges": "minmax"},
    "QAT, learn_ranges: true": QAT | {"learn_ranges": True},
    "QAT, weights: per_tensor": QAT | {"weights": "per_tensor"},
}
ROWS: dict[str, tuple[str, Mapping[str, Any]]] = {  # the network, and the recipe's section ``quantize``
    **{f"{name}, {kind}": (name, how) for name in NETWORKS for kind, how in (("PTQ", PTQ), ("QAT", QAT))},
    **{f"{ABLATED}, {name}": (ABLATED, how) for name, how in INGREDIENTS.items()},
}
LEGEND = (
    f"{IMAGES:,} training images of Fashion-MNIST, {EPOCHS} epochs in float (Adam, cosine, random crop and mirror); QAT:"
    f" {QAT['train']['epochs']} epochs, else the settings that a recipe has by default. Top-1 of the 10,000 test images, answered by the file."
    " Drop: float less int8, in points, of the same seed; in brackets the smallest and the largest. Distance: the mean of the"
    " two Kullback-Leibler divergences, which QAT makes small. Where training led away from float it was undone, and the file"
    " is that of PTQ."
)


def main() -> None:
    """Do the runs that are missing, then show the tables."""
    chosen = experiments.options(__doc__, str(RESULTS), PAGE, ROWS)
    laboratory = functools.cache(lambda: Laboratory(chosen.data, RUNS))
    experiments.finish(chosen, ROWS, SEEDS, key, lambda name, seed: laboratory().run(name, seed))
    experiments.show(chosen, PAGE, BEGIN, END, "\n".join(tables(experiments.finished(chosen.results))))


def make_recipe(name: str, seed: int, path: str = "fashion") -> Recipe:
    """The recipe of a row."""
    network, quantize = ROWS[name]
    return Recipe.model_validate(
        {
            "name": network,
            "seed": seed,
            "model": {"name": network, "input_size": NETWORKS[network], "resize_short": NETWORKS[network]},
            "data": {"source": "idx", "path": path, "val_fraction": 0.0, "near_duplicates": "off"},
            "augment": {"crop_scale": [0.8, 1.0], "flip": "horizontal"},
            "train": {
                "epochs": EPOCHS,
                "batch_size": 40,
                "optimizer": {"name": "adam", "lr": 0.002, "weight_decay": 0.0},
                "schedule": {"warmup_epochs": 0.5},
                "bn_momentum": 0.9,
                "select": "last",
            },
            "quantize": dict(quantize),
        }
    )


def key(name: str, seed: int) -> str:
    """Tells runs apart: by all that the float network and its int8 file are made by."""
    made_by = {"seed", "model", "augment", "train", "quantize"}
    return hash_json([make_recipe(name, seed).model_dump(include=made_by), IMAGES])[:16]


class Laboratory:
    """Trains and quantizes rows.

    Args:
        path: Folder of the IDX files.
        folder: Where the runs are kept; the rows of one network and seed share one, and so its float network.
    """

    def __init__(self, path: str, folder: Path) -> None:
        self._path, self._folder, self._console = path, folder, Console()
        data = load_data(make_recipe(next(iter(ROWS)), 0, path).data, self._console)
        self._data: Dataset = dataclasses.replace(data, train=spread(data.train, IMAGES))

    def run(self, name: str, seed: int) -> dict[str, float]:
        """Top-1 on the test images of the float network and of the int8 file, and the file's distance from the network."""
        started, recipe = time.perf_counter(), make_recipe(name, seed, self._path)
        run = Run.start(recipe, self._folder)
        (part,) = recipe.parts
        experiments.train_part(part, run, self._console, self._data)
        inputs = qat_inputs(part.recipe, self._data, run)
        work = partial(make_qat, part.recipe, run, self._console, self._data, inputs)
        run_stage(run, self._console, "qat", inputs, ["qat.keras"], work)
        network = load_model(run.file("float.keras"))
        twin = load_model(run.file("qat.keras"))
        file = edgecls.export_tflite(twin, run.file("int8.tflite"), self._data.classes)
        test, runner = self._data.test, Runner(file)
        of_float: list[np.ndarray] = []
        of_int8: list[np.ndarray] = []
        for pixels, _ in batches(test, recipe_preprocess(recipe), EVAL_BATCH):
            of_float.append(network.predict_on_batch(pixels))
            of_int8.append(runner(np.asarray(pixels).astype(np.uint8)))
        run.unlock()
        keras.backend.clear_session()
        return {
            "float": self._top1(of_float),
            "top1": self._top1(of_int8),
            "distance": distance(np.concatenate(of_float), np.concatenate(of_int8)),
            "seconds": time.perf_counter() - started,
        }

    def _top1(self, logits: list[np.ndarray]) -> float:
        return float(evaluate(np.concatenate(logits), self._data.test.labels, self._data.classes)["top1"])


def distance(logits: np.ndarray, others: np.ndarray) -> float:
    """The mean over images of what QAT makes small."""
    return float(np.mean(Js()(logits, others, np.zeros_like(logits))))


def tables(done: experiments.Results) -> Iterator[str]:
    """The networks, then the ingredients."""
    yield "| network | pixels | runs | float, % | spread | PTQ, % | drop | QAT, % | drop |"
    yield "| --- | --: | --: | --: | --: | --: | --: | --: | --: |"
    for name, size in NETWORKS.items():
        found = [of_row(f"{name}, {kind}", done) for kind in ("PTQ", "QAT")]
        if not all(found):
            continue
        floats = [100 * run["float"] for run in found[1]]
        cells = [
            f"| {name} | {size} | {len(floats)} | {statistics.mean(floats):.2f} | {experiments.spread_of(floats)}",
            *map(int8_and_drop, found),
        ]
        yield f"{' | '.join(cells)} |"
    yield ""
    yield f"One ingredient changed at a time, {ABLATED}:"
    yield ""
    yield "| quantization | runs | distance from float | int8, % | drop |"
    yield "| --- | --: | --: | --: | --: |"
    for name in ("PTQ", "QAT", *INGREDIENTS):
        if runs := of_row(f"{ABLATED}, {name}", done):
            far = statistics.mean(run["distance"] for run in runs)
            yield f"| {name} | {len(runs)} | {far:.5f} | {int8_and_drop(runs)} |"
    yield ""
    yield LEGEND


def of_row(name: str, done: experiments.Results) -> list[Mapping[str, Any]]:
    """The finished runs of a row."""
    return list(experiments.by_seed(name, SEEDS, key, done).values())


def int8_and_drop(runs: list[Mapping[str, Any]]) -> str:
    """Two cells: top-1 of the int8 files, and what they lose."""
    drops = [100 * (run["float"] - run["top1"]) for run in runs]
    return f"{100 * statistics.mean(run['top1'] for run in runs):.2f} | {experiments.mean_and_ends(drops)}"


if __name__ == "__main__":
    main()
