"""Switches of a quantization-aware network.

They are read when a ``tf.function`` is traced. After a switch has changed, make a new ``tf.function``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras

from edgecls.quantize import layers
from edgecls.quantize.rules.norm import FreezableBatchNormalization
from edgecls.zoo.layers import Normalize


def quantizers(model: keras.Model) -> list[layers.Quantize]:
    """The activation quantizers whose ranges come from data, in order of computation."""
    return [layer for layer in model.layers if isinstance(layer, layers.Quantize) and not layer.fixed]


def observe(model: keras.Model, on: bool = True) -> None:
    """Let the ranges of activations follow the data in training, or keep them."""
    for layer in quantizers(model):
        layer.observing = on


def learn_ranges(model: keras.Model, on: bool = True) -> None:
    """Train the ends of activations' ranges with the weights, or do not (Choi et al. 2018, arXiv:1805.06085).

    Their gradient is the sum of those of the values beyond. Call it before the optimizer is made. TensorFlow's tape does not
    watch them by itself: a recipe's training does (``tape.watch``), Keras' ``fit`` leaves them as they are.
    """
    for layer in quantizers(model):
        layer.learn_range(on)


def freeze_batchnorm(model: keras.Model, on: bool = True) -> None:
    """Train with batch normalization's running statistics, which is what the file computes, or with the batch's."""
    for layer in model.layers:
        if isinstance(layer, FreezableBatchNormalization):
            layer.frozen = on


def takes_pixels(model: keras.Model) -> bool:
    """Whether the network, lowered or quantized, begins by normalizing pixels from 0 to 255."""
    first = model.layers[1] if len(model.layers) > 1 else None
    known = isinstance(first, layers.Quantize) and first.fixed == (0.0, 255.0)
    return known or isinstance(first, Normalize | keras.layers.Rescaling)


def freezing(
    model: keras.Model, batchnorm_epoch: int | None, ranges_epoch: int | None
) -> Callable[[int], bool]:
    """A function to call before each epoch of a training, which freezes what is due.

    Args:
        model: From ``quantize_model``.
        batchnorm_epoch: Epoch, from 0, from which on batch normalization keeps its statistics; None: it never does.
        ranges_epoch: Epoch from which on activations keep their ranges; None: they never do.

    Returns:
        A function of the epoch. It is True if the step has to be traced again.
    """
    limits = (batchnorm_epoch, ranges_epoch)

    def before_epoch(epoch: int) -> bool:
        frozen = [limit is not None and epoch >= limit for limit in limits]
        freeze_batchnorm(model, frozen[0])
        observe(model, not frozen[1])
        return epoch in limits

    return before_epoch


@contextmanager
def fake_quantization(model: keras.Model, on: bool) -> Iterator[None]:
    """Within the block, round to 8 bits (``on``) or do not."""
    with _switched(model, "enabled", on):
        yield


@contextmanager
def exact_arithmetic(model: keras.Model, on: bool) -> Iterator[None]:
    """Within the block, a finalized network computes with integers (``on``) or by the ops the converter understands."""
    with _switched(model, "exact", on):
        yield


@contextmanager
def _switched(model: keras.Model, name: str, on: bool) -> Iterator[None]:
    switched = [(layer, getattr(layer, name)) for layer in model.layers if hasattr(layer, name)]
    try:
        for layer, _ in switched:
            setattr(layer, name, on)
        yield
    finally:
        for layer, before in switched:
            setattr(layer, name, before)


def measure_kernels(model: keras.Model) -> None:
    """Set the range of every kernel to what it holds now. Training does so at each step."""
    for layer in model.layers:
        if hasattr(layer, "quantized_kernel"):
            layer.quantized_kernel(training=True)


def is_quantized(model: keras.Model) -> bool:
    """Whether ``model`` came from ``quantize_model``."""
    return any(isinstance(layer, layers.Quantize) for layer in model.layers)


__all__ = [
    "exact_arithmetic",
    "fake_quantization",
    "freeze_batchnorm",
    "freezing",
    "is_quantized",
    "learn_ranges",
    "measure_kernels",
    "observe",
    "quantizers",
    "takes_pixels",
]
