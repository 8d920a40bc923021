"""What a training step minimizes: labels, a teacher's logits, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import keras
import tensorflow as tf

from edgecls.train.distill import Distance, Js
from edgecls.train.losses import CrossEntropy, Loss

AUXILIARY = 0.3  # of the loss of each auxiliary classifier (Szegedy et al. 2014, arXiv:1409.4842)


@dataclass(frozen=True)
class Objective:
    """Loss of a batch for supervised training (no teacher) and for SSLD (a teacher).

    Attributes:
        loss: What the labels ask for.
        distance: How the student's answers are compared with the teacher's.
        class_weights: float32 [C] factors of the loss by class, or None. In distillation the teacher's probabilities
            decide the class of an image, so no labels are needed.
        teacher: Takes the same pixels as the student and gives logits; None: the student learns from labels alone.
        soft_weight: Factor of the distillation loss, which needs no labels.
        hard_weight: Factor of the loss of the labels, which is added to the distillation loss.
        temperature: Softmax temperature of the distillation loss.
        teacher_batch_stats: The teacher's batch normalization uses the statistics of the batch (True), which SSLD
            found better on ImageNet, or its stored ones (False).

    Example:
        >>> objective = Objective(class_weights=tf.constant([1.0, 2.0]))
        >>> pixels, targets, logits = tf.zeros((1, 8, 8, 3)), tf.constant([[0.0, 1.0]]), tf.zeros((1, 2))
        >>> round(float(objective(pixels, targets, logits)[0]), 3)   # 2 log 2
        1.386
    """

    loss: Loss = field(default_factory=CrossEntropy)
    distance: Distance = field(default_factory=Js)
    class_weights: tf.Tensor | None = None
    teacher: keras.Model | None = None
    soft_weight: float = 1.0
    hard_weight: float = 0.0
    temperature: float = 1.0
    teacher_batch_stats: bool = False

    def __call__(
        self, pixels: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor | Sequence[tf.Tensor]
    ) -> tf.Tensor:
        """The loss of each image.

        Args:
            pixels: What the networks take, float32 [B, H, W, 3].
            targets: Soft labels, float32 [B, C]; a row of zeros for an unlabeled image.
            logits: The student's, float32 [B, C]. A network with auxiliary classifiers gives a list, the main one
                first; ``AUXILIARY`` times the loss of each other one is added.

        Returns:
            float32 [B].
        """
        main, *auxiliary = keras.tree.flatten(logits)
        teacher_logits = (
            None if self.teacher is None else self.teacher(pixels, training=self.teacher_batch_stats)
        )
        loss = self._classifier_loss(main, targets, teacher_logits)
        for each in auxiliary:
            loss += AUXILIARY * self._classifier_loss(each, targets, teacher_logits)
        return loss

    def _classifier_loss(
        self, logits: tf.Tensor, targets: tf.Tensor, teacher_logits: tf.Tensor | None
    ) -> tf.Tensor:
        """Loss of one classifier."""
        if teacher_logits is None:
            return self.loss(logits, targets, self.class_weights)
        loss = self.soft_weight * self.distance(teacher_logits, logits, targets, self.temperature)
        if self.class_weights is not None:
            loss *= tf.reduce_sum(tf.nn.softmax(teacher_logits) * self.class_weights, axis=-1)
        if self.hard_weight:
            loss += self.hard_weight * self.loss(logits, targets, self.class_weights)
        return loss


def as_teacher(model: keras.Model) -> keras.Model:
    """Freeze a model for teaching: its weights do not train and its dropout is off.

    Batch normalization still obeys ``training=``, so that SSLD's batch statistics are possible.
    """
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    for variable in model.trainable_variables:
        variable.trainable = False
    return model
