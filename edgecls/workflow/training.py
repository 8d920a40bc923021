"""The stages that train: teacher, student, quantization-aware training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from edgecls.console import Console
from edgecls.errors import UsageError
from edgecls.files import write_json, write_text
from edgecls.recipe import Model, Recipe, Teacher
from edgecls.run import Run
from edgecls.saving import load_model
from edgecls.workflow import deploying, scoring
from edgecls.workflow.common import (
    load_data,
    load_deployed,
    recipe_preprocess,
    run_stage,
    save_network,
    spread,
)
from edgecls.zoo import catalog

if TYPE_CHECKING:
    import keras

    from edgecls.data.sources import Dataset


def plan(recipe: Recipe) -> dict[str, Any]:
    """What ``train`` would do, without doing it: networks, images of each split, steps."""
    data = load_data(recipe.data, Console())
    student = catalog.get(recipe.model.name)
    return {
        "schema": "edgecls.plan/1",
        "recipe": recipe.name,
        "model": {
            "name": student.name,
            "params": student.params,
            "input_size": recipe_preprocess(recipe).size,
        },
        "teacher": catalog.get(recipe.teacher.name).name if recipe.teacher else None,
        "classes": data.classes,
        "images": {
            "train": len(data.train),
            "val": len(data.val),
            "test": len(data.test),
            "bad": len(data.bad),
        },
        "steps_per_epoch": len(data.train) // recipe.train.batch_size,
        "epochs": recipe.train.epochs,
    }


def train(recipe: Recipe, run: Run, console: Console) -> dict[str, Any]:
    """Fine-tune the teacher, distil it into the student (or train on labels alone), evaluate, report.

    Raises:
        EdgeclsError: See its subclasses; every completed epoch is kept.
    """
    catalog.get(recipe.model.name)
    data = load_data(recipe.data, console)
    split = data.describe()
    write_json(run.file("split.json"), split)
    shared = {"seed": recipe.seed, "data": recipe.data, "split": split, "augment": recipe.augment}
    shared["preprocess"] = recipe_preprocess(recipe).to_dict()
    student = shared | {"model": recipe.model, "train": recipe.train, "distill": recipe.distill}
    if recipe.teacher:
        inputs = shared | {"teacher": recipe.teacher}
        work = partial(_on_devices, _make_teacher, recipe, recipe.teacher, run, console, data)
        run_stage(run, console, "teacher", inputs, ["teacher.keras"], work)
        student["teacher"] = run.file("teacher.keras")
    outputs = ["float.keras", "labels.txt", "preprocess.json"]
    run_stage(
        run,
        console,
        "student",
        student,
        outputs,
        partial(_on_devices, _make_student, recipe, run, console, data),
    )
    scores = scoring.score_run(run, console, data, ["teacher", "float"] if recipe.teacher else ["float"])
    scoring.report(run, console)
    return {
        "schema": "edgecls.train/1",
        "run": str(run.path),
        "test": scores,
        "report": str(run.file("report.html")),
    }


def quantize(run: Run, console: Console, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Quantization-aware training of the run's float network, then export, verification, evaluation, report.

    Args:
        overrides: Keys of the recipe for this quantization, as ``quantize.train.epochs=5``.

    Returns:
        Test scores of every model, ``drop`` (points of balanced accuracy that int8 lost against float, as a
        fraction), the files and the parity ladder.
    """
    recipe = run.recipe.override(overrides)
    run.require("float.keras", fix="train first: edgecls train RECIPE")
    data = load_data(recipe.data, console)
    inputs = {
        "float": run.file("float.keras"),
        "seed": recipe.seed,
        "split": data.describe(),
        "augment": recipe.augment,
        "quantize": recipe.quantize,
        "distill": recipe.distill,
    }
    if recipe.quantize.distill == "teacher":
        inputs["teacher"] = run.require("teacher.keras", fix="train first: edgecls train RECIPE")
    run_stage(
        run,
        console,
        "qat",
        inputs,
        ["qat.keras"],
        partial(_on_devices, _make_qat, recipe, run, console, data),
    )
    files = deploying.export(run, console)["files"]
    verified = deploying.verify(run, console)
    scores = scoring.score_run(run, console, data, ["float", "qat", "fp32", "int8"])
    scoring.report(run, console)
    return {
        "schema": "edgecls.quantize/1",
        "run": str(run.path),
        "test": scores,
        "drop": scores["float"]["balanced_accuracy"] - scores["int8"]["balanced_accuracy"],
        "files": files,
        "verify": verified,
        "report": str(run.file("report.html")),
    }


def _on_devices(work: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Make networks and optimizers where the training strategy wants them."""
    from edgecls.train.distribution import training_strategy

    with training_strategy().scope():
        return work(*args)


def _make_teacher(
    recipe: Recipe, teacher: Teacher, run: Run, console: Console, data: Dataset
) -> dict[str, Any]:
    from edgecls.train.stage import make_objective, train_network

    model = _network(teacher, recipe, data, console)
    figures: dict[str, Any] = {}
    if teacher.train:
        objective = make_objective(data, recipe.data.class_weights)
        figures = train_network(run, console, "teacher", model, objective, teacher.train, recipe, data)
    save_network(model, run.file("teacher.keras"))
    return figures


def _make_student(recipe: Recipe, run: Run, console: Console, data: Dataset) -> dict[str, Any]:
    from edgecls.train.stage import make_objective, train_network

    model = _network(recipe.model, recipe, data, console)
    teacher = load_model(run.file("teacher.keras")) if recipe.distill else None
    objective = make_objective(data, recipe.data.class_weights, recipe.distill, teacher)
    figures = train_network(run, console, "student", model, objective, recipe.train, recipe, data)
    write_text(run.file("labels.txt"), "".join(f"{name}\n" for name in data.classes))
    write_json(run.file("preprocess.json"), recipe_preprocess(recipe).to_dict())
    save_network(model, run.file("float.keras"))
    return figures


def _make_qat(recipe: Recipe, run: Run, console: Console, data: Dataset) -> dict[str, Any]:
    from edgecls.data.pipeline import batches
    from edgecls.quantize import calibrate, finalize, freeze_batchnorm, observe, quantize_model
    from edgecls.train.objective import Objective, as_teacher
    from edgecls.train.stage import EVAL_BATCH, make_objective, train_network

    settings = recipe.quantize
    network = load_deployed(run.file("float.keras"))
    model = quantize_model(network)
    some = spread(data.train, settings.calibration_images)
    calibrate(model, batches(some, recipe_preprocess(recipe), EVAL_BATCH))
    if settings.distill == "float":
        objective = Objective(teacher=as_teacher(network))
    else:
        teacher = load_model(run.file("teacher.keras")) if settings.distill == "teacher" else None
        objective = make_objective(data, recipe.data.class_weights, recipe.distill, teacher)

    def before_epoch(epoch: int) -> bool:
        """Freeze what the recipe says; True if the step has to be traced again."""
        frozen = [limit is not None and epoch >= limit for limit in limits]
        freeze_batchnorm(model, frozen[0])
        observe(model, not frozen[1])
        return epoch in limits

    limits = (settings.freeze_bn_epoch, settings.freeze_ranges_epoch)
    figures = train_network(
        run, console, "qat", model, objective, settings.train, recipe, data, before_epoch=before_epoch
    )
    finalize(model)
    save_network(model, run.file("qat.keras"))
    return figures


def _network(section: Model | Teacher, recipe: Recipe, data: Dataset, console: Console) -> keras.Model:
    """A network that takes the recipe's pixels, with the weights the recipe names."""
    import edgecls
    from edgecls.reparam import asymmetric

    size = recipe_preprocess(recipe).size
    if section.input_size not in (None, size):
        raise UsageError(
            f"teacher.input_size is {section.input_size}, the student's input {size}",
            fix="leave it out: teacher and student see the same pixels",
        )
    model = edgecls.build_model(
        section.name,
        len(data.classes),
        size,
        dropout=section.dropout,
        embedding_dim=getattr(section, "embedding_dim", None),
        include_preprocessing=True,
        mean=section.mean,
        std=section.std,
        auxiliary=True,
    )
    plain = True
    if section.weights:
        try:
            loaded = edgecls.load_weights(model, section.weights)
        except UsageError:
            if not section.acnet:
                raise
            model, plain = asymmetric(model), False  # they may come from a run that had the branches, too
            loaded = edgecls.load_weights(model, section.weights)
        console.log(f"{section.name}: {loaded}")
    return asymmetric(model, loaded=section.weights is not None) if section.acnet and plain else model
