"""Who answers in distillation: networks that see the student's batch, or what they said of fixed views before."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from edgecls.train.view_files import Views


class Teacher(ABC):
    """Gives logits for a batch.

    Attributes:
        views: The answers that the batches must carry; None: the teacher needs none.
        models: The networks that compute the answers in the step.
    """

    views: Views | None = None
    models: Sequence[keras.Model] = ()

    @abstractmethod
    def __call__(self, pixels: tf.Tensor, answers: tf.Tensor | None = None) -> tf.Tensor:
        """The teacher's logits.

        Args:
            pixels: The student's, float32 [B, H, W, 3].
            answers: What the batch carries beside its targets, float32 [B, C].

        Returns:
            float32 [B, C].
        """


class Networks(Teacher):
    """Networks that see the student's pixels; several answer with the mean of their probabilities.

    They are frozen: their weights do not train and their dropout is off.

    Args:
        models: Take pixels, give logits of the same classes.
        batch_stats: Batch normalization uses the statistics of the batch, which SSLD found better on ImageNet, or its
            stored ones (False).

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> Networks([model, model])(tf.zeros((3, 4))).shape
        TensorShape([3, 2])
    """

    def __init__(self, models: Sequence[keras.Model], batch_stats: bool = False) -> None:
        self.models, self._batch_stats = list(models), batch_stats
        for model in self.models:
            _freeze(model)

    def __call__(self, pixels: tf.Tensor, answers: tf.Tensor | None = None) -> tf.Tensor:
        outputs = (model(pixels, training=self._batch_stats) for model in self.models)
        logits = [keras.tree.flatten(output)[0] for output in outputs]  # the main classifier's
        if len(logits) == 1:
            return logits[0]
        logs = tf.stack([tf.nn.log_softmax(each) for each in logits])
        return tf.reduce_logsumexp(logs, axis=0) - math.log(len(logits))


class Cached(Teacher):
    """Answers that come with the batch: what was computed once for fixed views.

    Args:
        views: Where they are read from.
    """

    def __init__(self, views: Views) -> None:
        self.views = views

    def __call__(self, pixels: tf.Tensor, answers: tf.Tensor | None = None) -> tf.Tensor:
        if answers is None:
            raise ValueError("the batch carries no answers")
        return answers


def _freeze(model: keras.Model) -> None:
    """Weights do not train and dropout is off. Batch normalization still obeys ``training=``."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    for variable in model.trainable_variables:
        variable.trainable = False
