"""The parts of an optimizer step, each a function of its own: decay, clipping, accumulation, averages, multipliers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from edgecls.train.optimizers import Optimizer, decays

Gradients = list[tf.Tensor]


def accumulated(
    forward: Callable[..., tuple[Gradients, Any]], batch: Sequence[tf.Tensor], parts: int
) -> tuple[Gradients, Any]:
    """Gradients of a batch that is computed in equal parts, one after the other, to save memory.

    Batch normalization sees one part at a time; without it the sum equals the gradients of the whole batch.

    Args:
        forward: Takes a part of each tensor of ``batch``; gives gradients that add up over parts, and tensors that are
            joined along their first axis.
        batch: Tensors of equal length.
        parts: Number of parts; it divides the length.

    Returns:
        The sum of the gradients, and the joined tensors.
    """
    if parts == 1:
        return forward(*batch)
    pieces = [tf.split(tensor, parts) for tensor in batch]
    gradients, outputs = forward(*(piece[0] for piece in pieces))
    collected = [outputs]
    for part in range(1, parts):
        # The next part must wait: run side by side, the parts would need the memory of the whole batch.
        with tf.control_dependencies(gradients):
            inputs = [tf.identity(piece[part]) for piece in pieces]
        more, outputs = forward(*inputs)
        gradients = [a + b for a, b in zip(gradients, more, strict=True)]
        collected.append(outputs)
    return gradients, keras.tree.map_structure(lambda *each: tf.concat(each, axis=0), *collected)


def decayed(gradients: Gradients, variables: Sequence[Any], config: Optimizer) -> Gradients:
    """L2: ``weight_decay`` times the weights added to their gradients, unless the optimizer shrinks them itself."""
    if config.decoupled or not config.weight_decay:
        return gradients
    return [
        g + config.weight_decay * v.value if decays(v.name) else g
        for g, v in zip(gradients, variables, strict=True)
    ]


def clipped(gradients: Gradients, largest: float | None) -> tuple[Gradients, tf.Tensor]:
    """All gradients scaled together so that their norm is at most ``largest`` (None: as they are), and their norm before."""
    norm = tf.linalg.global_norm(gradients)
    return gradients if largest is None else tf.clip_by_global_norm(gradients, largest, norm)[0], norm


class Averages:
    """Exponential moving averages (EMA) of a model's weights and batch-norm statistics.

    Args:
        model: The model.
        decay: Share of the old average that is kept at each step; None: there are no averages.
    """

    def __init__(self, model: keras.Model, decay: float | None) -> None:
        self._decay = decay
        # Weights and statistics, no counters or seeds.
        self._followed = [v for v in model.variables if v.dtype == "float32"] if decay is not None else []
        self.variables = [same_everywhere(v.value, f"{v.name}_average") for v in self._followed]

    def update(self, step: tf.Tensor) -> None:
        """Move the averages toward the weights.

        The first averages would be those of the random first weights for long, so the decay grows to its value as
        ``(1 + step) / (10 + step)`` (TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).

        Args:
            step: Number of steps that were done before this one.
        """
        if self._decay is None:
            return
        count = tf.cast(step, tf.float32)
        decay = tf.minimum(self._decay, (1.0 + count) / (10.0 + count))
        for average, variable in zip(self.variables, self._followed, strict=True):
            average.assign(average + (1.0 - decay) * (variable.value - average))

    def swap(self) -> None:
        """Exchange the model's weights with their averages; a second call changes them back."""
        for average, variable in zip(self.variables, self._followed, strict=True):
            value = tf.identity(variable.value)
            variable.assign(average)
            average.assign(value)


def counter(start: int) -> tf.Variable:
    """A whole number that a step may change: int64, the same on all replicas."""
    return same_everywhere(tf.constant(start, tf.int64), "counter")


def same_everywhere(value: tf.Tensor, name: str) -> tf.Variable:
    """A variable that every replica sets to the same value."""
    only_first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(value, trainable=False, name=name, aggregation=only_first)
