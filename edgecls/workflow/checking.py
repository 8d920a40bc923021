"""What is checked before a run is begun or changed: data, weights, networks, batches. All of it takes seconds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from edgecls import user_network
from edgecls.console import Console
from edgecls.data.sources import Dataset
from edgecls.errors import EdgeclsError, UsageError
from edgecls.networks import RANDOM, Model, Network, OtherTeacher
from edgecls.recipe import Part, Recipe, Train
from edgecls.run import Run
from edgecls.text import plural
from edgecls.workflow.common import load_data, recipe_preprocess
from edgecls.workflow.new_classes import positions
from edgecls.workflow.sanity import warnings_of_schedule
from edgecls.zoo import catalog

_ADD_LABELS = "add labels, or a distill section and a teacher that has weights and no train section"

# Keys of ``data`` whose whole effect is in the images, labels and splits that come of them.
SEEN_IN_SPLITS = {
    *("source", "path", "val_path", "test_path", "labels", "classes"),
    *("test_fraction", "val_fraction", "max_bad_fraction", "cache"),
    "max_images",
    *("image_column", "label_column", "extra", "near_duplicates", "sampling"),
}


def check(
    recipe: Recipe, console: Console, known: dict[str, Dataset] | None = None, run: Run | None = None
) -> dict[str, Dataset]:
    """Read the data of a recipe and refuse what could not be trained, before anything is written.

    Args:
        recipe: What is to be trained.
        console: Is told what happens.
        known: Images that were read before, by their ``data`` section as JSON; gets those that are read now.
        run: Where it would be trained on. Of what is trained there the first weights need not be there any more.

    Returns:
        The images of each stage: ``teacher`` if there is one, and the student's (``Recipe.parts``).

    Raises:
        UsageError: Weights that are not there, a network that cannot take such images, a batch that the images do
            not fill, labels that are needed and missing; phases that do not fit together.
        EdgeclsError: As ``load_dataset``.
    """
    parts, teachers = recipe.parts, recipe.teachers
    sizes = {part.stage: _input_side(part) for part in parts}
    for part in parts:
        for teacher in part.recipe.teacher.all if part.recipe.teacher else []:
            if teacher.input_size not in (None, sizes[part.stage]):
                raise UsageError(
                    f"teacher.input_size is {teacher.input_size}, the student's input {sizes[part.stage]}",
                    fix="leave it out: teacher and student see the same pixels",
                )
    for stage, network in first_uses(recipe):
        weights_input(network, run.stamps().get(stage) if run else None)
    read = partial(_read_once, {} if known is None else known, console)
    data = {"teacher": read(recipe)} if teachers else {}
    data |= {part.stage: read(part.recipe) for part in parts}
    for stage, teacher in teachers.items():
        check_batches({f"{stage}.train": teacher.train}, data["teacher"])
        if teacher.train and (data["teacher"].train.labels < 0).all():
            raise UsageError("the training images have no labels", where="teacher.train", fix=_ADD_LABELS)
    for part in parts:
        check_batches({part.section: part.recipe.train}, data[part.stage])
        _check_labels(part.recipe, data[part.stage])
    final = parts[-1]
    if "int8" in final.recipe.export.precisions:
        check_batches({"quantize.train": final.recipe.quantize.train}, data[final.stage])
    trained = (
        data
        if any(teacher.train for teacher in teachers.values())
        else {part.stage: data[part.stage] for part in parts}
    )
    _check_together(trained, final.stage)
    _check_networks(recipe, sizes, data[final.stage].classes)
    if recipe.model.only_new_classes:
        positions(recipe.model, data[final.stage].classes)
        if any(part.recipe.distill and part.recipe.distill.mutual for part in parts):
            where, fix = "model.only_new_classes", "leave distill.mutual out"
            raise UsageError("a second student would learn all classes", where=where, fix=fix)
    for section, train in trainings_of(recipe).items():
        for warning in warnings_of_schedule(train) if train else ():
            console.log(f"warning: {section}: {warning}")
    return data


def trainings_of(recipe: Recipe) -> dict[str, Train | None]:
    """The sections of all trainings of ``edgecls train`` by their places; None: a teacher that is not trained."""
    teachers = {f"{stage}.train": teacher.train for stage, teacher in recipe.teachers.items()}
    return teachers | {part.section: part.recipe.train for part in recipe.parts}


def _input_side(part: Part) -> int:
    """Side of a part's input in pixels; what is wrong with its pixels is told with the place in the recipe."""
    try:
        return recipe_preprocess(part.recipe).size
    except UsageError as error:
        where = error.where or f"{part.section.removesuffix('train')}model"
        raise UsageError(error.what, where=where, fix=error.fix) from None


def _check_networks(recipe: Recipe, sizes: Mapping[str, int], classes: list[str]) -> None:
    """Refuse networks that cannot take the images, or have no such stages; teachers' files that cannot answer."""
    _check_sizes(recipe.model, list(sizes.values()))
    if recipe.model.name is None:
        user_network.build(recipe.model, len(classes), sizes[recipe.parts[0].stage])
    trainings = {part.section: part.recipe.train for part in recipe.parts}
    last = recipe.final.quantize.train
    _check_stages(recipe.model, recipe_preprocess(recipe.final).size, {**trainings, "quantize.train": last})
    size = recipe_preprocess(recipe).size
    taught = [sizes[part.stage] for part in recipe.parts if part.recipe.distill]
    for network in networks(recipe)[1:]:
        _check_sizes(network, [size, *taught])
    for stage, teacher in recipe.teachers.items():
        _check_stages(teacher, size, {f"{stage}.train": teacher.train})
        if teacher.file is not None and teacher.train is None:
            user_network.check_answers(teacher, classes)


def _read_once(known: dict[str, Dataset], console: Console, recipe: Recipe) -> Dataset:
    """The images of a recipe; phases of one ``data`` section share them."""
    key = recipe.data.model_dump_json()
    if key not in known:
        known[key] = load_data(recipe.data, console)
    return known[key]


def first_uses(recipe: Recipe) -> list[tuple[str, Network]]:
    """The networks that a recipe names, each with the stage that takes its first weights."""
    first = recipe.parts[0].stage
    found: list[tuple[str, Network]] = [(first, recipe.model), *recipe.teachers.items()]
    return found if recipe.teachers else [(first, network) for network in networks(recipe)]


def weights_input(
    network: Network, stamp: Mapping[str, Any] | None = None
) -> Path | dict[str, Any] | str | None:
    """First weights of a network, as a stage's input; of a network in a file, the file.

    Args:
        network: A section of the recipe.
        stamp: Of the stage, if that was done: what it read counts where the weights are no longer to be had.

    Raises:
        UsageError: There is no such file, or no such weights for this network.
        MissingError: The package that has them is not installed.
    """
    try:
        return _identified(network)
    except EdgeclsError:
        read = {} if stamp is None else stamp["inputs"]
        if "weights" in read:
            return read["weights"]
        kept = {key.removeprefix("weights."): v for key, v in read.items() if key.startswith("weights.")}
        if not kept:
            raise
        return kept


def _identified(network: Network) -> Path | dict[str, Any] | None:
    from edgecls.weights.sources import identify

    if network.file is not None:
        if not Path(network.file).is_file():
            raise UsageError("no such file", where=network.file, fix="correct the key file of the recipe")
        return Path(network.file)
    if network.name is None or network.weights in (None, RANDOM):
        return None
    return identify(network.weights, network.name)


def published_weights(recipe: Recipe, stages: Collection[str] | None = None) -> list[tuple[str, str]]:
    """Weights that a recipe names, each with the network of the zoo that they are for.

    Args:
        recipe: Names them.
        stages: Only those that one of these stages takes; None: all.
    """
    return [
        (network.weights, network.name)
        for stage, network in first_uses(recipe)
        if network.name is not None and network.weights not in (None, RANDOM)
        if stages is None or stage in stages
    ]


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
    stamp = run.stamps().get(run.recipe.parts[-1].stage)
    now = data.train.sha256
    if stamp is not None and stamp["inputs"].get("images.train.sha256") != now:
        raise UsageError(
            "the photos or labels have changed since this run was trained",
            where=str(run.path),
            fix="train again with edgecls train RECIPE, or put the former ones back",
        )


def networks(recipe: Recipe) -> list[Model | OtherTeacher]:
    """The networks that a recipe names, the student first."""
    return [recipe.model, *(recipe.teacher.all if recipe.teacher else [])]


def _check_labels(recipe: Recipe, data: Dataset) -> None:
    if not (data.train.labels < 0).all():
        return
    if recipe.distill is None:
        raise UsageError("the training images have no labels", fix=_ADD_LABELS)
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


def _check_together(data: Mapping[str, Dataset], last: str) -> None:
    """Refuse phases of other classes, and a phase that trains on images which the last one is judged by."""
    final = data[last]
    held = {*final.test.digests, *final.val.digests}
    for stage, each in data.items():
        if each is final:
            continue
        if each.classes != final.classes:
            raise UsageError(
                f"{stage} has {plural(len(each.classes), 'class', 'classes')} and {last} {len(final.classes)},"
                " or others",
                where="phases",
                fix="set data.classes for the whole recipe",
            )
        if seen := len(held & set(each.train.digests)):
            raise UsageError(
                f"{stage} trains on {plural(seen, 'image')} that {last} is validated or tested on",
                where="phases",
                fix="give the validation and test images folders of their own: data.val_path, data.test_path",
            )


def shapes_of(network: Network, size: int) -> list[tuple[int, ...]]:
    """Shapes of a network's weights for an input of a size; one of the zoo is built without values.

    Raises:
        UsageError: The network cannot take images of this size.
    """
    if network.name is None:
        return [tuple(v.shape) for v in user_network.flat_of(network, size).network.variables]
    return _shapes_in_zoo(network.name, size)


@cache
def _shapes_in_zoo(name: str, size: int) -> list[tuple[int, ...]]:
    from edgecls.zoo import build_model
    from edgecls.zoo.cost import without_values

    with without_values():
        return [tuple(v.shape) for v in build_model(name, input_size=size).variables]


def trained_params(network: Model) -> int:
    """Trainable parameters: of a network of the zoo with 1000 classes, of one in a file as it is."""
    if network.name is not None:
        return catalog.get(network.name).params
    from edgecls.saving import load_model

    weights = load_model(Path(str(network.file))).trainable_weights
    return sum(math.prod(w.shape) for w in weights)


def _check_sizes(network: Network, sizes: Sequence[int]) -> None:
    """Refuse sizes of the input that a network cannot have: some cannot take small images, or no other size than they began with."""
    shapes = {size: shapes_of(network, size) for size in sizes}
    if len(set(map(str, shapes.values()))) > 1:
        raise UsageError(
            f"the weights of {network.title} are of one input size, the phases have {', '.join(map(str, shapes))}",
            where="phases",
            fix="leave out model.input_size of the phases",
        )


def _check_stages(network: Network, size: int, trainings: Mapping[str, Train | None]) -> None:
    """Refuse stages that the network of a file does not have; those of the zoo are checked with the recipe."""
    from edgecls.train.multipliers import frozen, lr_factors

    for section, train in trainings.items():
        if network.name is not None or train is None or not (train.freeze or train.lr_mult_list):
            continue
        model = user_network.flat_of(network, size).network
        try:
            lr_factors(model, train.lr_mult_list)
            with frozen(model, train.freeze):
                pass
        except UsageError as error:
            key = error.where if error.where in ("lr_mult_list", "freeze") else ""
            where = f"{section}.{key}" if key else f"{section}: {network.title}"
            raise UsageError(error.what, where=where, fix=error.fix) from None
