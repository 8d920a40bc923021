"""A float network's int8 twin in one step: equalized if wanted, calibrated, rounded, its biases corrected."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from edgecls.precisions import CALIBRATIONS, WEIGHT_SCALES
from edgecls.quantize.adaround import learn_rounding
from edgecls.quantize.calibrate import calibrate, pixels_of
from edgecls.quantize.emit import quantize_model
from edgecls.quantize.equalize import equalize
from edgecls.quantize.ptq import correct_biases

SOME_IMAGES = 48  # for what needs images in memory: equalization, rounding, biases


def calibrated_twin(
    network: keras.Model,
    batches: Iterable[Any],
    some: Any,
    *,
    keep_float: Sequence[str] = (),
    weights: str = WEIGHT_SCALES[0],
    ranges: str = CALIBRATIONS[0],
    equalized: bool = False,
    adaround: bool = False,
    corrected: bool = True,
) -> keras.Model:
    """The twin of a float network, ready to be exported or trained.

    Args:
        network: As ``quantize_model`` takes it; not changed.
        batches: For ``calibrate``.
        some: ``SOME_IMAGES`` images in one batch.
        keep_float: Names of layers or shell patterns; see ``quantize_model``.
        weights: See ``quantize_model``.
        ranges: The method of ``calibrate``.
        equalized: Equalize consecutive kernels first, across a ReLU6, too.
        adaround: Learn which weights are rounded up.
        corrected: Correct the biases.

    Raises:
        UsageError: As its parts do.
    """
    floating = equalize(network, some, keep_float=keep_float) if equalized else network
    twin = quantize_model(floating, keep_float=keep_float, weights=weights)
    calibrate(twin, batches, ranges)
    if adaround:
        learn_rounding(twin, some)
    if corrected:
        correct_biases(twin, some)
    return twin


def some_images(batches: Iterable[Any], most: int = SOME_IMAGES) -> np.ndarray:
    """At most ``most`` images, evenly from all of the batches: neighbors in a folder are often of one class.

    Args:
        batches: For ``calibrate``; read twice.
        most: How many.

    Example:
        >>> batches = [np.arange(6).reshape(6, 1, 1, 1), np.arange(6, 9).reshape(3, 1, 1, 1)]
        >>> some_images(batches, 3).ravel().tolist()
        [0.0, 4.0, 8.0]
    """
    total = sum(map(len, pixels_of(batches)))
    wanted = np.unique(np.linspace(0, total - 1, most).astype(int))
    found, start = [], 0
    for pixels in pixels_of(batches):
        here = wanted[(wanted >= start) & (wanted < start + len(pixels))] - start
        found.append(np.asarray(pixels)[here].astype(np.float32))
        start += len(pixels)
    return np.concatenate(found)


def as_patterns(names: Iterable[str]) -> list[str]:
    """Patterns of ``keep_float`` that fit these names alone."""
    return [glob.escape(name) for name in names]
