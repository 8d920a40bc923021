"""One training phase inside a run: batches, loop, curves, progress. Teacher, student and QAT all pass here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgecls.console import Console
from edgecls.data.pipeline import batches
from edgecls.data.preprocess import Preprocess
from edgecls.data.sampling import class_weights
from edgecls.data.sources import Dataset
from edgecls.errors import UsageError
from edgecls.metrics import evaluate
from edgecls.recipe import Distill, Recipe, Train
from edgecls.run import Run
from edgecls.train.loop import Trainer, fit
from edgecls.train.objective import Objective, as_teacher
from edgecls.zoo import catalog

EVAL_BATCH = 64


def make_objective(
    data: Dataset, weights: str, distill: Distill | None = None, teacher: keras.Model | None = None
) -> Objective:
    """The loss that a recipe asks for.

    Raises:
        UsageError: The recipe trains on labels and there are none.
    """
    if teacher is None and (data.train.labels < 0).all():
        raise UsageError(
            "the training images have no labels", fix="add labels, or a teacher and a distill section"
        )
    factors = None
    if weights == "balanced":
        if (data.train.labels < 0).all():
            raise UsageError(
                "balanced class weights need labels", where="data.class_weights", fix="set it to none"
            )
        factors = tf.constant(class_weights(data.train.labels, len(data.classes)), tf.float32)
    if teacher is None or distill is None:
        return Objective(class_weights=factors)
    return Objective(
        class_weights=factors,
        teacher=as_teacher(teacher),
        soft_weight=distill.weight,
        hard_weight=distill.hard_weight,
        temperature=distill.temperature,
        teacher_batch_stats=distill.teacher_bn == "train",
    )


def train_network(
    run: Run,
    console: Console,
    stage: str,
    model: keras.Model,
    objective: Objective,
    config: Train,
    recipe: Recipe,
    data: Dataset,
    before_epoch: Callable[[int], bool] = lambda epoch: False,
) -> dict[str, Any]:
    """Train ``model`` to its last epoch, continuing from the run's checkpoint of ``stage`` if it has one.

    Args:
        run: Gets ``checkpoints/<stage>/``, a row of ``metrics.jsonl`` an epoch and TensorBoard curves.
        stage: ``teacher``, ``student`` or ``qat``.
        model: Takes pixels, gives logits (see ``Trainer``); holds the chosen weights afterwards.
        config: This phase's own ``train`` section; seed, pixels and augmentation come from ``recipe``.
        before_epoch: See ``fit``.

    Returns:
        ``epochs``, ``best_epoch``, ``best_value`` (validation balanced accuracy).

    Raises:
        UsageError: Fewer training images than one batch.
    """
    steps = len(data.train) // config.batch_size
    if not steps:
        raise UsageError(
            f"{len(data.train)} training images do not fill a batch of {config.batch_size}",
            where="train.batch_size",
            fix="lower it",
        )
    preprocess = Preprocess.from_recipe(catalog.get(recipe.model.name), recipe.model)
    augment, seed = recipe.augment, recipe.seed
    trainer = Trainer(model, objective, config, len(data.classes), steps, seed, augment.mixup_alpha)

    def epoch_batches(epoch: int) -> tf.data.Dataset:
        return batches(
            data.train, preprocess, config.batch_size, training=True, augment=augment, seed=seed, epoch=epoch
        )

    val = data.val.subset(data.val.labels >= 0)
    forward = tf.function(
        lambda pixels: keras.tree.flatten(model(pixels, training=False))[0], reduce_retracing=True
    )

    def validate() -> dict[str, float]:
        if not len(val):
            return {}
        logits = [forward(pixels).numpy() for pixels, _ in batches(val, preprocess, EVAL_BATCH)]
        scores = evaluate(np.concatenate(logits), val.labels, data.classes)
        return {key: scores[key] for key in ("top1", "balanced_accuracy")}

    with console.progress() as progress, _curves(run, stage) as curve:
        task = progress.add_task(f"{stage}: {model.name}", total=config.epochs * steps, text="")

        def on_epoch(epoch: int, values: dict[str, float]) -> None:
            run.metric(stage, epoch, **values)
            curve(epoch, values)
            text = " ".join(f"{key} {value:.4g}" for key, value in values.items())
            progress.update(task, text=text)
            run.log("epoch", stage=stage, epoch=epoch, **values)

        return fit(
            trainer,
            epoch_batches,
            validate,
            run.file("checkpoints", stage),
            before_epoch=before_epoch,
            on_start=lambda epoch: progress.update(task, completed=epoch * steps),
            on_step=lambda epoch, step: progress.update(task, completed=epoch * steps + step),
            on_epoch=on_epoch,
        )


@contextmanager
def _curves(run: Run, stage: str) -> Iterator[Any]:
    """A function that adds an epoch's figures to the run's TensorBoard folder."""
    writer = tf.summary.create_file_writer(str(run.file("tensorboard", stage)))
    try:

        def add(epoch: int, values: dict[str, float]) -> None:
            with writer.as_default(step=epoch):
                for key, value in values.items():
                    tf.summary.scalar(key, value)
            writer.flush()

        yield add
    finally:
        writer.close()
