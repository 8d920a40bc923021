"""The random resized crop (Szegedy et al., "Going deeper with convolutions", 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def random_window(
    height: tf.Tensor, width: tf.Tensor, scale: Sequence[float], ratio: Sequence[float], seed: tf.Tensor
) -> tf.Tensor:
    """Draw the part of an image to keep.

    The aspect ratio is uniform in ``ratio``, the area is uniform in ``scale``. Where a window of the drawn ratio would
    be larger than the image, the limits of the area are lowered to the largest window that fits. So one draw is always
    enough (PaddleClas does the same).

    Args:
        height: Scalar int32, pixels.
        width: Scalar int32, pixels.
        scale: Lowest and highest share of the image's area, in (0, 1].
        ratio: Lowest and highest width / height of the window.
        seed: int32 [2].

    Returns:
        int32 [4]: top, left, height, width.
    """
    draw = tf.random.stateless_uniform([4], seed, dtype=tf.float32)
    h, w = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    aspect = ratio[0] + (ratio[1] - ratio[0]) * draw[0]
    largest = tf.minimum(w / (h * aspect), h * aspect / w)
    low, high = tf.minimum(scale[0], largest), tf.minimum(scale[1], largest)
    area = (low + (high - low) * draw[1]) * h * w
    # Rounding may give 23.9999 for a window of exactly 24 pixels; the small term keeps it from becoming 23.
    sides = tf.sqrt(tf.stack([area / aspect, area * aspect])) + 1e-3
    sides = tf.clip_by_value(tf.cast(sides, tf.int32), 1, tf.stack([height, width]))
    free = tf.stack([height, width]) - sides
    corner = tf.minimum(tf.cast(draw[2:] * tf.cast(free + 1, tf.float32), tf.int32), free)
    return tf.concat([corner, sides], 0)
