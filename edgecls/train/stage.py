"""One training inside a run: objective, batches, validation, loop. Teacher, student and QAT all pass here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgecls.data.pipeline import Batches
from edgecls.data.preprocess import Preprocess
from edgecls.data.sampling import class_weights
from edgecls.data.sources import Dataset
from edgecls.metrics import evaluate
from edgecls.recipe import Distill, Recipe, Train
from edgecls.train.callbacks import Callback
from edgecls.train.distribution import Workers, workers
from edgecls.train.loop import Trainer, fit
from edgecls.train.losses import CrossEntropy, Loss
from edgecls.train.objective import Mutual, Objective
from edgecls.train.teachers import Networks, Teacher

EVAL_BATCH = 64


def make_objective(
    data: Dataset,
    weights: str,
    loss: Loss,
    distill: Distill | None = None,
    teacher: keras.Model | Teacher | None = None,
) -> Objective:
    """The loss that a recipe asks for.

    Args:
        data: Its training labels give the class weights.
        weights: ``data.class_weights`` of the recipe: ``none`` or ``balanced``.
        loss: What the labels ask for.
        distill: How to learn from the teacher.
        teacher: Whose answers are learned; None: the labels alone.
    """
    factors = None
    if weights == "balanced":
        factors = tf.constant(class_weights(data.train.labels, len(data.classes)), tf.float32)
    if distill is None:
        return Objective(loss, class_weights=factors)
    if isinstance(teacher, keras.Model):
        teacher = Networks([teacher], batch_stats=distill.teacher_bn == "train")
    return Objective(
        loss,
        distill.loss,
        class_weights=factors,
        teacher=teacher,
        soft_weight=distill.weight,
        hard_weight=distill.hard_weight,
        temperature=distill.temperature,
    )


def train_network(
    model: keras.Model,
    objective: Objective | Mutual,
    config: Train,
    section: str,
    recipe: Recipe,
    data: Dataset,
    preprocess: Preprocess,
    directory: Path,
    inputs: Mapping[str, Any],
    callbacks: Sequence[Callback] = (),
    before_epoch: Callable[[int], bool] = lambda epoch: False,
) -> dict[str, Any]:
    """Train ``model`` to its last epoch, continuing from the checkpoint in ``directory`` if it has one.

    Args:
        model: Takes pixels, gives logits (see ``Trainer``); holds the chosen weights afterwards.
        objective: What a step minimizes.
        config: This training's own ``train`` section.
        section: Where ``config`` stands in the recipe, for error texts.
        recipe: Gives seed and augmentation.
        data: Images to learn from and to validate on.
        preprocess: How the model sees a photo.
        directory: Folder of the checkpoints.
        inputs: See ``fit``.
        callbacks: See ``fit``.
        before_epoch: See ``fit``.

    Returns:
        As ``fit``; ``best_value`` is the balanced accuracy on the validation split.
    """
    team = workers()
    steps = data.train.epoch_size // config.batch_size
    views = objective.teacher.views if objective.teacher is not None else None
    trainer = Trainer(model, objective, config, steps, section=section)

    feed = Batches(
        data.train,
        preprocess,
        config.batch_size,
        training=True,
        augment=recipe.augment,
        seed=recipe.seed,
        epochs=config.epochs,
        classes=len(data.classes),
        cast=False,
        views=None if views is None else views.count,
        answers=views,
        share=team.share,
        distribute=team.distribute,
    )
    try:
        return fit(
            trainer,
            feed.epoch,
            _validation(model, data, preprocess, team),
            directory,
            inputs=inputs,
            before_epoch=before_epoch,
            callbacks=callbacks,
        )
    finally:
        feed.close()
        trainer.close()


def _validation(
    model: keras.Model, data: Dataset, preprocess: Preprocess, team: Workers
) -> Callable[[], dict[str, float]]:
    """Measures the model on the labeled images of the validation split: ``{}`` if there are none.

    Each worker answers its share of the images, so that every image counts once.
    """
    split = data.val.subset(data.val.labels >= 0)
    targets = tf.one_hot(split.labels, len(data.classes))
    forward = tf.function(
        lambda pixels: keras.tree.flatten(model(pixels, training=False))[0], reduce_retracing=True
    )

    own = np.arange(team.index, len(split), team.count)
    feed = Batches(split.subset(own), preprocess, EVAL_BATCH)

    def validate() -> dict[str, float]:
        if not len(split):
            return {}
        answers = [forward(pixels).numpy() for pixels, _ in feed]
        none = np.zeros((0, len(data.classes)), np.float32)  # fewer images than workers
        logits = team.interleaved(np.concatenate([none, *answers]), len(split))
        scores = evaluate(logits, split.labels, data.classes)
        loss = float(tf.reduce_mean(CrossEntropy()(tf.constant(logits), targets)))
        return {"loss": loss} | {key: scores[key] for key in ("top1", "balanced_accuracy")}

    return validate
