"""Learning-rate schedules: functions of the epoch, each with its options. A warm-up stands before any of them.

A schedule is a section of the recipe (``train.schedule``) with a method ``factor``. A new one is a class in ``SCHEDULES``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from edgecls._explain import Wrong
from edgecls._lazy import Lazy
from edgecls._schema import Section, one_of

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = Lazy("tensorflow")


class Schedule(Section):
    """What every schedule has: a linear rise from 0 to its peak."""

    name: str
    warmup_epochs: float = Field(
        default=0.0, ge=0, description="epochs in which the learning rate first grows from 0"
    )

    def factor(self, epoch: tf.Tensor, epochs: int) -> tf.Tensor:
        """The learning rate after the warm-up, as a share of the peak.

        Args:
            epoch: float32, fractions of an epoch counted, from 0 at the start of the training.
            epochs: Epochs of the whole training.
        """
        raise NotImplementedError

    def _done(self, epoch: tf.Tensor, epochs: int) -> tf.Tensor:
        """The share of the epochs after the warm-up that is behind us, 0 to 1."""
        rest = max(epochs - self.warmup_epochs, 1e-6)
        return tf.clip_by_value((epoch - self.warmup_epochs) / rest, 0.0, 1.0)


class Cosine(Schedule):
    """Half a cosine down to ``end`` (Loshchilov & Hutter 2016, arXiv:1608.03983)."""

    name: Literal["cosine"] = Field(default="cosine", description="half a cosine from the peak to `end`")
    end: float = Field(default=0.0, ge=0, le=1, description="share of the peak that is left at the end")

    def factor(self, epoch: tf.Tensor, epochs: int) -> tf.Tensor:
        wave = 0.5 * (1.0 + tf.cos(math.pi * self._done(epoch, epochs)))
        return self.end + (1.0 - self.end) * wave


class Constant(Schedule):
    """The peak all the time."""

    name: Literal["constant"] = Field(default="constant", description="the peak all the time")

    def factor(self, epoch: tf.Tensor, epochs: int) -> tf.Tensor:
        return tf.ones_like(epoch)


class Polynomial(Schedule):
    """A power of the share that is left. Power 1 is a straight line, as ShuffleNetV2 used (arXiv:1807.11164)."""

    name: Literal["polynomial"] = Field(
        default="polynomial", description="a power of the share of the training that is left"
    )
    power: float = Field(default=1.0, gt=0, description="the power; 1 is a straight line")
    end: float = Field(default=0.0, ge=0, le=1, description="share of the peak that is left at the end")

    def factor(self, epoch: tf.Tensor, epochs: int) -> tf.Tensor:
        return self.end + (1.0 - self.end) * (1.0 - self._done(epoch, epochs)) ** self.power


class Exponential(Schedule):
    """Times ``rate`` every ``every_epochs``. EfficientNet: 0.97 every 2.4 epochs (arXiv:1905.11946)."""

    name: Literal["exponential"] = Field(
        default="exponential", description="times `rate` every `every_epochs` after the warm-up"
    )
    rate: float = Field(default=0.97, gt=0, le=1, description="factor of one step down")
    every_epochs: float = Field(default=2.4, gt=0, description="epochs between two steps down")
    staircase: bool = Field(default=True, description="go down in steps; false: smoothly")

    def factor(self, epoch: tf.Tensor, epochs: int) -> tf.Tensor:
        steps = tf.maximum(epoch - self.warmup_epochs, 0.0) / self.every_epochs
        return self.rate ** (tf.floor(steps) if self.staircase else steps)


class Piecewise(Schedule):
    """Times ``rate`` at each boundary. ResNet: 0.1 at 30, 60 and 90 of 120 epochs."""

    name: Literal["piecewise"] = Field(
        default="piecewise", description="times `rate` at each of `boundaries`"
    )
    boundaries: list[Annotated[float, Field(gt=0)]] = Field(
        default=[30.0, 60.0, 90.0],
        min_length=1,
        description="epochs, from the start of the training, at which the learning rate steps down",
    )
    rate: float = Field(default=0.1, gt=0, le=1, description="factor of one step down")

    @model_validator(mode="after")
    def _ascending(self) -> Piecewise:
        if sorted(set(self.boundaries)) != self.boundaries:
            raise Wrong(f"boundaries must ascend, got {self.boundaries}", "boundaries")
        return self

    def factor(self, epoch: tf.Tensor, epochs: int) -> tf.Tensor:
        passed = tf.add_n([tf.cast(epoch >= boundary, tf.float32) for boundary in self.boundaries])
        return self.rate**passed


SCHEDULES = (Cosine, Constant, Polynomial, Exponential, Piecewise)
if TYPE_CHECKING:
    AnySchedule = Schedule
else:
    AnySchedule = one_of(SCHEDULES)  # the type of the recipe's ``schedule`` keys


def make_schedule(
    config: Schedule, lr: float, epochs: int, steps_per_epoch: int
) -> Callable[[Any], tf.Tensor]:
    """The learning rate by optimizer step, as Keras optimizers take it.

    Args:
        config: One of ``SCHEDULES``.
        lr: The peak.
        epochs: Epochs of the whole training.
        steps_per_epoch: Optimizer steps of one.

    Returns:
        A ``keras.optimizers.schedules.LearningRateSchedule``: step (whole number) to float32.

    Example:
        >>> rate = make_schedule(Cosine(warmup_epochs=1), lr=0.4, epochs=3, steps_per_epoch=4)
        >>> [round(float(rate(step)), 3) for step in (0, 3, 4, 8, 12)]
        [0.1, 0.4, 0.4, 0.2, 0.0]
    """
    import keras

    warmup_steps = round(config.warmup_epochs * steps_per_epoch)

    class ByStep(keras.optimizers.schedules.LearningRateSchedule):
        """Linear over the warm-up, then the schedule."""

        def __call__(self, step: Any) -> tf.Tensor:
            step = tf.cast(step, tf.float32)
            warm = (step + 1.0) / max(warmup_steps, 1)
            after = config.factor(step / steps_per_epoch, epochs)
            return lr * tf.where(step < warmup_steps, warm, after)

    return ByStep()
