"""Where training runs: on one device, or mirrored over all GPUs of this computer."""

from __future__ import annotations

import tensorflow as tf


def training_strategy() -> tf.distribute.Strategy:
    """A mirrored strategy where there are several GPUs, else TensorFlow's default one.

    Networks and optimizers must be made inside its ``scope()``. Batches are split over the devices and gradients
    summed, so the recipe's batch size and learning rate mean the same on any number of them.
    """
    several = len(tf.config.list_logical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
