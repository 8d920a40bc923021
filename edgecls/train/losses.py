"""Losses of training and distillation: cross-entropy with label smoothing and SSLD's JS divergence."""

from __future__ import annotations

import tensorflow as tf


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


def cross_entropy(logits: tf.Tensor, targets: tf.Tensor, class_weights: tf.Tensor | None = None) -> tf.Tensor:
    """Cross-entropy of each image, weighted by its class; zero for an unlabeled image.

    Args:
        logits: float32 [B, C].
        targets: Soft labels, float32 [B, C].
        class_weights: float32 [C] or None.

    Returns:
        float32 [B].
    """
    weighted = targets if class_weights is None else targets * class_weights
    return -tf.reduce_sum(weighted * tf.nn.log_softmax(logits), axis=-1)


def js_divergence(
    teacher_logits: tf.Tensor, student_logits: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """SSLD's distillation loss of each image (Cui et al. 2021, arXiv:2103.05959).

    What PaddleClas names JS divergence is the mean of the two Kullback-Leibler divergences between
    teacher and student, summed over classes. It needs no labels. No gradient flows into the teacher.

    Args:
        teacher_logits: float32 [B, C].
        student_logits: float32 [B, C].
        temperature: Both logits are divided by it, and the loss multiplied by its square
            (Hinton et al. 2015), so that gradients keep their size.

    Returns:
        float32 [B], never negative.
    """
    log_t = tf.nn.log_softmax(tf.stop_gradient(teacher_logits) / temperature)
    log_s = tf.nn.log_softmax(student_logits / temperature)
    # KL(t|s) + KL(s|t) = sum (t - s) (log t - log s): one product instead of two divergences.
    both = tf.reduce_sum((tf.exp(log_t) - tf.exp(log_s)) * (log_t - log_s), axis=-1)
    return 0.5 * temperature**2 * both
