"""What is checked before a run is begun or changed: data, weights, networks, batches. All of it takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecls.console import Console
from edgecls.data.sources import Dataset
from edgecls.errors import UsageError
from edgecls.recipe import Model, Recipe, Teacher, Train
from edgecls.run import Run
from edgecls.workflow.common import load_data, recipe_preprocess

# Keys of ``data`` whose whole effect is in the images, labels and splits that come of them.
SEEN_IN_SPLITS = {
    *("source", "path", "val_path", "test_path", "labels", "classes"),
    *("test_fraction", "val_fraction", "max_bad_fraction", "cache"),
    *("image_column", "label_column", "extra", "near_duplicates", "sampling"),
}


def check(recipe: Recipe, console: Console) -> Dataset:
    """Read the data of a recipe and refuse what could not be trained, before anything is written.

    Raises:
        UsageError: Weights that are not there, a network that cannot take such images, a batch that the images do
            not fill, labels that are needed and missing.
        EdgeclsError: As ``load_dataset``.
    """
    size = recipe_preprocess(recipe).size
    if recipe.teacher and recipe.teacher.input_size not in (None, size):
        raise UsageError(
            f"teacher.input_size is {recipe.teacher.input_size}, the student's input {size}",
            fix="leave it out: teacher and student see the same pixels",
        )
    for network in networks(recipe):
        weights_input(network)
    data = load_data(recipe.data, console)
    trainings = {
        "teacher.train": recipe.teacher.train if recipe.teacher else None,
        "train": recipe.train,
        "quantize.train": recipe.quantize.train if "int8" in recipe.export.precisions else None,
    }
    check_batches(trainings, data)
    _check_labels(recipe, data)
    for network in networks(recipe):
        _check_size(network.name, size)
    return data


def weights_input(network: Model | Teacher) -> Path | dict[str, Any] | None:
    """First weights of a network, as a stage's input.

    Raises:
        UsageError: There is no such file, or no such weights for this network.
        MissingError: The package that has them is not installed.
    """
    from edgecls.weights.sources import identify

    return identify(network.weights, network.name) if network.weights else None


def trained_on(recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """What a training reads of the data, as a stage's input: images, labels and splits, not where they are."""
    splits = data.describe()["splits"]
    return {
        "classes": data.classes,
        "data": recipe.data.model_dump(exclude=SEEN_IN_SPLITS),
        **{name: {key: splits[name][key] for key in ("count", "sha256")} for name in ("train", "val")},
    }


def check_batches(trainings: Mapping[str, Train | None], data: Dataset) -> None:
    """Refuse a batch that the training images do not fill, by its key.

    Args:
        trainings: Sections of the recipe by their places, for example ``quantize.train``; None: no such training.
        data: Has the images.
    """
    for section, config in trainings.items():
        if config and config.batch_size > data.train.epoch_size:
            raise UsageError(
                f"{data.train.epoch_size} training images do not fill a batch of {config.batch_size}",
                where=f"{section}.batch_size",
                fix="lower it",
            )


def check_trained_on(run: Run, data: Dataset) -> None:
    """Refuse data that the run's float network was not trained on: an image may have moved from train to test.

    Raises:
        UsageError: The training images or labels have changed since.
    """
    stamp = run.stamps().get("student")
    now = data.train.sha256
    if stamp is not None and stamp["inputs"].get("images.train.sha256") != now:
        raise UsageError(
            "the photos or labels have changed since this run was trained",
            where=str(run.path),
            fix="train again with edgecls train RECIPE, or put the former ones back",
        )


def networks(recipe: Recipe) -> list[Model | Teacher]:
    """The networks that a recipe names."""
    return [recipe.model, recipe.teacher] if recipe.teacher else [recipe.model]


def _check_labels(recipe: Recipe, data: Dataset) -> None:
    if not (data.train.labels < 0).all():
        return
    if recipe.distill is None or (recipe.teacher is not None and recipe.teacher.train):
        raise UsageError(
            "the training images have no labels",
            fix="add labels, or a distill section and a teacher that has weights and no train section",
        )
    if recipe.distill.hard_weight:
        where = "distill.hard_weight"
        raise UsageError("the training images have no labels to learn from", where=where, fix="set it to 0")
    if recipe.quantize.distill == "none" and "int8" in recipe.export.precisions:
        where = "quantize.distill: none"
        raise UsageError("the training images have no labels", where=where, fix="set it to float")
    if recipe.data.class_weights != "none":
        raise UsageError(
            "balanced class weights need labels", where="data.class_weights", fix="set it to none"
        )


def _check_size(name: str, size: int) -> None:
    """Build the network without values: some cannot take small images."""
    from edgecls.zoo import build_model
    from edgecls.zoo.cost import without_values

    with without_values():
        build_model(name, input_size=size)
