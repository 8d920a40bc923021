"""A float network's int8 twin in one step: equalized if wanted, calibrated, rounded, its biases corrected."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from edgecls.precisions import CALIBRATIONS, WEIGHT_SCALES
from edgecls.quantize.adaround import learn_rounding
from edgecls.quantize.calibrate import calibrate
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


def as_patterns(names: Iterable[str]) -> list[str]:
    """Patterns of ``keep_float`` that fit these names alone."""
    return [glob.escape(name) for name in names]
