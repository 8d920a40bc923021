"""Changes of one image: uint8 [S, S, C] to uint8 [S, S, C], square, at the network's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

ImageOp = Callable[[tf.Tensor, Any, tf.Tensor], tf.Tensor]
"""(image, value of the recipe's key, seed int32 [2]) to image."""


def flip(image: tf.Tensor, axis: str, seed: tf.Tensor) -> tf.Tensor:
    """Mirror with probability 1/2: left-right (``"horizontal"``), up-down (``"vertical"``), or each (``"both"``)."""
    coins = tf.random.stateless_uniform([2], seed, maxval=2, dtype=tf.int32) > 0
    if axis in ("horizontal", "both"):
        image = tf.cond(coins[0], lambda: tf.reverse(image, [1]), lambda: image)
    if axis in ("vertical", "both"):
        image = tf.cond(coins[1], lambda: tf.reverse(image, [0]), lambda: image)
    return image


def rotate90(image: tf.Tensor, enabled: bool, seed: tf.Tensor) -> tf.Tensor:
    """Turn by 0, 90, 180 or 270 degrees, each with probability 1/4."""
    turns = tf.random.stateless_uniform([], seed, maxval=4, dtype=tf.int32)
    return tf.image.rot90(image, turns) if enabled else image


IMAGE: dict[str, ImageOp] = {"flip": flip, "rotate90": rotate90}


def image_augmentation(settings: Mapping[str, Any]) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """One function that applies the image changes of a recipe, in the order of ``IMAGE``.

    Args:
        settings: The recipe's ``augment`` section. A change is off where its key is absent, None, False, 0 or
            ``"none"``. Keys that are not in ``IMAGE`` are ignored.

    Returns:
        A function (image, seed int32 [2]) -> image. Every change has its own random numbers: switching one on does
        not change what the others draw.

    Example:
        >>> augment = image_augmentation({"flip": "horizontal"})
        >>> augment(tf.zeros([32, 32, 3], tf.uint8), tf.constant([0, 7])).shape
        TensorShape([32, 32, 3])
    """
    active = [
        (number, op, settings[key])
        for number, (key, op) in enumerate(IMAGE.items())
        if settings.get(key) not in (None, False, 0, "none")
    ]

    def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        for number, op, value in active:
            image = op(image, value, tf.random.fold_in(seed, number))
        return image

    return augment
