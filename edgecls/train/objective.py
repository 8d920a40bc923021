"""What a training step minimizes: labels, a teacher's logits, or both; or what two students say of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import keras
import tensorflow as tf

from edgecls.train.distill import Distance, Js
from edgecls.train.losses import CrossEntropy, Loss
from edgecls.train.teachers import Networks, Teacher

AUXILIARY = 0.3  # of the loss of each auxiliary classifier (Szegedy et al. 2014, arXiv:1409.4842)


@dataclass(frozen=True)
class Objective:
    """Loss of a batch for supervised training (no teacher) and for SSLD (a teacher).

    Attributes:
        loss: What the labels ask for.
        distance: How the student's answers are compared with the teacher's.
        class_weights: float32 [C] factors of the loss by class, or None. In distillation the teacher's probabilities
            decide the class of an image, so no labels are needed.
        teacher: Gives the logits that are learned; None: the student learns from labels alone.
        soft_weight: Factor of the distillation loss, which needs no labels.
        hard_weight: Factor of the loss of the labels, which is added to the distillation loss.
        temperature: Softmax temperature of the distillation loss.

    Example:
        >>> objective = Objective(class_weights=tf.constant([1.0, 2.0]))
        >>> pixels, targets, logits = tf.zeros((1, 8, 8, 3)), tf.constant([[0.0, 1.0]]), tf.zeros((1, 2))
        >>> round(float(objective(pixels, targets, logits)[0]), 3)   # 2 log 2
        1.386
    """

    loss: Loss = field(default_factory=CrossEntropy)
    distance: Distance = field(default_factory=Js)
    class_weights: tf.Tensor | None = None
    teacher: Teacher | None = None
    soft_weight: float = 1.0
    hard_weight: float = 0.0
    temperature: float = 1.0

    def __call__(
        self,
        pixels: tf.Tensor,
        targets: tf.Tensor,
        logits: tf.Tensor | Sequence[tf.Tensor],
        answers: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The loss of each image.

        Args:
            pixels: What the networks take, float32 [B, H, W, 3].
            targets: Soft labels, float32 [B, C]; a row of zeros for an unlabeled image.
            logits: The student's, float32 [B, C]. A network with auxiliary classifiers gives a list, the main one
                first; ``AUXILIARY`` times the loss of each other one is added.
            answers: What the batch carries for the teacher, float32 [B, C].

        Returns:
            float32 [B].
        """
        teacher_logits = None if self.teacher is None else self.teacher(pixels, answers)
        return self.compared(targets, keras.tree.flatten(logits), teacher_logits)

    def compared(
        self, targets: tf.Tensor, logits: Sequence[tf.Tensor], teacher_logits: tf.Tensor | None
    ) -> tf.Tensor:
        """As a call, with the teacher's logits at hand; None: the labels alone."""
        main, *auxiliary = logits
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
        teacher_logits = tf.stop_gradient(teacher_logits)  # they may be a student's
        loss = self.soft_weight * self.distance(teacher_logits, logits, targets, self.temperature)
        if self.class_weights is not None:
            loss *= tf.reduce_sum(tf.nn.softmax(teacher_logits) * self.class_weights, axis=-1)
        if self.hard_weight:
            loss += self.hard_weight * self.loss(logits, targets, self.class_weights)
        return loss


@dataclass(frozen=True)
class Mutual:
    """Deep mutual learning (Zhang et al. 2018, arXiv:1706.00384): each of two students is the other's teacher.

    Both are updated in the same step, each by ``objective`` with the other's logits, into which no gradient flows.

    Attributes:
        objective: Loss of one student; it has no teacher of its own.
        classifiers: How many of the logits are the first student's: its classifier and its auxiliary ones.
    """

    objective: Objective
    classifiers: int = 1
    teacher: None = None

    def __call__(
        self,
        pixels: tf.Tensor,
        targets: tf.Tensor,
        logits: Sequence[tf.Tensor],
        answers: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The losses of both students together for each image; see ``Objective``."""
        outputs = keras.tree.flatten(logits)
        first, second = outputs[: self.classifiers], outputs[self.classifiers :]
        return self.objective.compared(targets, first, second[0]) + self.objective.compared(
            targets, second, first[0]
        )


class Pair(keras.Model):
    """Two networks on the same pixels, trained as one: the logits of the first, then those of the second."""

    def __init__(self, first: keras.Model, second: keras.Model) -> None:
        super().__init__(name=first.name)
        self.first, self.second = first, second

    def call(self, pixels: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """Logits of both, auxiliary ones too."""
        return keras.tree.flatten([model(pixels, training=training) for model in (self.first, self.second)])


def parts_of(model: keras.Model) -> list[keras.Model]:
    """The networks that are trained as one model."""
    return [model.first, model.second] if isinstance(model, Pair) else [model]


def as_teacher(model: keras.Model) -> Networks:
    """One network that answers with its stored statistics."""
    return Networks([model])
