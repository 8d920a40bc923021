"""The training loop: one ``strategy.run`` step, an epoch at a time, resumable after every epoch.

It is our own and not ``Model.fit`` because Keras 3's ``fit`` cannot run on several workers, and because
distillation wants teacher and student in one step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgecls.errors import EdgeclsError
from edgecls.recipe import Optimizer, Train
from edgecls.stamps import changes
from edgecls.train import checkpoint
from edgecls.train.callbacks import Callback
from edgecls.train.losses import smooth
from edgecls.train.objective import Objective
from edgecls.train.schedules import make_schedule

#: Variables by these names are not decayed: they are scales and offsets, not features.
UNDECAYED = ("gamma", "beta", "bias", "cls_token", "dist_token", "pos_embed")


def make_optimizer(
    config: Optimizer, schedule: keras.optimizers.schedules.LearningRateSchedule
) -> keras.Optimizer:
    """The optimizer of a recipe; weight decay is added to the gradient by the step (L2, as the originals do)."""
    if config.name == "adam":
        return keras.optimizers.Adam(schedule)
    return keras.optimizers.SGD(schedule, momentum=config.momentum, nesterov=config.nesterov)


@dataclass
class Trainer:
    """Model, optimizer and averages that advance together, and that a checkpoint holds.

    Attributes:
        model: Takes pixels, gives logits, or a list of several classifiers' logits with the main ones first.
        objective: Loss of a batch.
        config: The recipe's ``train`` section.
        steps_per_epoch: Optimizer steps of one epoch.
        section: Where ``config`` stands in the recipe, for error texts.
    """

    model: keras.Model
    objective: Objective
    config: Train
    steps_per_epoch: int
    section: str = "train"
    strategy: tf.distribute.Strategy = field(default_factory=tf.distribute.get_strategy)

    def __post_init__(self) -> None:
        train = self.config
        schedule = make_schedule(train.schedule, train.optimizer.lr, train.epochs, self.steps_per_epoch)
        if train.bn_momentum is not None:
            for layer in self.model.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.momentum = train.bn_momentum
        with self.strategy.scope():
            self.optimizer = make_optimizer(train.optimizer, schedule)
            self.optimizer.build(self.model.trainable_variables)
            self._loss, self._hits = keras.metrics.Mean(name="loss"), keras.metrics.Mean(name="accuracy")
            self._labeled = keras.metrics.Sum(name="labeled")  # images that the accuracy is of
            self._averages = [_shadow(v) for v in _averaged(self.model)] if train.ema_decay else []
        self.retrace()

    def retrace(self) -> None:
        """Compile the step anew: a layer's switch counts only when the step is traced."""
        self._step = tf.function(self._distributed_step)

    @property
    def variables(self) -> list[Any]:
        """All that a resumed training needs to go on bit for bit."""
        return [*self.model.variables, *self.optimizer.variables, *self._averages]

    def run_epoch(self, batches: tf.data.Dataset, on_step: Callable[[int], None]) -> dict[str, float]:
        """Train on every batch once.

        Args:
            batches: Yields (pixels float32 [B, H, W, 3], targets float32 [B, classes]), already mixed; a row of zeros for
                an unlabeled image.
            on_step: Called with the number of steps done in this epoch.

        Returns:
            ``loss``, ``lr``, ``images_per_s`` and, where images have labels, ``accuracy`` (on augmented images).

        Raises:
            EdgeclsError: The loss is no longer finite, or memory ran out.
        """
        for metric in (self._loss, self._hits, self._labeled):
            metric.reset_state()
        started, images = time.perf_counter(), 0
        try:
            for step, batch in enumerate(self.strategy.experimental_distribute_dataset(batches), start=1):
                images += self.config.batch_size
                self._step(*batch)
                on_step(step)
        except tf.errors.ResourceExhaustedError as error:
            raise EdgeclsError(
                "out of memory in a training step", fix=f"lower {self.section}.batch_size"
            ) from error
        loss = float(self._loss.result())
        if not np.isfinite(loss):
            fix = f"lower {self.section}.optimizer.lr or set {self.section}.optimizer.clip_norm"
            raise EdgeclsError("the loss is no longer finite", fix=fix)
        values = {"loss": loss}
        if float(self._labeled.result()):
            values["accuracy"] = float(self._hits.result())
        return values | {
            "lr": float(self.optimizer.learning_rate),
            "images_per_s": images / (time.perf_counter() - started),
        }

    def swap_averages(self) -> None:
        """Exchange the model's weights with their running averages; a second call changes them back."""
        for variable, average in zip(_averaged(self.model), self._averages, strict=False):
            value = tf.identity(variable.value)
            variable.assign(average)
            average.assign(value)

    def _distributed_step(self, pixels: tf.Tensor, targets: tf.Tensor) -> None:
        self.strategy.run(self._replica_step, args=(pixels, targets))

    def _replica_step(self, pixels: tf.Tensor, targets: tf.Tensor) -> None:
        train, weights = self.config, self.model.trainable_variables
        targets = smooth(targets, train.label_smoothing)
        with tf.GradientTape() as tape:
            logits = keras.tree.flatten(self.model(pixels, training=True))  # the main classifier's first
            losses = self.objective(pixels, targets, logits)
            # Divided by the global batch, so that replicas' gradients add up to the mean.
            loss = tf.reduce_sum(losses) / train.batch_size
        gradients = tape.gradient(loss, [w.value for w in weights])
        gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if train.optimizer.weight_decay:
            gradients = [
                g + train.optimizer.weight_decay * w.value if w.name not in UNDECAYED else g
                for g, w in zip(gradients, weights, strict=True)
            ]
        if train.optimizer.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, train.optimizer.clip_norm)
        # Keras adds up the gradients of all replicas, and these are the sum already.
        gradients = [g / self.strategy.num_replicas_in_sync for g in gradients]
        self.optimizer.apply(gradients, weights)
        for average, variable in zip(self._averages, _averaged(self.model), strict=False):
            average.assign(average + (1.0 - (train.ema_decay or 0.0)) * (variable.value - average))
        self._loss.update_state(losses)
        hits = tf.equal(tf.argmax(logits[0], -1), tf.argmax(targets, -1))
        labeled = tf.reduce_sum(targets, -1)  # the share of an image that has a label
        self._hits.update_state(hits, sample_weight=labeled)
        self._labeled.update_state(labeled)


def fit(
    trainer: Trainer,
    epoch_batches: Callable[[int], tf.data.Dataset],
    evaluate: Callable[[], dict[str, float]],
    directory: Path,
    *,
    inputs: Mapping[str, Any] | None = None,
    before_epoch: Callable[[int], bool] = lambda epoch: False,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train to the last epoch and leave the chosen weights in the model.

    The training goes on from ``directory/last.npz`` if that was made from the same ``inputs``; a checkpoint of other
    inputs is removed.

    Args:
        trainer: Model and optimizer.
        epoch_batches: Training batches of an epoch; the same epoch must give the same batches.
        evaluate: Measures the model on the validation split; epochs are compared by ``balanced_accuracy``. It
            returns ``{}`` where nothing can be measured.
        directory: Where ``last.npz`` and ``best.npz`` are kept.
        inputs: Fingerprint of all that the training depends on (``edgecls.stamps``).
        before_epoch: Called before each epoch; True says that it changed how the model trains (froze something),
            so that the step is traced again.
        callbacks: Are told of every step and epoch.

    Returns:
        ``{"epochs", "best_epoch", "best_value", "selected"}``: ``selected`` is ``best`` or ``last``, the epoch whose
        weights the model has; without validation figures it is ``last``, whatever the recipe says.
    """
    last, best = directory / "last.npz", directory / "best.npz"
    state = _resume(trainer, directory, dict(inputs or {}), callbacks)
    for each in callbacks:
        each.on_start(state["epochs"])

    def on_step(epoch: int, step: int) -> None:
        for each in callbacks:
            each.on_step(epoch, step)

    for epoch in range(state["epochs"], trainer.config.epochs):
        if before_epoch(epoch):
            trainer.retrace()
        values = trainer.run_epoch(epoch_batches(epoch), partial(on_step, epoch))
        trainer.swap_averages()
        values |= {f"val_{key}": value for key, value in evaluate().items()}
        score = values.get("val_balanced_accuracy")
        if score is not None and score > state["best_value"]:
            state |= {"best_epoch": epoch, "best_value": score}
            checkpoint.save(best, trainer.model.variables, state)
        trainer.swap_averages()
        for each in callbacks:
            each.on_epoch(epoch, values)
        state["epochs"] = epoch + 1
        checkpoint.save(last, trainer.variables, state)
    trainer.swap_averages()
    selected = "best" if trainer.config.select == "best" and state["best_epoch"] >= 0 else "last"
    if selected == "best":
        checkpoint.restore(best, trainer.model.variables)
    return {key: state[key] for key in ("epochs", "best_epoch", "best_value")} | {"selected": selected}


def _resume(
    trainer: Trainer, directory: Path, inputs: dict[str, Any], callbacks: Sequence[Callback]
) -> dict[str, Any]:
    """The state of a training that was begun from the same inputs, its variables restored; else a new state."""
    last = directory / "last.npz"
    if last.exists():
        changed = changes(checkpoint.read_state(last).get("inputs", {}), inputs)
        if not changed:
            return checkpoint.restore(last, trainer.variables)
        for each in callbacks:
            each.on_restart(changed)
    for name in ("last.npz", "best.npz"):
        (directory / name).unlink(missing_ok=True)
    return {"epochs": 0, "best_epoch": -1, "best_value": -1.0, "inputs": inputs}


def _averaged(model: keras.Model) -> list[Any]:
    """Variables that an exponential moving average follows: weights and BN statistics, no counters or seeds."""
    return [v for v in model.variables if v.dtype == "float32"]


def _shadow(variable: Any) -> tf.Variable:
    only_first = tf.VariableAggregation.ONLY_FIRST_REPLICA  # replicas hold the same weights
    return tf.Variable(
        variable.value, trainable=False, name=f"{variable.name}_average", aggregation=only_first
    )
