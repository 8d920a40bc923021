"""The order of the trainings: teacher, student phase by phase, quantization-aware training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecls.console import Console
from edgecls.errors import UsageError
from edgecls.files import write_json
from edgecls.recipe import Recipe
from edgecls.run import Run
from edgecls.stamps import changes, fingerprint
from edgecls.workflow import deploying, scoring
from edgecls.workflow.checking import (
    SEEN_IN_SPLITS,
    check,
    check_batches,
    check_trained_on,
    published_weights,
    trained_params,
    trainings_of,
)
from edgecls.workflow.common import download_weights, load_data, recipe_preprocess
from edgecls.workflow.stages import (
    make_part,
    make_qat,
    make_teacher,
    on_devices,
    part_inputs,
    part_outputs,
    qat_inputs,
    teacher_file,
    teacher_inputs,
)
from edgecls.workflow.together import begin_run, check_devices, leads, run_stage, together

if TYPE_CHECKING:
    from edgecls.data.sources import Dataset

# What `edgecls quantize -o` may change: how the trained network is made int8, exported and measured, and where the
# photos are. Anything else would describe another training than the run's.
_AFTER_TRAINING: dict[str, Any] = {"quantize": True, "export": True, "bench": True, "data": SEEN_IN_SPLITS}


def plan(
    recipe: Recipe, directory: str | Path | None = None, fresh: bool = False, root: str | Path = "runs"
) -> dict[str, Any]:
    """What ``train`` would do, without doing it: networks, images of each split, steps, the run it would use.

    Raises:
        EdgeclsError: As ``train``, for all that can be known beforehand.
    """
    parts = recipe.parts
    found = Run.matching(recipe, root, directory, fresh)
    data = check(recipe, Console(), run=found)
    final = data[parts[-1].stage]
    return {
        "schema": "edgecls.plan/1",
        "recipe": recipe.name,
        "run": _fate(recipe, data, found),
        "model": {
            "name": recipe.model.title,
            "params": trained_params(recipe.model),
            "input_size": recipe_preprocess(parts[-1].recipe).size,
        },
        "teacher": recipe.teacher.title if recipe.teacher else None,
        "classes": final.classes,
        "images": {
            "train": len(final.train),
            "val": len(final.val),
            "test": len(final.test),
            "bad": len(final.bad),
        },
        "steps_per_epoch": final.train.epoch_size // parts[-1].recipe.train.batch_size,
        "epochs": sum(part.recipe.train.epochs for part in parts),
        "trainings": {
            part.stage: {
                "images": data[part.stage].train.epoch_size,
                "input_size": recipe_preprocess(part.recipe).size,
                "steps_per_epoch": data[part.stage].train.epoch_size // part.recipe.train.batch_size,
                "epochs": part.recipe.train.epochs,
            }
            for part in parts
        },
    }


@together
def train(
    recipe: Recipe,
    console: Console,
    directory: str | Path | None = None,
    fresh: bool = False,
    root: str | Path = "runs",
) -> dict[str, Any]:
    """Fine-tune the teacher, distil it into the student (or train on labels alone), evaluate, report.

    The run is begun, or found and continued, only when data, weights and networks are known to be good.

    Args:
        recipe: What to train, on what.
        console: Is told what happens.
        directory: The run folder; None: ``<root>/<name>/<time>``.
        fresh: Begin a new run even if one of this recipe is there, and take nothing from others.
        root: Folder of all runs.

    Raises:
        EdgeclsError: See its subclasses; every completed epoch is kept.
    """
    found = Run.matching(recipe, root, directory, fresh)
    data = check(recipe, console, run=found)
    check_devices(trainings_of(recipe))
    for weights, network in published_weights(recipe, _to_do(recipe, data, found) if found else None):
        download_weights(weights, network, console)
    run = begin_run(recipe, directory, fresh, root)
    console.log(f"run: {run.path}")
    others = [] if fresh else run.others()
    parts = recipe.parts
    final = data[parts[-1].stage]
    write_json(run.file("split.json"), final.describe())
    teachers = recipe.teachers
    for stage in teachers:
        images = data["teacher"]
        inputs = teacher_inputs(stage, recipe, images, run)
        work = partial(on_devices, make_teacher, stage, recipe, run, console, images, inputs)
        run_stage(run, console, stage, inputs, [teacher_file(stage)], work, others)
    for part in parts:
        images = data[part.stage]
        inputs = part_inputs(part, images, run)
        work = partial(on_devices, make_part, part, run, console, images, inputs)
        run_stage(run, console, part.stage, inputs, part_outputs(part), work, others)
    if not leads():
        return {}
    scores = scoring.score_run(run, console, final, ["teacher", "float"] if teachers else ["float"])
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
    final = recipe.final
    run.require("float.keras", fix="train first: edgecls train RECIPE")
    data = load_data(final.data, console)
    check_batches({"quantize.train": recipe.quantize.train}, data)
    check_devices({"quantize.train": recipe.quantize.train})
    check_trained_on(run, data)
    if gated and "int8" not in recipe.export.precisions:
        where, fix = "export.precisions", "add int8, or leave out --max-drop"
        raise UsageError("there will be no int8 file for --max-drop to judge", where=where, fix=fix)
    if gated and (data.test.labels < 0).all():
        fix = "leave it out, or give labeled test images"
        raise UsageError("there are no labeled test images to judge by", where="--max-drop", fix=fix)
    inputs = qat_inputs(final, data, run)
    run.save_recipe(recipe)
    write_json(run.file("split.json"), data.describe())
    work = partial(on_devices, make_qat, final, run, console, data, inputs)
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


def _fate(recipe: Recipe, data: Mapping[str, Dataset], run: Run | None) -> dict[str, Any]:
    """What ``train`` would make of the run that it finds."""
    if run is None:
        return {"path": None, "state": "new"}
    to_do = _to_do(recipe, data, run)
    return {"path": str(run.path), "state": "continued" if to_do else "kept", "to_do": to_do}


def _to_do(recipe: Recipe, data: Mapping[str, Dataset], run: Run) -> dict[str, str]:
    """The stages that are to be done in a run, and why."""
    to_do: dict[str, str] = {}
    for stage in recipe.teachers:
        inputs = teacher_inputs(stage, recipe, data["teacher"], run)
        to_do[stage] = run.stage(stage, inputs, [teacher_file(stage)]).why
    for part in recipe.parts:
        reads = [*map(teacher_file, part.recipe.teachers), *([part.before] if part.before else [])]
        if all(run.file(name).exists() for name in reads):
            inputs = part_inputs(part, data[part.stage], run)
            to_do[part.stage] = run.stage(part.stage, inputs, part_outputs(part)).why
        else:
            to_do[part.stage] = "not run yet"
    return {stage: why for stage, why in to_do.items() if why}
