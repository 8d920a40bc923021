"""The training loop: one ``strategy.run`` step, an epoch at a time, resumable also in the middle of one.

It is our own and not ``Model.fit`` because Keras 3's ``fit`` cannot run on several workers, and because
distillation wants teacher and student in one step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgecls.errors import EdgeclsError
from edgecls.recipe import Train
from edgecls.stamps import changes
from edgecls.train import checkpoint
from edgecls.train.callbacks import Callback
from edgecls.train.distribution import Workers, check_batch, workers
from edgecls.train.losses import smooth
from edgecls.train.memory import peak_memory
from edgecls.train.multipliers import Optimizers, frozen, lr_factors
from edgecls.train.objective import Mutual, Objective, parts_of
from edgecls.train.precision import LossScale, computing_in
from edgecls.train.schedules import make_schedule
from edgecls.train.step import Averages, accumulated, clipped, counter, decayed, same_everywhere

_LOOK = 20
"""Steps after which the loop looks whether loss and gradient are still finite. Each look waits for the device, and
several workers then ask each other whether a checkpoint is due."""

_TOTALS = ("loss", "accuracy", "labeled", "images", "gradient_norm", "steps")
"""What is summed over an epoch: of losses, hits, labels, images, norms, steps."""


@dataclass
class Trainer:
    """Model, optimizer and averages that advance together, and that a checkpoint holds.

    Attributes:
        model: Takes pixels, gives logits, or a list of several classifiers' logits with the main ones first.
        objective: Loss of a batch.
        config: The recipe's ``train`` section.
        steps_per_epoch: Optimizer steps of one epoch.
        section: Where ``config`` stands in the recipe, for error texts.
        strategy: The devices that it trains on.
        team: The workers that it trains with.
    """

    model: keras.Model
    objective: Objective | Mutual
    config: Train
    steps_per_epoch: int
    section: str = "train"
    strategy: tf.distribute.Strategy = field(default_factory=tf.distribute.get_strategy)
    team: Workers = field(default_factory=workers)

    def __post_init__(self) -> None:
        train = self.config
        self._schedule = self._rate(1.0)
        if train.bn_momentum is not None:
            for layer in self.model._flatten_layers(include_self=False):
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.momentum = train.bn_momentum
        check_batch(self.section, train, self.strategy.num_replicas_in_sync)
        with self.strategy.scope():
            self._settings = ExitStack()
            teacher = self.objective.teacher
            students = parts_of(self.model)
            for student in students:
                self._settings.enter_context(frozen(student, train.freeze))
            for network in (*students, *(teacher.models if teacher is not None else ())):
                self._settings.enter_context(computing_in(network, train.precision))
            weights = self.model.trainable_variables
            factors = [factor for each in students for factor in lr_factors(each, train.lr_mult_list)]
            self.optimizer = Optimizers(train.optimizer, self._rate, weights, factors)
            self._loss_scale = LossScale(train.precision)
            self.averages = Averages(self.model, train.ema_decay)
            self._totals = same_everywhere(tf.zeros(len(_TOTALS), tf.float64), "totals")
            self._bad_step = counter(-1)  # the first step whose loss was not finite
        # Batch normalization and quantizers keep statistics that each device takes of its own images.
        several = self.strategy.num_replicas_in_sync > 1
        self._statistics = [v for v in self.model.non_trainable_variables if several and v.dtype == "float32"]
        self.retrace()

    def close(self) -> None:
        """End the training: the model is as it was, but for its weights; its layers train and compute in float32."""
        self._settings.close()

    def _rate(self, factor: float) -> Any:
        """The schedule of the weights whose learning rate has this factor."""
        train = self.config
        return make_schedule(train.schedule, factor * train.optimizer.lr, train.epochs, self.steps_per_epoch)

    def retrace(self) -> None:
        """Compile the step anew: a layer's switch counts only when the step is traced."""
        self._step = tf.function(self._distributed_step)

    @property
    def variables(self) -> list[Any]:
        """All that a resumed training needs to go on bit for bit."""
        return [
            *self.model.variables,
            *self.optimizer.variables,
            *self.averages.variables,
            *self._loss_scale.variables,
            self._totals,
        ]

    def run_epoch(
        self, batches: Iterable[Any], on_step: Callable[[int], None], start: int = 0
    ) -> dict[str, float]:
        """Train on every batch once.

        Args:
            batches: Yields (pixels uint8 or float32 [B, H, W, 3], targets float32 [B, classes]), already mixed; a row of zeros for
                an unlabeled image. A third tensor is what the objective's teacher takes. A dataset is distributed over the replicas; other batches are already.
            on_step: Called with the number of steps done in this epoch.
            start: Steps of this epoch that were done before; the figures of a restored checkpoint go on with them.

        Returns:
            ``loss``, ``lr``, ``gradient_norm`` (before clipping), ``images_per_s``, ``data_wait`` (share of the time in
            which the loop waited for a batch; of the worker that waited longest), those of ``peak_memory`` (of the worker
            with the most) and, where images have labels, ``accuracy`` (on augmented images). All are of the images of all
            devices and workers.

        Raises:
            EdgeclsError: The loss or its gradient is no longer finite, or memory ran out.
        """
        if not start:
            self._totals.assign(tf.zeros_like(self._totals))
        if isinstance(batches, tf.data.Dataset):
            batches = self.strategy.experimental_distribute_dataset(batches)
        started, waited, step = time.perf_counter(), 0.0, start
        iterator = iter(batches)
        try:
            while True:
                asked = time.perf_counter()
                batch = next(iterator, None)
                waited += time.perf_counter() - asked
                if batch is None:
                    break
                self._step(*batch)
                step += 1
                if step % _LOOK == 0:
                    self.check_loss()
                on_step(step)
        except tf.errors.ResourceExhaustedError as error:
            fix = f"lower {self.section}.batch_size or raise {self.section}.accumulate"
            raise EdgeclsError("out of memory in a training step", fix=fix) from error
        self.check_loss()
        taken = time.perf_counter() - started
        totals = dict(zip(_TOTALS, self._totals.numpy().tolist(), strict=True))
        values = {"loss": totals["loss"] / max(totals["images"], 1)}
        if totals["labeled"]:
            values["accuracy"] = totals["accuracy"] / totals["labeled"]
        return values | {
            "gradient_norm": totals["gradient_norm"] / max(totals["steps"], 1),
            "lr": float(self._schedule(self.optimizer.iterations)),
            "images_per_s": (step - start) * self.config.batch_size / taken,
            "data_wait": max(self.team.numbers(waited / taken)),
            **{name: max(self.team.numbers(peak)) for name, peak in peak_memory().items()},
        }

    def check_loss(self) -> None:
        """Raises EdgeclsError when the loss of a step, or its gradient, was not finite."""
        step = int(self._bad_step.numpy())
        if step >= 0:
            raise self._diverged("the loss or its gradient is", step)

    def check_weights(self) -> None:
        """Raises EdgeclsError when the last update made a weight that is not finite, which the next loss would tell."""
        if not all(np.isfinite(v.numpy()).all() for v in self.model.trainable_variables):
            raise self._diverged("the weights are", int(self.optimizer.iterations) - 1)

    def _diverged(self, what: str, step: int) -> EdgeclsError:
        epoch, rate = step // self.steps_per_epoch + 1, float(self._schedule(step))
        fix = f"lower {self.section}.optimizer.lr or set {self.section}.optimizer.clip_norm"
        return EdgeclsError(
            f"{what} no longer finite: step {step + 1}, epoch {epoch}, learning rate {rate:.3g}", fix=fix
        )

    def _distributed_step(self, *batch: tf.Tensor) -> None:
        self.strategy.run(self._replica_step, args=batch)

    def _replica_step(self, pixels: tf.Tensor, targets: tf.Tensor, *answers: tf.Tensor) -> None:
        train, weights = self.config, self.model.trainable_variables
        targets = smooth(targets, train.label_smoothing)
        before = [tf.identity(v.value) for v in self._statistics]
        gradients, (losses, logits) = accumulated(
            self._forward, (pixels, targets, *answers), train.accumulate
        )
        moved = [v.value - old for v, old in zip(self._statistics, before, strict=True)]
        context = tf.distribute.get_replica_context()
        gradients, moved, totals = context.all_reduce(
            tf.distribute.ReduceOp.SUM, (gradients, moved, _counts(losses, logits, targets))
        )
        replicas = self.strategy.num_replicas_in_sync
        for variable, old, by in zip(self._statistics, before, moved, strict=True):
            variable.assign(old + by / replicas)  # the mean over all devices
        gradients = decayed(self._loss_scale.unscaled(gradients), weights, train.optimizer)
        gradients, norm = clipped(gradients, train.optimizer.clip_norm)
        # Keras adds up the gradients of all replicas, and these are the sum already.
        gradients = [g / replicas for g in gradients]
        step = self.optimizer.iterations.value
        finite = tf.math.is_finite(norm)
        good = tf.math.is_finite(totals[0]) & (finite | self._loss_scale.explains_overflow)
        first_bad = ~good & (self._bad_step < 0)
        self._bad_step.assign(tf.where(first_bad, tf.cast(step, tf.int64), self._bad_step))
        self._loss_scale.step(gradients, self.optimizer.apply)
        self.averages.update(step)
        # A step that overflowed in float16 is none.
        sums = tf.concat([totals, tf.stack([tf.where(finite, norm, 0.0), tf.cast(finite, tf.float32)])], 0)
        self._totals.assign_add(tf.cast(sums, tf.float64))

    def _forward(
        self, pixels: tf.Tensor, targets: tf.Tensor, *answers: tf.Tensor
    ) -> tuple[list[tf.Tensor], Any]:
        """Gradients of the loss, which add up to those of the global batch; losses [B] and the main logits [B, C]."""
        weights = [w.value for w in self.model.trainable_variables]
        pixels = tf.cast(pixels, tf.float32)  # here, so that a GPU gets a quarter of the bytes
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)  # and no others: no gradient is computed below the first layer that trains
            logits = keras.tree.flatten(self.model(pixels, training=True))  # the main classifier's first
            losses = self.objective(pixels, targets, logits, *answers)
            loss = tf.reduce_sum(losses) / self.config.batch_size
            scaled = loss * self._loss_scale.factor
        return tape.gradient(scaled, weights), (losses, logits[0])


def _counts(losses: tf.Tensor, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Of a batch the sums of ``_TOTALS`` that add up over devices: float32 [4], as the gradients they travel with."""
    hits = tf.cast(tf.equal(tf.argmax(logits, -1), tf.argmax(targets, -1)), targets.dtype)
    labeled = tf.reduce_sum(targets, -1)  # the share of an image that has a label
    sums = [tf.reduce_sum(losses), tf.reduce_sum(hits * labeled), tf.reduce_sum(labeled)]
    return tf.stack([*(tf.cast(each, tf.float32) for each in sums), tf.cast(tf.size(losses), tf.float32)])


def fit(
    trainer: Trainer,
    epoch_batches: Callable[[int, int], Iterable[Any]],
    evaluate: Callable[[], dict[str, float]],
    directory: Path,
    *,
    inputs: Mapping[str, Any] | None = None,
    before_epoch: Callable[[int], bool] = lambda epoch: False,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train to the last epoch and leave the chosen weights in the model.

    The training goes on from ``directory/last.npz`` if that was made from the same ``inputs``; a checkpoint of other
    inputs is removed. Of several workers the chief alone has checkpoints; it sends them to the others.

    Args:
        trainer: Model and optimizer.
        epoch_batches: Training batches of an epoch from a step on; the same epoch must give the same batches.
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
    team = trainer.team
    state = team.ask_chief(lambda: _resume(trainer, directory, dict(inputs or {}), callbacks))
    team.follow_chief(trainer.variables)

    def save(path: Path, variables: Sequence[Any]) -> None:
        if team.chief:
            checkpoint.save(path, variables, state)

    for each in callbacks:
        each.on_start(state["epochs"])

    minutes, saved = trainer.config.checkpoint_minutes or math.inf, time.monotonic()

    def on_step(epoch: int, step: int) -> None:
        nonlocal saved
        for each in callbacks:
            each.on_step(epoch, step)
        if minutes == math.inf or step >= trainer.steps_per_epoch or (team.count > 1 and step % _LOOK):
            return
        # No worker may go on while the chief saves: who asks the chief waits for it.
        if any(team.numbers(time.monotonic() - saved >= 60 * minutes)):
            trainer.check_loss()
            trainer.check_weights()
            state["step"] = step
            save(last, trainer.variables)
            saved = time.monotonic()

    for epoch in range(state["epochs"], trainer.config.epochs):
        if before_epoch(epoch):
            trainer.retrace()
        start, state["step"] = state["step"], 0
        values = trainer.run_epoch(epoch_batches(epoch, start), partial(on_step, epoch), start)
        trainer.check_weights()
        trainer.averages.swap()
        values |= {f"val_{key}": value for key, value in evaluate().items()}
        score = values.get("val_balanced_accuracy")
        if score is not None and score > state["best_value"]:
            state |= {"best_epoch": epoch, "best_value": score}
            save(best, trainer.model.variables)
        trainer.averages.swap()
        for each in callbacks:
            each.on_epoch(epoch, values)
        state |= {"epochs": epoch + 1, "step": 0}
        save(last, trainer.variables)
        saved = time.monotonic()
    trainer.averages.swap()
    selected = "best" if trainer.config.select == "best" and state["best_epoch"] >= 0 else "last"
    if selected == "best":
        if team.chief:
            checkpoint.restore(best, trainer.model.variables)
        team.follow_chief(trainer.model.variables)
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
    return {"epochs": 0, "step": 0, "best_epoch": -1, "best_value": -1.0, "inputs": inputs}
