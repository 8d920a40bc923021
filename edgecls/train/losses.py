"""Losses of training, each with its options: what labels ask of the logits.

A loss is a section of the recipe (``train.loss``) that is called. A new one is a class in ``LOSSES``. Those that compare
with a teacher are in ``edgecls.train.distill``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgecls._lazy import Lazy
from edgecls._schema import Section, one_of

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = Lazy("tensorflow")


def smooth(targets: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Targets moved toward uniform (Szegedy et al. 2016, arXiv:1512.00567).

    Mixed targets come out as if the labels had been smoothed before they were mixed. A row of zeros stays one.

    Args:
        targets: float32 [B, C], one-hot or mixed; a row of zeros for an unlabeled image.
        smoothing: Share of the probability mass that is spread over all classes.

    Returns:
        float32 [B, C].

    Example:
        >>> smooth(tf.constant([[1.0, 0.0], [0.0, 0.0]]), 0.5).numpy().tolist()
        [[0.75, 0.25], [0.0, 0.0]]
    """
    return targets * (1.0 - smoothing) + smoothing * tf.reduce_mean(targets, axis=-1, keepdims=True)


class Loss(Section):
    """What every loss has: it is called with a batch and gives a value for each image."""

    name: str

    def __call__(
        self, logits: tf.Tensor, targets: tf.Tensor, class_weights: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The loss of each image; zero for an unlabeled one.

        Args:
            logits: float32 [B, C].
            targets: Soft labels, float32 [B, C]; a row of zeros for an unlabeled image.
            class_weights: Factor of each class, float32 [C], or None.

        Returns:
            float32 [B].
        """
        raise NotImplementedError


class CrossEntropy(Loss):
    """Softmax cross-entropy.

    Example:
        >>> round(float(CrossEntropy()(tf.zeros((1, 2)), tf.constant([[0.0, 1.0]]))[0]), 4)   # log 2
        0.6931
    """

    name: Literal["cross_entropy"] = Field(default="cross_entropy", description="softmax cross-entropy")

    def __call__(
        self, logits: tf.Tensor, targets: tf.Tensor, class_weights: tf.Tensor | None = None
    ) -> tf.Tensor:
        return -tf.reduce_sum(_weighted(targets, class_weights) * tf.nn.log_softmax(logits), axis=-1)


class Bce(Loss):
    """One sigmoid for each class, and the mean of their binary cross-entropies.

    "ResNet strikes back" trains so with mixing (Wightman et al. 2021, arXiv:2110.00476): a mixed image is of both
    classes. With ``threshold`` each target above it counts as 1.
    """

    name: Literal["bce"] = Field(
        default="bce", description="binary cross-entropy of each class, the mean over classes"
    )
    threshold: float | None = Field(
        default=None, ge=0, lt=1, description="targets above it count as 1, others as 0; null: as they are"
    )

    def __call__(
        self, logits: tf.Tensor, targets: tf.Tensor, class_weights: tf.Tensor | None = None
    ) -> tf.Tensor:
        labelled = tf.reduce_sum(targets, axis=-1)
        if self.threshold is not None:
            targets = tf.cast(targets > self.threshold, logits.dtype)
        each = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        if class_weights is not None:
            each *= class_weights
        return labelled * tf.reduce_mean(each, axis=-1)


class Focal(Loss):
    """Cross-entropy that counts less for images that are right already (Lin et al. 2017, arXiv:1708.02002)."""

    name: Literal["focal"] = Field(
        default="focal", description="cross-entropy, less of it for what is right already"
    )
    gamma: float = Field(
        default=2.0, ge=0, description="power of the missing probability; 0 is cross-entropy"
    )

    def __call__(
        self, logits: tf.Tensor, targets: tf.Tensor, class_weights: tf.Tensor | None = None
    ) -> tf.Tensor:
        logs = tf.nn.log_softmax(logits)
        missing = (1.0 - tf.exp(logs)) ** self.gamma
        return -tf.reduce_sum(_weighted(targets, class_weights) * missing * logs, axis=-1)


class Ohem(Loss):
    """Cross-entropy of the images of a batch that are most wrong (Shrivastava et al. 2016, arXiv:1604.03540).

    The others count nothing. The kept ones count more by as much, so that the mean keeps its size.
    """

    name: Literal["ohem"] = Field(
        default="ohem", description="cross-entropy of the images of a batch that are most wrong"
    )
    keep: float = Field(default=0.7, gt=0, le=1, description="share of the batch that counts")

    def __call__(
        self, logits: tf.Tensor, targets: tf.Tensor, class_weights: tf.Tensor | None = None
    ) -> tf.Tensor:
        each = CrossEntropy()(logits, targets, class_weights)
        count = tf.shape(each)[0]
        kept = tf.maximum(tf.cast(tf.round(self.keep * tf.cast(count, tf.float32)), tf.int32), 1)
        hardest = tf.math.top_k(each, kept).indices
        factor = tf.cast(count, each.dtype) / tf.cast(kept, each.dtype)
        chosen = tf.scatter_nd(hardest[:, None], tf.fill([kept], factor), [count])
        return each * chosen


def _weighted(targets: tf.Tensor, class_weights: tf.Tensor | None) -> tf.Tensor:
    return targets if class_weights is None else targets * class_weights


LOSSES = (CrossEntropy, Bce, Focal, Ohem)
if TYPE_CHECKING:
    AnyLoss = Loss
else:
    AnyLoss = one_of(LOSSES)  # the type of the recipe's ``loss`` keys
