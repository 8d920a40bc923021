"""Learning-rate schedules, by optimizer step."""

from __future__ import annotations

import keras
import tensorflow as tf

from edgecls.recipe import Schedule


@keras.saving.register_keras_serializable("edgecls")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from 0 to ``lr`` over the warm-up, then half a cosine to 0 (Loshchilov & Hutter, arXiv:1608.03983).

    Args:
        lr: Peak learning rate.
        total_steps: Steps of the whole training, warm-up included.
        warmup_steps: Steps of the linear part.
        constant: Stay at ``lr`` after the warm-up instead.
    """

    def __init__(self, lr: float, total_steps: int, warmup_steps: int = 0, constant: bool = False) -> None:
        self.lr, self.total_steps = lr, total_steps
        self.warmup_steps, self.constant = warmup_steps, constant

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        warm = (step + 1.0) / max(self.warmup_steps, 1)
        done = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
        after = (
            1.0
            if self.constant
            else 0.5 * (1.0 + tf.cos(3.141592653589793 * tf.clip_by_value(done, 0.0, 1.0)))
        )
        return self.lr * tf.where(step < self.warmup_steps, warm, after)

    def get_config(self) -> dict:
        return {
            "lr": self.lr,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "constant": self.constant,
        }


def make_schedule(config: Schedule, lr: float, epochs: int, steps_per_epoch: int) -> WarmupCosine:
    """The schedule of a recipe, in steps."""
    warmup = round(config.warmup_epochs * steps_per_epoch)
    return WarmupCosine(lr, epochs * steps_per_epoch, warmup, constant=config.name == "constant")
