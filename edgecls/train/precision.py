"""Mixed precision: layers compute in 16 bits on float32 weights (Micikevicius et al. 2017, arXiv:1710.03740)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import keras
import tensorflow as tf

from edgecls.train.step import same_everywhere

FLOAT32 = "float32"
FLOAT16 = "mixed_float16"
_FIRST_SCALE = 2.0**15
_GROWTH_STEPS = 2000
"""Steps without an overflow after which the loss scale is doubled."""


@contextmanager
def computing_in(model: keras.Model, precision: str) -> Iterator[None]:
    """Within the block, the layers of a model compute in a precision; its weights and its logits stay float32.

    So that pixels and logits keep all their digits, layers before the first weights compute in float32, and so do
    classifiers with what comes after them.

    Args:
        model: A network; it is as before after the block. A ``tf.function`` that called it must be traced anew.
        precision: ``float32``, ``mixed_bfloat16`` or ``mixed_float16``.

    Example:
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> with computing_in(model, "mixed_bfloat16"):
        ...     model.get_layer("conv.conv").compute_dtype, model.get_layer("fc").compute_dtype
        ('bfloat16', 'float32')
    """
    leaves = list(model._flatten_layers(include_self=False))
    before_features = takewhile(
        lambda layer: not layer.weights, leaves
    )  # pixels have more digits than bfloat16
    kept = {layer.name for layer in before_features} | _after_features(model)
    changed = [layer for layer in leaves if precision != FLOAT32 and layer.name not in kept]
    before = [layer.dtype_policy for layer in changed]
    try:
        for layer in changed:
            layer.dtype_policy = keras.DTypePolicy(precision)
        yield
    finally:
        for layer, policy in zip(changed, before, strict=True):
            layer.dtype_policy = policy


def _after_features(model: keras.Model) -> set[str]:
    """Names of the last layers with weights before each output, and of all layers after them."""
    names: set[str] = set()
    open_tensors = list(model.outputs)
    while open_tensors:
        layer = open_tensors.pop()._keras_history.operation
        names.add(layer.name)
        if not getattr(layer, "weights", None):  # a bare operation has none
            open_tensors += keras.tree.flatten(layer.input)
    return names


class LossScale:
    """Factor of the loss that keeps the small gradients of float16 above zero; it finds its size by itself.

    A step whose gradients overflow is left out and halves the factor; 2000 steps without one double it. Other
    precisions need none and have the factor 1.

    Args:
        precision: The recipe's ``train.precision``.

    Attributes:
        variables: The state, which a resumed training needs.
    """

    def __init__(self, precision: str) -> None:
        self.variables: list[tf.Variable] = []
        if precision == FLOAT16:
            self.variables = [
                same_everywhere(tf.constant(value), name)
                for name, value in (("loss_scale", _FIRST_SCALE), ("steps_since_overflow", 0.0))
            ]

    @property
    def factor(self) -> tf.Tensor | float:
        """What the loss is multiplied by, and the gradients divided by."""
        return tf.identity(self.variables[0]) if self.variables else 1.0

    @property
    def explains_overflow(self) -> tf.Tensor | bool:
        """Whether a gradient that is not finite may come of the factor, which can still be halved."""
        return tf.greater(self.variables[0], 1.0) if self.variables else False

    def unscaled(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradients of the loss itself."""
        return [gradient / self.factor for gradient in gradients] if self.variables else list(gradients)

    def step(self, gradients: Sequence[tf.Tensor], update: Callable[[list[tf.Tensor]], None]) -> None:
        """Update the weights if the gradients are finite, and the factor by whether they are.

        Args:
            gradients: The same on every replica.
            update: Called with the gradients, in a replica.
        """
        if not self.variables:
            update(list(gradients))
            return
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
        _call_if(finite, update, gradients)
        scale, steps = self.variables
        grown = steps + 1.0 >= _GROWTH_STEPS
        scale.assign(tf.where(finite, tf.where(grown, 2.0 * scale, scale), tf.maximum(scale / 2.0, 1.0)))
        steps.assign(tf.where(tf.logical_or(grown, tf.logical_not(finite)), 0.0, steps + 1.0))


def _call_if(
    condition: tf.Tensor, update: Callable[[list[tf.Tensor]], None], gradients: Sequence[tf.Tensor]
) -> None:
    """``update(gradients)`` where the condition holds, which is the same on every replica.

    Optimizers leave the replica for an update of mirrored variables, and may not do so inside a condition. So with several
    replicas the condition is decided outside of them.
    """

    def call(*gradients: tf.Tensor) -> tf.Tensor:
        update(list(gradients))
        return tf.constant(True)

    context: Any = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        tf.cond(condition, lambda: call(*gradients), lambda: tf.constant(False))
        return

    def decide(strategy: tf.distribute.Strategy, condition: Any, *gradients: Any) -> None:
        def updated() -> tf.Tensor:
            strategy.extended.call_for_each_replica(call, args=gradients)
            return tf.constant(True)

        first = strategy.experimental_local_results(condition)[0]
        tf.cond(first, updated, lambda: tf.constant(False))

    context.merge_call(decide, args=(condition, *gradients))
