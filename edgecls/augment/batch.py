"""Changes that mix the images of a batch and their labels."""

from __future__ import annotations

import tensorflow as tf


def mixup(pixels: tf.Tensor, labels: tf.Tensor, alpha: float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Blend every image with another one of its batch (Zhang et al., 2017, arXiv:1710.09412).

    One share ``lam`` is drawn from Beta(alpha, alpha) for the whole batch. A random permutation of the batch gives
    each image its partner.

    Args:
        pixels: float32 [B, S, S, 3].
        labels: float32 [B, classes], one-hot or soft.
        alpha: Above 0. The smaller it is, the closer each result is to one of its two images.
        seed: int32 [2].

    Returns:
        ``lam * image + (1 - lam) * partner`` for the pixels, and the same blend of the labels.
    """
    lam = tf.cast(_beta(alpha, tf.random.fold_in(seed, 0)), tf.float32)
    order = tf.random.experimental.stateless_shuffle(
        tf.range(tf.shape(pixels)[0]), tf.random.fold_in(seed, 1)
    )

    def blend(x: tf.Tensor) -> tf.Tensor:
        return lam * x + (1.0 - lam) * tf.gather(x, order)

    return blend(pixels), blend(labels)


def _beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """One draw of Beta(alpha, alpha), float64: g / (g + h), where g and h are draws of Gamma(alpha).

    A draw of Gamma(alpha) is a draw of Gamma(alpha + 1) times U ** (1 / alpha), where U is uniform in (0, 1). The
    logarithms are computed, because the product underflows where alpha is small.
    """
    gamma_seed, uniform_seed = tf.random.fold_in(seed, 0), tf.random.fold_in(seed, 1)
    gamma = tf.random.stateless_gamma(
        [2], gamma_seed, alpha=tf.constant(alpha + 1.0, tf.float64), dtype=tf.float64
    )
    uniform = tf.random.stateless_uniform([2], uniform_seed, minval=1e-300, dtype=tf.float64)
    logs = tf.math.log(gamma) + tf.math.log(uniform) / alpha
    return tf.sigmoid(logs[0] - logs[1])
