"""Changes that mix the images of a batch and their labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

BatchOp = Callable[[tf.Tensor, tf.Tensor, Any, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""(pixels, soft labels, value of the recipe's key, seed int32 [2]) to (pixels, soft labels)."""


def mixup(pixels: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Blend every image with another of its batch (Zhang et al., 2017, arXiv:1710.09412).

    One share ``lam`` from Beta(alpha, alpha) serves the whole batch; the partners are a random permutation.

    Args:
        pixels: float32 [B, S, S, 3].
        labels: float32 [B, classes], one-hot or soft.
        alpha: Above 0.
        seed: int32 [2].

    Returns:
        ``lam * own + (1 - lam) * partner`` of the pixels and of the labels.
    """
    lam = tf.cast(_beta(alpha, tf.random.fold_in(seed, 0)), tf.float32)
    order = tf.random.experimental.stateless_shuffle(
        tf.range(tf.shape(pixels)[0]), tf.random.fold_in(seed, 1)
    )

    def blend(x: tf.Tensor) -> tf.Tensor:
        return lam * x + (1.0 - lam) * tf.gather(x, order)

    return blend(pixels), blend(labels)


def _beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """One draw of Beta(alpha, alpha): g / (g + h) of two Gamma(alpha) draws, float64.

    Gamma(alpha) is Gamma(alpha + 1) * U ** (1 / alpha); logarithms keep a small alpha from underflowing.
    """
    above, uniform = tf.random.fold_in(seed, 0), tf.random.fold_in(seed, 1)
    gamma = tf.random.stateless_gamma(
        [2], above, alpha=tf.constant(alpha + 1.0, tf.float64), dtype=tf.float64
    )
    share = tf.random.stateless_uniform([2], uniform, minval=1e-300, dtype=tf.float64)
    logs = tf.math.log(gamma) + tf.math.log(share) / alpha
    return tf.sigmoid(logs[0] - logs[1])


BATCH: dict[str, BatchOp] = {"mixup_alpha": mixup}
