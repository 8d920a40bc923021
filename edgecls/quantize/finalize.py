"""The last step of a quantization-aware network: do to it what the converter will do.

An int8 file has no batch normalization, its kernels are integers, and its biases lie on the grid of the accumulator.
When the network is like that too, its ranges are those of the file, and inference can be exact.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as kl

from edgecls.graph import Graph, Ref, trace
from edgecls.quantize import exact
from edgecls.quantize import layers as ql
from edgecls.quantize.control import measure_kernels
from edgecls.quantize.quantizers import KERNEL_STEPS, STEPS

# XNNPACK refuses an operator (LiteRT 2.3 even crashes on it) if one unit of its accumulator is more than 256 steps of
# its output. That happens where all outputs are nearly zero.
UNITS = 128
LEAST_GAIN = 1e-5  # of a normalization: a smaller one makes the unit too small in the same way
LOWEST = -128  # of int8
LARGEST_BIAS = 2.0**30  # steps; the file has 32 bits for them


def finalize(model: keras.Model) -> None:
    """Make ``model`` the network of the file: call it when training has ended, before saving.

    Batch normalizations are folded, kernels and biases put on their grids, ranges of dead activations widened to what
    the runtime takes. From then on inference computes the file's integers (see ``exact``), and training is refused.
    A second call does nothing.
    """
    if any(getattr(layer, "steps", None) for layer in model.layers):
        return
    _Finisher(trace(model)).run(model)


class _Finisher:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def run(self, model: keras.Model) -> None:
        for op in self.graph.ops:
            if isinstance(op.layer, ql.FreezableBatchNormalization):
                _fold(op.layer, self.graph.makers[op.inputs[0]].layer)
        measure_kernels(model)
        for op in self.graph.ops:  # in order: a widened range is the input of what follows
            if isinstance(op.layer, ql.QuantizedKernel):
                _put_on_grids(op.layer, self._step(op.inputs[0]))
            elif isinstance(op.layer, exact.QuantizedAverage):
                _settle(op.layer, [self._grid(op.inputs[0])] * 2)
            elif isinstance(op.layer, ql.Quantize) and op.call == 0:
                self._set_output_grid(op.layer, op.inputs[0])

    def _set_output_grid(self, grid: ql.Quantize, ref: Ref) -> None:
        """Widen ``grid`` if it is too narrow, and tell it to the layer that computes ``ref``."""
        if not grid.fixed:
            low, high = grid.range
            width = float(np.max(self._unit(ref))) * STEPS / UNITS
            if high - low < width:
                grid.set_range(low, low + width)
        op = self.graph.makers[ref]
        while op.inputs and not isinstance(op.layer, exact.Exact | ql.Quantize | kl.MaxPooling2D):
            op = self.graph.makers[op.inputs[0]]
        grids = [self._grid(source) for source in op.inputs]
        if isinstance(op.layer, exact.Exact) and all(grids) and len(grids) < 3:
            _settle(op.layer, [*grids, grid])

    def _grid(self, ref: Ref) -> Any:
        """The grid that ``ref`` lies on, found through pads, pools and the like; None if there is none."""
        op = self.graph.makers[ref]
        while not isinstance(op.layer, ql.Quantize):
            if not op.inputs:
                return None
            op = self.graph.makers[op.inputs[0]]
        return op.layer

    def _step(self, ref: Ref) -> float:
        """The step of the grid that ``ref`` lies on; 0 if on none."""
        grid = self._grid(ref)
        return _step(grid) if grid else 0.0

    def _unit(self, ref: Ref) -> np.ndarray | float:
        """The real value of 1 in the integer accumulator that ``ref`` is rounded from, for each channel."""
        op = self.graph.makers[ref]
        layer: Any = op.layer
        if isinstance(layer, ql.QuantizedKernel):
            return self._step(op.inputs[0]) * _float64(layer.ranges["max_var"]) / KERNEL_STEPS
        if isinstance(layer, ql.ConstantConv2D):
            return self._step(op.inputs[0]) * np.abs(layer.scale) / KERNEL_STEPS
        if isinstance(layer, ql.ScaledHardSwish):
            return self._step(op.inputs[0]) * ql.GATE_STEP
        steps = [self._step(ref) for ref in op.inputs]
        if isinstance(layer, kl.Multiply):
            return float(np.prod(steps))
        if isinstance(layer, kl.Add | kl.GlobalAveragePooling2D):
            return max(steps)
        return self._unit(op.inputs[0]) if op.inputs else 0.0


def _fold(norm: ql.FreezableBatchNormalization, layer: Any) -> None:
    """Put ``norm`` into the linear ``layer`` before it."""
    gain = 1.0 / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
    if norm.gamma is not None:
        gamma = _float64(norm.gamma)
        gain *= np.where(np.abs(gamma) < LEAST_GAIN, LEAST_GAIN, gamma)
    shift = -_float64(norm.moving_mean) * gain
    if norm.beta is not None:
        shift += _float64(norm.beta)
    gain, shift = gain * norm.output_scale, shift * norm.output_scale
    if isinstance(layer, ql.ConstantConv2D):
        layer.scale = (np.array(layer.scale) * gain).tolist()
        layer.offset = (np.array(layer.offset) * gain + shift).tolist()
    else:
        layer.kernel.assign((_channels_last(layer, layer.kernel) * gain).reshape(layer.kernel.shape))
        layer.bias.assign(_float64(layer.bias) * gain + shift)
    norm.folded = True


def _put_on_grids(layer: ql.QuantizedKernel, source: float) -> None:
    """Round kernel and bias to what int8 and int32 hold, so that the converter finds the same integers.

    A channel whose kernel is nearly zero can have a grid that is too fine for its bias. It gets a coarser one.
    """
    weights: Any = layer
    bias = _float64(weights.bias) * layer.output_scale + layer.output_shift
    least = np.abs(bias) / (LARGEST_BIAS * source) * KERNEL_STEPS
    layer.ranges["max_var"].assign(np.maximum(_float64(layer.ranges["max_var"]), least))
    layer.ranges["min_var"].assign(-_float64(layer.ranges["max_var"]))
    step, factor = _float64(layer.ranges["max_var"]) / KERNEL_STEPS, layer.output_scale / layer.input_scale
    kernel = np.rint(_channels_last(layer, weights.kernel) * factor / step) * step / factor
    weights.kernel.assign(kernel.reshape(weights.kernel.shape))
    bias = np.rint(bias / (source * step)) * source * step
    weights.bias.assign((bias - layer.output_shift) / layer.output_scale)


def _settle(layer: exact.Exact, grids: list[ql.Quantize]) -> None:
    """Tell ``layer`` the grids of its inputs and its output."""
    layer.steps = tuple(_step(grid) for grid in grids)
    layer.zeros = tuple(LOWEST - round(grid.range[0] / _step(grid)) for grid in grids)


def _step(grid: ql.Quantize) -> float:
    low, high = np.float32(grid.range[0]), np.float32(grid.range[1])
    return (float(high) - float(low)) / STEPS


def _channels_last(layer: Any, kernel: keras.Variable) -> np.ndarray:
    """``kernel`` with all output channels of a depthwise convolution on the last axis."""
    values = _float64(kernel)
    return values.reshape((1, *values.shape[:2], -1)) if isinstance(layer, kl.DepthwiseConv2D) else values


def _float64(variable: keras.Variable) -> np.ndarray:
    return variable.numpy().astype(np.float64)
