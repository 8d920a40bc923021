"""The stages that train a network: what each depends on, and its work. ``training`` has their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecls import user_network
from edgecls.console import Console
from edgecls.errors import UsageError
from edgecls.files import write_json
from edgecls.flattening import take_weights
from edgecls.labels import write_labels
from edgecls.recipe import RANDOM, Model, OtherTeacher, Part, Quantize, Recipe, Train
from edgecls.run import Run
from edgecls.saving import load_model
from edgecls.stamps import fingerprint
from edgecls.train.callbacks import Callback
from edgecls.workflow.checking import trained_on, weights_input
from edgecls.workflow.common import (
    load_deployed,
    main_output,
    name_bad,
    recipe_preprocess,
    run_preprocess,
    save_network,
    spread,
)
from edgecls.workflow.new_classes import merge, old_classes, positions, put_old, split
from edgecls.workflow.quantized_training import NO_HELP, unless_farther
from edgecls.workflow.sanity import bn_momentum, warnings_of_training
from edgecls.workflow.together import describe
from edgecls.workflow.watching import watching

if TYPE_CHECKING:
    import keras

    from edgecls.data.preprocess import Preprocess
    from edgecls.data.sources import Dataset
    from edgecls.train.objective import Mutual, Objective
    from edgecls.train.teachers import Cached, Networks

_BY_CONTENT = {"weights", "file"}  # of a network: what is in them counts, not where they are
Inputs = dict[str, Any]


def teacher_file(stage: str) -> str:
    """The network that the stage of a teacher writes, relative to the run."""
    return f"{stage}.keras"


def teacher_inputs(stage: str, recipe: Recipe, data: Dataset, run: Run | None = None) -> Inputs:
    """What a teacher depends on; ``run`` may have it already."""
    teacher = recipe.teachers[stage]
    return _shared_inputs(recipe, data) | {
        "teacher": teacher.model_dump(exclude={*_BY_CONTENT, "others"}),
        "weights": weights_input(teacher, run.stamps().get(stage) if run else None),
    }


def part_inputs(part: Part, data: Dataset, run: Run) -> Inputs:
    """What a training of the student depends on."""
    recipe = part.recipe
    second = recipe.teacher if recipe.distill and recipe.distill.mutual else None
    return _shared_inputs(recipe, data) | {
        "model": recipe.model.model_dump(exclude=_BY_CONTENT | _unset(recipe.model)),
        "weights": (
            run.file(part.before)
            if part.before
            else weights_input(recipe.model, run.stamps().get(part.stage))
        ),
        "train": recipe.train,
        **_distill_inputs(recipe, run),
        **({"old_classes": old_classes(recipe.model)} if recipe.model.only_new_classes else {}),
        **({"second": second, "second_weights": weights_input(second)} if second else {}),
    }


def _unset(model: Model) -> set[str]:
    """Keys that count only where they are set: stamps of runs from before there were such keys hold on."""
    return {key for key in ("new_head", "only_new_classes") if not getattr(model, key)}


def _left_out(quantize: Quantize) -> set[str]:
    """Keys that count only where they are not the default, for the same reason."""
    given = quantize.model_dump(exclude_defaults=True)
    since = ("weights", "ranges", "keep_float", "equalize", "adaround", "learn_ranges")
    return {key for key in since if key not in given}


def _distill_inputs(recipe: Recipe, run: Run) -> Inputs:
    """How and from whom a network learns; where the answers are kept does not change them."""
    distill = recipe.distill.model_dump(exclude={"store"}) if recipe.distill else None
    return {"distill": distill, **{stage: run.file(teacher_file(stage)) for stage in recipe.teachers}}


def part_outputs(part: Part) -> list[str]:
    """What a training of the student writes; all that comes later needs labels and pixels, too."""
    return [part.network, *(("labels.txt", "preprocess.json") if part.is_last else ())]


def qat_inputs(recipe: Recipe, data: Dataset, run: Run) -> Inputs:
    """What the quantization depends on; ``recipe`` is that of the last phase."""
    inputs = _shared_inputs(recipe, data, run_preprocess(run)) | {
        "float": run.file("float.keras"),
        "quantize": recipe.quantize.model_dump(exclude=_left_out(recipe.quantize)),
    }
    if recipe.quantize.distill == "teacher":
        for stage in recipe.teachers:
            run.require(teacher_file(stage), fix="train first: edgecls train RECIPE")
        inputs |= _distill_inputs(recipe, run)
    return inputs


def _shared_inputs(recipe: Recipe, data: Dataset, preprocess: Preprocess | None = None) -> Inputs:
    preprocess = preprocess or recipe_preprocess(recipe)
    return {
        "seed": recipe.seed,
        "images": trained_on(recipe, data),
        "augment": recipe.augment,
        "preprocess": preprocess.to_dict(),
    }


def on_devices(work: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Make networks and optimizers where the training strategy wants them."""
    from edgecls.train.distribution import training_strategy

    with training_strategy().scope():
        return work(*args)


def make_teacher(
    stage: str, recipe: Recipe, run: Run, console: Console, data: Dataset, inputs: Inputs
) -> dict[str, Any]:
    """Write a teacher's network: with its weights, trained if the recipe says so."""
    from edgecls.train.stage import make_objective

    teacher = recipe.teachers[stage]
    model = build_network(teacher, recipe, data, console, is_trained=teacher.train is None)
    figures: dict[str, Any] = {}
    if teacher.train:
        objective = make_objective(data, recipe.data.class_weights, teacher.train.loss)
        section = ("teacher.train", teacher.train)
        figures = _train(stage, model, objective, section, recipe, run, console, data, inputs)
    save_network(model, run.file(teacher_file(stage)))
    return figures


def make_part(
    part: Part,
    run: Run,
    console: Console,
    data: Dataset,
    inputs: Inputs,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train the student once, from the recipe's weights or those that the part before has left."""
    from edgecls.train.objective import Mutual, Pair
    from edgecls.train.stage import make_objective

    recipe, section = part.recipe, part.recipe.model
    if part.before:
        section = section.model_copy(update={"weights": str(run.file(part.before))})
    model = build_network(section, recipe, data, console)
    teacher = _answering(part.stage, recipe, run, console, data)
    of_one = make_objective(data, recipe.data.class_weights, recipe.train.loss, recipe.distill, teacher)
    trained: keras.Model = model
    objective: Objective | Mutual = of_one
    if recipe.teacher and recipe.distill and recipe.distill.mutual:
        console.log(
            f"{part.stage}: learns with a second student, {recipe.teacher.title}, which is dropped afterwards"
        )
        trained = Pair(model, build_network(recipe.teacher, recipe, data, console))
        objective = Mutual(of_one, classifiers=len(model.outputs))
    old: list[int] = []
    if recipe.model.only_new_classes:
        old = positions(recipe.model, data.classes)
        model = main_output(model)
        put_old(model, recipe.model, old)
        trained = split(model, old)
    place = (part.section, recipe.train)
    figures = _train(
        part.stage, trained, objective, place, recipe, run, console, data, inputs, callbacks=callbacks
    )
    if old:
        merge(model, trained, old)
    if part.is_last:
        write_labels(run.file("labels.txt"), data.classes)
        write_json(run.file("preprocess.json"), recipe_preprocess(recipe).to_dict())
    save_network(model, run.file(part.network), whole=not part.is_last)
    return figures


def make_qat(recipe: Recipe, run: Run, console: Console, data: Dataset, inputs: Inputs) -> dict[str, Any]:
    """Write ``qat.keras``; ``recipe`` is that of the last phase."""
    from edgecls.data.pipeline import batches
    from edgecls.quantize import finalize, freezing, learn_ranges
    from edgecls.quantize.twin import SOME_IMAGES, calibrated_twin
    from edgecls.train.objective import Objective, as_teacher
    from edgecls.train.stage import EVAL_BATCH, make_objective

    settings = recipe.quantize
    network = load_deployed(run.file("float.keras"))
    preprocess = run_preprocess(run)
    calibrating = partial(batches, spread(data.train, settings.calibration_images), preprocess, EVAL_BATCH)
    some = spread(data.train, SOME_IMAGES)
    (pixels, _), *_ = batches(some, preprocess, len(some))
    model = calibrated_twin(
        network,
        calibrating(),
        pixels,
        keep_float=settings.keep_float,
        weights=settings.weights,
        ranges=settings.ranges,
        equalized=settings.equalize,
        adaround=settings.adaround,
    )
    if settings.train is None:
        finalize(model)
        save_network(model, run.file("qat.keras"))
        return {}
    if settings.distill == "float":
        objective = Objective(teacher=as_teacher(network))
    else:
        last = run.recipe.parts[-1].stage  # whose cached answers, if any, are of the same images
        teacher = _answering(last, recipe, run, console, data) if settings.distill == "teacher" else None
        distill = recipe.distill if teacher else None
        objective = make_objective(data, recipe.data.class_weights, settings.train.loss, distill, teacher)

    learn_ranges(model, settings.learn_ranges)
    before_epoch = freezing(model, settings.freeze_bn_epoch, settings.freeze_ranges_epoch)
    place = (("quantize.train", settings.train), recipe, run, console, data, inputs)
    work = partial(_train, "qat", model, objective, *place, before_epoch, preprocess=preprocess)
    if settings.distill == "float":
        figures, helped = unless_farther(
            model, objective, calibrating, work, lambda text: console.log(f"qat: {text}")
        )
        figures["warnings"] += [] if helped else [NO_HELP]
    else:
        figures = work()
    finalize(model)
    save_network(model, run.file("qat.keras"))
    return figures


def _train(
    stage: str,
    model: keras.Model,
    objective: Objective | Mutual,
    section: tuple[str, Train],
    recipe: Recipe,
    run: Run,
    console: Console,
    data: Dataset,
    inputs: Inputs,
    before_epoch: Callable[[int], bool] = lambda epoch: False,
    callbacks: Sequence[Callback] = (),
    preprocess: Preprocess | None = None,
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
            preprocess or recipe_preprocess(recipe),
            run.file("checkpoints", stage),
            fingerprint(inputs),
            [watcher, *callbacks],
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


def build_network(
    section: Model | OtherTeacher, recipe: Recipe, data: Dataset, console: Console, is_trained: bool = False
) -> keras.Model:
    """A network that takes the recipe's pixels, with the weights the recipe names.

    Raises:
        UsageError: ``is_trained``, the network is used as it is, and its weights are of other classes.
    """
    size = recipe_preprocess(recipe).size
    if section.name is None:
        return _of_file(section, size, recipe.seed, data, console, is_trained)
    import edgecls
    from edgecls.reparam import asymmetric

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
    weights = None if section.weights == RANDOM else section.weights
    if weights:
        try:
            loaded = edgecls.load_weights(model, weights)
        except UsageError:
            if not section.acnet:
                raise
            model, plain = asymmetric(model), False  # they may come from a run that had the branches, too
            loaded = edgecls.load_weights(model, weights)
        console.log(f"{section.name}: {loaded}")
        if is_trained and loaded.new_classifier:
            raise UsageError(
                f"the teacher knows {loaded.new_classifier.source_classes} classes, the data has {len(data.classes)}",
                where=str(section.weights),
                fix="give weights of these classes, or a train section that teaches it",
            )
    return asymmetric(model, loaded=weights is not None) if section.acnet and plain else model


def _of_file(
    section: Model | OtherTeacher, size: int, seed: int, data: Dataset, console: Console, is_trained: bool
) -> keras.Model:
    """The network of a file; its section's ``weights``, which a recipe cannot set, are those of an earlier stage."""
    model, head = user_network.build(section, len(data.classes), size, seed)
    if section.weights is not None:
        take_weights(model, Path(section.weights))
        return model
    console.log(f"{section.title}: {head}")
    if is_trained:
        user_network.check_answers(section, data.classes)
    return model


def _answering(
    stage: str, recipe: Recipe, run: Run, console: Console, data: Dataset
) -> Cached | Networks | None:
    """Who answers in a training: the run's teachers, or what they said of the recipe's views; None without any."""
    from edgecls.train.teachers import Cached, Networks
    from edgecls.train.views import make_views

    if not recipe.teachers or recipe.distill is None:
        return None
    models = [_teacher(*each, recipe, run, data, console) for each in recipe.teachers.items()]
    networks = Networks(models, batch_stats=recipe.distill.teacher_bn == "train")
    if recipe.distill.views is None:
        return networks
    with console.progress() as progress:
        task = progress.add_task("answers of the teacher", text="")
        views = make_views(
            networks,
            recipe,
            data,
            recipe_preprocess(recipe),
            run.file("views", stage),
            console.log,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    if recipe.augment.mixup or recipe.augment.cutmix:
        console.log(
            "mixed images: the teacher's answers are mixed as labels are; it has not seen the mixture"
        )
    return Cached(views)


def _teacher(
    stage: str, section: OtherTeacher, recipe: Recipe, run: Run, data: Dataset, console: Console
) -> keras.Model:
    """A teacher of the run for the pixels of a recipe: those of a phase may be more than it was made for."""
    path = run.file(teacher_file(stage))
    teacher = load_model(path)
    if teacher.input_shape[1] == recipe_preprocess(recipe).size:
        return teacher
    resized = section.model_copy(update={"weights": str(path)})
    return main_output(build_network(resized, recipe, data, console))
