"""What a training step minimises: labels, a teacher's logits, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from edgecls.train.losses import cross_entropy, js_divergence

AUXILIARY = 0.3  # of the loss of each auxiliary classifier (Szegedy et al. 2014, arXiv:1409.4842)


@dataclass(frozen=True)
class Objective:
    """Loss of a batch for supervised training (no teacher) and for SSLD (a teacher).

    Attributes:
        class_weights: float32 [C] factors of the loss by class, or None. In distillation an image counts as what
            the teacher says it is, so labels are not needed for it.
        teacher: Takes the same pixels as the student and gives logits; None trains on labels alone.
        soft_weight: Factor of the distillation loss; no labels are needed for it.
        hard_weight: Factor of the cross-entropy beside the distillation loss.
        temperature: Softmax temperature of the distillation loss.
        teacher_batch_stats: The teacher normalises by batch statistics, as SSLD found better
            on ImageNet, and not by its stored ones.
    """

    class_weights: tf.Tensor | None = None
    teacher: keras.Model | None = None
    soft_weight: float = 1.0
    hard_weight: float = 0.0
    temperature: float = 1.0
    teacher_batch_stats: bool = False

    def __call__(
        self, pixels: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor | Sequence[tf.Tensor]
    ) -> tf.Tensor:
        """Loss of each image, float32 [B], from pixels [B, H, W, 3], soft labels [B, C] and logits [B, C].

        Of several classifiers' logits the first are the main ones; the others learn the same, and ``AUXILIARY`` of
        their losses is added.
        """
        main, *auxiliary = keras.tree.flatten(logits)
        known = None if self.teacher is None else self.teacher(pixels, training=self.teacher_batch_stats)
        loss = self._of(main, targets, known)
        for each in auxiliary:
            loss += AUXILIARY * self._of(each, targets, known)
        return loss

    def _of(self, logits: tf.Tensor, targets: tf.Tensor, teacher_logits: tf.Tensor | None) -> tf.Tensor:
        """Loss of one classifier."""
        if teacher_logits is None:
            return cross_entropy(logits, targets, self.class_weights)
        loss = self.soft_weight * js_divergence(teacher_logits, logits, self.temperature)
        if self.class_weights is not None:
            loss *= tf.reduce_sum(tf.nn.softmax(teacher_logits) * self.class_weights, axis=-1)
        if self.hard_weight:
            loss += self.hard_weight * cross_entropy(logits, targets, self.class_weights)
        return loss


def as_teacher(model: keras.Model) -> keras.Model:
    """Freeze a model for teaching: nothing in it trains, and no dropout disturbs its logits.

    Batch normalisation keeps obeying ``training=`` so that SSLD's batch statistics stay possible.
    """
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    for variable in model.trainable_variables:
        variable.trainable = False
    return model
