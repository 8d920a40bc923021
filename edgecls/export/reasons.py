"""Why XNNPACK leaves an operation of an int8 file outside: its kind, the number of its inputs, or a grid.

The limits are those of ai-edge-litert 2.3 on x86, tried operation by operation; the check is the same code on ARM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PIXELS = "kind: uint8 pixels become int8 before the delegate; every int8 file has this one"


@dataclass(frozen=True)
class Tensor:
    """What decides about an operation.

    Args:
        dtype: Of the values.
        step: Of the grid; 0 if there is none.
        zero: The integer that stands for zero.
    """

    dtype: Any
    step: float
    zero: int


Operands = Sequence[Tensor]
Check = Callable[[Operands, Operands], str | None]


def reason(name: str, inputs: Operands, outputs: Operands) -> str:
    """Why the delegate does not run an operation.

    Args:
        name: As TFLite names it.
        inputs: The tensors that it takes, without those that it does not use.
        outputs: The tensors that it makes.

    Returns:
        ``kind: ...``, ``inputs: ...`` or ``grid: ...``.

    Example:
        >>> maps = [Tensor(np.int8, 0.1, 0)] * 8
        >>> reason("CONCATENATION", maps, maps[:1])
        'inputs: 8 of them, and XNNPACK takes 2 to 5'
    """
    if name == "QUANTIZE" and inputs[0].dtype == np.uint8:
        return PIXELS
    if name not in CHECKS:
        return f"kind: XNNPACK has no {np.dtype(outputs[0].dtype).name} kernel for it"
    for check in CHECKS[name]:
        if found := check(inputs, outputs):
            return found
    return "unknown: kind, number of inputs and grids are those that XNNPACK takes"


def _count(least: int, most: int, of_outputs: bool = False) -> Check:
    def check(inputs: Operands, outputs: Operands) -> str | None:
        number, what = (len(outputs), "outputs") if of_outputs else (len(inputs), "inputs")
        return (
            None
            if least <= number <= most
            else f"{what}: {number} of them, and XNNPACK takes {least} to {most}"
        )

    return check


def _ratio(least: float, most: float) -> Check:
    """Steps of inputs over that of the output."""

    def check(inputs: Operands, outputs: Operands) -> str | None:
        ratios = [tensor.step / outputs[0].step for tensor in inputs if tensor.step and outputs[0].step]
        bad = next((r for r in ratios if not least <= r <= most), None)
        return (
            None
            if bad is None
            else f"grid: an input's step is {bad:.3g} of the output's, and {least:.3g} to {most:g} work"
        )

    return check


def _product(least: float, most: float) -> Check:
    def check(inputs: Operands, outputs: Operands) -> str | None:
        ratio = float(np.prod([tensor.step for tensor in inputs])) / (outputs[0].step or np.inf)
        fits = least <= ratio <= most
        return (
            None
            if fits
            else f"grid: the inputs' steps make {ratio:.3g} of the output's, and {least:.3g} to {most:g} work"
        )

    return check


def _same(inputs: Operands, outputs: Operands) -> str | None:
    grids = {(tensor.step, tensor.zero) for tensor in (*inputs, *outputs) if tensor.step}
    return None if len(grids) < 2 else f"grid: {len(grids)} grids, and inputs and output must share one"


def _right_symmetric(inputs: Operands, outputs: Operands) -> str | None:
    zero = inputs[1].zero
    return f"grid: the right factor's zero is {zero}, and must be 0" if zero else None


CHECKS: dict[str, tuple[Check, ...]] = {
    **dict.fromkeys(("ADD", "SUB"), (_count(2, 2), _ratio(2**-10, 2**8))),
    "MUL": (_count(2, 2), _product(2**-16, 2**8)),
    **dict.fromkeys(("LEAKY_RELU", "ELU", "QUANTIZE"), (_ratio(2**-8, 2**7),)),
    "CONCATENATION": (_count(2, 5), _same),
    "SPLIT": (_count(2, 4, of_outputs=True), _same),
    "BATCH_MATMUL": (_right_symmetric,),
    **dict.fromkeys(
        (
            "MAX_POOL_2D",
            "RESHAPE",
            "TRANSPOSE",
            "PAD",
            "SLICE",
            "STRIDED_SLICE",
            "DEPTH_TO_SPACE",
            "SPACE_TO_DEPTH",
        ),
        (_same,),
    ),
    "RESIZE_BILINEAR": (_same,),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"), ()),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "LOGISTIC", "TANH", "DEQUANTIZE"), ()),
}
