"""The last touch of a quantization-aware network: what the int8 file will round anyway is rounded here."""

from __future__ import annotations

import keras
import numpy as np

from edgecls.quantize.control import measure_kernels
from edgecls.quantize.graph import Graph, Op, trace
from edgecls.quantize.layers import FreezableBatchNormalization, Quantize
from edgecls.quantize.quantizers import STEPS


def finalize(model: keras.Model) -> None:
    """Bring kernel ranges up to date and put biases on the int32 grid of the file. Call it when training has ended.

    An int8 convolution keeps its bias in steps of (input step * kernel step), about a thousandth of an output step.
    That moves one value in a thousand to its neighbour, and in a deep network such flips grow to several steps at the
    output. The change is far below what training can feel.
    """
    measure_kernels(model)
    graph = trace(model)
    makers = {op.output: op for op in graph.ops}
    for op in graph.ops:
        grid = _grid(op, makers) if hasattr(op.layer, "quantized_kernel") else None
        if grid is not None:
            low, high = grid.range
            kernel_step = np.float64(op.layer.ranges["max_var"].numpy()) / ((STEPS - 1) // 2)
            _snap(op, graph, (high - low) / STEPS * kernel_step)


def _grid(op: Op, makers: dict[tuple[str, int, int], Op]) -> Quantize | None:
    """The quantizer that ``op`` sees its input on, behind pads, pools and the like."""
    while op.inputs:
        op = makers[op.inputs[0]]
        if isinstance(op.layer, Quantize):
            return op.layer
    return None


def _snap(op: Op, graph: Graph, step: np.ndarray) -> None:
    """Round the bias that the converter will find for ``op``: its own, or that of the normalization after it."""
    layer = op.layer
    if layer.use_bias:
        bias = layer.bias.numpy().astype(np.float64) * layer.output_scale + layer.output_shift
        layer.bias.assign((np.rint(bias / step) * step - layer.output_shift) / layer.output_scale)
        return
    consumers = graph.consumers(op.output)
    norm = consumers[0].layer if consumers else None
    if not isinstance(norm, FreezableBatchNormalization) or norm.beta is None:
        return
    gain = 1.0 / np.sqrt(norm.moving_variance.numpy().astype(np.float64) + norm.epsilon)
    gain = gain * (1.0 if norm.gamma is None else norm.gamma.numpy())
    shift = -norm.moving_mean.numpy() * gain
    step = step * np.abs(gain) + np.finfo(np.float64).tiny
    beta = norm.beta.numpy().astype(np.float64)
    steps = (beta + shift) / step
    # A dead channel's step is all but zero; its bias then has more steps than int32 and is left alone.
    norm.beta.assign(np.where(np.abs(steps) < 2**31, np.rint(steps) * step - shift, beta))
