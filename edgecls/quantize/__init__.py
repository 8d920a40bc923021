"""Quantization-aware training for Keras 3: quantize, calibrate, train on, export."""

from edgecls.quantize.adaround import learn_rounding
from edgecls.quantize.calibrate import calibrate
from edgecls.quantize.control import (
    exact_arithmetic,
    fake_quantization,
    freeze_batchnorm,
    freezing,
    is_quantized,
    learn_ranges,
    measure_kernels,
    observe,
    takes_pixels,
)
from edgecls.quantize.emit import make_plan, quantize_model
from edgecls.quantize.equalize import equalize
from edgecls.quantize.finalize import finalize
from edgecls.quantize.lower import lower
from edgecls.quantize.ptq import correct_biases
from edgecls.quantize.registry import lowers, plans

__all__ = [
    "calibrate",
    "correct_biases",
    "equalize",
    "exact_arithmetic",
    "fake_quantization",
    "finalize",
    "freeze_batchnorm",
    "freezing",
    "is_quantized",
    "learn_ranges",
    "learn_rounding",
    "lower",
    "lowers",
    "make_plan",
    "measure_kernels",
    "observe",
    "plans",
    "quantize_model",
    "takes_pixels",
]
