"""The arithmetic of TFLite files. Names decode: ``w`` and ``a`` are what weights and activations are kept in.

A name such as ``dynamic_wi8_afp32`` says when the ranges of activations are known: beforehand (``static``), or only when
the file runs (``dynamic``). ``weight_only`` files compute in float. One list for recipe, export, verification, report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "int8", "dynamic_wi8_afp32", "weight_only_wi8"]
WeightScales = Literal["per_channel", "per_tensor"]
Ranges = Literal["mse", "percentile", "minmax"]
ALIASES = {"static_wi8_ai8": "int8", "wfp16_afp32": "fp16"}


@dataclass(frozen=True)
class Kind:
    """What a file of one precision is.

    Attributes:
        source: The network of a run that it is made from: ``float.keras`` or ``qat.keras``.
        weight_bytes: Bytes of a weight.
        title: What a reader of the report sees.
    """

    source: str
    weight_bytes: int
    title: str


KINDS: dict[str, Kind] = {
    "fp32": Kind("float.keras", 4, "float TFLite"),
    "fp16": Kind("float.keras", 2, "float16 TFLite"),
    "int8": Kind("qat.keras", 1, "int8 TFLite"),
    "dynamic_wi8_afp32": Kind("float.keras", 1, "TFLite of int8 weights, dynamic"),
    "weight_only_wi8": Kind("float.keras", 1, "TFLite of int8 weights, float arithmetic"),
}
NAMES: tuple[str, ...] = get_args(Precision)
CALIBRATIONS: tuple[str, ...] = get_args(Ranges)
"""How the ranges of activations are found from what a network computes on images, see ``quantize.calibrate``."""
WEIGHT_SCALES: tuple[str, ...] = get_args(WeightScales)
"""How many scales the kernel of an int8 file has: one for each output channel, or one for all, which some NPUs want."""


def find(name: str) -> str:
    """The precision of a name or alias; an unknown name is returned as it is.

    Example:
        >>> find("static_wi8_ai8")
        'int8'
    """
    return ALIASES.get(name, name)


def of_file(stem: str) -> str:
    """The precision that a file's name ends in; empty if it ends in none.

    Example:
        >>> of_file("MobileNetV2_dynamic_wi8_afp32"), of_file("mine")
        ('dynamic_wi8_afp32', '')
    """
    return next((name for name in NAMES if stem.endswith(f"_{name}")), "")
