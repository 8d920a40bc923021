"""Quantization-aware training for Keras 3: rewrite, calibrate, train on, export."""

from edgecls.quantize.calibrate import calibrate
from edgecls.quantize.control import (
    exact_arithmetic,
    fake_quantization,
    freeze_batchnorm,
    is_quantized,
    measure_kernels,
    observe,
)
from edgecls.quantize.finalize import finalize
from edgecls.quantize.rewrite import quantize_model

__all__ = [
    "calibrate",
    "exact_arithmetic",
    "fake_quantization",
    "finalize",
    "freeze_batchnorm",
    "is_quantized",
    "measure_kernels",
    "observe",
    "quantize_model",
]
