"""The stages that train: teacher, student, quantization-aware training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecls.console import Console
from edgecls.errors import UsageError
from edgecls.files import write_json
from edgecls.labels import write_labels
from edgecls.recipe import Model, Recipe, Teacher, Train
from edgecls.run import Run
from edgecls.saving import load_model
from edgecls.stamps import changes, fingerprint
from edgecls.workflow import deploying, scoring
from edgecls.workflow.checking import (
    SEEN_IN_SPLITS,
    check,
    check_batches,
    check_trained_on,
    networks,
    trained_on,
    weights_input,
)
from edgecls.workflow.common import (
    download_weights,
    load_data,
    load_deployed,
    name_bad,
    recipe_preprocess,
    save_network,
    spread,
)
from edgecls.workflow.sanity import bn_momentum, warnings_of_training
from edgecls.workflow.together import begin_run, describe, leads, run_stage, together
from edgecls.workflow.watching import watching
from edgecls.zoo import catalog

if TYPE_CHECKING:
    import keras

    from edgecls.data.sources import Dataset
    from edgecls.train.objective import Objective

Inputs = dict[str, Any]

# What `edgecls quantize -o` may change: how the trained network is made int8, exported and measured, and where the
# photos are. Anything else would describe another training than the run's.
_AFTER_TRAINING: dict[str, Any] = {"quantize": True, "export": True, "bench": True, "data": SEEN_IN_SPLITS}


def plan(recipe: Recipe, directory: str | Path | None = None, fresh: bool = False) -> dict[str, Any]:
    """What ``train`` would do, without doing it: networks, images of each split, steps, the run it would use.

    Raises:
        EdgeclsError: As ``train``, for all that can be known beforehand.
    """
    data = check(recipe, Console())
    student = catalog.get(recipe.model.name)
    return {
        "schema": "edgecls.plan/1",
        "recipe": recipe.name,
        "run": _fate(recipe, data, Run.matching(recipe, directory=directory, fresh=fresh)),
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
        "steps_per_epoch": data.train.epoch_size // recipe.train.batch_size,
        "epochs": recipe.train.epochs,
    }


@together
def train(
    recipe: Recipe, console: Console, directory: str | Path | None = None, fresh: bool = False
) -> dict[str, Any]:
    """Fine-tune the teacher, distil it into the student (or train on labels alone), evaluate, report.

    The run is begun, or found and continued, only when data, weights and networks are known to be good.

    Args:
        recipe: What to train, on what.
        console: Is told what happens.
        directory: The run folder; None: ``runs/<name>/<time>``.
        fresh: Begin a new run even if one of this recipe is there.

    Raises:
        EdgeclsError: See its subclasses; every completed epoch is kept.
    """
    data = check(recipe, console)
    for network in networks(recipe):
        if network.weights:
            download_weights(network.weights, network.name, console)
    run = begin_run(recipe, directory, fresh)
    console.log(f"run: {run.path}")
    write_json(run.file("split.json"), data.describe())
    if recipe.teacher:
        inputs = _teacher_inputs(recipe, recipe.teacher, data)
        work = partial(_on_devices, _make_teacher, recipe, recipe.teacher, run, console, data, inputs)
        run_stage(run, console, "teacher", inputs, ["teacher.keras"], work)
    inputs = _student_inputs(recipe, data, run)
    work = partial(_on_devices, _make_student, recipe, run, console, data, inputs)
    run_stage(run, console, "student", inputs, ["float.keras", "labels.txt", "preprocess.json"], work)
    if not leads():
        return {}
    scores = scoring.score_run(run, console, data, ["teacher", "float"] if recipe.teacher else ["float"])
    scoring.report(run, console)
    return {
        "schema": "edgecls.train/1",
        "run": str(run.path),
        "test": scores,
        "report": str(run.file("report.html")),
    }


def override(run: Run, overrides: Sequence[str]) -> Recipe:
    """A run's recipe, changed for its quantization.

    Raises:
        UsageError: A key that does not exist, or one that the training was made by.
    """
    before = run.recipe
    recipe = before.override(overrides)
    kept = [r.model_dump(exclude=_AFTER_TRAINING) for r in (before, recipe)]
    if changed := changes(*map(fingerprint, kept)):
        raise UsageError(
            f"the run was trained with other settings ({changed})",
            where="-o",
            fix="quantize can change the sections quantize, export and bench; for others train again",
        )
    return recipe


@together
def quantize(
    run: Run, console: Console, overrides: Sequence[str] = (), gated: bool = False
) -> dict[str, Any]:
    """Quantization-aware training of the run's float network, then export, verification, evaluation, report.

    Args:
        run: A trained run, locked.
        console: Is told what happens.
        overrides: Keys of the recipe to change, as ``quantize.train.epochs=5``; the run's recipe keeps them.
        gated: The loss of accuracy will be judged, so labeled test images are needed.

    Returns:
        Test scores of every model, ``drop`` (balanced accuracy that int8 lost against float, as a fraction; None if
        either was not scored), the files and the parity ladder.

    Raises:
        UsageError: A key that cannot be changed now, photos that are not those the run was trained on, or no int8
            file or labeled test image to judge the accuracy by.
    """
    recipe = override(run, overrides)
    run.require("float.keras", fix="train first: edgecls train RECIPE")
    data = load_data(recipe.data, console)
    check_batches({"quantize.train": recipe.quantize.train}, data)
    check_trained_on(run, data)
    if gated and "int8" not in recipe.export.precisions:
        where, fix = "export.precisions", "add int8, or leave out --max-drop"
        raise UsageError("there will be no int8 file for --max-drop to judge", where=where, fix=fix)
    if gated and (data.test.labels < 0).all():
        fix = "leave it out, or give labeled test images"
        raise UsageError("there are no labeled test images to judge by", where="--max-drop", fix=fix)
    inputs = _qat_inputs(recipe, data, run)
    run.save_recipe(recipe)
    write_json(run.file("split.json"), data.describe())
    work = partial(_on_devices, _make_qat, recipe, run, console, data, inputs)
    run_stage(run, console, "qat", inputs, ["qat.keras"], work)
    if not leads():
        return {}
    files = deploying.export(run, console, data=data)["files"]
    verified = deploying.verify(run, console, data=data)
    scores = scoring.score_run(run, console, data, ["float", "qat", *deploying.exported(run)])
    scoring.report(run, console)
    return {
        "schema": "edgecls.quantize/1",
        "run": str(run.path),
        "test": scores,
        "drop": scoring.drop(scores),
        "files": files,
        "verify": verified,
        "report": str(run.file("report.html")),
    }


def _teacher_inputs(recipe: Recipe, teacher: Teacher, data: Dataset) -> Inputs:
    return _shared_inputs(recipe, data) | {
        "teacher": teacher.model_dump(exclude={"weights"}),
        "weights": weights_input(teacher),
    }


def _student_inputs(recipe: Recipe, data: Dataset, run: Run) -> Inputs:
    teacher = {"teacher": run.file("teacher.keras")} if recipe.distill else {}
    return _shared_inputs(recipe, data) | {
        "model": recipe.model.model_dump(exclude={"weights"}),
        "weights": weights_input(recipe.model),
        "train": recipe.train,
        "distill": recipe.distill,
        **teacher,
    }


def _qat_inputs(recipe: Recipe, data: Dataset, run: Run) -> Inputs:
    inputs = _shared_inputs(recipe, data) | {
        "float": run.file("float.keras"),
        "quantize": recipe.quantize,
    }
    if recipe.quantize.distill != "float":
        inputs["distill"] = recipe.distill
    if recipe.quantize.distill == "teacher":
        inputs["teacher"] = run.require("teacher.keras", fix="train first: edgecls train RECIPE")
    return inputs


def _shared_inputs(recipe: Recipe, data: Dataset) -> Inputs:
    return {
        "seed": recipe.seed,
        "images": trained_on(recipe, data),
        "augment": recipe.augment,
        "preprocess": recipe_preprocess(recipe).to_dict(),
    }


def _fate(recipe: Recipe, data: Dataset, run: Run | None) -> dict[str, Any]:
    """What ``train`` would make of the run that it finds."""
    if run is None:
        return {"path": None, "state": "new"}
    stages = {}
    if recipe.teacher:
        stages["teacher"] = run.stage(
            "teacher", _teacher_inputs(recipe, recipe.teacher, data), ["teacher.keras"]
        )
    if not recipe.distill or run.file("teacher.keras").exists():
        stages["student"] = run.stage("student", _student_inputs(recipe, data, run), ["float.keras"])
    open_stages = {name: stage.why for name, stage in stages.items() if not stage.done}
    done = "student" in stages and not open_stages
    return {"path": str(run.path), "state": "kept" if done else "continued", "to_do": open_stages}


def _on_devices(work: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Make networks and optimizers where the training strategy wants them."""
    from edgecls.train.distribution import training_strategy

    with training_strategy().scope():
        return work(*args)


def _make_teacher(
    recipe: Recipe, teacher: Teacher, run: Run, console: Console, data: Dataset, inputs: Inputs
) -> dict[str, Any]:
    from edgecls.train.stage import make_objective

    model = _network(teacher, recipe, data, console)
    figures: dict[str, Any] = {}
    if teacher.train:
        objective = make_objective(data, recipe.data.class_weights, teacher.train.loss)
        section = ("teacher.train", teacher.train)
        figures = _train("teacher", model, objective, section, recipe, run, console, data, inputs)
    save_network(model, run.file("teacher.keras"))
    return figures


def _make_student(
    recipe: Recipe, run: Run, console: Console, data: Dataset, inputs: Inputs
) -> dict[str, Any]:
    from edgecls.train.stage import make_objective

    model = _network(recipe.model, recipe, data, console)
    teacher = load_model(run.file("teacher.keras")) if recipe.distill else None
    objective = make_objective(data, recipe.data.class_weights, recipe.train.loss, recipe.distill, teacher)
    section = ("train", recipe.train)
    figures = _train("student", model, objective, section, recipe, run, console, data, inputs)
    write_labels(run.file("labels.txt"), data.classes)
    write_json(run.file("preprocess.json"), recipe_preprocess(recipe).to_dict())
    save_network(model, run.file("float.keras"))
    return figures


def _make_qat(recipe: Recipe, run: Run, console: Console, data: Dataset, inputs: Inputs) -> dict[str, Any]:
    from edgecls.data.pipeline import batches
    from edgecls.quantize import calibrate, finalize, freeze_batchnorm, observe, quantize_model
    from edgecls.train.objective import Objective, as_teacher
    from edgecls.train.stage import EVAL_BATCH, make_objective

    settings = recipe.quantize
    network = load_deployed(run.file("float.keras"))
    model = quantize_model(network)
    calibration_split = spread(data.train, settings.calibration_images)
    calibrate(model, batches(calibration_split, recipe_preprocess(recipe), EVAL_BATCH))
    if settings.distill == "float":
        objective = Objective(teacher=as_teacher(network))
    else:
        teacher = load_model(run.file("teacher.keras")) if settings.distill == "teacher" else None
        objective = make_objective(
            data, recipe.data.class_weights, settings.train.loss, recipe.distill, teacher
        )

    def before_epoch(epoch: int) -> bool:
        """Freeze what the recipe says; True if the step has to be traced again."""
        frozen = [limit is not None and epoch >= limit for limit in limits]
        freeze_batchnorm(model, frozen[0])
        observe(model, not frozen[1])
        return epoch in limits

    limits = (settings.freeze_bn_epoch, settings.freeze_ranges_epoch)
    section = ("quantize.train", settings.train)
    figures = _train("qat", model, objective, section, recipe, run, console, data, inputs, before_epoch)
    finalize(model)
    save_network(model, run.file("qat.keras"))
    return figures


def _train(
    stage: str,
    model: keras.Model,
    objective: Objective,
    section: tuple[str, Train],
    recipe: Recipe,
    run: Run,
    console: Console,
    data: Dataset,
    inputs: Inputs,
    before_epoch: Callable[[int], bool] = lambda epoch: False,
) -> dict[str, Any]:
    """Train a stage's network in its run, watched; say which epoch's weights were kept if not the one asked for."""
    from edgecls.train.stage import train_network

    name, config = section
    steps = data.train.epoch_size // config.batch_size
    named = len(data.train.bad)  # when the data were read
    if devices := describe(model, config, name):
        console.log(f"{stage}: {devices}")
    with watching(run, console, stage, model.name, config.epochs, steps) as watcher:
        figures = train_network(
            model,
            objective,
            config,
            name,
            recipe,
            data,
            recipe_preprocess(recipe),
            run.file("checkpoints", stage),
            fingerprint(inputs),
            [watcher],
            before_epoch,
        )
    name_bad(data.train.bad[named:], console)
    warnings = warnings_of_training(
        [row for row in run.metrics() if row["stage"] == stage], steps, bn_momentum(model), name
    )
    for warning in warnings:
        console.log(f"warning: {stage}: {warning}")
    if figures["selected"] != config.select:
        console.log(
            f"{stage}: no labeled validation images; the weights of the last epoch are kept, not of the best"
        )
    return figures | {"warnings": warnings}


def _network(section: Model | Teacher, recipe: Recipe, data: Dataset, console: Console) -> keras.Model:
    """A network that takes the recipe's pixels, with the weights the recipe names."""
    import edgecls
    from edgecls.reparam import asymmetric

    model = edgecls.build_model(
        section.name,
        len(data.classes),
        recipe_preprocess(recipe).size,
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
