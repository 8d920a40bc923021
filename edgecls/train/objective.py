"""What a training step minimises: labels, a teacher's logits, or both."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from edgecls.train.losses import cross_entropy, js_divergence


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

    def __call__(self, pixels: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Loss of each image, float32 [B], from pixels [B, H, W, 3], soft labels [B, C] and logits [B, C]."""
        if self.teacher is None:
            return cross_entropy(logits, targets, self.class_weights)
        teacher_logits = self.teacher(pixels, training=self.teacher_batch_stats)
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
